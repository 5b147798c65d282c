#!/bin/sh
# Builds the cpu image, brings it up with compose, asks it, stops it in the middle of an answer, starts
# it again, and takes everything down.
#
# usage: docker/verify.sh [--skip-code N]
#
# Uses the Docker engine that runs; where none does, root on Debian or Ubuntu gets the distribution's
# and this script starts one of its own, with its data under build/docker-engine (kept, so that a
# second run is quick). Where none can start, that is said and the exit code is N (default 0), so that
# the rest of CI goes on. COMPOSE="docker-compose" picks a Compose; default: the newest there is.
set -eu
cd "$(dirname "$0")/.."
skip_code=0
case "${1:-}" in
  --skip-code) skip_code=$2 ;;
  '') ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

skip() {
  echo "docker/verify.sh: skipped: $*"
  exit "$skip_code"
}

engine_pid=""
scratch=$(mktemp -d)
end() {
  if [ -n "$engine_pid" ] && kill "$engine_pid" 2>/dev/null; then
    while kill -0 "$engine_pid" 2>/dev/null; do sleep 0.2; done
  fi
  rm -rf "$scratch"
}
trap end EXIT
trap 'exit 130' INT TERM

start_engine() {
  [ "$(id -u)" -eq 0 ] || skip "no Docker engine answers, and only root can start one"
  # The distribution's client goes with its engine.
  PATH="/usr/bin:/usr/sbin:$PATH"
  echo "Starting a Docker engine"
  DOCKER_HOST="unix://$scratch/docker.sock"
  export PATH DOCKER_HOST
  mkdir -p build/docker-engine
  dockerd --host "$DOCKER_HOST" --data-root "$PWD/build/docker-engine" --exec-root "$scratch/exec" \
    --pidfile "$scratch/pid" >"$scratch/log" 2>&1 &
  engine_pid=$!
  tries=120
  until docker info >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ $tries -eq 0 ] || ! kill -0 "$engine_pid" 2>/dev/null; then
      grep -E 'level=(error|fatal)|failed' "$scratch/log" | tail -5
      skip "no Docker engine can start here"
    fi
    sleep 0.5
  done
}

if ! docker info >/dev/null 2>&1; then
  if ! docker/install-dependencies.sh deploy; then skip "the packages of a Docker engine cannot be installed"; fi
  start_engine
fi

# Debian 12's engine has BuildKit, but does not use it unasked.
export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
if [ -z "${COMPOSE:-}" ]; then
  if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"; else COMPOSE=docker-compose; fi
fi
export COMPOSE
[ -x .venv-deploy/bin/python ] || docker/install-dependencies.sh deploy

# The base image: from its registry, or else made of the distribution's packages.
base=debian:bookworm-slim
if ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout 120 docker pull "$base" 2>"$scratch/pull"; then
  tail -1 "$scratch/pull"
  echo "No registry: making $base with mmdebstrap"
  # A merged /usr from the start: else perl comes along to merge it.
  mmdebstrap --quiet --variant=minbase --include=usr-is-merged \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$scratch/base.tar"
  docker import "$scratch/base.tar" "$base"
fi

.venv-deploy/bin/python docker/verify.py
