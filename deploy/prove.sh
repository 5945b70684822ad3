#!/bin/sh
# What is promised, shown: crashes, faults, attacks and fuzzing against the real program, as one table.
#   sh deploy/prove.sh            within 5 minutes, as CI runs it
#   sh deploy/prove.sh --long     hours: 200 crashes, every call that may fail, 30 minutes for each fuzz target
#   sh deploy/prove.sh [--long] Crash   only the parts whose name matches: Crash, Fault, Load, Hostile, Fuzz
# As root: the faults mount a small tmpfs and trace the server with strace. Exit 1: something did not hold.
set -eu
cd "$(dirname "$0")/.."
form=short
if [ "${1:-}" = --long ]; then form=long && shift; fi
only=${1:-.}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
go test -c -o "$work/prove" .
prove() {
	case $1 in
	Crash) tests='^Test(Crash|Forensics)$' ;;
	Fault) tests='^Test(Fault|FillingDisk|StopAmidSweep)' ;;
	Load) tests='^Test(Load|Growth)$' ;;
	Hostile) tests='^Test(Siege|Smuggling|Pipelining)' ;;
	esac
	echo "== $1" >&2
	"$work/prove" -test.run "$tests" -test.timeout 6h -prove $form >"$work/$1" 2>&1 || { grep -v '^| ' "$work/$1" >&2; return 1; }
}
fuzz() {
	amount=1500x all=held
	[ $form = short ] || amount=30m
	go test -c -fuzz Fuzz -o "$work/fuzz" . # instrumented: it counts what it reaches
	for target in $("$work/fuzz" -test.list '^Fuzz' | grep '^Fuzz'); do
		echo "== $target, $amount" >&2
		verdict=held
		if ! "$work/fuzz" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime $amount -test.fuzzminimizetime 10x -test.fuzzcachedir "$work/corpus" >"$work/out" 2>&1; then
			# The fuzzer also fails, with nothing to show, when its time ends while it makes an input shorter.
			if grep -q 'Failing input' "$work/out" || ! grep -q 'context deadline exceeded' "$work/out"; then
				verdict=FAILED all=FAILED
				cat "$work/out" >&2
			fi
		fi
		tried=$(sed -n 's/^fuzz: elapsed: .*execs: \([0-9]*\) .*/\1/p' "$work/out" | tail -n 1)
		echo "| fuzz | $target, $amount | ${tried:-0} inputs | $verdict |" >>"$work/Fuzz"
	done
	[ $all = FAILED ] || rm "$work/unproved"
}
if echo Fuzz | grep -q "$only"; then # beside the parts that wait for the disk
	touch "$work/unproved"
	fuzz &
fi
for part in Crash Fault Load Hostile; do
	echo "$part" | grep -q "$only" || continue
	case $part in
	Crash | Fault) prove $part || failed=1 ;;
	*)
		wait # for quiet
		prove $part || prove $part || failed=1 # it measures time, which a neighbour can spoil: what fails is tried once more, and seen
		;;
	esac
done
wait
echo '| part | what was done | what was found | |'
echo '|---|---|---|---|'
cat "$work"/Crash "$work"/Fault "$work"/Load "$work"/Hostile "$work"/Fuzz 2>/dev/null | grep '^| '
[ ! -e "$work/unproved" ] || failed=1
exit $failed
