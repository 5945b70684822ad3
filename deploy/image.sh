#!/bin/bash
# Builds the last stage of deploy/Containerfile around a binary that is there already: offline, and the same image each time.
#   deploy/image.sh BINARY ARCH NAME [buildah's global options ...]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 arch=$2 name=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/context/root/data" && chmod 770 "$work/context/root/data"
cp "$binary" "$work/context/flaskpaste"
# The stage as it is written, but what it takes from the build stage comes from a folder.
sed -n '/^FROM scratch/,$ { s/--from=build //; s, /out/, ,; p }' deploy/Containerfile >"$work/Containerfile"
if grep -q -e --from= "$work/Containerfile"; then echo "image: the last stage needs more than the binary" >&2; exit 1; fi
buildah "$@" bud -q --isolation chroot --format docker --timestamp 0 --pull-never --arch "$arch" -t "$name" -f "$work/Containerfile" "$work/context" >/dev/null
