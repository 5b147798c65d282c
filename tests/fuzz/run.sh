#!/bin/sh
# Fuzzes every target, or those named, and says which found something.
#
# usage: tests/fuzz/run.sh [-s SECONDS] [-o FILE] [TARGET]...     (default: 60 seconds for each of all)
#
# -o adds what was run and found to a JSON file. New inputs that reach new code go to
# build/fuzz/corpus/TARGET, which the next run starts from; findings to build/fuzz/findings. Keep a
# finding, once mended, in tests/fuzz/corpus/TARGET.
set -eu
cd "$(dirname "$0")/../.."
seconds=60
out=""
while getopts s:o: option; do
  case $option in
    s) seconds=$OPTARG ;;
    o) out=$OPTARG ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
docker/install-dependencies.sh build fuzz
[ -f build/fuzz/build.ninja ] || cmake --preset fuzz
cmake --build build/fuzz -j "${JOBS:-$(nproc)}" --target fuzz
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)

failed=""
for target in "$@"; do
  mkdir -p "build/fuzz/corpus/$target" build/fuzz/findings
  rm -f "build/fuzz/findings/$target-"*
  log="build/fuzz/$target.log"
  code=0
  "build/fuzz/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$target-" \
    "build/fuzz/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1 || code=$?
  result=clean
  if [ $code -ne 0 ]; then
    result="FOUND SOMETHING, see $log"
    failed="$failed $target"
  fi
  if [ -n "$out" ]; then
    python3 tests/fuzz/report.py --target "$target" --log "$log" --seconds "$seconds" --exit-code $code \
      --out "$out" --findings $(ls "build/fuzz/findings/$target-"* 2>/dev/null || true)
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "$target: ${runs:-?} inputs in $seconds s: $result"
done
[ -z "$failed" ]
