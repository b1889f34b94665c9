package op

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/santui/proto"
)

// pairModel is a two-node world that keeps the rules a real one has: one Primary, a group is active only on the Primary,
// a file system is mounted only where its group is active, what is written on a Primary reaches the other node if they
// are connected, and histories decide who follows whom when they connect.
type pairModel struct {
	mu    sync.Mutex
	nodes map[string]*nodeModel
	cut   bool // the replication link
	dead  bool // the runner: what it still does has no effect
	gen   uint64
	bad   []string // broken rules

	beside proto.Service // what agent.toml adds, on both nodes
}

type nodeModel struct {
	asked   []proto.ObserveRequest // but for brief ones
	role    proto.Role
	active  bool
	mounted bool
	locked  *proto.Lock
	gone    bool
	journal map[string]proto.Op
	users   []proto.User
	backing []proto.User // of the backing disk
	left    bool         // the mount and the volume of an agent that died
	conn    proto.ConnState
	since   time.Time // of conn
	uuids   proto.UUIDs
	discard bool
	lv      *proto.BackingLV
	kept    map[string]string // data, as of the snapshot
	data    map[string]string // set of files -> sum

	memory *proto.Memory
	fstab  []proto.FstabEntry
	disk   proto.DiskState // UpToDate if it is 0
	oos    int64           // bytes known to differ

	address, script, unit, export bool           // what of beside is there, if it is configured
	config                        *proto.Service // this node's own agent.toml, if it differs
}

// fault makes a step fail: before its effect, after it, or by not answering.
type fault struct {
	kind  proto.StepKind
	node  string
	undo  bool
	after bool
	code  proto.ErrorCode
	times int
}

type fakeNode struct {
	w     *pairModel
	name  string
	fault *fault
	// kill is asked before a step has its effect, and after it, whether the runner dies now.
	kill func(req proto.PeerStepRequest, after bool) bool
}

// away says whether nobody hears the caller: the node is gone, or the caller is dead.
func (n *fakeNode) away() bool { return n.w.dead || n.w.nodes[n.name].gone }

// dies asks for the runner's death.
func (n *fakeNode) dies(req proto.PeerStepRequest, after bool) bool {
	n.w.dead = n.w.dead || n.kill != nil && n.kill(req, after)
	return n.w.dead
}

func newWorld() (*pairModel, *fakeNode, *fakeNode) {
	w := &pairModel{nodes: map[string]*nodeModel{
		"otter":  {role: proto.Primary, active: true, mounted: true, journal: map[string]proto.Op{}},
		"weasel": {role: proto.Secondary, journal: map[string]proto.Op{}},
	}, gen: 0x1000}
	for _, m := range w.nodes {
		m.conn, m.uuids, m.data = proto.Connected, proto.UUIDs{Current: 0x1000}, map[string]string{"old": "data"}
	}
	return w, &fakeNode{w: w, name: "otter"}, &fakeNode{w: w, name: "weasel"}
}

// equip adds to the pair what agent.toml can name, running on otter.
func (w *pairModel) equip() {
	w.beside = proto.Service{
		Units: []string{"smbd.service"}, Address: []proto.Address{{Address: "10.0.0.100/24", Interface: "eth0"}}, Keep: []string{"/srv"},
		Scripts: []proto.Script{{Name: "app", Stop: []string{"/opt/app", "stop"}, Start: []string{"/opt/app", "start"}, Limit: 5}},
		Exports: []proto.Export{{Path: "/mnt", Client: "*", Options: "rw"}},
	}
	w.nodes["otter"].run(true)
}

// run makes all that is beside the stack run, or end.
func (m *nodeModel) run(on bool) { m.address, m.script, m.unit, m.export = on, on, on, on }

// facts are those of a node that runs what it should.
func (w *pairModel) facts(m *nodeModel) *proto.ServiceFacts {
	if w.beside.Empty() {
		return nil
	}
	f := &proto.ServiceFacts{Config: w.beside, Units: []proto.UnitState{{Name: "smbd.service", Load: "loaded", Active: "inactive"}},
		Addresses: []proto.AddressState{{Address: w.beside.Address[0]}}}
	if m.config != nil {
		f.Config = *m.config
	}
	if m.unit {
		f.Units[0].Active = "active"
	}
	if m.address {
		f.Addresses[0].Held = "eth0"
	}
	if m.export {
		f.Exports = []proto.Export{{Path: "/mnt", Client: "*", Options: "rw,sync"}}
	}
	return f
}

func (w *pairModel) peer(name string) *nodeModel {
	if name == "otter" {
		return w.nodes["weasel"]
	}
	return w.nodes["otter"]
}

// write is something that the Primary writes.
func (w *pairModel) write(name, set, sum string) {
	m, p := w.nodes[name], w.peer(name)
	m.data[set] = sum
	if m.conn >= proto.Connected {
		p.data[set] = sum
	}
}

// disconnect breaks the link, long ago; a Primary starts a new generation, as it does with its next write.
func (w *pairModel) disconnect(to proto.ConnState) {
	for _, m := range w.nodes {
		m.conn, m.since = to, time.Now().Add(-time.Minute)
		if m.role == proto.Primary && !m.gone {
			w.fork(m)
		}
	}
}

func (w *pairModel) fork(m *nodeModel) {
	if m.uuids.Bitmap == 0 {
		w.gen += 0x1000
		m.uuids = proto.UUIDs{Current: w.gen, Bitmap: m.uuids.Current, History: [2]uint64{m.uuids.Bitmap, m.uuids.History[0]}}
	}
}

// meet is what happens when both nodes look for each other.
func (w *pairModel) meet() {
	a, b := w.nodes["otter"], w.nodes["weasel"]
	if w.cut || a.gone || b.gone || a.conn != proto.WFConnection || b.conn != proto.WFConnection {
		return
	}
	side := func(name string, m *nodeModel) proto.Observation {
		return proto.Observation{Node: name, Resource: proto.Resource{UUIDs: m.uuids, Role: m.role}}
	}
	l := LineageOf(side("otter", a), side("weasel", b))
	if l.Split && a.discard != b.discard {
		l.Split, l.Source = false, "otter"
		if a.discard {
			l.Source = "weasel"
		}
	}
	if l.Split || l.Source != "" && w.peer(l.Source).role == proto.Primary {
		a.conn, b.conn = proto.StandAlone, proto.StandAlone
		return
	}
	if l.Source != "" {
		src, dst := w.nodes[l.Source], w.peer(l.Source)
		src.uuids = proto.UUIDs{Current: src.uuids.Current, History: [2]uint64{src.uuids.Bitmap}}
		dst.uuids, dst.data = src.uuids, maps.Clone(src.data)
	}
	for _, m := range w.nodes {
		m.conn, m.discard = proto.Connected, false
	}
}

func (n *fakeNode) Name() string { return n.name }

func (n *fakeNode) Observe(_ context.Context, req proto.ObserveRequest) (proto.Observation, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	m := n.w.nodes[n.name]
	if !req.Brief {
		m.asked = append(m.asked, req)
	}
	if n.away() {
		return proto.Observation{}, proto.Errorf(proto.CodeUnreachable, "no answer")
	}
	o := proto.Observation{
		Node: n.name, At: time.Now(), Agent: proto.AgentInfo{Version: "1"}, Lock: m.locked,
		Tools: map[string]string{"vgchange": "/sbin/vgchange", "lvm": "/sbin/lvm", "mount": "/bin/mount", "umount": "/bin/umount", "thin_check": "/sbin/thin_check"},
		Facts: &proto.Facts{Link: &proto.LinkFacts{MTU: 1500}, LVM: proto.LVMFacts{Installed: true, Mechanism: proto.SelectFilter}, Filesystems: []string{"ext4"}, ThinTools: "0.9.0",
			Backing: m.backing, BackingLV: m.lv, DiskSize: 1 << 21, DiskSector: 512, DeviceSector: 512},
		Resource: proto.Resource{
			Name: "r0", Device: "/dev/drbd0", Disk: "/dev/md3", Role: m.role, PeerRole: n.w.peer(n.name).role, Protocol: proto.ProtocolC,
			Conn: m.conn, ConnSince: m.since, DiskState: proto.UpToDate, PeerDisk: proto.UpToDate, Size: 1 << 20, UUIDs: m.uuids,
		},
	}
	if m.conn < proto.Connected {
		o.Resource.PeerRole, o.Resource.PeerDisk = proto.RoleUnknown, proto.DUnknown
	}
	if o.PeerLink.Up = !n.w.peer(n.name).gone; !o.PeerLink.Up {
		o.PeerLink.Since = time.Now().Add(-time.Minute)
	}
	o.Resource.OutOfSync = m.oos
	if m.disk != 0 {
		o.Resource.DiskState = m.disk
	}
	o.Memory, o.Facts.Fstab = m.memory, m.fstab
	o.Service = n.w.facts(m)
	if m.role == proto.Primary {
		o.Resource.Stack.VGs = []proto.VG{{Name: "storage", UUID: "uuid", LVs: []proto.LV{
			{Name: "test", Path: "/dev/storage/test", Active: m.active, Attr: "-wi-ao----"}, {Name: "pool", Active: m.active, Attr: "twi-a-tz--"}}}}
		if m.mounted {
			o.Resource.Stack.Mounts = []proto.Mount{{Source: "/dev/storage/test", Target: "/mnt", FSType: "ext4", Options: "rw", Used: time.Now().UnixNano()}}
		}
		o.Resource.Stack.Users = slices.Clone(m.users)
		if m.unit {
			o.Resource.Stack.Users = append(o.Resource.Stack.Users, proto.User{Kind: "process", PID: 7, Name: "smbd", Unit: "smbd.service", How: "fd", Path: "/mnt/x"})
		}
		if m.export {
			o.Resource.Stack.Users = append(o.Resource.Stack.Users, proto.User{Kind: "nfs", Name: "*(rw,sync)", Path: "/mnt", How: "exported"})
		}
	}
	for _, t := range req.Targets {
		mp := proto.MountPoint{Path: t, Exists: true, Dir: true, Empty: true}
		if m.left {
			mp.Mounted = "/dev/mapper/storage-test"
		}
		o.Targets = append(o.Targets, mp)
	}
	if m.left && slices.Contains(req.VGs, "uuid") {
		o.Left = []string{"storage-test, left by an agent that died"}
	}
	return o, nil
}

func (n *fakeNode) Step(_ context.Context, req proto.PeerStepRequest) proto.StepResult {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.away() {
		return proto.StepResult{Err: proto.Errorf(proto.CodeUnreachable, "no answer").On(n.name)}
	}
	kind := req.Step.Kind
	if req.Undo {
		kind = req.Step.UndoKind
	}
	if req.DryRun {
		return proto.StepResult{State: proto.StepDone}
	}
	f := n.fault
	if f != nil && f.kind == kind && f.undo == req.Undo && f.times > 0 {
		f.times--
		if f.after {
			if res := n.w.do(n.name, kind, req); res.Err != nil {
				return res
			}
		}
		return proto.StepResult{Err: proto.Errorf(f.code, "injected").On(n.name)}
	}
	if n.dies(req, false) {
		return proto.StepResult{Err: proto.Errorf(proto.CodeUnreachable, "dead").On(n.name)}
	}
	res := n.w.do(n.name, kind, req)
	if n.dies(req, true) {
		return proto.StepResult{Err: proto.Errorf(proto.CodeUnreachable, "dead").On(n.name)}
	}
	return res
}

// do carries out the steps that only some verbs have, and leaves the others to apply.
func (w *pairModel) do(name string, kind proto.StepKind, req proto.PeerStepRequest) proto.StepResult {
	m := w.nodes[name]
	done := proto.StepResult{State: proto.StepDone}
	fail := func(format string, args ...any) proto.StepResult {
		return proto.StepResult{Err: proto.Errorf(proto.CodeState, format, args...).On(name)}
	}
	switch kind {
	case proto.StepSentinel:
		if !m.mounted {
			return fail("not mounted")
		}
		w.gen++
		sum := fmt.Sprint(w.gen)
		w.write(name, req.Step.Set, sum)
		done.Sentinel = &proto.Sentinel{Target: req.Step.Mount.Target, Set: req.Step.Set, Files: 1, Bytes: 1, Sum: sum}
	case proto.StepVerify:
		if !m.mounted {
			return fail("not mounted")
		}
		for _, s := range req.Sentinels {
			if m.data[s.Set] != s.Sum {
				return fail("set %s is %s, not %s", s.Set, m.data[s.Set], s.Sum)
			}
		}
		done.Sentinel = &proto.Sentinel{Files: len(req.Sentinels)}
	case proto.StepProbe:
		if !m.mounted {
			return fail("not mounted")
		}
	case proto.StepClean:
		for _, set := range []string{FirstSet, secondSet} {
			delete(m.data, set)
			if m.conn >= proto.Connected {
				delete(w.peer(name).data, set)
			}
		}
	case proto.StepSnapshot:
		if m.kept != nil {
			done.State = proto.StepAlready
			break
		}
		if m.role == proto.Primary || m.conn >= proto.Connected {
			return fail("%s and %s: a snapshot of this is worth nothing", m.role, m.conn)
		}
		m.kept = maps.Clone(m.data)
	case proto.StepDisconnect:
		for _, x := range w.nodes {
			if x == m || x.conn >= proto.Connected {
				x.conn = proto.StandAlone
			}
		}
	case proto.StepConnect, proto.StepDiscard:
		if m.conn == proto.StandAlone {
			m.conn, m.discard = proto.WFConnection, kind == proto.StepDiscard
		} else {
			done.State = proto.StepAlready
		}
		w.meet()
	case proto.StepResync:
		if w.meet(); m.conn < proto.Connected {
			return fail("%s", m.conn)
		}
	default:
		state, err := w.apply(name, kind)
		return proto.StepResult{State: state, Err: err}
	}
	return done
}

func (w *pairModel) apply(name string, kind proto.StepKind) (proto.StepState, *proto.Error) {
	m, peer := w.nodes[name], w.peer(name)
	set := func(p *bool, v bool, allowed bool, why string) (proto.StepState, *proto.Error) {
		if *p == v {
			return proto.StepAlready, nil
		}
		if !allowed {
			return "", proto.Errorf(proto.CodeBusy, "%s on %s: %s", kind, name, why)
		}
		*p = v
		return proto.StepDone, nil
	}
	switch kind {
	case proto.StepDropAddress:
		return set(&m.address, false, true, "")
	case proto.StepAddAddress:
		st, err := set(&m.address, true, m.mounted && m.unit && m.script && m.export, "not everything is up")
		if peer.address && m.address {
			w.bad = append(w.bad, "one address on two nodes")
		}
		return st, err
	case proto.StepStopScript, proto.StepStartScript: // nobody can see whether it was so already
		if kind == proto.StepStartScript && (!m.mounted || !m.unit) {
			return "", proto.Errorf(proto.CodeFailed, "the script wants its mount and unit")
		}
		m.script = kind == proto.StepStartScript
		return proto.StepDone, nil
	case proto.StepStopUnit:
		return set(&m.unit, false, !m.script, "the script uses it")
	case proto.StepStartUnit:
		return set(&m.unit, true, m.mounted && m.export, "not mounted and exported")
	case proto.StepUnexport:
		return set(&m.export, false, true, "")
	case proto.StepExport:
		return set(&m.export, true, m.mounted, "not mounted")
	case proto.StepUnmount:
		return set(&m.mounted, false, !m.unit && !m.script && !m.export, "in use")
	case proto.StepMount:
		return set(&m.mounted, true, m.active, "not active")
	case proto.StepDeactivate:
		return set(&m.active, false, !m.mounted, "mounted")
	case proto.StepActivate:
		return set(&m.active, true, m.role == proto.Primary, "not Primary")
	case proto.StepDemote:
		primary := m.role == proto.Primary
		st, err := set(&primary, false, !m.active, "in use")
		if err == nil {
			m.role = proto.Secondary
		}
		return st, err
	case proto.StepPromote:
		primary := m.role == proto.Primary
		st, err := set(&primary, true, m.conn < proto.Connected || peer.role != proto.Primary, "the peer is Primary")
		if err == nil {
			m.role = proto.Primary
			if m.conn < proto.Connected {
				w.fork(m)
			}
		}
		if peer.role == proto.Primary && m.role == proto.Primary {
			w.bad = append(w.bad, "two Primaries")
		}
		return st, err
	default:
		return "", proto.Errorf(proto.CodeInvalid, "kind %s", kind)
	}
}

func (n *fakeNode) Lock(_ context.Context, l proto.Lock) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	m := n.w.nodes[n.name]
	if n.away() {
		return proto.Errorf(proto.CodeUnreachable, "no answer")
	}
	if m.locked != nil && m.locked.OpID != l.OpID {
		return proto.Errorf(proto.CodeLocked, "locked by %s", m.locked.Owner)
	}
	m.locked = &l
	return nil
}

func (n *fakeNode) Unlock(_ context.Context, l proto.Lock) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if m := n.w.nodes[n.name]; m.locked != nil && m.locked.OpID == l.OpID {
		m.locked = nil
	}
	return nil
}

func (n *fakeNode) Journal(_ context.Context, o proto.Op) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.away() {
		return proto.Errorf(proto.CodeUnreachable, "no answer")
	}
	n.w.nodes[n.name].journal[o.ID] = o
	return nil
}

// home says on which node the service is complete, or describes the world if it is nowhere.
func (w *pairModel) home() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := ""
	for _, name := range []string{"otter", "weasel"} {
		m, p := w.nodes[name], w.peer(name)
		whole, clear := m.active && m.mounted, !p.active && !p.mounted && !p.address && !p.script && !p.unit && !p.export
		if !w.beside.Empty() {
			whole = whole && m.address && m.script && m.unit && m.export
		}
		if m.role == proto.Primary && whole && p.role == proto.Secondary && clear {
			return name
		}
		text += fmt.Sprintf("%s %s active=%v mounted=%v address=%v script=%v unit=%v export=%v; ", name, m.role, m.active, m.mounted, m.address, m.script, m.unit, m.export)
	}
	return text
}

func (w *pairModel) broken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.bad)
}
