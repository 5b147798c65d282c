#!/usr/bin/env python3
"""Writes the golden files of the Llama forward pass with Hugging Face transformers, in float32 on the CPU.

usage: make_llama_golden.py --make-checkpoint build/release/models/mobius-make-checkpoint

Needs torch, transformers and numpy. The weights are not stored: `mobius-make-checkpoint` makes the same ones
from the seed, for this script and for the tests that compare. MoBA is written here a second time, from
kernels/moba.md alone, as an attention function for transformers' own Llama.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy
import torch
import transformers

HERE = pathlib.Path(__file__).parent

SMALL = {"shape": "tiny", "seed": 6, "dtype": "f32", "layers": 4, "hidden": 128, "heads": 8, "kv-heads": 2,
         "head-dim": 32, "intermediate": 192, "context": 2048}

# Scaling from 256 tokens on puts wavelengths of this head dimension in all three of its ranges.
CASES = {
    "full": {"checkpoint": {**SMALL, "seed": 3, "original-context": 256}},
    "full_tied": {"checkpoint": {**SMALL, "tied": "true", "original-context": 0, "kv-heads": 8, "seed": 3}},
    "moba": {"checkpoint": {**SMALL, "original-context": 256},
             "moba": {"block": 16, "top_k": 3, "full_attention_last_layers": 1, "decode": "moba"}},
    "moba_full_decode": {"checkpoint": {**SMALL, "original-context": 256},
                         "moba": {"block": 16, "top_k": 3, "full_attention_last_layers": 1, "decode": "full"}},
}
PROMPT_TOKENS = 300
NEW_TOKENS = 32
POSITIONS = [0, 15, 16, 47, 48, 130, 255, 299]

# Results are worth storing only where rounding cannot change a choice.
SMALLEST_LOGIT_MARGIN = 5e-3
SMALLEST_SCORE_GAP = 5e-4


class Moba:
    """Rules 1 to 8 of kernels/moba.md for one sequence, all queries at once, without a cache."""

    def __init__(self, block, top_k, full_attention_last_layers, decode, num_layers):
        self.block, self.top_k = block, top_k
        self.num_sparse_layers = num_layers - full_attention_last_layers
        self.full_from = PROMPT_TOKENS if decode == "full" else None  # first position under full attention
        self.smallest_gap = float("inf")

    def chosen_keys(self, query, key):
        """query [Q, T, D], key [Q, T, D] (KV heads repeated): bool [Q, T, T], keys that a query attends."""
        heads, tokens, _ = query.shape
        chosen = torch.zeros(heads, tokens, tokens, dtype=torch.bool)
        whole = tokens // self.block
        blocks = key[:, :whole * self.block].reshape(heads, whole, self.block, -1)
        centroids = torch.zeros(heads, whole, key.shape[-1])
        for slot in range(self.block):  # in order, in float32
            centroids += blocks[:, :, slot]
        centroids = (centroids / self.block).to(key.dtype)
        scores = torch.einsum("htd,hbd->htb", query.double(), centroids.double()).numpy()
        for position in range(tokens):
            own = position // self.block
            chosen[:, position, own * self.block:position + 1] = True
            for head in range(heads):
                order = numpy.argsort(-scores[head, position, :own], kind="stable")  # ties to the lower index
                for picked in order[:self.top_k - 1]:
                    chosen[head, position, picked * self.block:(picked + 1) * self.block] = True
                if own > self.top_k - 1 > 0:
                    last, next_one = scores[head, position, order[self.top_k - 2:self.top_k]]
                    self.smallest_gap = min(self.smallest_gap, last - next_one)
        return chosen

    def attend(self, module, query, key, value, _mask, scaling, **_):
        """The signature of transformers' attention functions; tensors are [1, heads, T, D]."""
        groups = query.shape[1] // key.shape[1]
        query, key, value = query[0], key[0].repeat_interleave(groups, 0), value[0].repeat_interleave(groups, 0)
        tokens = query.shape[1]
        chosen = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(len(query), -1, -1)
        if module.layer_idx < self.num_sparse_layers:
            sparse = self.chosen_keys(query, key)
            end = tokens if self.full_from is None else self.full_from
            chosen = torch.cat([sparse[:, :end], chosen[:, end:]], 1)
        scores = torch.einsum("htd,hsd->hts", query, key) * scaling
        weights = torch.softmax(scores.masked_fill(~chosen, -torch.inf), -1)
        return torch.einsum("hts,hsd->thd", weights, value)[None].contiguous(), None


def make_checkpoint(binary, options, folder):
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    subprocess.run([binary, "--out", folder, *flags], check=True)


def load_model(folder, case):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if "moba" not in case:
        return model.eval(), None
    moba = Moba(**case["moba"], num_layers=model.config.num_hidden_layers)
    transformers.AttentionInterface.register("moba", moba.attend)
    model.set_attn_implementation("moba")
    return model.eval(), moba


def run(model, prompt):
    """Logits of the prompt [T, vocab] and the greedy continuation, every step computed anew."""
    tokens, margin, prompt_logits = list(prompt), float("inf"), None
    for _ in range(NEW_TOKENS):
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        if prompt_logits is None:
            prompt_logits = logits
        best = torch.topk(logits[-1], 2).values
        margin = min(margin, (best[0] - best[1]).item())
        tokens.append(int(logits[-1].argmax()))
    return prompt_logits, tokens[len(prompt):], margin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-checkpoint", required=True, help="the generator's binary")
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(arguments.make_checkpoint, case["checkpoint"], folder)
            model, moba = load_model(folder, case)
            prompt = numpy.random.default_rng(11).integers(0, model.config.vocab_size, PROMPT_TOKENS).tolist()
            logits, greedy, margin = run(model, prompt)
        gap = moba.smallest_gap if moba else None
        print(f"{name}: smallest logit margin {margin:.2g}, smallest score gap {gap}, greedy {greedy[:8]}")
        if margin < SMALLEST_LOGIT_MARGIN or (moba and gap < SMALLEST_SCORE_GAP):
            raise SystemExit(f"{name}: a choice is too close to call; take another seed")
        golden = {**case, "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
                  "prompt": prompt, "positions": POSITIONS, "greedy": greedy,
                  "logits": [[float(f"{value:.8g}") for value in logits[at].tolist()] for at in POSITIONS]}
        (arguments.out / f"llama_{name}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
