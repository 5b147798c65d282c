"""Trains mobius-tiny: one command, deterministic data, resumable.

    python models/training/train.py --recipe tiny --out models/mobius-tiny --work build/training
"""

import argparse
import json
import pathlib
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

from chat import TEXT, Chat
from data import Loader
from evaluate import Evaluation
from model import Attention, Llama, load_hugging_face, save_hugging_face
from optimizer import Optimizer
from recipe import RECIPES


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", choices=RECIPES, default="tiny")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the model's folder; holds tokenizer.json already")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="checkpoint and log, to resume from")
    parser.add_argument("--init", type=pathlib.Path, help="start from the weights of this model folder")
    parser.add_argument("--first-step", type=int, default=0, help="with --init: the step to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=12, help="processes that make data")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop with a checkpoint after this time")
    parser.add_argument("--steps", type=int, default=0, help="stop with a checkpoint before this step; 0: train to the end")
    parser.add_argument("--save-minutes", type=float, default=3)
    return parser.parse_args()


def attention_of(recipe, stage, seed, step):
    """Full or MoBA for a step, a function of (seed, step) alone."""
    rng = random.Random(f"attention/{seed}/{step}")
    if step < recipe.moba_from or rng.random() >= stage.moba:
        return Attention()
    return Attention(rng.choice(stage.blocks), rng.choice(stage.top_k), recipe.full_last, stage.length // min(stage.blocks))


def stretched_positions(stage, context, seed, step):
    """[batch, length] positions: some sequences get gaps, so that their positions span the whole context.

    Shows rotations of far distances at the cost of short sequences (Zhu et al., "PoSE", ICLR 2024).
    """
    rng = np.random.default_rng([seed, step])
    positions = np.tile(np.arange(stage.length), (stage.batch, 1))
    for row in positions:
        if rng.random() < stage.stretch:
            cuts = rng.integers(1, stage.length, rng.integers(1, 6))
            gaps = rng.dirichlet(np.ones(len(cuts))) * rng.uniform(0, context - stage.length)
            for cut, gap in zip(cuts, gaps):
                row[cut:] += int(gap)
    return positions


def weighted_loss(hidden, embedding, target, weight):
    """(loss over all weights, mean loss of answer tokens)"""
    loss = F.cross_entropy(F.linear(hidden, embedding).float(), target, reduction="none")
    answer = (weight == 1).float()
    return (loss * weight).sum() / weight.sum(), (loss.detach() * answer).sum() / answer.sum()


class Training:
    def __init__(self, arguments):
        self.arguments, self.recipe = arguments, RECIPES[arguments.recipe]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.manual_seed(arguments.seed)
        self.chat = Chat(arguments.out / "tokenizer.json")
        # Before CUDA starts: the workers are forks.
        self.loader = Loader(arguments.out / "tokenizer.json", arguments.workers)
        self.model = Llama(self.recipe.shape).to(self.device)
        self.optimizer = Optimizer(self.model)
        self.step, self.evaluations = 0, {}
        arguments.work.mkdir(parents=True, exist_ok=True)
        self.checkpoint = arguments.work / "checkpoint.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device)
            if state["recipe"] != arguments.recipe:
                raise SystemExit(f"{self.checkpoint} is of recipe {state['recipe']}, not {arguments.recipe}")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state(state["optimizer"])
            self.step = state["step"]
        elif arguments.init:
            load_hugging_face(self.model, arguments.init)
            self.step = arguments.first_step
        self.log = open(arguments.work / "log.jsonl", "a", buffering=1)
        self.loss = weighted_loss
        if self.device == "cuda":
            self.model.compile()
            self.loss = torch.compile(weighted_loss, dynamic=True)

    def record(self, **values):
        line = json.dumps({"step": self.step, **values})
        self.log.write(line + "\n")
        print(line, flush=True)

    def save(self):
        partial = self.checkpoint.with_suffix(".partial")
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state(), "step": self.step,
                    "recipe": self.arguments.recipe}, partial)
        partial.rename(self.checkpoint)
        save_hugging_face(self.model, self.arguments.out)

    def evaluate(self, stage):
        length = stage.length
        if length not in self.evaluations:
            turns = 4 if length <= 16384 else 3
            self.evaluations[length] = Evaluation(self.chat, length, stage.batch, max(1, min(4, 32768 // length)), turns)
        block, top_k = stage.blocks[len(stage.blocks) // 2], stage.top_k[-1]
        sparse = Attention(block, top_k, self.recipe.full_last, length // min(stage.blocks))
        for name, attention in (("full", Attention()), (f"moba {block}/{top_k}", sparse)):
            result = self.evaluations[length].run(self.model, attention, self.device)
            answers = {task: round(share, 3) for task, share in result["answers"].items()}
            self.record(evaluation=name, length=length, text_loss=round(result["text_loss"], 4),
                        mean=round(sum(answers.values()) / len(answers), 4), answers=answers)

    def train_step(self, stage, tokens, weights):
        tokens, weights = torch.from_numpy(tokens).to(self.device).long(), torch.from_numpy(weights).to(self.device)
        weights = torch.where(weights == TEXT, self.recipe.round_of(self.step)[0].text, weights)
        positions = stretched_positions(stage, self.recipe.shape.context, self.arguments.seed, self.step)
        attention = attention_of(self.recipe, stage, self.arguments.seed, self.step)
        hidden = self.model.hidden(tokens[:, :-1], torch.from_numpy(positions).to(self.device), attention)
        loss, answer = self.loss(hidden.flatten(0, 1), self.model.embed_tokens.weight, tokens[:, 1:].flatten(),
                                 weights[:, 1:].flatten())
        loss.backward()
        self.optimizer.step(self.recipe.learning_rate(self.step))
        self.optimizer.zero_grad()
        return answer

    def run(self):
        arguments, started, saved = self.arguments, time.monotonic(), time.monotonic()
        end = arguments.steps or self.recipe.steps
        while self.step < end:
            stage, first = self.recipe.stage_of(self.step)
            last = min(first + stage.steps, end)
            answers, marked, marked_step = [], time.monotonic(), self.step
            for tokens, weights in self.loader.batches(arguments.seed, self.step, last, stage.batch, stage.length):
                with torch.autocast(self.device, torch.bfloat16):
                    answers.append(self.train_step(stage, tokens, weights))
                self.step += 1
                if self.step % 50 == 0 or self.step == last:
                    mean = torch.stack(answers).mean().item()
                    now = time.monotonic()
                    self.record(length=stage.length, answer_loss=round(mean, 4), minutes=round((now - started) / 60, 2),
                                tokens_per_second=round((self.step - marked_step) * stage.tokens / (now - marked)))
                    answers, marked, marked_step = [], now, self.step
                if self.step % self.recipe.evaluate_every == 0 or self.step == last:
                    with torch.autocast(self.device, torch.bfloat16):
                        self.evaluate(stage)
                    marked = time.monotonic()
                if time.monotonic() - saved > arguments.save_minutes * 60:
                    self.save()
                    saved = marked = time.monotonic()
                if time.monotonic() - started > arguments.minutes * 60:
                    end = self.step
                    break
        self.save()
        self.loader.close()


def main():
    arguments = parse_arguments()
    training = Training(arguments)
    training.record(started=time.strftime("%Y-%m-%d %H:%M:%S"), recipe=arguments.recipe, device=training.device,
                    name=torch.cuda.get_device_name() if training.device == "cuda" else "", torch=torch.__version__,
                    parameters=sum(p.numel() for p in training.model.parameters()))
    training.run()


if __name__ == "__main__":
    main()
