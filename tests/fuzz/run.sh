#!/bin/sh
# Fuzzes every target, or those named, and says which found something.
#
# usage: tests/fuzz/run.sh [-s SECONDS] [TARGET]...     (default: 60 seconds for each of all)
#
# New inputs that reach new code go to build/fuzz/corpus/TARGET, which the next run starts from;
# findings to build/fuzz/findings. Keep a finding, once mended, in tests/fuzz/corpus/TARGET.
set -eu
cd "$(dirname "$0")/../.."
seconds=60
if [ "${1:-}" = -s ]; then seconds=$2; shift 2; fi
docker/install-dependencies.sh build fuzz
[ -f build/fuzz/build.ninja ] || cmake --preset fuzz
cmake --build build/fuzz -j "${JOBS:-$(nproc)}" --target fuzz
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)

failed=""
for target in "$@"; do
  mkdir -p "build/fuzz/corpus/$target" build/fuzz/findings
  log="build/fuzz/$target.log"
  if "build/fuzz/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$target-" \
    "build/fuzz/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    result=clean
  else
    result="FOUND SOMETHING, see $log"
    failed="$failed $target"
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "$target: ${runs:-?} inputs in $seconds s: $result"
done
[ -z "$failed" ]
