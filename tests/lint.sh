#!/bin/sh
# clang-tidy over what is shipped. usage: tests/lint.sh BUILD-FOLDER (a configured build)
#
# Reads the compile commands of a build of its own, without precompiled headers: GCC's are not
# readable by clang-tidy. Only generated sources are built there.
set -eu
cd "$(dirname "$0")/.."
build="$1-lint"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
cmake --build "$build" --target mobius_proto
run-clang-tidy-14 -quiet -p "$build" -j "$(nproc)" "$(pwd)/(kernels|models|engine|server)/.*" 2>/dev/null
