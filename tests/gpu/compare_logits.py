"""Logits of Mobius beside those of transformers on the same checkpoint.

    python3 tests/gpu/compare_logits.py --tool build/cuda/tests/llama_logits --model FOLDER \
        [--backend cuda] [--tokens 512] [--chunk 200] [--out FILE]

The judge is transformers in float32. Mobius in bf16 must come as close to it as transformers in bf16
does, within a factor of 1.5, and agree on the most likely token about as often. Needs torch and
transformers; no token leaves the machine.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM

ALLOWED_FACTOR = 1.5
ALLOWED_DISAGREEMENT = 0.02


def reference(folder, tokens, dtype, device):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokens], device=device)).logits[0].float().cpu().numpy()
    del model
    return logits


def compared(logits, judge):
    difference = np.linalg.norm(logits - judge) / np.linalg.norm(judge)
    agreement = float(np.mean(logits.argmax(axis=1) == judge.argmax(axis=1)))
    return {"relative_error": float(difference), "top1_agreement": agreement}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--backend", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out")
    arguments = parser.parse_args()

    with open(os.path.join(arguments.model, "config.json"), encoding="utf-8") as file:
        vocab = json.load(file)["vocab_size"]
    tokens = np.random.default_rng(arguments.seed).integers(0, vocab, arguments.tokens).tolist()
    with tempfile.TemporaryDirectory() as folder:
        tokens_file = os.path.join(folder, "tokens")
        logits_file = os.path.join(folder, "logits")
        with open(tokens_file, "w", encoding="utf-8") as file:
            file.write(" ".join(map(str, tokens)))
        device = subprocess.run(
            [arguments.tool, "--model", arguments.model, "--tokens", tokens_file, "--out", logits_file,
             "--backend", arguments.backend, "--dtype", "bf16", "--chunk", str(arguments.chunk)],
            check=True, capture_output=True, text=True).stdout.strip()
        ours = np.fromfile(logits_file, dtype=np.float32).reshape(arguments.tokens, vocab)

    where = "cuda" if torch.cuda.is_available() else "cpu"
    judge = reference(arguments.model, tokens, torch.float32, where)
    result = {
        "device": device,
        "date": datetime.date.today().isoformat(),
        "model": os.path.basename(os.path.normpath(arguments.model)),
        "tokens": arguments.tokens,
        "mobius_bf16": compared(ours, judge),
        "transformers_bf16": compared(reference(arguments.model, tokens, torch.bfloat16, where), judge),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    own, other = result["mobius_bf16"], result["transformers_bf16"]
    close = own["relative_error"] <= ALLOWED_FACTOR * other["relative_error"]
    agrees = own["top1_agreement"] >= other["top1_agreement"] - ALLOWED_DISAGREEMENT
    return 0 if np.isfinite(ours).all() and close and agrees else 1


if __name__ == "__main__":
    sys.exit(main())
