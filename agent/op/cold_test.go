package op

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// outage is both nodes losing their power while otter is Primary, and coming back: both are Secondary, both agents remember.
func outage(g *rig) {
	g.t.Helper()
	o, err := g.otter.Observe(g.t.Context(), proto.ObserveRequest{Resource: "r0"})
	if err != nil || g.r.journal.SeePeer(o) != nil {
		g.t.Fatal(err)
	}
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	m := g.w.nodes["otter"]
	m.memory = &proto.Memory{Stack: lasting(o.Resource.Stack), Device: o.Resource.Device, At: time.Now().Add(-time.Hour), Primary: time.Now().Add(-2 * time.Hour)}
	m.role, m.active, m.mounted, m.locked = proto.Secondary, false, false, nil
	m.run(false)
}

// dark says whether the service is nowhere up and no node is Primary.
func dark(g *rig) string {
	for _, m := range g.w.nodes {
		if m.role != proto.Secondary || m.active || m.mounted || m.address || m.script || m.unit || m.export {
			return g.w.home()
		}
	}
	return ""
}

func (g *rig) look(t *testing.T) proto.PlanReply {
	t.Helper()
	r, err := g.r.Look(t.Context(), proto.CheckRequest{Verb: proto.VerbFailover, Resource: "r0"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(p proto.Plan) string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, string(s.Kind)+"@"+s.Node)
	}
	return strings.Join(out, " ")
}

func check(t *testing.T, r proto.PlanReply, code string, want proto.CheckResult, words string) {
	t.Helper()
	i := slices.IndexFunc(r.Checks.Checks, func(c proto.Check) bool { return c.Code == code })
	if i < 0 {
		t.Errorf("no %s among %+v", code, r.Checks.Checks)
		return
	}
	c := r.Checks.Checks[i]
	if text := strings.Join(c.Evidence, "\n"); c.Result != want || !strings.Contains(text, words) {
		t.Errorf("%s is %s, want %s: %q, want %q", code, c.Result, want, text, words)
	}
}

const wholeUp = "attest@otter promote@weasel activate@weasel mount@weasel"

// TestColdFailover brings everything up where nobody is Primary, and says who knows what that is.
func TestColdFailover(t *testing.T) {
	g := newRig(t)
	g.w.equip()
	outage(g)
	r := g.look(t)
	if got := kinds(r.Plan); got != wholeUp+" export@weasel start-unit@weasel start-script@weasel add-address@weasel" {
		t.Errorf("steps %s", got)
	}
	if text := strings.Join(r.Plan.Effect, "\n"); !strings.Contains(text, "storage, /mnt come up: what otter had as Primary, by its own agent's memory of ") {
		t.Errorf("the plan says\n%s", text)
	}
	check(t, r, proto.CheckLastStack, proto.CheckOK, "VG storage with 2 LV, ext4 on /mnt: what otter had")
	check(t, r, proto.CheckLastRole, proto.CheckWarn, "otter was Primary last, since ")
	o := g.end(t, request(proto.VerbFailover))
	if o.State != proto.OpDone || g.w.home() != "weasel" {
		t.Fatalf("%s, service: %s", o.Outcome, g.w.home())
	}
	if len(o.Outages) > 0 || o.Outage > 0 {
		t.Errorf("it measured an outage that began before it: %+v", o.Outages)
	}
}

// TestColdMemories: the newest knowledge counts, whoever has it; without any, nothing is brought up.
func TestColdMemories(t *testing.T) {
	had := func(ago time.Duration, target string) *proto.Memory {
		at := time.Now().Add(-ago)
		return &proto.Memory{Device: "/dev/drbd0", At: at, Primary: at, Stack: proto.Stack{Mounts: []proto.Mount{{Source: "/dev/drbd0", Target: target, FSType: "ext4"}}}}
	}
	forget := func(g *rig) {
		g.w.nodes["otter"].memory = nil
		if err := g.r.journal.Remember("r0", func(k *Known) { *k = Known{Resource: "r0"} }); err != nil {
			g.t.Fatal(err)
		}
	}
	moved := func(g *rig, ago time.Duration) {
		mount := proto.Mount{Source: "/dev/drbd0", Target: "/by-op", FSType: "ext4"}
		err := g.r.journal.Put(proto.Op{ID: "20200101-1", Rev: 1, State: proto.OpDone, Runner: "weasel", Ended: time.Now().Add(-ago),
			Plan:  proto.Plan{Verb: proto.VerbFailover, Resource: "r0", From: "otter", To: "weasel"},
			Steps: []proto.StepStatus{{Step: proto.Step{Kind: proto.StepMount, Node: "weasel", Mount: &mount}, Result: proto.StepResult{State: proto.StepDone}}}})
		if err != nil {
			g.t.Fatal(err)
		}
	}
	const only = "attest@otter promote@weasel"
	for _, tt := range []struct {
		name    string
		prepare func(*rig)
		steps   string
		mounts  string
		source  string
		result  proto.CheckResult
	}{
		{"the peer has forgotten", func(g *rig) { g.w.nodes["otter"].memory = nil }, wholeUp, "/mnt", "what weasel saw on otter", proto.CheckOK},
		{"here last", func(g *rig) { g.w.nodes["weasel"].memory = had(time.Minute, "/here") }, only + " mount@weasel", "/here", "what weasel had as Primary", proto.CheckOK},
		{"there last", func(g *rig) { g.w.nodes["weasel"].memory = had(3*time.Hour, "/here") }, wholeUp, "/mnt", "what otter had as Primary", proto.CheckOK},
		{"an operation last", func(g *rig) { moved(g, time.Minute) }, only + " mount@weasel", "/by-op", "what operation 20200101-1 brought up on weasel", proto.CheckOK},
		{"an operation before", func(g *rig) { moved(g, 3*time.Hour) }, wholeUp, "/mnt", "what otter had as Primary", proto.CheckOK},
		{"nothing was mounted", func(g *rig) { g.w.nodes["otter"].memory.Stack = proto.Stack{} }, only, "", "nothing mounted, no volume group active: what otter had", proto.CheckOK},
		{"nobody knows", forget, only, "", "neither agent has seen what was on /dev/drbd0", proto.CheckWarn},
		{"fstab names a volume", func(g *rig) {
			forget(g)
			g.w.nodes["weasel"].fstab = []proto.FstabEntry{{Source: "/dev/storage/test", Target: "/mnt", FSType: "ext4", Options: "noauto"}}
		}, only, "", "fstab of weasel has /dev/storage/test at /mnt; whether that is on /dev/drbd0 cannot be known", proto.CheckWarn},
		{"fstab names the device", func(g *rig) {
			forget(g)
			g.w.nodes["weasel"].fstab = []proto.FstabEntry{{Source: "/dev/drbd0", Target: "/listed", FSType: "ext4", Options: "noauto,x-systemd.automount,noatime"}}
		}, only + " mount@weasel", "/listed", "fstab of weasel, which names /dev/drbd0", proto.CheckOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			outage(g)
			tt.prepare(g)
			r := g.look(t)
			check(t, r, proto.CheckLastStack, tt.result, tt.source)
			var mounts []string
			for _, s := range r.Plan.Steps {
				if s.Kind == proto.StepMount {
					mounts = append(mounts, s.Mount.Target)
				}
			}
			if got := kinds(r.Plan); got != tt.steps || strings.Join(mounts, " ") != tt.mounts {
				t.Errorf("steps %s, mounts %q, want %s, %s", got, mounts, tt.steps, tt.mounts)
			}
		})
	}
}

// TestColdVetoes: what is no usable copy is not made Primary, and the node that was Primary last is the one to name.
func TestColdVetoes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*rig)
		code    string
		result  proto.CheckResult
		words   string
	}{
		{"outdated", func(g *rig) { g.w.nodes["weasel"].disk = proto.Outdated }, proto.CheckDisk, proto.CheckFail, "/dev/md3 on weasel is Outdated"},
		{"consistent", func(g *rig) { g.w.nodes["weasel"].disk = proto.Consistent }, proto.CheckDisk, proto.CheckFail, "is Consistent"},
		{"not connected", func(g *rig) { g.w.disconnect(proto.WFConnection) }, proto.CheckLink, proto.CheckFail, "WFConnection"},
		{"otter last", func(*rig) {}, proto.CheckLastRole, proto.CheckWarn, "otter was Primary last"},
		{"weasel last", func(g *rig) { g.w.nodes["weasel"].memory = &proto.Memory{Primary: time.Now()} }, proto.CheckLastRole, proto.CheckOK, "weasel was Primary last"},
		{"otter's leftovers", func(g *rig) { g.w.nodes["otter"].left = true }, proto.CheckLeftovers, proto.CheckWarn, "/mnt on otter still shows"},
		{"its own leftovers", func(g *rig) { g.w.nodes["weasel"].left = true }, proto.CheckMountPoint, proto.CheckFail, "/mnt has /dev/mapper/storage-test mounted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			outage(g)
			tt.prepare(g)
			check(t, g.look(t), tt.code, tt.result, tt.words)
			_, err := g.r.Start(t.Context(), request(proto.VerbFailover))
			if blocked := err != nil; blocked != (tt.result == proto.CheckFail) {
				t.Errorf("started: %v", err)
			}
			if err == nil {
				g.wait(t)
			}
		})
	}
}

// TestShutdownIsNotForgetting: what a node takes down on its way off is still what shall be brought up again; what stays away
// for long is not.
func TestShutdownIsNotForgetting(t *testing.T) {
	j, err := OpenJournal(filepath.Join(t.TempDir(), "ops"), "weasel")
	if err != nil {
		t.Fatal(err)
	}
	o := proto.Observation{Resource: proto.Resource{Name: "r0", Role: proto.Primary, Device: "/dev/drbd0"}}
	mount := func(targets ...string) {
		o.Resource.Stack.Mounts = nil
		for _, m := range targets {
			o.Resource.Stack.Mounts = append(o.Resource.Stack.Mounts, proto.Mount{Source: "/dev/drbd0", Target: m})
		}
	}
	see := func(want ...string) {
		t.Helper()
		for whose, f := range map[string]func(proto.Observation) error{"peer": j.SeePeer, "own": j.SeeOwn} {
			if err := f(o); err != nil {
				t.Fatal(err)
			}
			k := j.Known("r0")
			st := k.Own.Stack
			if whose == "peer" {
				st = k.Peer
			}
			if got := targets(st.Mounts); !slices.Equal(got, want) {
				t.Errorf("%s: remembers %q, want %q", whose, got, want)
			}
		}
	}
	mount("/a", "/b")
	see("/a", "/b")
	mount("/a")
	see("/a", "/b")
	mount()
	see("/a", "/b")
	mount("/a", "/b", "/c")
	see("/a", "/b", "/c")
	mount("/c")
	see("/a", "/b", "/c")
	for key := range j.shrunk {
		j.shrunk[key] = time.Now().Add(-shrinkAfter)
	}
	see("/c")
}

// TestNewTurnIsNews: the same stack in a later turn as Primary is newer knowledge.
func TestNewTurnIsNews(t *testing.T) {
	j, err := OpenJournal(filepath.Join(t.TempDir(), "ops"), "weasel")
	if err != nil {
		t.Fatal(err)
	}
	o := proto.Observation{Resource: proto.Resource{Name: "r0", Role: proto.Primary, Device: "/dev/drbd0"}}
	at := func() time.Time {
		if err := j.SeeOwn(o); err != nil {
			t.Fatal(err)
		}
		return j.Known("r0").Own.At
	}
	first := at()
	if again := at(); !again.Equal(first) {
		t.Error("the same look twice is news")
	}
	if err := j.Remember("r0", func(k *Known) { k.Own.Primary = time.Now() }); err != nil {
		t.Fatal(err)
	}
	if later := at(); !later.After(first) {
		t.Error("a new turn is none")
	}
}
