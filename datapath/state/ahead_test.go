package state

import (
	"math/rand/v2"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func wants(t *testing.T, s State, conn proto.ConnState, disk, peer proto.DiskState) {
	t.Helper()
	if s.Conn != conn || s.Disk != disk || s.PeerDisk != peer {
		t.Fatalf("%v %v/%v, want %v %v/%v", s.Conn, s.Disk, s.PeerDisk, conn, disk, peer)
	}
}

// ahead brings the first node Ahead and the second one Behind, one block apart.
func ahead(t *testing.T) (*simPair, *rand.Rand) {
	t.Helper()
	p, a, b := syncedPair(t)
	r := rng()
	_ = a.do(Congested{Text: "much is under way"})
	wants(t, a.s, proto.Ahead, proto.UpToDate, proto.Consistent)
	a.write(3, 77)
	for p.deliver(r) {
	}
	wants(t, b.s, proto.Behind, proto.Outdated, proto.UpToDate)
	if !b.bits[3] || b.data[3] == 77 || b.md.Flags&MDWasUpToDate != 0 {
		t.Fatalf("bits %v, data %v, flags %#x", b.bits, b.data, b.md.Flags)
	}
	return p, r
}

func TestAheadAndBack(t *testing.T) {
	p, r := ahead(t)
	a, b := p.n[0], p.n[1]
	gen := a.s.UUIDs.Current
	_ = a.do(CaughtUp{})
	wants(t, a.s, proto.SyncSource, proto.UpToDate, proto.Inconsistent)
	p.settle(r)
	wants(t, a.s, proto.Connected, proto.UpToDate, proto.UpToDate)
	wants(t, b.s, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data || len(a.bits) != 0 || len(b.bits) != 0 || a.s.UUIDs.Current != gen || masked(b.s.UUIDs.Current) != masked(gen) {
		t.Errorf("after it %v %v, bits %v %v\n %+v\n %+v", a.data, b.data, a.bits, b.bits, a.s.UUIDs, b.s.UUIDs)
	}
}

// TestBehindBitsAreDurable: the target has its bits on disk before it asks for the first block. If it loses power with its
// cache in the middle of the resync, the source knows nothing any more of what had been copied.
func TestBehindBitsAreDurable(t *testing.T) {
	p, _ := ahead(t)
	_, fx, err := Step(p.n[1].s, SyncUUIDReceived{UUID: 0x1234567890})
	written := false
	for _, f := range fx {
		switch f.(type) {
		case WriteBitmap:
			written = true
		case PersistMD, StartResync:
			if !written {
				t.Errorf("%T before the bitmap is written", f)
			}
		}
	}
	if err != nil || !written {
		t.Errorf("%T, %v", fx, err)
	}
}

// TestBehindAlone: without the peer a copy that was left behind is no good one, and it is the target when the peer is back.
func TestBehindAlone(t *testing.T) {
	p, r := ahead(t)
	a, b := p.n[0], p.n[1]
	p.cut()
	p.settle(r)
	wants(t, b.s, proto.WFConnection, proto.Outdated, proto.DUnknown)
	if _, err := b.command(func(id CommandID) Event { return Promote{ID: id} }); err == nil {
		t.Error("promoted although it lacks what the peer wrote")
	}
	if a.s.UUIDs.Bitmap == 0 {
		t.Error("no new generation, although the peer lacks something")
	}
	p.cable = true
	p.settle(r)
	wants(t, b.s, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data {
		t.Errorf("%v and %v", a.data, b.data)
	}
}

// TestAheadPowerCut: both nodes lose power; the former Primary knows from its activity log and bits what the peer lacks.
func TestAheadPowerCut(t *testing.T) {
	p, r := ahead(t)
	p.crash(0)
	p.crash(1)
	for _, n := range p.n {
		_ = n.attach()
		_ = n.do(Connect{})
	}
	p.settle(r)
	wants(t, p.n[0].s, proto.Connected, proto.UpToDate, proto.UpToDate)
	if p.n[0].data != p.n[1].data || p.n[1].data[3] != 77 {
		t.Errorf("%v and %v", p.n[0].data, p.n[1].data)
	}
}

func TestDemotionEndsAhead(t *testing.T) {
	p, r := ahead(t)
	if _, err := p.n[1].command(func(id CommandID) Event { return Promote{ID: id} }); err == nil {
		t.Error("promoted while the peer is Primary")
	}
	if err := p.n[0].do(Demote{}); err != nil {
		t.Fatal(err)
	}
	wants(t, p.n[0].s, proto.SyncSource, proto.UpToDate, proto.Inconsistent)
	p.settle(r)
	wants(t, p.n[1].s, proto.Connected, proto.UpToDate, proto.UpToDate)
}

// TestDiskLostWhileAhead: no copy is good any more, and neither node takes the old one for a good one.
func TestDiskLostWhileAhead(t *testing.T) {
	p, r := ahead(t)
	_ = p.n[0].do(DiskError{})
	p.settle(r)
	wants(t, p.n[0].s, proto.Connected, proto.Diskless, proto.Inconsistent)
	wants(t, p.n[1].s, proto.Connected, proto.Outdated, proto.Diskless)
}

func TestNotAhead(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(s *State)
	}{
		{"blocks", func(s *State) { s.OnCongestion = CongestionBlocks }},
		{"its copy is not good", func(s *State) { s.Disk = proto.Inconsistent }},
		{"the peer's copy is not good", func(s *State) { s.PeerDisk = proto.Consistent }},
		{"Secondary", func(s *State) { s.Role = proto.Secondary }},
		{"during a verify", func(s *State) { s.Conn = proto.VerifyT }},
		{"a request is pending", func(s *State) { s.Pending.Kind = PendingVerify }},
		{"grows", func(s *State) { s.Resizing = true }},
	} {
		p, _, _ := syncedPair(t)
		s := p.n[0].s
		c.set(&s)
		if got, fx, err := Step(s, Congested{}); got != s || len(fx) > 0 || err != nil {
			t.Errorf("%s: %v, %v, %v", c.name, got.Conn, fx, err)
		}
	}
	p, _, _ := syncedPair(t)
	p.n[0].s.OnCongestion = CongestionDisconnects
	if _ = p.n[0].do(Congested{}); p.n[0].s.Conn != proto.Disconnecting {
		t.Errorf("on-congestion disconnect leads to %v", p.n[0].s.Conn)
	}
}

// TestAheadNonsense: a node falls behind only as a Secondary of a peer that has all of the data.
func TestAheadNonsense(t *testing.T) {
	told := drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.Ahead, Disk: proto.UpToDate, PeerDisk: proto.Consistent}
	p, _, _ := syncedPair(t)
	if _ = p.n[0].do(PeerState{State: told}); p.n[0].s.Conn != proto.ProtocolError {
		t.Errorf("a Primary was left behind: %v", p.n[0].s.Conn)
	}
	p, _, _ = syncedPair(t)
	told.Disk = proto.Inconsistent
	if _ = p.n[1].do(PeerState{State: told}); p.n[1].s.Conn != proto.ProtocolError {
		t.Errorf("left behind a copy that is no good one: %v", p.n[1].s.Conn)
	}
	p, _ = ahead(t)
	s := p.n[1].s
	s.PeerRole = proto.Secondary // DRBD stays Ahead when it is demoted
	if _, _, err := Step(s, Promote{ID: 9}); err == nil || !err.(*Refusal).Retry {
		t.Errorf("promoted Behind: %v", err)
	}
}
