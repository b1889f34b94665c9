package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTableIsGenerated: the table is what the results make, and the results are merged.
func TestTableIsGenerated(t *testing.T) {
	b, err := os.ReadFile("results.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	results, err := Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var merged bytes.Buffer
	if err := Write(&merged, Merge(results)); err != nil || merged.String() != string(b) {
		t.Errorf("results.jsonl is not as merge writes it: %v", err)
	}
	got, err := os.ReadFile("../CONFORMANCE.md")
	if err != nil || string(got) != Markdown(results) {
		t.Errorf("CONFORMANCE.md is not what results.jsonl makes (go run ./datapath/conformance/merge): %v", err)
	}
}

// fake is a test that ends when told to.
type fake struct {
	TB
	failed, skipped bool
	errors          int
	end             func()
}

func (f *fake) Helper()               {}
func (f *fake) Name() string          { return "TestFake" }
func (f *fake) Failed() bool          { return f.failed }
func (f *fake) Skipped() bool         { return f.skipped }
func (f *fake) Cleanup(end func())    { f.end = end }
func (f *fake) Errorf(string, ...any) { f.errors++ }

func TestRan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	t.Setenv(File, path)
	for _, f := range []*fake{{failed: true}, {}, {skipped: true}} {
		Ran(f, KernelSantui, "verify", "stress-al")
		f.end()
		if f.errors > 0 {
			t.Error("errors")
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	results, err := Read(bytes.NewReader(b))
	if err != nil || len(results) != 4 || results[0].Passed || !results[2].Passed || results[1].Scenario != "stress-al" {
		t.Fatalf("%+v, %v", results, err)
	}
	merged := Merge(results)
	if len(merged) != 2 || !merged[0].Passed || merged[0].Scenario != "verify" {
		t.Errorf("%+v", merged)
	}
	bad := fake{}
	if Ran(&bad, SantuiSantui, "no such thing"); bad.errors == 0 {
		t.Error("an unknown scenario passes")
	}
	if _, err := Read(strings.NewReader(`{"scenario":"x","pairing":"santui with santui","test":"y"}`)); err == nil {
		t.Error("an unknown scenario can be read")
	}
}

func TestCells(t *testing.T) {
	at := time.Unix(0, 0).UTC()
	results := Merge([]Result{
		{"verify", SantuiSantui, "A", true, at}, {"verify", SantuiSantui, "B", false, at}, {"verify", SantuiSantui, "B", true, at.Add(time.Hour)},
		{"fencing", SantuiKernel, "C", false, at}, {"fencing", SantuiKernel, "D", true, at},
	})
	for _, c := range []struct {
		scenario string
		pairing  Pairing
		want     string
	}{{"verify", SantuiSantui, "passed"}, {"fencing", SantuiKernel, "**failed**"}, {"fencing", KernelSantui, "not run"}, {"disk-in-place", SantuiSantui, "does not apply: no kernel takes part"}} {
		for _, s := range Scenarios {
			if got := cell(s, c.pairing, results); s.Name == c.scenario && got != c.want {
				t.Errorf("%s, %s: %s", c.scenario, c.pairing, got)
			}
		}
	}
}
