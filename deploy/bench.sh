#!/bin/sh
# Figures of docs/measurements.md, as ratios from one run: sh deploy/bench.sh [regular expression of benchmarks]
# Without one, others on this machine (peers.sh) come behind them. Takes some six minutes and 5 GiB of the disk under TMPDIR,
# whose fsync it measures (no tmpfs). Exit 1: a bound is missed.
set -eu
cd "$(dirname "$0")/.."
out=$(mktemp)
trap 'rm -f "$out"' EXIT
go test -run '^$' -bench "${1:-^Benchmark(ReadHot|ReadCold|Redirect|Create|Large|Start|Sweep|Mixed|Seal)\$}" -benchtime 1x . >"$out" || { cat "$out"; exit 1; }
awk '
	BEGIN { printf "%-10s %-20s %10s   %-8s\n", "benchmark", "figure", "measured", "bound" }
	/^Benchmark/ {
		name = $1; sub(/^Benchmark/, "", name); sub(/-[0-9]+$/, "", name)
		for (i = 3; i < NF; i += 2) {
			figure = $(i + 1); bound = verdict = ""
			if (match(figure, /[<>]=/)) {
				limit = substr(figure, RSTART + 2)
				bound = substr(figure, RSTART, 2) " " limit
				verdict = (bound ~ /^>/ ? $i + 0 >= limit + 0 : $i + 0 <= limit + 0) ? "ok" : "MISSED"
				figure = substr(figure, 1, RSTART - 1)
			}
			missed += verdict == "MISSED"
			printf "%-10s %-20s %10s   %-8s %s\n", name, figure, $i, bound, verdict
		}
	}
	END { exit missed > 0 }' "$out" || missed=1
[ $# -gt 0 ] || sh deploy/peers.sh
exit "${missed:-0}"
