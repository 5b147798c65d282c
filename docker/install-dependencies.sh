#!/bin/sh
# Installs what is missing of docker/dependencies.txt, and nothing if nothing is missing.
#
# usage: docker/install-dependencies.sh GROUP...     (build, run, test, quality, lint, deploy, fuzz, browser, monitoring)
#
# `make`, CI and the Docker images all call this script. Some groups also make a virtual environment: see
# the end.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
list="$root/docker/dependencies.txt"

if [ $# -eq 0 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
fi
for group in "$@"; do
  grep -q "^$group " "$list" || { echo "install-dependencies: no group '$group' in $list" >&2; exit 2; }
done

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Lines of the wanted groups, one package expression each.
wanted() {
  for group in "$@"; do awk -v g="$group" '$1 == g { print $2 }' "$list"; done
}

missing=""
for expression in $(wanted "$@"); do
  found=no
  for package in $(echo "$expression" | tr '|' ' '); do
    if is_installed "$package"; then found=yes; fi
  done
  if [ $found = no ]; then missing="$missing $expression"; fi
done

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || {
    echo "install-dependencies: this system has no apt-get; install by hand:$missing" >&2
    exit 1
  }
  echo "Installing:$missing"
  as_root apt-get update -q
  packages=""
  for expression in $missing; do
    choice=""
    for package in $(echo "$expression" | tr '|' ' '); do
      if [ -z "$choice" ] && apt-cache show "$package" >/dev/null 2>&1; then choice=$package; fi
    done
    [ -n "$choice" ] || { echo "install-dependencies: no package of '$expression' is to be had here" >&2; exit 1; }
    packages="$packages $choice"
  done
  # shellcheck disable=SC2086 # a list of words on purpose
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
fi

# make_venv FOLDER REQUIREMENTS: the folder's stamp is a copy of what it was made from.
make_venv() {
  cmp -s "$root/$2" "$root/$1/requirements.installed" && return
  echo "Making $1 from $2"
  python3 -m venv --clear "$root/$1"
  "$root/$1/bin/pip" install --quiet --disable-pip-version-check -r "$root/$2"
  cp "$root/$2" "$root/$1/requirements.installed"
}

for group in "$@"; do
  case $group in
    test) make_venv .venv tests/e2e/requirements.txt ;;
    quality) make_venv .venv-quality tests/quality/requirements.txt ;;
    deploy) make_venv .venv-deploy docker/requirements.txt ;;
  esac
done
