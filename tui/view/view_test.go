package view_test

import (
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/view"
	"pgregory.net/rapid"
)

func derive(s scene.Scene) view.Pair { return view.Derive("store-1", "", s.Inputs, scene.Now) }

func TestScenes(t *testing.T) {
	blockedInputs := scene.InSync()
	list := scene.Checks(scene.Failed(proto.CheckBusyDevice, "otter", "loop3 holds /srv/store/disk.img"))
	blockedInputs.Inputs[1].Snapshot.Readiness = []proto.CheckList{list}
	second := scene.InSync() // the checks are of another resource: nobody has looked at this one
	other := second.Inputs[1].Snapshot.Readiness[0]
	other.Resource = "r1"
	second.Inputs[1].Snapshot.Readiness = []proto.CheckList{other}
	forked := scene.Moved()
	forked.Inputs[0] = scene.InSync().Inputs[0]
	for _, c := range []struct {
		scene                        scene.Scene
		primary, to, check, failover string
		next                         string
		level                        view.Level
	}{
		{scene.InSync(), "otter", "weasel", "", "", "ready: f moves r0 from otter to weasel", view.Good},
		{scene.Syncing(0.452), "otter", "weasel", "", "weasel is Inconsistent (full sync 45%)", "failover not possible now: weasel is Inconsistent (full sync 45%)", view.Warn},
		{scene.StalePrimary(), "otter", "weasel", "otter does not answer", "otter does not answer", "F takes over on weasel", view.Alert},
		{scene.NewPair(), "", "", "no node is Primary", "no node is Primary", "no copy is declared good", view.Warn},
		{scene.SplitBrain(), "otter", "weasel", "", "replication is StandAlone", "split brain", view.Alert},
		{scene.Running(), "", "", "no node is Primary", "no node is Primary", "a attaches", view.Plain},
		{scene.Moved(), "weasel", "otter", "", "", "ready: f moves r0 from weasel to otter", view.Good},
		{scene.Waiting(), "", "", "otter and weasel do not answer", "otter and weasel do not answer", "do not answer", view.Warn},
		{blockedInputs, "otter", "weasel", "", "loop3 holds /srv/store/disk.img", "loop3 holds", view.Warn},
		{second, "otter", "weasel", "", "has not evaluated", "failover not possible now: the agent of weasel has not evaluated", view.Warn},
		{forked, "otter", "weasel", "both nodes say they are Primary", "both nodes", "both nodes say they are Primary", view.Alert},
	} {
		p := derive(c.scene)
		if p.Primary != c.primary || p.To != c.to {
			t.Errorf("%s: primary %q, to %q", c.scene.Name, p.Primary, p.To)
		}
		if !fits(p.Check, c.check) || !fits(p.Failover, c.failover) {
			t.Errorf("%s: check %q, failover %q", c.scene.Name, p.Check, p.Failover)
		}
		if !fits(p.Next.Text, c.next) || p.Next.Level != c.level {
			t.Errorf("%s: next %+v", c.scene.Name, p.Next)
		}
	}
}

// TestColdPair: where both nodes have booted and none is Primary, the key brings the service up, on the node that had it last.
func TestColdPair(t *testing.T) {
	cold := func(change func(otter, weasel *proto.Resource)) view.Pair {
		s := scene.InSync()
		a, b := &s.Inputs[0].Snapshot.Resources[0], &s.Inputs[1].Snapshot.Resources[0]
		a.Role, a.PeerRole, b.Role, b.PeerRole = proto.Secondary, proto.Secondary, proto.Secondary, proto.Secondary
		a.WasPrimary, b.WasPrimary = time.Time{}, time.Time{}
		change(a, b)
		return derive(s)
	}
	p := cold(func(_, b *proto.Resource) { b.WasPrimary = scene.Now })
	if !p.Cold || p.From != "otter" || p.To != "weasel" || p.Check != "" || p.Failover != "" || p.Drill == "" || p.Next.Level != view.Warn ||
		p.Next.Text != "no node is Primary: f brings r0 up on weasel, which was Primary last" {
		t.Errorf("weasel last: %+v, check %q, failover %q, drill %q", p.Next, p.Check, p.Failover, p.Drill)
	}
	if p = cold(func(a, b *proto.Resource) { a.WasPrimary, b.WasPrimary = scene.Now, scene.Now.Add(-time.Hour) }); p.To != "otter" {
		t.Errorf("otter last: to %s", p.To)
	}
	if p = cold(func(a, _ *proto.Resource) { a.DiskState = proto.Outdated }); p.To != "weasel" || strings.Contains(p.Next.Text, "last") {
		t.Errorf("otter is Outdated: to %s, %s", p.To, p.Next.Text)
	}
	if p = cold(func(_, b *proto.Resource) { b.WasPrimary, b.DiskState = scene.Now, proto.Outdated }); !fits(p.Failover, "weasel is Outdated") || !fits(p.Next.Text, "none can be made Primary now: weasel is Outdated") {
		t.Errorf("weasel was last and is Outdated: %q, %q", p.Failover, p.Next.Text)
	}
	if p = cold(func(a, b *proto.Resource) { a.DiskState, b.DiskState = proto.Inconsistent, proto.Inconsistent }); p.Cold || p.Check == "" {
		t.Errorf("no copy is good: cold %v, check %q", p.Cold, p.Check)
	}
}

// fits compares a prefix or part, and emptiness exactly.
func fits(got, want string) bool {
	return (got == "") == (want == "") && strings.Contains(got, want)
}

func TestOldValuesAreMarkedAndNeverGood(t *testing.T) {
	p := derive(scene.StalePrimary())
	n, _ := p.Node("otter")
	for _, f := range p.Facts(n, time.UTC)[1:] {
		if !f.Old || f.Level != view.Plain || f.Value != "-" && f.OldMark() == "" {
			t.Errorf("%+v", f)
		}
	}
	if n.Title() != "STALE 42 s otter, was PRIMARY" {
		t.Errorf("title %q", n.Title())
	}
}

func TestMeaningTellsTheTwoSilencesApart(t *testing.T) {
	gone, here := strings.Join(derive(scene.StalePrimary()).Meaning, " "), strings.Join(derive(scene.CutOffHere()).Meaning, " ")
	if !strings.Contains(gone, "STILL PRIMARY") || strings.Contains(here, "STILL PRIMARY") || !strings.Contains(here, "still reaches it") {
		t.Errorf("gone: %s\nhere: %s", gone, here)
	}
}

func TestDangerOrdersResources(t *testing.T) {
	s := scene.InSync()
	for _, in := range s.Inputs {
		bad := in.Snapshot.Resources[0]
		bad.Name, bad.Conn, bad.DiskState = "r1", proto.StandAlone, proto.Outdated
		in.Snapshot.Resources = append(in.Snapshot.Resources, bad)
	}
	p := derive(s)
	if p.Resource != "r1" || strings.Join(p.Resources, " ") != "r1 r0" {
		t.Errorf("shows %s of %v", p.Resource, p.Resources)
	}
	if p := view.Derive("", "r0", s.Inputs, scene.Now); p.Resource != "r0" || p.Name != "store-1" || p.Danger != 0 {
		t.Errorf("%s of %s, danger %d", p.Resource, p.Name, p.Danger)
	}
}

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		view.Bytes(0): "0 B", view.Bytes(1 << 20): "1.00 MiB", view.Bytes(1023 << 10): "1.00 MiB", view.Bytes(5<<40 + 1<<39): "5.50 TiB",
		view.Of(1<<39, 2<<40): "0.50 / 2.00 TiB", view.Speeds(412<<20, 398<<20): "412 (398) MiB/s", view.Clock(2832): "0:47:12", view.Clock(-1): "unknown",
		view.Clock(360000): "100:00:00", view.Seconds(0.44): "0.4 s", view.Seconds(245): "4:05 min", view.Age(42 * time.Second): "42 s", view.Age(3 * time.Minute): "3 min",
		view.Percent(0.99999): "99.9%", view.Percent(1): "100.0%", view.Command([]string{"umount", "/srv/a b", "", "it's"}): `umount '/srv/a b' '' 'it'\''s'`,
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAnythingCanBeDerived(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []view.Input
		for _, name := range []string{"otter", "weasel"}[:rapid.IntRange(0, 2).Draw(t, "nodes")] {
			i := view.Input{Node: name, LinkUp: rapid.Bool().Draw(t, "up"), At: scene.Now}
			if rapid.Bool().Draw(t, "heard") {
				i.Snapshot = &proto.Snapshot{Node: name}
				for range rapid.IntRange(0, 2).Draw(t, "resources") {
					i.Snapshot.Resources = append(i.Snapshot.Resources, proto.Resource{
						Name: rapid.SampledFrom([]string{"r0", "r1"}).Draw(t, "name"), Role: proto.Role(rapid.Uint8Range(0, 4).Draw(t, "role")),
						Conn: proto.ConnState(rapid.Uint8Range(0, 30).Draw(t, "conn")), DiskState: proto.DiskState(rapid.Uint8Range(0, 10).Draw(t, "disk")),
						Sync: rapid.SampledFrom([]*proto.Sync{nil, {}, {Total: 10, Left: 20}}).Draw(t, "sync")})
				}
			}
			in = append(in, i)
		}
		p := view.Derive("", "", in, scene.Now)
		for _, n := range p.Nodes {
			_ = p.Facts(n, time.UTC)
		}
		if p.Next.Text == "" {
			t.Fatal("nothing to say")
		}
		if len(p.Stale()) > 0 && (p.Failover == "" || p.Check == "") {
			t.Fatal("a failover past a silent node")
		}
	})
}

func TestWaysOut(t *testing.T) {
	early := scene.StalePrimary()
	early.Inputs[1].Snapshot.PeerLink.Up = true
	dead := scene.TookOver()
	dead.Inputs[0].LinkUp = false
	for _, c := range []struct {
		name                            string
		scene                           scene.Scene
		takeover, rejoin, resolve, undo string // "" is possible
		to                              string // of whichever is
	}{
		{"in sync", scene.InSync(), "both agents answer", "the nodes replicate", "the nodes replicate", "there is no operation", ""},
		{"stale", scene.StalePrimary(), "", "otter does not answer", "otter does not answer", "there is no operation", "weasel"},
		{"cut off here", scene.CutOffHere(), "still reaches", "otter does not answer", "otter does not answer", "there is no operation", ""},
		{"the peer's link is up", early, "still reaches", "otter does not answer", "otter does not answer", "there is no operation", ""},
		{"split", scene.SplitBrain(), "both agents answer", "must be given up", "", "there is no operation", "otter"},
		{"took over", scene.TookOver(), "both agents answer", "", "no split brain", "no operation was left", "weasel"},
		{"took over, peer still away", dead, "Primary already", "otter does not answer", "otter does not answer", "no operation was left", ""},
		{"orphan", scene.Orphan(), "both agents answer", "the nodes replicate", "the nodes replicate", "", ""},
		{"running", scene.Running(), "both agents answer", "under way", "under way", "is not over", ""},
		{"waiting", scene.Waiting(), "no agent answers", "do not answer", "do not answer", "there is no operation", ""},
		{"nothing", scene.Scene{}, "only one node", "only one node", "only one node", "there is no operation", ""},
	} {
		p := derive(c.scene)
		for _, x := range []struct{ what, got, want string }{{"takeover", p.Takeover.Why, c.takeover}, {"rejoin", p.Rejoin.Why, c.rejoin},
			{"resolve", p.Resolve.Why, strings.Replace(c.resolve, "no split brain", "there is a split brain", 1)}, {"undo", p.Undo, c.undo}} {
			if !fits(x.got, x.want) {
				t.Errorf("%s: %s is %q, want %q", c.name, x.what, x.got, x.want)
			}
		}
		for _, w := range []view.Way{p.Takeover, p.Rejoin, p.Resolve} {
			if w.Why == "" && (w.To != c.to || w.From == w.To || w.From == "") {
				t.Errorf("%s: %+v", c.name, w)
			}
		}
	}
}

func TestMarks(t *testing.T) {
	for want, s := range map[string]scene.Scene{"PRIMARY  otter  SPLIT BRAIN": scene.SplitBrain(), "SECONDARY  otter  MUST REJOIN": scene.TookOver(), "PRIMARY  otter": scene.InSync()} {
		if got := derive(s).Nodes[0].Title(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if m := strings.Join(derive(scene.TookOver()).Meaning, " "); !strings.Contains(m, "power cable pulled") || !strings.Contains(m, "J lets otter follow weasel") {
		t.Errorf("meaning %q", m)
	}
}

// TestVerifiedNamesTheWayOut: what the operator is told to type must work as it stands.
func TestVerifiedNamesTheWayOut(t *testing.T) {
	s := scene.InSync()
	s.Inputs[0].Snapshot.Resources[0].Verify = &proto.Verify{By: "weasel", Ended: scene.Now, Checked: 1 << 20, Size: 1 << 20, Differ: 4096, Complete: true}
	got := derive(s).Verified(time.UTC)
	if got == nil || got.Level != view.Alert || !strings.Contains(got.Text, "santui verify repair --from NODE --confirm store-1") {
		t.Errorf("%+v", got)
	}
}

// TestASilentAgentHidesNoSplitBrain: the agents reach each other, but the nodes do not replicate.
func TestASilentAgentHidesNoSplitBrain(t *testing.T) {
	s := scene.SplitBrain()
	s.Inputs[0].LinkUp, s.Inputs[0].At = false, scene.Now.Add(-time.Minute)
	text := strings.Join(derive(s).Meaning, " ")
	if strings.Contains(text, "at work") || !strings.Contains(text, "do not replicate: split brain") {
		t.Error(text)
	}
}
