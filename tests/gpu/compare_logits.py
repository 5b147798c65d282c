"""Logits of Mobius beside those of transformers on the same checkpoint.

    python3 tests/gpu/compare_logits.py --tool build/cuda/tests/llama_logits --model FOLDER \
        [--backend cuda] [--quantization none|fp8] [--tokens 512] [--text FILE] [--chunk 200] [--out FILE]

The judge is transformers in float32. Mobius in bf16 must come as close to it as transformers in bf16
does, within a factor of 1.5, and agree on the most likely token about as often. With --quantization
fp8 the judge has the weights that fp8 leaves, quantised here by torch; what quantisation itself costs
is measured beside it, against the original weights (--tool may be left out for that alone). Tokens
are random, or the first of a text; then the loss in predicting them is given, too. Needs torch and
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
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

ALLOWED_FACTOR = 1.5
ALLOWED_DISAGREEMENT = 0.02


def quantise(model):
    """Rounds the weights of products as kernels/fp8.h does: e4m3, one power of two a row."""
    embedding = model.get_input_embeddings().weight
    for layer in model.modules():
        if not isinstance(layer, torch.nn.Linear) or layer.weight is embedding:
            continue
        largest = layer.weight.data.float().abs().amax(dim=1, keepdim=True)
        mantissa, exponent = torch.frexp(largest)  # mantissa in [0.5, 1); 448 is 0.875 * 2^9
        exponent = torch.where(largest > 0, exponent - 9 + (mantissa > 0.875).int(), 0)
        scale = torch.ldexp(torch.ones_like(largest), exponent)
        codes = (layer.weight.data.float() / scale).to(torch.float8_e4m3fn)
        layer.weight.data = (codes.float() * scale).to(layer.weight.dtype)


def reference(folder, tokens, dtype, device, fp8=False):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    if fp8:
        quantise(model)
    with torch.no_grad():
        logits = model(torch.tensor([tokens], device=device)).logits[0].float().cpu().numpy()
    del model
    if device == "cuda":
        torch.cuda.empty_cache()  # the tool needs room beside us
    return logits


def compared(logits, judge):
    difference = np.linalg.norm(logits - judge) / np.linalg.norm(judge)
    agreement = float(np.mean(logits.argmax(axis=1) == judge.argmax(axis=1)))
    return {"relative_error": float(difference), "top1_agreement": agreement}


def loss(logits, tokens):
    """Mean negative log-probability of each token after the first, in nats."""
    scores = torch.log_softmax(torch.from_numpy(logits[:-1]).double(), dim=1)
    return float(-scores[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].mean())


def chosen_tokens(arguments, vocab):
    if arguments.text is None:
        return np.random.default_rng(arguments.seed).integers(0, vocab, arguments.tokens).tolist()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(arguments.model, "tokenizer.json"))
    with open(arguments.text, encoding="utf-8") as file:
        return tokenizer(file.read())["input_ids"][: arguments.tokens]


def mobius(arguments, tokens, vocab):
    """The device's name and the logits."""
    with tempfile.TemporaryDirectory() as folder:
        tokens_file = os.path.join(folder, "tokens")
        logits_file = os.path.join(folder, "logits")
        with open(tokens_file, "w", encoding="utf-8") as file:
            file.write(" ".join(map(str, tokens)))
        device = subprocess.run(
            [arguments.tool, "--model", arguments.model, "--tokens", tokens_file, "--out", logits_file,
             "--backend", arguments.backend, "--dtype", "bf16", "--quantization", arguments.quantization,
             "--chunk", str(arguments.chunk)],
            check=True, capture_output=True, text=True).stdout.strip()
        return device, np.fromfile(logits_file, dtype=np.float32).reshape(len(tokens), vocab)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool")
    parser.add_argument("--model", required=True)
    parser.add_argument("--backend", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--quantization", default="none", choices=["none", "fp8"])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--text")
    parser.add_argument("--chunk", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    fp8 = arguments.quantization == "fp8"
    if arguments.tool is None and not fp8:
        parser.error("--tool is needed")

    with open(os.path.join(arguments.model, "config.json"), encoding="utf-8") as file:
        vocab = json.load(file)["vocab_size"]
    tokens = chosen_tokens(arguments, vocab)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    judge = reference(arguments.model, tokens, torch.float32, where, fp8)
    result = {
        "date": datetime.date.today().isoformat(),
        "model": os.path.basename(os.path.normpath(arguments.model)),
        "quantization": arguments.quantization,
        "tokens": len(tokens),
        "transformers_bf16": compared(reference(arguments.model, tokens, torch.bfloat16, where, fp8), judge),
    }
    original = None
    if fp8:
        original = reference(arguments.model, tokens, torch.float32, where)
        result["quantised_against_original"] = compared(judge, original)
    if arguments.tool is not None:
        result["device"], ours = mobius(arguments, tokens, vocab)
        result["mobius"] = compared(ours, judge)
        if fp8:
            result["mobius_against_original"] = compared(ours, original)
    if arguments.text is not None:
        result["loss"] = {"judge": loss(judge, tokens)}
        if fp8:
            result["loss"]["original"] = loss(original, tokens)
        if arguments.tool is not None:
            result["loss"]["mobius"] = loss(ours, tokens)
    print(json.dumps(result, indent=2))
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    if arguments.tool is None:
        return 0
    own, other = result["mobius"], result["transformers_bf16"]
    close = own["relative_error"] <= ALLOWED_FACTOR * other["relative_error"]
    agrees = own["top1_agreement"] >= other["top1_agreement"] - ALLOWED_DISAGREEMENT
    return 0 if np.isfinite(ours).all() and close and agrees else 1


if __name__ == "__main__":
    sys.exit(main())
