package main

// The proof, which deploy/prove.sh runs and shows as one table: faults, crashes, load and attacks against the real program
// (this test binary, run again). Each TestProve* is skipped unless -prove names a form: it takes minutes and wants the machine for itself.

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

var prove = flag.String("prove", "", "run the proof: `short` for CI, long for a release")

// proving skips t unless the proof was asked for, and tells whether its long form was.
func proving(t *testing.T) (long bool) {
	t.Helper()
	if *prove != "short" && *prove != "long" {
		t.Skip("part of the proof: sh deploy/prove.sh")
	}
	return *prove == "long"
}

// tally is how often each of some things happened; it reads as "3 errors, 1 all there".
type tally map[string]int

func (c tally) String() string {
	list := []string{}
	for _, what := range slices.Sorted(maps.Keys(c)) {
		list = append(list, fmt.Sprintf("%d %s", c[what], what))
	}
	return strings.Join(list, ", ")
}

// proved prints one row of the proof's table: its part, what was done, what was found.
func proved(t *testing.T, part, what, found string, args ...any) {
	t.Helper()
	verdict := "held"
	if t.Failed() {
		verdict = "FAILED"
	}
	fmt.Printf("\n| %s | %s | %s | %s |\n", part, what, fmt.Sprintf(found, args...), verdict)
}
