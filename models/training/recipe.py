"""The training of mobius-tiny, as data: model, lengths, steps, and when which attention is used."""

import dataclasses

from chat import TEXT
from model import Shape


@dataclasses.dataclass(frozen=True)
class Stage:
    length: int         # tokens of a sequence
    batch: int          # sequences of a step
    steps: int
    blocks: tuple       # MoBA block sizes to draw from, all powers of two
    top_k: tuple        # and numbers of blocks
    moba: float         # share of steps with MoBA in the sparse layers; the others use full attention
    stretch: float = 0  # share of sequences whose positions are spread over the model's whole context

    @property
    def tokens(self):
        return self.length * self.batch


@dataclasses.dataclass(frozen=True)
class Round:
    """Stages under one course of the learning rate: up to `rate` in the recipe's warmup, then linear to a 50th."""
    rate: float
    stages: tuple
    text: float = TEXT       # weight in the loss of what is merely read; answers weigh 1

    @property
    def steps(self):
        return sum(stage.steps for stage in self.stages)


@dataclasses.dataclass(frozen=True)
class Recipe:
    shape: Shape
    rounds: tuple
    warmup: int = 100        # steps
    moba_from: int = 400     # before this step all attention is full: nothing is worth selecting yet
    full_last: int = 1       # layers at the end that are always full
    evaluate_every: int = 3000

    @property
    def steps(self):
        return sum(one.steps for one in self.rounds)

    def round_of(self, step):
        """(round, its first step) of a step."""
        first = 0
        for one in self.rounds:
            if step < first + one.steps:
                return one, first
            first += one.steps
        raise ValueError(f"step {step} is beyond the recipe's {self.steps}")

    def stage_of(self, step):
        """(stage, its first step) of a step."""
        one, first = self.round_of(step)
        for stage in one.stages:
            if step < first + stage.steps:
                return stage, first
            first += stage.steps

    def learning_rate(self, step):
        one, first = self.round_of(step)
        step -= first
        return one.rate * min(1, (step + 1) / self.warmup) * (1 - 0.98 * step / one.steps)


TINY = Recipe(
    shape=Shape(),
    rounds=(
        Round(3e-3, (
            Stage(1024, 64, 3000, (32, 64, 128), (2, 3, 4, 8), 0.5, stretch=0.2),
            Stage(4096, 16, 2000, (64, 128, 256), (2, 3, 4, 8), 0.7, stretch=0.3),
            Stage(16384, 4, 900, (128, 256, 512), (3, 4, 8), 0.7, stretch=0.3),
            Stage(32768, 2, 250, (128, 256, 512), (3, 4, 8, 12), 0.6, stretch=0.3),
            Stage(65536, 1, 100, (256, 512), (4, 8, 12), 0.5))),
        # Back to short texts, where most answers are learned in a second, then long ones once more.
        Round(2e-3, (
            Stage(1024, 64, 1500, (32, 64, 128), (2, 3, 4, 8), 0.5, stretch=0.2),
            Stage(4096, 16, 1000, (64, 128, 256), (2, 3, 4, 8), 0.7, stretch=0.3),
            Stage(16384, 4, 400, (128, 256, 512), (3, 4, 8), 0.7, stretch=0.3),
            Stage(32768, 2, 160, (128, 256, 512), (3, 4, 8, 12), 0.6, stretch=0.3),
            Stage(65536, 1, 50, (256, 512), (4, 8, 12), 0.5))),
        # And again, long texts for longer.
        Round(2.5e-3, (
            Stage(1024, 64, 2500, (32, 64, 128), (2, 3, 4, 8), 0.5, stretch=0.2),
            Stage(4096, 16, 2000, (64, 128, 256), (2, 3, 4, 8), 0.7, stretch=0.3),
            Stage(16384, 4, 1000, (128, 256, 512), (3, 4, 8), 0.7, stretch=0.3),
            Stage(32768, 2, 350, (128, 256, 512), (3, 4, 8, 12), 0.6, stretch=0.3),
            Stage(65536, 1, 120, (256, 512), (4, 8, 12), 0.5))),
        # On the corpus of composed wordings: 18 minutes on one H100, the most of them where they cost least, and as many at
        # 16,384 tokens, where copies fail. Language is known by now, and at a weight of 0.1 it makes nearly all of the gradient.
        Round(2.5e-3, (
            Stage(1024, 64, 3500, (32, 64, 128), (2, 3, 4, 8), 0.5, stretch=0.2),
            Stage(4096, 16, 3000, (64, 128, 256), (2, 3, 4, 8), 0.7, stretch=0.3),
            Stage(16384, 4, 1800, (128, 256, 512), (3, 4, 8), 0.6, stretch=0.3),
            Stage(32768, 2, 400, (128, 256, 512), (3, 4, 8, 12), 0.6, stretch=0.3),
            Stage(65536, 1, 120, (256, 512), (4, 8, 12), 0.5)), text=0.03),
    ))

#: Seconds on a CPU: shows that the code runs, teaches nothing.
SMOKE = Recipe(
    shape=Shape(hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=128),
    rounds=(Round(3e-3, (Stage(1024, 2, 6, (32, 64), (2, 3), 0.5, stretch=0.5),)),
            Round(2e-3, (Stage(2048, 1, 4, (64, 128), (2, 3), 0.5),), text=0.03)),
    warmup=2, moba_from=2, evaluate_every=5)

RECIPES = {"tiny": TINY, "smoke": SMOKE}
