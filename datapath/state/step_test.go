package state

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func rng() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// upPair gives two nodes that are connected, fresh, Secondary and Inconsistent.
func upPair(t *testing.T) (*simPair, *simNode, *simNode) {
	p := newSimPair(t.Fatalf)
	for _, n := range p.n {
		if err := n.attach(); err != nil {
			t.Fatal(err)
		}
		if _, err := n.command(func(id CommandID) Event { return Connect{ID: id} }); err != nil {
			t.Fatal(err)
		}
	}
	p.settle(rng())
	return p, p.n[0], p.n[1]
}

func want(t *testing.T, n *simNode, role, peer proto.Role, conn proto.ConnState, disk, pdsk proto.DiskState) {
	t.Helper()
	s := n.s
	if s.Role != role || s.PeerRole != peer || s.Conn != conn || s.Disk != disk || s.PeerDisk != pdsk {
		t.Fatalf("%s: %v/%v %v %v/%v, want %v/%v %v %v/%v\nnotes:\n%s", n.name, s.Role, s.PeerRole, s.Conn, s.Disk, s.PeerDisk,
			role, peer, conn, disk, pdsk, strings.Join(n.notes, "\n"))
	}
}

func promote(t *testing.T, p *simPair, n *simNode, force bool) error {
	t.Helper()
	id, err := n.command(func(id CommandID) Event { return Promote{ID: id, Force: force} })
	if err != nil {
		return err
	}
	p.settle(rng())
	err, ok := n.answers[id]
	if !ok {
		t.Fatalf("%s: promotion not answered", n.name)
	}
	return err
}

// syncedPair is upPair after primary --force on the first node and the initial resync.
func syncedPair(t *testing.T) (*simPair, *simNode, *simNode) {
	p, a, b := upPair(t)
	if err := promote(t, p, a, true); err != nil {
		t.Fatal(err)
	}
	return p, a, b
}

func TestInitialForce(t *testing.T) {
	p, a, b := upPair(t)
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.Inconsistent, proto.Inconsistent)
	want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.Inconsistent, proto.Inconsistent)
	var r *Refusal
	if err := promote(t, p, a, false); !errors.As(err, &r) || r.Code != drbd.SSNoUpToDateDisk {
		t.Fatalf("promotion of an Inconsistent pair without force: %v", err)
	}
	a.write(3, 7)
	a.data = [simBlocks]byte{1, 2, 3, 4, 5, 6, 7, 8}
	if err := promote(t, p, a, true); err != nil {
		t.Fatal(err)
	}
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data {
		t.Fatal("contents differ after the initial resync")
	}
	ua, ub := a.s.UUIDs.masked(), b.s.UUIDs.masked()
	if ua != ub || ua.Bitmap != 0 || a.s.UUIDs.Current&1 != 1 || b.s.UUIDs.Current&1 != 0 {
		t.Fatalf("UUIDs after the resync: %v and %v", a.s.UUIDs, b.s.UUIDs)
	}
}

// TestForcePackets holds the very packets that the forced promotion of a fresh pair exchanges against what two kernels
// do: the request, UUIDs and state of the forced node, UUIDs and state WFBitMapT of the other one.
func TestForcePackets(t *testing.T) {
	_, a, b := upPair(t)
	if _, err := a.command(func(id CommandID) Event { return Promote{ID: id, Force: true} }); err != nil {
		t.Fatal(err)
	}
	req, ok := a.out[0][0].(SendChangeReq)
	if !ok || len(a.out[0]) != 1 || req.Change != (drbd.Change{Mask: 0x1e03, Val: 0x1001}) || req.ConnWide {
		t.Fatalf("request: %+v", a.out[0])
	}
	step := func(from, to *simNode, sock int) {
		t.Helper()
		pkt := from.out[sock][0]
		from.out[sock] = from.out[sock][1:]
		to.receive(pkt)
	}
	step(a, b, 0)
	if got := b.out[1]; len(got) != 1 || got[0] != (SendChangeReply{Code: drbd.SSSuccess}) || len(b.out[0]) != 0 {
		t.Fatalf("reply: %+v %+v", got, b.out[0])
	}
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.Inconsistent, proto.UpToDate)
	step(b, a, 1)
	u, ok1 := a.out[0][0].(drbd.UUIDs)
	s, ok2 := a.out[0][1].(SendState)
	if !ok1 || !ok2 || u.Bitmap != drbd.UUIDJustCreated || u.Current&1 != 1 || s.State.Word() != a.s.Word().Word() {
		t.Fatalf("after the grant: %+v", a.out[0])
	}
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Inconsistent)
	step(a, b, 0)
	step(a, b, 0)
	want(t, b, proto.Secondary, proto.Primary, proto.WFBitMapT, proto.Inconsistent, proto.UpToDate)
	u, ok1 = b.out[0][0].(drbd.UUIDs)
	s, ok2 = b.out[0][1].(SendState)
	if !ok1 || !ok2 || u.Current != drbd.UUIDJustCreated || s.State.Word() != 0x000108e6 || len(b.out[0]) != 2 {
		t.Fatalf("the target's answer: %+v", b.out[0])
	}
	if len(b.bits) != simBlocks {
		t.Fatal("the target has not marked everything")
	}
	step(b, a, 0)
	step(b, a, 0)
	want(t, a, proto.Primary, proto.Secondary, proto.WFBitMapS, proto.UpToDate, proto.Inconsistent)
	if _, ok := a.out[0][0].(bitmapPacket); !ok || len(a.out[0]) != 1 {
		t.Fatalf("the source's answer: %+v", a.out[0])
	}
	step(a, b, 0)
	want(t, b, proto.Secondary, proto.Primary, proto.WFSyncUUID, proto.Inconsistent, proto.UpToDate)
	step(b, a, 0)
	want(t, a, proto.Primary, proto.Secondary, proto.SyncSource, proto.UpToDate, proto.Inconsistent)
	if su, ok := a.out[0][0].(SendSyncUUID); !ok || len(a.out[0]) != 1 || su.UUID != a.s.UUIDs.Bitmap {
		t.Fatalf("sync UUID: %+v", a.out[0])
	}
	if a.s.UUIDs.History0 != drbd.UUIDJustCreated {
		t.Errorf("the fresh UUID did not go to the history: %v", a.s.UUIDs)
	}
	step(a, b, 0)
	want(t, b, proto.Secondary, proto.Primary, proto.SyncTarget, proto.Inconsistent, proto.UpToDate)
	if masked(b.s.UUIDs.Current) != masked(a.s.UUIDs.Bitmap) || b.s.UUIDs.Bitmap != 0 {
		t.Errorf("target's UUIDs %v", b.s.UUIDs)
	}
}

func TestFailover(t *testing.T) {
	p, a, b := syncedPair(t)
	var r *Refusal
	if err := promote(t, p, b, false); !errors.As(err, &r) || r.Code != drbd.SSTwoPrimaries {
		t.Fatalf("second Primary: %v", err)
	}
	if err := a.do(Demote{InUse: true}); !errors.As(err, &r) || r.Code != drbd.SSDeviceInUse {
		t.Fatalf("demoting in use: %v", err)
	}
	if err := a.do(Demote{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	if err := promote(t, p, b, false); err != nil {
		t.Fatal(err)
	}
	want(t, a, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.s.UUIDs.Bitmap != 0 || b.s.UUIDs.Bitmap != 0 {
		t.Error("a move within the pair started a new generation")
	}
}

func TestCutAndReturn(t *testing.T) {
	p, a, b := syncedPair(t)
	before := a.s.UUIDs.Current
	p.cut()
	p.settle(rng())
	want(t, a, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, proto.DUnknown)
	want(t, b, proto.Secondary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, proto.DUnknown)
	if a.s.UUIDs.Bitmap != before || a.s.UUIDs.Current == before || a.md.UUIDs != a.s.UUIDs {
		t.Fatalf("no new generation at the loss of contact: %v", a.s.UUIDs)
	}
	if b.s.UUIDs.Bitmap != 0 {
		t.Fatal("the Secondary started a generation")
	}
	a.write(2, 99)
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data || a.s.UUIDs.masked() != b.s.UUIDs.masked() {
		t.Fatalf("after the return: %v %v, %v %v", a.data, b.data, a.s.UUIDs, b.s.UUIDs)
	}
}

func TestSplitBrain(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	if err := promote(t, p, b, false); err != nil {
		t.Fatal(err)
	}
	a.write(1, 11)
	b.write(2, 22)
	p.cable = true
	p.settle(rng())
	for _, n := range p.n {
		if !strings.Contains(strings.Join(n.notes, "\n"), "split brain") && n.s.Conn == proto.StandAlone {
			t.Errorf("%s says nothing of the split brain: %v", n.name, n.notes)
		}
	}
	if a.s.Conn != proto.StandAlone && b.s.Conn != proto.StandAlone {
		t.Fatal("nobody went StandAlone")
	}
	for _, n := range p.n {
		if _, err := n.command(func(id CommandID) Event { return Disconnect{ID: id} }); err != nil {
			t.Fatal(err)
		}
	}
	p.settle(rng())
	var r *Refusal
	if err := b.do(Connect{DiscardMyData: true}); !errors.As(err, &r) {
		t.Fatalf("a Primary may discard its data: %v", err)
	}
	if err := b.do(Demote{}); err != nil {
		t.Fatal(err)
	}
	if err := b.do(Connect{DiscardMyData: true}); err != nil {
		t.Fatal(err)
	}
	if err := a.do(Connect{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data || a.data[1] != 11 || a.data[2] == 22 {
		t.Errorf("after discard-my-data: %v and %v", a.data, b.data)
	}
}

func TestDisconnectAgreed(t *testing.T) {
	p, a, b := syncedPair(t)
	id, err := b.command(func(id CommandID) Event { return Disconnect{ID: id} })
	if err != nil {
		t.Fatal(err)
	}
	if req, ok := b.out[0][0].(SendChangeReq); !ok || !req.ConnWide || req.Change != (drbd.Change{Mask: 0x1f0, Val: 0x010}) {
		t.Fatalf("request: %+v", b.out[0])
	}
	p.settle(rng())
	if err, ok := b.answers[id]; !ok || err != nil {
		t.Fatalf("answer %v, %v", err, ok)
	}
	want(t, b, proto.Secondary, proto.RoleUnknown, proto.StandAlone, proto.UpToDate, proto.DUnknown)
	want(t, a, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, proto.DUnknown)
}

func TestPromoteWhileLinkBreaks(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := a.do(Demote{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	id, err := b.command(func(id CommandID) Event { return Promote{ID: id} })
	if err != nil {
		t.Fatal(err)
	}
	p.cut()
	p.settle(rng())
	if err := b.answers[id]; err == nil || b.s.Role == proto.Primary {
		t.Errorf("promoted without the peer's answer: %v", err)
	}
}

func TestConcurrentPromotion(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		p, a, b := syncedPair(t)
		if err := a.do(Demote{}); err != nil {
			t.Fatal(err)
		}
		p.settle(r)
		ia, _ := a.command(func(id CommandID) Event { return Promote{ID: id} })
		ib, _ := b.command(func(id CommandID) Event { return Promote{ID: id} })
		p.settle(r)
		if (a.answers[ia] == nil) == (b.answers[ib] == nil) {
			t.Fatalf("promotions at the same time: %v and %v", a.answers[ia], b.answers[ib])
		}
	}
}

func TestDetachAndLateAttach(t *testing.T) {
	p, a, b := syncedPair(t)
	id, err := b.command(func(id CommandID) Event { return Detach{ID: id} })
	if err != nil {
		t.Fatal(err)
	}
	if req, ok := b.out[0][0].(SendChangeReq); !ok || req.ConnWide || req.Change != (drbd.Change{Mask: 0x1e00, Val: 0x400}) {
		t.Fatalf("request: %+v", b.out[0])
	}
	p.settle(rng())
	if err, ok := b.answers[id]; !ok || err != nil {
		t.Fatalf("answer %v, %v", err, ok)
	}
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.Diskless, proto.UpToDate)
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Diskless)
	if a.s.UUIDs.Bitmap == 0 {
		t.Fatal("no new generation when the peer lost its disk")
	}
	a.write(5, 55)
	if err := b.attach(); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data {
		t.Errorf("contents differ: %v %v", a.data, b.data)
	}
}

// TestLinkWhileAttaching: the link comes up while one node still reads its metadata.
func TestLinkWhileAttaching(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := b.do(Detach{Force: true}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	p.cut()
	p.settle(rng())
	if err := b.do(AttachStart{}); err != nil {
		t.Fatal(err)
	}
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Attaching)
	if err := b.do(Attached{ID: b.id(), UUIDs: b.md.UUIDs, Flags: b.md.Flags, Size: b.md.Size, OwnSize: 1000}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
}

func TestPrimaryLosesDisk(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := a.do(DiskError{Text: "test"}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.Diskless, proto.UpToDate)
	if b.s.UUIDs.Bitmap == 0 {
		t.Error("the survivor has not started a new generation")
	}
	if masked(a.s.Exposed) != masked(b.s.UUIDs.Current) {
		t.Errorf("exposed %x, peer's %v", a.s.Exposed, b.s.UUIDs)
	}
	if b.s.Flags&MDPrimary == 0 {
		t.Error("the only disk of a Primary is not marked so")
	}
}

func TestCrashedPrimary(t *testing.T) {
	p, a, b := syncedPair(t)
	a.write(1, 5)
	p.crash(0)
	p.settle(rng())
	want(t, b, proto.Secondary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, proto.DUnknown)
	if err := a.attach(); err != nil {
		t.Fatal(err)
	}
	if !a.s.CrashedPrimary || a.s.Role != proto.Secondary {
		t.Fatal("a crashed Primary must come back as Secondary that knows it")
	}
	if err := a.do(Connect{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if len(a.bits) != 0 || a.s.CrashedPrimary {
		t.Error("no resync after the crash")
	}
}

// TestResyncAfter: the flag travels in the state word, pauses the resync on both nodes, and is no state of the user's.
func TestResyncAfter(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := a.do(ResyncAfter{Wait: true}); err != nil || !a.s.Word().AftrISP {
		t.Fatal(err, a.s.Word())
	}
	p.settle(rng())
	if !b.s.PeerISP || b.s.UserISP || a.s.UserISP {
		t.Fatal("the peer was not told")
	}
	p.cut()
	p.settle(rng())
	a.write(1, 1)
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.PausedSyncS, proto.UpToDate, proto.Inconsistent)
	want(t, b, proto.Secondary, proto.Primary, proto.PausedSyncT, proto.Inconsistent, proto.UpToDate)
	if err := a.do(ResyncAfter{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if b.s.PeerISP {
		t.Error("the peer still waits")
	}
}

func TestPause(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := b.do(PauseSync{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	if !a.s.PeerISP {
		t.Fatal("the peer was not told")
	}
	p.cut()
	p.settle(rng())
	a.write(1, 1)
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.PausedSyncS, proto.UpToDate, proto.Inconsistent)
	want(t, b, proto.Secondary, proto.Primary, proto.PausedSyncT, proto.Inconsistent, proto.UpToDate)
	if err := b.do(ResumeSync{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
}

func TestResyncInterrupted(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	for i := range simBlocks {
		a.write(i, byte(50+i))
	}
	p.cable = true
	for range 1000 {
		if b.s.Conn == proto.SyncTarget && len(b.bits) < simBlocks {
			break
		}
		if !p.deliver(rng()) {
			p.housework(rng())
		}
	}
	p.cut()
	p.settle(rng())
	want(t, a, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, proto.Inconsistent)
	want(t, b, proto.Secondary, proto.RoleUnknown, proto.WFConnection, proto.Inconsistent, proto.DUnknown)
	var r *Refusal
	if err := promote(t, p, b, false); !errors.As(err, &r) || r.Code != drbd.SSNoUpToDateDisk {
		t.Fatalf("half-synced node promoted: %v", err)
	}
	p.cable = true
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data {
		t.Error("contents differ")
	}
}

func TestRefusedByName(t *testing.T) {
	_, a, _ := syncedPair(t)
	for _, c := range []drbd.Change{
		{Mask: 0x1f0, Val: 0x160}, // Ahead
		{Mask: 0x1f0, Val: 0x170}, // Behind
	} {
		if err := a.do(PeerChangeReq{Change: c}); err != nil {
			t.Fatal(err)
		}
		if got := a.out[1][len(a.out[1])-1]; got != (SendChangeReply{Code: drbd.SSNotSupported}) {
			t.Errorf("%+v: answered %+v", c, got)
		}
	}
}

// TestDRBD9Requests: promotion and demotion of a DRBD 9 peer come connection wide, with 9's numbers for disks.
func TestDRBD9Requests(t *testing.T) {
	_, a, _ := upPair(t)
	if err := a.do(PeerChangeReq{Change: drbd.Change{Mask: 0x1e03, Val: 0x1201}, ConnWide: true}); err != nil {
		t.Fatal(err)
	}
	if got := a.out[1][0]; got != (SendChangeReply{Code: drbd.SSSuccess, ConnWide: true}) {
		t.Fatalf("answered %+v", got)
	}
	want(t, a, proto.Secondary, proto.Primary, proto.Connected, proto.Inconsistent, proto.UpToDate)
	a.out = [2][]any{}
	if err := a.do(PeerChangeReq{Change: drbd.Change{Mask: 3, Val: 2}, ConnWide: true}); err != nil {
		t.Fatal(err)
	}
	if a.s.PeerRole != proto.Secondary {
		t.Error("demotion not taken over")
	}
}

func TestNilEvent(t *testing.T) {
	if _, _, err := Step(New(IOErrorDetach, 1), nil); err == nil {
		t.Error("nil event accepted")
	}
}
