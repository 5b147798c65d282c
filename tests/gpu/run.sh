#!/bin/sh
# Tests of the CUDA backend on this machine's GPU. usage: tests/gpu/run.sh [--sanitize | --bench] [options of the program]
#
# Builds into build/gpu and build/hopper what the tests need and nothing else, prints two tables and
# writes tests/gpu/results/gpu_test.json (MOBIUS_GPU_RESULTS names another folder). With options of the
# program only the first table, e.g. --filter attention. --sanitize runs small sizes under
# compute-sanitizer's memcheck and racecheck instead; --bench times whole steps and writes
# step_bench.json beside it.
set -eu
cd "$(dirname "$0")/../.."
build=build/gpu
[ -f $build/build.ninja ] || cmake -S tests/gpu -B $build -G Ninja
cmake --build $build
if [ "${1:-}" = --sanitize ]; then
  shift
  tests/gpu/hopper/build.sh build/hopper
  compute-sanitizer --tool memcheck --leak-check full --error-exitcode 2 $build/gpu_test --small "$@"
  compute-sanitizer --tool memcheck --error-exitcode 2 build/hopper/check
  # Our kernels alone: start-up tries every algorithm of the library, which takes minutes. Not matmul: nothing
  # of ours runs there but a hash and a count.
  for group in ops sampling backend attention routing matvec fp8; do
    compute-sanitizer --tool racecheck --kernel-name kns=mobius --error-exitcode 2 $build/gpu_test --small --filter $group
  done
  for cases in 128/3 "decode 256/4" "decode 64/64 pages"; do
    compute-sanitizer --tool racecheck --kernel-name kns=mobius --error-exitcode 2 build/hopper/check "$cases"
  done
  exit 0
fi
results=${MOBIUS_GPU_RESULTS:-tests/gpu/results}
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- kernels tests/gpu 2>/dev/null || commit=$commit-dirty
mkdir -p "$results"
if [ "${1:-}" = --bench ]; then
  shift
  exec $build/step_bench --json "$results/step_bench.json" --commit "$commit" --date "$(date -u +%F)" "$@"
fi
failed=0
$build/gpu_test --json "$results/gpu_test.json" --commit "$commit" --date "$(date -u +%F)" "$@" || failed=1
if [ $# -eq 0 ]; then
  tests/gpu/hopper/build.sh build/hopper
  build/hopper/check || failed=1
fi
exit $failed
