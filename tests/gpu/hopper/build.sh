#!/bin/bash
# Builds the Hopper kernels, their check and their benchmark with nvcc alone, into the folder given.
set -euo pipefail
out=${1:-build/hopper}
root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root"
flags=(-std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -I. -lineinfo --extended-lambda
  -Xcompiler -Wall,-Wextra)
export out
compile() {
  local object
  object=$out/$(basename "$1").o
  if [ ! -e "$object" ] || [ -n "$(find kernels/cuda/hopper tests/gpu/hopper tests/bench/gpu/hopper \
    -newer "$object" -name '*.*' -print -quit 2>/dev/null)" ]; then
    shift_args=("${@:2}")
    nvcc "${shift_args[@]}" -c "$1" -o "$object"
  fi
}
export -f compile
printf '%s\n' kernels/cuda/hopper/*.cu kernels/cuda/hopper/*.cc tests/gpu/hopper/*.cu \
  tests/bench/gpu/hopper/*.cu |
  while read -r f; do if [ -e "$f" ]; then echo "$f"; fi; done |
  xargs -P "$(nproc)" -I{} bash -c 'compile "$@"' compile {} "${flags[@]}"
kernels=()
for f in kernels/cuda/hopper/*.cu kernels/cuda/hopper/*.cc; do
  kernels+=("$out/$(basename "$f").o")
done
for f in tests/gpu/hopper/*.cu tests/bench/gpu/hopper/*.cu; do
  if [ -e "$f" ]; then
    nvcc -gencode=arch=compute_90a,code=sm_90a "$out/$(basename "$f").o" "${kernels[@]}" \
      -o "$out/$(basename "$f" .cu)"
  fi
done
