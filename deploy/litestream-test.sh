#!/bin/bash
# Replicates a server under load to a folder with deploy/litestream.yml, kills server and Litestream with -9 as a dying machine
# would, restores, and looks for every paste that was acknowledged before the last replicated state but one.
#   deploy/litestream-test.sh [BINARY]
# Litestream is built once from its Go module into $XDG_CACHE_HOME; it is no dependency of the program.
# Exit 0: it held, or Litestream can't be built for lack of a network (one line says so). Exit 1: something did not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v0.5.18
bin=${XDG_CACHE_HOME:-$HOME/.cache}/flaskpaste-deploy/bin
work=$(mktemp -d /var/tmp/flaskpaste-litestream.XXXXXX)
server="" replicator=""
end() {
	touch "$work/stop"
	for pid in $server $replicator; do kill -KILL "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap end EXIT
fail() { echo "litestream-test: FAILED: $1"; tail -n 5 "$work"/*.log; exit 1; }

if [ "$("$bin/litestream" version 2>/dev/null)" != "$version" ]; then
	build() { GOBIN=$bin GOFLAGS="" CGO_ENABLED=0 nice -n 10 go install -ldflags "-s -w -X main.Version=$version" "github.com/benbjohnson/litestream/cmd/litestream@$version" >"$work/build" 2>&1; }
	build || { sleep 5 && build; } || { sleep 20 && build; } || { # a network has its moments
		grep -qE 'dial tcp|lookup |no such host|connection refused|i/o timeout|module lookup disabled' "$work/build" || { cat "$work/build"; exit 1; }
		echo "litestream-test: skipped: Litestream can't be built without a network"
		exit 0
	}
fi
binary=${1:-$work/flaskpaste}
[ $# -gt 0 ] || CGO_ENABLED=0 go build -o "$binary" .
binary=$(realpath "$binary")

mkdir "$work/data"
database=$work/data/flaskpaste.db
sed "s,/var/lib/private/flaskpaste/flaskpaste.db,$database,; s,/var/backups/flaskpaste,$work/replica," deploy/litestream.yml >"$work/litestream.yml"
# start runs the server on the database $1.
start() {
	env -i FLASKPASTE_DATABASE="$1" FLASKPASTE_LISTEN="unix:$work/http.sock" FLASKPASTE_CHECKPOINT=off FLASKPASTE_POW_DIFFICULTY=0 FLASKPASTE_RATE_CREATE=0 \
		FLASKPASTE_RATE_READ=0 FLASKPASTE_RATE_MISS=0 FLASKPASTE_RATE_BYTES=0 FLASKPASTE_DEDUP_MAX=0 FLASKPASTE_MIN_FREE=0 FLASKPASTE_LOG_LEVEL=warn "$binary" >>"$work/server.log" 2>&1 &
	server=$!
	curl -sS --retry 50 --retry-delay 0 --retry-all-errors --unix-socket "$work/http.sock" -o /dev/null http://localhost/health 2>/dev/null || fail "the server does not start"
}
start "$database"
"$bin/litestream" replicate -config "$work/litestream.yml" >"$work/litestream.log" 2>&1 &
replicator=$!
sleep 2

# Batches of parallel posts; each line is "time when the whole batch was acknowledged, link". 4 KiB each, so that checkpoints happen.
head -c 4096 /dev/urandom >"$work/body"
load() {
	until [ -e "$work/stop" ]; do
		links=$(curl -sS --no-progress-meter -Z --parallel-max 4 -m 20 --unix-socket "$work/http.sock" -H 'Accept: text/plain' --data-binary "@$work/body" 'http://localhost/#[1-20]' 2>/dev/null) || true
		now=$(date +%s.%N)
		sed -n "s,^http://localhost/.*/raw$,$now &,p" <<<"$links" >>"$work/acknowledged"
	done
}
load &
loader=$!
sleep 12
newest() { find "$work/replica" -path '*/ltx/0/*.ltx' -printf '%T@\n' | sort -n | tail -n "$1" | head -n 1; } # the $1-newest file's time: when its content was read
# fresh: the replica is less than 3 s old. A busy machine may be behind for a while, but not for good.
fresh() { awk -v a="$(date +%s.%N)" -v b="$(newest 1)" 'BEGIN {exit !(a - b < 3)}'; }
for _ in {1..100}; do fresh && break; sleep 0.2; done
fresh || fail "the replica stays behind: $(newest 1) at $(date +%s)"
{
	kill -KILL "$server"
	kill -KILL "$replicator"
	touch "$work/stop"
	wait "$loader" "$server" "$replicator" || true
} 2>/dev/null # the shell's "Killed"
server="" replicator=""

# What the newest file holds was read after the one before was made, so that holds all until then, however long either took.
replicated=$(newest 2)
[ -n "$replicated" ] || fail "there is no replica"
"$bin/litestream" restore -config "$work/litestream.yml" -o "$work/restored.db" "$database" >"$work/restore.log" 2>&1 || fail "no restore"
mv "$work/data" "$work/lost" && mkdir "$work/data" && mv "$work/restored.db" "$database"
chmod 600 "$database"
env -i FLASKPASTE_DATABASE="$database" FLASKPASTE_MIN_FREE=0 "$binary" check >"$work/check.log" || fail "the restored database is damaged"
start "$database"

# missing counts the links on standard input that are not answered with 200.
missing() { sed 's,.*,url = &\noutput = /dev/null,' | curl -sS --no-progress-meter -Z --unix-socket "$work/http.sock" -w '%{http_code}\n' -K - | grep -vc '^200$' || true; }
awk -v until="$replicated" '$1 <= until {print $2}' "$work/acknowledged" >"$work/must"
awk -v until="$replicated" '$1 > until {print $2}' "$work/acknowledged" >"$work/may"
[ "$(wc -l <"$work/must")" -gt 200 ] || fail "only $(wc -l <"$work/must") pastes: no load"
lost=$(missing <"$work/must")
[ "$lost" = 0 ] || fail "$lost of $(wc -l <"$work/must") pastes that had been replicated are gone"
echo "litestream-test: $version under load, both killed: all $(wc -l <"$work/must") pastes acknowledged up to the last replicated state but one are there; of $(wc -l <"$work/may") later ones $(missing <"$work/may") are lost"
