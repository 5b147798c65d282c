#!/bin/sh
# Runs pytest with the packages of requirements.txt: those of .venv, which `make test` makes, or
# else the system's. Exit code 77 (skipped) where neither has them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python="$here/../../.venv/bin/python"
[ -x "$python" ] || python=python3
if ! "$python" -c 'import grpc, grpc_health.v1, grpc_reflection.v1alpha, pytest' 2>/dev/null; then
  echo "skipped: $python lacks the packages of tests/e2e/requirements.txt; make test installs them"
  exit 77
fi
cd "$here"
exec "$python" -m pytest -q -p no:cacheprovider --tb=short "$@"
