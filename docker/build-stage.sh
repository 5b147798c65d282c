#!/bin/sh
# Compiles the server and lays the files of an image under OUT. A step of docker/Dockerfile.
#
# usage: docker/build-stage.sh PRESET OUT     (PRESET: release or cuda; JOBS=N in the environment)
set -eu
preset=$1
out=$2
cd "$(dirname "$0")/.."

cmake --preset "$preset" -DMOBIUS_TESTS=OFF
cmake --build "build/$preset" -j "${JOBS:-$(nproc)}" --target mobius
install -D --strip "build/$preset/server/mobius" "$out/usr/local/bin/mobius"

# The embedded model: the one that the configuration names.
model=$(python3 -c 'import json; print(json.load(open("configs/embedded.json"))["model"]["path"])')
install -d "$out/app" "$out/models"
cp -r --parents configs "$model" "$out/app"
# Volumes are born with the owner that their folder has in the image.
install -d -o 10001 -g 10001 "$out/var/cache/mobius"
chmod -R a+rX "$out"
