#!/bin/bash
# Builds the Hopper kernels, their checks and their benchmark with nvcc and g++ alone, into the folder
# given (build/hopper).
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=${1:-build/hopper}
mkdir -p "$out"
kernels=(kernels/cuda/hopper/*.cu kernels/cuda/hopper/*.cc)
programs=(tests/gpu/hopper/check.cu tests/bench/gpu/hopper/attention_times.cu)

# Everything anew when any source is newer than what was built last: it takes a minute.
newer=$(find kernels/cuda/hopper kernels/attention.h tests/gpu/hopper tests/bench/gpu/hopper \
  -newer "$out/built" -print -quit 2>/dev/null || echo all)
if [ ! -e "$out/built" ] || [ -n "$newer" ]; then
  printf '%s\n' "${kernels[@]}" "${programs[@]}" |
    xargs -P "$(nproc)" -I{} sh -c 'nvcc -std=c++20 -O3 -lineinfo -I. --expt-relaxed-constexpr -Xcompiler -Wall,-Wextra \
      -gencode=arch=compute_90a,code=sm_90a -c {} -o "$0/$(basename {}).o"' "$out"
  objects=()
  for f in "${kernels[@]}"; do objects+=("$out/$(basename "$f").o"); done
  for f in "${programs[@]}"; do
    nvcc -gencode=arch=compute_90a,code=sm_90a "$out/$(basename "$f").o" "${objects[@]}" \
      -o "$out/$(basename "$f" .cu)"
  done
  g++ -std=c++20 -O1 -Wall -Wextra -Wno-unknown-pragmas -I. tests/gpu/hopper/lists_test.cc \
    -o "$out/lists_test" -lpthread
  touch "$out/built"
fi
