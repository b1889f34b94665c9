package conformance

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// File is the environment variable that names the file to which tests append what they showed. Without it they append
// nothing.
const File = "SANTUI_CONFORMANCE"

// TB is the part of testing.TB that Ran needs.
type TB interface {
	Helper()
	Name() string
	Failed() bool
	Skipped() bool
	Cleanup(func())
	Errorf(format string, args ...any)
}

// Result is a line of the file: what one test showed of one scenario.
type Result struct {
	Scenario string    `json:"scenario"`
	Pairing  Pairing   `json:"pairing"`
	Test     string    `json:"test"`
	Passed   bool      `json:"passed"`
	At       time.Time `json:"at"`
}

// Ran says that a test shows scenarios in a pairing. What came out is appended when the test has ended; a skipped test
// showed nothing. Call it where the test is about to begin, so that a failure counts.
func Ran(t TB, pairing Pairing, scenarios ...string) {
	t.Helper()
	for _, name := range scenarios {
		if !known(name) {
			t.Errorf("conformance: there is no scenario %q", name)
		}
	}
	path := os.Getenv(File)
	if path == "" {
		return
	}
	t.Cleanup(func() {
		if t.Skipped() {
			return
		}
		var lines []byte
		for _, name := range scenarios {
			b, err := json.Marshal(Result{name, pairing, t.Name(), !t.Failed(), time.Now().UTC().Truncate(time.Second)})
			if err != nil {
				t.Errorf("conformance: %v", err)
				return
			}
			lines = append(append(lines, b...), '\n')
		}
		if err := appendTo(path, lines); err != nil {
			t.Errorf("conformance: %v", err)
		}
	})
}

// appendTo writes whole lines in one call, so that several test programs may write to one file.
func appendTo(path string, lines []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Close())
}

// Read reads results, one a line.
func Read(r io.Reader) ([]Result, error) {
	var out []Result
	lines := bufio.NewScanner(r)
	for nr := 1; lines.Scan(); nr++ {
		var x Result
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			return nil, fmt.Errorf("line %d: %w", nr, err)
		}
		if !known(x.Scenario) || !slices.Contains(Pairings, x.Pairing) || x.Test == "" {
			return nil, fmt.Errorf("line %d: scenario %q, pairing %q, test %q", nr, x.Scenario, x.Pairing, x.Test)
		}
		out = append(out, x)
	}
	return out, lines.Err()
}

// Merge keeps the newest result of each test for each scenario and pairing, in the order of the table.
func Merge(results []Result) []Result {
	type key struct {
		scenario string
		pairing  Pairing
		test     string
	}
	newest := map[key]Result{}
	for _, x := range results {
		k := key{x.Scenario, x.Pairing, x.Test}
		if old, ok := newest[k]; !ok || !x.At.Before(old.At) {
			newest[k] = x
		}
	}
	out := make([]Result, 0, len(newest))
	for _, x := range newest {
		out = append(out, x)
	}
	row := func(x Result) int {
		return slices.IndexFunc(Scenarios, func(s Scenario) bool { return s.Name == x.Scenario })*len(Pairings) + slices.Index(Pairings, x.Pairing)
	}
	slices.SortFunc(out, func(a, b Result) int {
		if d := row(a) - row(b); d != 0 {
			return d
		}
		return strings.Compare(a.Test, b.Test)
	})
	return out
}

// Write writes results, one a line.
func Write(w io.Writer, results []Result) error {
	enc := json.NewEncoder(w)
	for _, x := range results {
		if err := enc.Encode(x); err != nil {
			return err
		}
	}
	return nil
}
