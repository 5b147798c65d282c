#!/bin/sh
# Runs run.py with the packages of requirements.txt. usage: tests/quality/run.sh --help
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
"$root/docker/install-dependencies.sh" quality >&2
exec "$root/.venv-quality/bin/python" "$here/run.py" "$@"
