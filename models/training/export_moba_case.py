"""Writes tests/golden/training_moba.safetensors: MoBA as training computes it, for the C++ oracle to judge.

    python models/training/export_moba_case.py tests/golden/training_moba.safetensors
"""

import sys

import torch
from safetensors.torch import save_file

from moba import block_scores, moba_attention, select

TOKENS, HEADS, KV_HEADS, DIM = 200, 4, 1, 32
CASES = ((16, 3), (32, 4), (64, 2), (16, 1))


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(11)
    draw = lambda heads: torch.randn(1, heads, TOKENS, DIM, generator=generator).bfloat16().to(device)
    q, k, v = draw(HEADS), draw(KV_HEADS), draw(KV_HEADS)
    rows = lambda t: t[0].transpose(0, 1).contiguous().cpu()  # [tokens, heads, ...], as the oracle has it
    tensors = {"queries": rows(q), "keys": rows(k), "values": rows(v)}
    for block, top_k in CASES:
        count = (TOKENS + block - 1) // block
        tensors[f"out {block} {top_k}"] = rows(moba_attention(q, k, v, block, top_k, count)).bfloat16()
        tensors[f"chosen {block} {top_k}"] = rows(select(block_scores(q, k, block, count), block, top_k)).bfloat16()
    save_file(tensors, sys.argv[1])


if __name__ == "__main__":
    main()
