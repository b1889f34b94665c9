package scene

import (
	"errors"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/view"
)

// Now is the moment of all scenes, on every clock.
var Now = time.Date(2026, 11, 22, 14, 2, 11, 0, time.UTC)

const (
	gib = int64(1) << 30
	mib = int64(1) << 20
)

// Scene is a named state of the pair.
type Scene struct {
	Name   string
	Inputs []view.Input
}

func ago(d time.Duration) time.Time { return Now.Add(-d) }

func yes(why string) proto.Light { return proto.Light{On: true, Why: why} }
func no(why string) proto.Light  { return proto.Light{Why: why} }

func snapshot(node, peer string) proto.Snapshot {
	r := proto.Resource{
		Name: "r0", Device: "/dev/drbd0", Disk: "/dev/md3", Engine: "native", FrontEnd: "fuse", Protocol: proto.ProtocolC,
		Size: 2048 * gib, Role: proto.Secondary, PeerRole: proto.Primary, Conn: proto.Connected, DiskState: proto.UpToDate, PeerDisk: proto.UpToDate,
		UUIDs: proto.UUIDs{Current: 0xA1B2C3D4E5F60718, History: [2]uint64{0x1122334455667788, 0}}, LastInSync: ago(time.Second),
		Lights: proto.Lights{InSync: yes("0 B out of sync"), Verified: no("never verified"), Redundant: yes("both copies are UpToDate"),
			SafePowerOff: yes("Secondary, nothing uses it")},
	}
	s := proto.Snapshot{
		Schema: proto.Schema, Pair: "store-1", Node: node, Peer: peer, Seq: 7, At: Now,
		Agent:     proto.AgentInfo{Version: "0.1.0", PID: 812, StartedAt: ago(12 * 24 * time.Hour), Kernel: "6.1.0-40-amd64"},
		PeerLink:  proto.PeerLink{Up: true, Since: ago(time.Hour), RTT: 0.0004},
		Resources: []proto.Resource{r},
	}
	return s
}

func event(seq uint64, node string, before time.Duration, l proto.Level, text string) proto.Event {
	return proto.Event{Seq: seq, At: ago(before), Node: node, Resource: "r0", Level: l, Text: text}
}

// primary turns a snapshot into that of the node in service, with LVM and a mounted file system.
func primary(s proto.Snapshot) proto.Snapshot {
	r := &s.Resources[0]
	r.Role, r.PeerRole, r.Node, r.Open = proto.Primary, proto.Secondary, "/dev/loop3", 1
	r.Lights.SafePowerOff = no("Primary, in use")
	r.Counters = proto.Counters{Sent: 96 * gib, Written: 96 * gib, Read: 12 * gib, LocalInFly: 3}
	r.Stack = proto.Stack{
		VGs: []proto.VG{{Name: "storage", Seqno: 4, LVs: []proto.LV{{Name: "test", Path: "/dev/storage/test", Size: 2047 * gib, Active: true, Open: true, FS: "ext4"}}}},
		Mounts: []proto.Mount{{Source: "/dev/storage/test", Target: "/srv/store", FSType: "ext4", Options: "rw,relatime",
			Size: 2000 * gib, Used: 1310 * gib}},
		Users: []proto.User{{Kind: "process", PID: 4127, UID: 1000, Name: "smbd", Path: "/srv/store/share", How: "cwd"}},
	}
	return s
}

func live(s proto.Snapshot) view.Input {
	return view.Input{Node: s.Node, Snapshot: &s, LinkUp: true, At: Now}
}

func down(s proto.Snapshot, age time.Duration, why string) view.Input {
	return view.Input{Node: s.Node, Snapshot: &s, At: ago(age), Err: errors.New(why), NextTry: Now.Add(3 * time.Second)}
}

func checkOK(code, evidence string) proto.Check {
	c, _ := proto.CodeOf(code)
	return proto.Check{Code: code, Result: proto.CheckOK, Hard: c.Hard, Title: c.Title, Evidence: []string{evidence}}
}

// Checks are those of a failover from otter to weasel; extra ones replace the passes of the same code.
func Checks(extra ...proto.Check) proto.CheckList {
	l := proto.CheckList{Schema: proto.Schema, Verb: proto.VerbFailover, Resource: "r0", From: "otter", To: "weasel", At: Now}
	evidence := map[string]string{
		proto.CheckAgents: "otter and weasel", proto.CheckVersions: "0.1.0", proto.CheckLocked: "lock free", proto.CheckRoles: "otter Primary, weasel Secondary",
		proto.CheckLink: "Connected", proto.CheckSync: "0 B out of sync", proto.CheckDisk: "UpToDate", proto.CheckBusyProc: "no process",
		proto.CheckMountPoint: "/srv/store is an empty directory", proto.CheckClock: "0.1 s apart",
	}
	for _, c := range proto.Codes {
		k := checkOK(c.Name, evidence[c.Name])
		for _, x := range extra {
			if x.Code == c.Name {
				k = x
			}
		}
		if len(k.Evidence) == 1 && k.Evidence[0] == "" {
			k.Evidence = nil
		}
		l.Checks = append(l.Checks, k)
	}
	return l
}

// Failed is a check that does not hold.
func Failed(code, node string, evidence ...string) proto.Check {
	c, _ := proto.CodeOf(code)
	return proto.Check{Code: code, Node: node, Result: proto.CheckFail, Hard: c.Hard, Title: c.Title, Evidence: evidence, Remedy: c.Remedy}
}

// InSync is the healthy pair: otter is Primary.
func InSync() Scene {
	a, b := primary(snapshot("otter", "weasel")), snapshot("weasel", "otter")
	ready := Checks()
	b.Readiness = []proto.CheckList{ready}
	a.Events = []proto.Event{
		event(1, "otter", 40*time.Minute, proto.LevelInfo, "full sync started by root@otter"),
		event(2, "otter", 9*time.Minute, proto.LevelInfo, "r0: sync done after 0:31:00, 1.10 GiB/s"),
		event(3, "otter", 8*time.Minute, proto.LevelInfo, "mounted /srv/store"),
	}
	b.Events = []proto.Event{event(1, "weasel", 41*time.Minute, proto.LevelInfo, "connected to otter"),
		event(2, "weasel", 9*time.Minute, proto.LevelInfo, "r0: disk Inconsistent -> UpToDate")}
	return Scene{"in-sync", []view.Input{live(a), live(b)}}
}

// Syncing is the first full sync, done to the given fraction.
func Syncing(done float64) Scene {
	a, b := primary(snapshot("otter", "weasel")), snapshot("weasel", "otter")
	total := 2048 * gib
	left := int64(float64(total) * (1 - done))
	s := proto.Sync{Kind: "resync", Source: "otter", Target: "weasel", Started: ago(38*time.Minute + 9*time.Second), Total: total, Left: left,
		Rate: 412 * mib, Mean: 398 * mib, Limit: 500 * mib, Finish: float64(left) / float64(412*mib), Why: "new pair: otter's copy was declared good"}
	for _, n := range []*proto.Snapshot{&a, &b} {
		r := &n.Resources[0]
		sync := s
		r.Sync, r.OutOfSync = &sync, left
		r.Lights.InSync, r.Lights.Redundant = no(view.Bytes(left)+" out of sync"), no("weasel is Inconsistent")
	}
	a.Resources[0].Conn, a.Resources[0].PeerDisk = proto.SyncSource, proto.Inconsistent
	b.Resources[0].Conn, b.Resources[0].DiskState = proto.SyncTarget, proto.Inconsistent
	b.Resources[0].LastInSync = time.Time{}
	a.Events = []proto.Event{event(2, "otter", 38*time.Minute, proto.LevelInfo, "full sync started by root@otter"),
		event(1, "otter", 39*time.Minute, proto.LevelWarn, "peer lost, going on alone")}
	b.Events = []proto.Event{event(1, "weasel", 38*time.Minute+20*time.Second, proto.LevelInfo, "connected, bitmaps exchanged: everything is out of sync"),
		event(2, "weasel", 13*time.Second, proto.LevelInfo, "sync 45%")}
	return Scene{"syncing", []view.Input{live(a), live(b)}}
}

// Paused is a sync that somebody paused.
func Paused() Scene {
	s := Syncing(0.452)
	s.Name = "paused"
	for _, in := range s.Inputs {
		in.Snapshot.Resources[0].Sync.Paused, in.Snapshot.Resources[0].Sync.By = true, "root@laptop"
	}
	s.Inputs[0].Snapshot.Resources[0].Conn, s.Inputs[1].Snapshot.Resources[0].Conn = proto.PausedSyncS, proto.PausedSyncT
	return s
}

// Verifying is the healthy pair whose copies are being compared.
func Verifying() Scene {
	s := InSync()
	s.Name = "verifying"
	total := 2048 * gib
	y := proto.Sync{Kind: "verify", Source: "weasel", Target: "otter", Started: ago(12 * time.Minute), Total: total, Left: total / 4 * 3, Differ: 4 << 10,
		Rate: 730 * mib, Mean: 715 * mib, Finish: 2154, Why: "asked for by root@laptop"}
	for i, conn := range []proto.ConnState{proto.VerifyT, proto.VerifyS} {
		r := &s.Inputs[i].Snapshot.Resources[0]
		sync := y
		r.Conn, r.Sync = conn, &sync
	}
	return s
}

// Verified is the pair after a verify that found everything the same.
func Verified() Scene {
	s := InSync()
	s.Name = "verified"
	for _, in := range s.Inputs {
		r := &in.Snapshot.Resources[0]
		r.Verify = &proto.Verify{Started: ago(50 * time.Minute), Ended: ago(2 * time.Minute), By: "weasel", Alg: "sha256", Size: r.Size, Checked: r.Size, Complete: true}
		r.Lights.Verified = yes("all 2.00 TiB compared 2 min ago, 0 B differ")
	}
	return s
}

// StalePrimary is a Primary that nobody hears any more.
func StalePrimary() Scene {
	s := InSync()
	s.Name = "stale-primary"
	b := s.Inputs[1].Snapshot
	r := &b.Resources[0]
	r.Conn, r.PeerRole, r.PeerDisk = proto.WFConnection, proto.RoleUnknown, proto.DUnknown
	r.Lights.InSync, r.Lights.Redundant, r.Lights.SafePowerOff = no("otter is out of reach"), no("only this copy is in reach"), no("the only copy in reach")
	b.PeerLink = proto.PeerLink{Since: ago(40 * time.Second), Err: "i/o timeout"}
	b.Events = append(b.Events, event(3, "weasel", 40*time.Second, proto.LevelAlert, "replication link lost"))
	s.Inputs[0] = down(*s.Inputs[0].Snapshot, 42*time.Second, "connecting to otter: i/o timeout")
	return s
}

// CutOffHere is a Primary that only this machine does not reach.
func CutOffHere() Scene {
	s := InSync()
	s.Name = "cut-off-here"
	s.Inputs[0] = down(*s.Inputs[0].Snapshot, 3*time.Minute, "ssh: connect to host otter port 22: Connection refused")
	return s
}

// NewPair has no good copy yet.
func NewPair() Scene {
	a, b := snapshot("otter", "weasel"), snapshot("weasel", "otter")
	for _, n := range []*proto.Snapshot{&a, &b} {
		r := &n.Resources[0]
		r.DiskState, r.PeerDisk, r.PeerRole, r.OutOfSync = proto.Inconsistent, proto.Inconsistent, proto.Secondary, r.Size
		r.LastInSync = time.Time{}
		r.Lights = proto.Lights{InSync: no("never synchronised"), Verified: no("never verified"), Redundant: no("no copy is good"), SafePowerOff: yes("nothing uses it")}
	}
	a.Events = []proto.Event{event(1, "otter", time.Minute, proto.LevelInfo, "r0: attached /dev/md3, Inconsistent")}
	return Scene{"new-pair", []view.Input{live(a), live(b)}}
}

// SplitBrain has a problem that needs a human; both ends stand alone.
func SplitBrain() Scene {
	s := InSync()
	s.Name = "split-brain"
	for _, in := range s.Inputs {
		r := &in.Snapshot.Resources[0]
		r.Conn, r.PeerRole, r.PeerDisk = proto.StandAlone, proto.RoleUnknown, proto.DUnknown
		r.OutOfSync, r.SplitBrain = 3*mib, true
		r.Problem = "split brain: both copies were written apart; choose which to discard"
		r.Lights.InSync, r.Lights.Redundant = no("the copies differ"), no("the copies differ")
		in.Snapshot.Events = append(in.Snapshot.Events, event(9, in.Node, 20*time.Second, proto.LevelAlert, "split brain detected, dropping the connection"))
	}
	s.Inputs[1].Snapshot.Readiness = nil
	return s
}

// TookOver is the pair after weasel took over and otter came back as Secondary.
func TookOver() Scene {
	s := Moved()
	s.Name = "took-over"
	a, b := &s.Inputs[0].Snapshot.Resources[0], &s.Inputs[1].Snapshot.Resources[0]
	b.NeedsRejoin = "weasel took over from otter at 2026-11-22 13:58:40 (operation 20261122-135838-4c1): otter must rejoin. It must not be used before"
	b.Problem = b.NeedsRejoin
	for _, r := range []*proto.Resource{a, b} {
		r.Conn, r.PeerRole, r.PeerDisk = proto.StandAlone, proto.RoleUnknown, proto.DUnknown
		r.Lights.InSync, r.Lights.Redundant = no("the nodes do not replicate"), no("the nodes do not replicate")
	}
	b.OutOfSync = 12 * mib
	op := Taken()
	s.Inputs[0].Snapshot.Op, s.Inputs[1].Snapshot.Op = nil, &op
	return s
}

// Orphan is the pair after the agent on weasel died in the middle of a failover and came back.
func Orphan() Scene {
	s := Running()
	s.Name = "orphan"
	op := Done(Op(), 4)
	op.Steps[4].Result = proto.StepResult{State: proto.StepWaiting}
	op.State, op.Outcome, op.Rev = proto.OpOrphaned, "the agent on weasel was stopped: the last completed step is 4 (attest on otter)", 9
	s.Inputs[1].Snapshot.Op, s.Inputs[1].Snapshot.Lock = &op, nil
	return s
}

// Waiting is the cockpit's start: no agent has answered.
func Waiting() Scene {
	return Scene{"waiting", []view.Input{{Node: "otter", Err: errors.New("no such host")}, {Node: "weasel"}}}
}

// Overviews are the scenes of the home screen.
func Overviews() []Scene {
	return []Scene{InSync(), Syncing(0.452), Paused(), Verifying(), StalePrimary(), CutOffHere(), NewPair(), SplitBrain(), TookOver(), Orphan(), Waiting()}
}
