package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestFailedOperations: in a group, an operation that fails before or after its first write leaves nothing behind, and the
// others are committed; whether a savepoint was there or the group had to run twice.
func TestFailedOperations(t *testing.T) {
	refused := errors.New("refused")
	for _, c := range []struct {
		name string
		fail func(*writeTx) error
	}{
		{"before its first write", func(*writeTx) error { return refused }},
		{"after a write", func(tx *writeTx) error {
			tx.bytes += 1000
			_, err := tx.exec("INSERT INTO notes (name, at, text) VALUES ('bad', unixepoch(), 'bad')")
			return errors.Join(err, refused)
		}},
		{"after a row that was deleted", func(tx *writeTx) error {
			var name string
			return errors.Join(tx.row("DELETE FROM notes WHERE name = 'kept' RETURNING name", nil, &name), refused)
		}},
		{"by a constraint after a write", func(tx *writeTx) error {
			tx.exec("INSERT INTO notes (name, at, text) VALUES ('bad', unixepoch(), 'bad')")
			_, err := tx.exec("INSERT INTO notes (name, at, text) VALUES ('kept', unixepoch(), 'again')")
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := start(t).store
			if err := st.note("kept", "kept"); err != nil {
				t.Fatal(err)
			}
			used := st.used.Load()
			put := func(name string) func(*writeTx) error {
				return func(tx *writeTx) error {
					tx.bytes++
					_, err := tx.exec("INSERT INTO notes (name, at, text) VALUES (?, ?, ?)", name, st.now().Unix(), name)
					return err
				}
			}
			var group []*operation
			for _, run := range []func(*writeTx) error{put("a"), c.fail, put("b")} {
				group = append(group, &operation{run: run, err: make(chan error, 1)})
			}
			// In the place of the writer's goroutine, so that the three are one group for certain.
			if err := st.submit(&operation{bare: true, run: func(*writeTx) error { st.commit(group); return nil }}); err != nil {
				t.Fatal(err)
			}
			if a, bad, b := <-group[0].err, <-group[1].err, <-group[2].err; a != nil || bad == nil || b != nil {
				t.Errorf("answers %v, %v, %v", a, bad, b)
			}
			list, err := st.notes()
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, line := range list {
				var at, text string
				fmt.Sscan(line, &at, &text)
				names = append(names, text)
			}
			slices.Sort(names)
			if !slices.Equal(names, []string{"a", "b", "kept"}) {
				t.Errorf("stored: %q", names)
			}
			if got := st.used.Load() - used; got != 2 {
				t.Errorf("the totals moved by %d, not 2", got)
			}
		})
	}
}
