#!/bin/sh
# Benchmarks of the CUDA backend on this machine's GPU. usage: tests/bench/gpu/run.sh products|attention|steps [options of the program]
#
# products: matvec_times.cu. attention: hopper/bench.py (needs PyTorch for cuDNN). steps: step_bench of
# tests/gpu. Builds what it needs into build/gpu or build/hopper.
set -eu
cd "$(dirname "$0")/../../.."
what=${1:-}
[ $# -eq 0 ] || shift
case $what in
  products)
    [ -f build/gpu/build.ninja ] || cmake -S tests/gpu -B build/gpu -G Ninja
    cmake --build build/gpu --target matvec_times
    exec build/gpu/matvec_times "$@" ;;
  attention) exec python3 tests/bench/gpu/hopper/bench.py "$@" ;;
  steps) exec tests/gpu/run.sh --bench "$@" ;;
  *)
    sed -n 's/^# .*usage: /usage: /p' "$0" >&2
    exit 2 ;;
esac
