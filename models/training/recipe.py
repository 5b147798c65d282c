"""The training of mobius-tiny, as data: model, lengths, steps, and when which attention is used."""

import dataclasses

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
class Recipe:
    shape: Shape
    stages: tuple
    rate: float = 3e-3       # peak learning rate, reached after `warmup` steps, then linear to a 50th
    warmup: int = 100
    moba_from: int = 400     # before this step all attention is full: nothing is worth selecting yet
    full_last: int = 1       # layers at the end that are always full
    evaluate_every: int = 2000

    @property
    def steps(self):
        return sum(stage.steps for stage in self.stages)


TINY = Recipe(
    shape=Shape(),
    stages=(
        Stage(1024, 64, 3000, (32, 64, 128), (2, 3, 4, 8), 0.5, stretch=0.2),
        Stage(4096, 16, 2000, (64, 128, 256), (2, 3, 4, 8), 0.7, stretch=0.3),
        Stage(16384, 4, 900, (128, 256, 512), (3, 4, 8), 0.7, stretch=0.3),
        Stage(32768, 2, 250, (128, 256, 512), (3, 4, 8, 12), 0.6, stretch=0.3),
        Stage(65536, 1, 100, (256, 512), (4, 8, 12), 0.5),
    ))

#: Seconds on a CPU: shows that the code runs, teaches nothing.
SMOKE = Recipe(
    shape=Shape(hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=128),
    stages=(Stage(1024, 2, 6, (32, 64), (2, 3), 0.5, stretch=0.5), Stage(2048, 1, 4, (64, 128), (2, 3), 0.5)),
    warmup=2, moba_from=2, evaluate_every=5)

RECIPES = {"tiny": TINY, "smoke": SMOKE}
