#!/bin/sh
# clang-tidy over our C++ code. usage: tests/lint.sh BUILD-FOLDER [COMMIT]
#
# Everything (some ten seconds of a core for each source), or only what has changed since COMMIT.
# Reads the compile commands of a build of its own, without precompiled headers: GCC's are not
# readable by clang-tidy. Only generated sources are built there.
set -eu
cd "$(dirname "$0")/.."
build="$1-lint"
since="${2:-}"

if [ -n "$since" ]; then
  files=$(python3 tests/lint_files.py "$since")
else
  files=$(git ls-files '*.cc')
fi
[ -n "$files" ] || { echo "lint: no source has changed since $since"; exit 0; }

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
cmake --build "$build" --target mobius_proto
# A file of another build (another device's, say) has no command to read it by.
for file in $files; do
  if grep -qF "\"$(pwd)/$file\"" "$build/compile_commands.json"; then
    echo "$file"
  else
    echo "lint: left out, not part of this build: $file" >&2
  fi
done | xargs -r -P "$(nproc)" -n 1 sh -c 'echo "lint $2"; exec clang-tidy-14 --quiet -p "$1" "$2" 2>/dev/null' lint "$build"
