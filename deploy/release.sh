#!/bin/bash
# Builds the release: a static binary for each system, byte for byte the same wherever and whenever it is built from the same
# source with the same Go.
#   deploy/release.sh OUTPUT-FOLDER [OS/ARCH ...]     all six by default; SHA256SUMS lies beside them
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- {linux,darwin,freebsd}/{amd64,arm64}

# Nothing of the builder's surroundings gets in: no paths, no version control, no build id, no settings of their own.
export CGO_ENABLED=0 GOFLAGS="" GOEXPERIMENT="" GOAMD64=v1 GOARM64=v8.0 GOWORK=off GOTOOLCHAIN=local
for target; do
	export GOOS=${target%/*} GOARCH=${target#*/}
	go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$out/flaskpaste-$GOOS-$GOARCH" .
done
cd "$out"
sha256sum flaskpaste-* >SHA256SUMS
