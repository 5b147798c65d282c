#!/usr/bin/env python3
"""Times the Hopper attention kernels beside cuDNN's dense attention on this machine's GPU.

Builds (unless told not to), runs every case, prints one table, and stores JSON and, where matplotlib
is installed, a PNG of time against length. Needs PyTorch with cuDNN for the dense yardstick.

    tests/bench/gpu/hopper/bench.py [--build DIR] [--no-build] [--quick] [--commit C] [--out DIR]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[4]
HEADS, KV_HEADS, DIM = 32, 8, 128
MILLION = 1 << 20
# tokens, block, top_k, how many times faster than cuDNN's dense attention it must be (up to SHORT
# tokens: than ours)
SHORT = 16384
PREFILL = [
    (4096, 512, 3, 1), (8192, 512, 3, 1), (16384, 512, 3, 1), (16384, 4096, 12, 1),
    (32768, 512, 3, 3), (131072, 512, 8, 8), (131072, 4096, 12, None), (131072, 128, 8, None),
    (524288, 512, 8, None),
    (MILLION, 4096, 12, 11), (MILLION, 512, 8, 50), (MILLION, 128, 8, 40),
]
DENSE = [4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288]
# batch, block, top_k, bound on time over selected bytes at the measured rate
DECODE = [(1, 4096, 12, 1.3), (16, 4096, 12, 1.3), (1, 128, 8, 2.0), (16, 128, 8, 2.0)]


def ours(binary, *args):
    done = subprocess.run([str(binary), *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{args}: {done.stderr.strip()}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def cudnn_ms(tokens, heads, kv_heads):
    """Median milliseconds of cuDNN's causal attention, forward only."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    make = lambda h: torch.randn(1, h, tokens, DIM, device="cuda", dtype=torch.bfloat16)
    q, k, v = make(heads), make(kv_heads), make(kv_heads)
    attend = torch.nn.functional.scaled_dot_product_attention
    times = []
    with torch.no_grad(), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        run = lambda: attend(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
        run()
        torch.cuda.synchronize()
        while len(times) < 3 or (len(times) < 20 and sum(times) < 2000):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    del q, k, v
    torch.cuda.empty_cache()
    return statistics.median(times)


def tflops(tokens, heads, ms):
    return 4 * tokens / 2 * tokens * heads * DIM / ms * 1e-9


def dense_times(binary, lengths):
    """Ours and cuDNN's; from 256K on one KV head, scaled, after showing at 128K that this holds."""
    rows = []
    for tokens in lengths:
        groups = KV_HEADS if tokens <= 131072 else 1
        heads, kv_heads = HEADS * groups // KV_HEADS, groups
        scale = HEADS // heads
        mine = ours(binary, "prefill", tokens, heads, kv_heads, DIM, 0, 0)
        theirs = cudnn_ms(tokens, heads, kv_heads)
        rows.append({"tokens": tokens, "scaled_from_heads": heads,
                     "ours_ms": mine["ms"] * scale if mine else None, "cudnn_ms": theirs * scale})
        if tokens == 131072:
            one = cudnn_ms(tokens, HEADS // KV_HEADS, 1) * KV_HEADS
            rows[-1]["cudnn_ms_scaled_from_4_heads"] = one
    return rows


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def print_dense(rows):
    print("\nDense causal attention, 32 query heads, 8 KV heads, d 128, bf16")
    print(f"{'tokens':>8} {'ours ms':>10} {'TFLOP/s':>8} {'cuDNN ms':>10} {'TFLOP/s':>8} {'ratio':>6}")
    for r in rows:
        mine = r["ours_ms"]
        print(f"{r['tokens']:>8} {number(mine):>10} "
              f"{number(mine and tflops(r['tokens'], HEADS, mine), 0):>8} {r['cudnn_ms']:>10.2f} "
              f"{tflops(r['tokens'], HEADS, r['cudnn_ms']):>8.0f} "
              f"{number(mine and r['cudnn_ms'] / mine):>6}")
        if "cudnn_ms_scaled_from_4_heads" in r:
            print(f"{'':>8} cuDNN from 4 heads, scaled: {r['cudnn_ms_scaled_from_4_heads']:.2f} ms")


def print_prefill(rows):
    print("\nMoBA prefill, gating and merging included; dense: cuDNN's, up to 16K tokens ours")
    print(f"{'tokens':>9} {'heads':>5} {'block/k':>10} {'ms':>10} {'dense ms':>10} {'faster':>7} "
          f"{'wanted':>7}")
    for r in rows:
        speedup = r["ms"] and r["dense_ms"] / r["ms"]
        print(f"{r['tokens']:>9} {r['heads']:>5} {str(r['block']) + '/' + str(r['top_k']):>10} "
              f"{number(r['ms']):>10} {r['dense_ms']:>10.1f} {number(speedup, 1):>7} "
              f"{r['wanted'] or '-':>7}")


def print_decode(rows, rate):
    print(f"\nMoBA decode at 1M tokens; bytes at the measured {rate:.2f} TB/s")
    print("(a call alone, with the start of its graph, and one of eight in a row, as in a model; "
          "ratios are of the latter)")
    print(f"{'batch':>5} {'block/k':>10} {'alone us':>9} {'us':>9} {'selected MB':>12} {'times floor':>12} "
          f"{'wanted':>7} {'with centroids':>15}")
    for r in rows:
        floor = r["selected_mb"] / rate
        both = (r["selected_mb"] + r["centroid_mb"]) / rate
        us = r["us_in_a_row"]
        print(f"{r['batch']:>5} {str(r['block']) + '/' + str(r['top_k']):>10} {r['us']:>9.1f} {us:>9.1f} "
              f"{r['selected_mb']:>12.1f} {us / floor:>12.2f} {r['wanted']:>7} {us / both:>15.2f}")


def draw(results, path):
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return
    figure, axes = plt.subplots(figsize=(8, 5.5))
    dense = results["dense"]
    axes.plot([r["tokens"] for r in dense], [r["cudnn_ms"] for r in dense], "k--o",
              label="cuDNN dense")
    axes.plot([r["tokens"] for r in dense if r["ours_ms"]],
              [r["ours_ms"] for r in dense if r["ours_ms"]], "k-s", label="Mobius dense")
    kinds = sorted({(r["block"], r["top_k"]) for r in results["prefill"] if r["heads"] == HEADS})
    for block, top_k in kinds:
        points = [(r["tokens"], r["ms"]) for r in results["prefill"]
                  if (r["block"], r["top_k"]) == (block, top_k) and r["ms"] and r["heads"] == HEADS]
        axes.plot(*zip(*sorted(points)), "-o", label=f"Mobius MoBA {block}/{top_k}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("tokens")
    axes.set_ylabel("ms, forward, 32 query heads, 8 KV heads, d 128, bf16")
    axes.set_title(results["device"])
    axes.grid(True, which="major", alpha=0.4)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build" / "hopper"))
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--quick", action="store_true", help="lengths up to 128K")
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    parser.add_argument("--out", default=str(ROOT / "tests" / "bench" / "results"))
    args = parser.parse_args()
    if not args.no_build:
        subprocess.run([str(ROOT / "tests/gpu/hopper/build.sh"), args.build], check=True)
    binary = pathlib.Path(args.build) / "attention_times"
    import torch

    longest = 131072 if args.quick else MILLION
    copy = ours(binary, "copy")
    dense = dense_times(binary, [t for t in DENSE if t <= longest])
    print_dense(dense)
    cudnn = {r["tokens"]: r["cudnn_ms"] for r in dense}
    yardstick = cudnn | {r["tokens"]: r["ours_ms"] for r in dense
                         if r["tokens"] <= SHORT and r["ours_ms"]}
    if longest >= MILLION:
        yardstick[MILLION] = cudnn_ms(MILLION, 4, 1) * KV_HEADS
        dense.append({"tokens": MILLION, "scaled_from_heads": 4, "ours_ms": None,
                      "cudnn_ms": yardstick[MILLION]})
    prefill = []
    for tokens, block, top_k, wanted in PREFILL:
        if tokens > longest:
            continue
        got = ours(binary, "prefill", tokens, HEADS, KV_HEADS, DIM, block, top_k)
        prefill.append({"tokens": tokens, "heads": HEADS, "block": block, "top_k": top_k,
                        "ms": got and got["ms"], "dense_ms": yardstick[tokens], "wanted": wanted})
    if longest >= MILLION:
        # Ten million tokens take cuDNN a minute: one million with one head, times the square.
        tokens = 10 * MILLION
        got = ours(binary, "prefill", tokens, 1, 1, DIM, 163840, 3)
        prefill.append({"tokens": tokens, "heads": 1, "block": 163840, "top_k": 3,
                        "ms": got and got["ms"], "dense_ms": cudnn_ms(MILLION, 1, 1) * 100,
                        "wanted": 15})
    print_prefill(prefill)
    decode = []
    for batch, block, top_k, wanted in DECODE:
        got = ours(binary, "decode", batch, longest, HEADS, KV_HEADS, DIM, block, top_k,
                   min(batch, 4))
        if got:
            decode.append({**got, "wanted": wanted})
    print_decode(decode, copy["read_tb_per_s"])
    commit = args.commit or subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
                                           capture_output=True, text=True).stdout.strip()
    results = {"date": time.strftime("%Y-%m-%d"), "commit": commit or "unknown", "device": torch.cuda.get_device_name(), "torch": torch.__version__,
               "cudnn": torch.backends.cudnn.version(), "memory": copy, "dense": dense,
               "prefill": prefill, "decode": decode}
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "attention_hopper.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, out / "attention_hopper.png")


if __name__ == "__main__":
    main()
