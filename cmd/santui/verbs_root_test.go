//go:build root

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"example.com/santui/cmd/internal/demo"
	"example.com/santui/proto"
)

// TestVerbs drills a pair of real agents on this machine, and demands that the other verbs refuse what does not hold,
// without changing anything.
func TestVerbs(t *testing.T) {
	r := newRig(t, 32<<20, "1G")
	if err := r.StartSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(t.Context(), time.Minute, "both copies are UpToDate", func(a, b proto.Snapshot) bool {
		return a.Resources[0].PeerDisk == proto.UpToDate && b.Resources[0].DiskState == proto.UpToDate && a.Resources[0].Conn == proto.Connected
	}); err != nil {
		t.Fatal(err)
	}
	r.run(t, 3, "drill --to weasel --confirm demo", "SENTINEL", "nothing is mounted")
	if err := r.MakeFS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WriteFile("otter", "file", 1); err != nil {
		t.Fatal(err)
	}
	r.run(t, 4, "drill --to weasel", "--confirm")
	r.run(t, 4, "drill --to weasel --confirm dem", "--confirm demo")
	r.run(t, 0, "drill --to weasel --dry-run", "both agents accept every step")
	drilled(t, r)
	for _, refused := range []struct {
		args string
		exit int
		word string
	}{
		{"takeover --to weasel --confirm demo --peer-is-off surely", 3, "the agent of otter answers"},
		{"check --to weasel --verb takeover", 3, "PEER-GONE"},
		{"resolve --discard otter --confirm demo", 3, "FORKED"},
		{"rejoin --to weasel", 3, "only a Secondary follows"},
		{"undo 20200101-000000-0000 --confirm demo", 2, "not in this node's journal"},
		{"failover --to weasel --confirm demo --plan 000000000000", 5, "changed"},
	} {
		r.run(t, refused.exit, refused.args, refused.word)
		r.on(t, "otter")
	}
	r.run(t, 0, "rejoin", "already", "weasel follows otter again")
	for _, c := range proto.VerbCodes {
		r.run(t, 0, "explain "+c.Name, c.Title, c.Remedy)
	}
}

// drilled drills and looks at what stays of it: nothing but the report.
func drilled(t *testing.T, r *rig) {
	t.Helper()
	o := decode[proto.Op](t, r, 0, "drill --to weasel --confirm demo")
	if len(o.Outages) != 2 || !strings.Contains(o.Outcome, "all as written") {
		t.Fatalf("%s, outages %+v", o.Outcome, o.Outages)
	}
	for i, x := range o.Outages {
		if x.To != []string{"weasel", "otter"}[i] || x.Service <= 0 || x.Storage <= 0 || x.Storage > x.Service+2 {
			t.Errorf("outage %+v", x)
		}
	}
	r.on(t, "otter")
	entries, err := os.ReadDir(r.inside(t, demo.Nodes[0], r.Mount))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "drill") {
			t.Errorf("%s is left behind", e.Name())
		}
	}
	r.run(t, 0, "report "+o.ID, "of=", "all as written", "storage")
	r.run(t, 0, "report", "drill  2      service", "drill  2      storage", "median")
	r.run(t, 3, "undo "+o.ID+" --confirm demo", "nothing left to decide")
}
