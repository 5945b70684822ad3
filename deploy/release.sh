#!/bin/bash
# Builds the release, byte for byte the same wherever and whenever it is built from the same source with the same Go:
#   flaskpaste-linux-ARCH, and flaskpaste-linux-ARCH.tar.gz: the same program with units, deploy files and docs
#   fpaste-darwin-ARCH: the same program as the command line's client for macOS
#   deploy/release.sh OUTPUT-FOLDER [OS/ARCH ...]     all four by default; SHA256SUMS lies beside them
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- {linux,darwin}/{amd64,arm64}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Nothing of the builder's surroundings gets in: no paths, no version control, no build id, no settings of their own.
export CGO_ENABLED=0 GOFLAGS="" GOEXPERIMENT="" GOAMD64=v1 GOARM64=v8.0 GOWORK=off GOTOOLCHAIN=local
for target; do
	export GOOS=${target%/*} GOARCH=${target#*/}
	name=flaskpaste-$GOOS-$GOARCH
	[ "$GOOS" != darwin ] || name=fpaste-$GOOS-$GOARCH
	go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$out/$name" .
	[ "$GOOS" = linux ] || continue
	# Nor of the files' owners, times and modes, or of the order in which a folder lists them.
	folder=$work/$GOARCH/flaskpaste
	mkdir -p "$folder/deploy"
	cp "$out/$name" "$folder/flaskpaste"
	cp -r ./*.md docs flaskpaste.service flaskpaste.socket "$folder/"
	cp deploy/{nginx.conf,haproxy.cfg,Caddyfile,apache.conf,traefik.yaml,k8s.yaml} "$folder/deploy/"
	cp deploy/{backup.{sh,service,timer},alerts.yml,dashboard.json,litestream.yml} "$folder/deploy/"
	tar -C "${folder%/*}" --format=ustar --sort=name --mtime="@${SOURCE_DATE_EPOCH:-0}" --owner=0 --group=0 \
		--numeric-owner --mode=u=rwX,go=rX -cf - flaskpaste | gzip -9n >"$out/$name.tar.gz"
done
cd "$out"
LC_ALL=C
sha256sum f*paste-* >SHA256SUMS
