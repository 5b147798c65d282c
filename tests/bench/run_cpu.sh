#!/bin/sh
# The benchmarks of this machine's processor. usage: tests/bench/run_cpu.sh [BUILD-FOLDER]
#
# Writes tests/bench/results/*_cpu.json. Takes about ten minutes on two cores, 5 GB of memory and
# 2.5 GB of disk for the model (16 layers, 2048 wide, random bf16 weights). Run it on a quiet machine:
# a row whose processor_share is well below 1 was disturbed.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build/release}
model=$build/bench/1b
results=tests/bench/results
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- kernels models engine 2>/dev/null || commit=$commit-dirty

mkdir -p "$results" "$build/bench"
[ -f "$model/config.json" ] ||
  "$build/models/mobius-make-checkpoint" --shape 1b --seed 1 --out "$model"
"$build/tests/bench/model_bench" --model "$model" --commit "$commit" --out "$results/model_cpu.json"
for name in matmul attention tokenizer grammar; do
  "$build/tests/bench/${name}_bench" --benchmark_context=commit="$commit" \
    --benchmark_out="$results/${name}_cpu.json" --benchmark_out_format=json
done
