package state

import (
	"errors"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func code(err error) drbd.RetCode {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return 0
}

func TestVerify(t *testing.T) {
	p, a, b := syncedPair(t)
	b.data[3] ^= 1
	id, err := b.command(func(id CommandID) Event { return Verify{ID: id} })
	if err != nil {
		t.Fatal(err)
	}
	if got := b.out[0][len(b.out[0])-1]; got != (SendChangeReq{Change: drbd.Change{Mask: 0x1f0, Val: 0x120}}) {
		t.Fatalf("asked %+v", got)
	}
	p.deliver(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.VerifyT, proto.UpToDate, proto.UpToDate)
	p.deliver(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.VerifyS, proto.UpToDate, proto.UpToDate)
	if err, ok := b.answers[id]; !ok || err != nil {
		t.Fatalf("answered %v %v", ok, err)
	}
	for _, n := range p.n {
		for _, ev := range []Event{Verify{}, Invalidate{}, Invalidate{Peer: true}} {
			if err := n.do(ev); code(err) != drbd.SSResyncRunning {
				t.Errorf("%s: %T during a verify: %v", n.name, ev, err)
			}
		}
	}
	p.settle(rng())
	for _, n := range p.n {
		if n.s.Conn != proto.Connected || len(n.bits) != 1 || !n.bits[3] {
			t.Errorf("%s: %v, marked %v", n.name, n.s.Conn, n.bits)
		}
	}
	// The Primary loses contact: a new generation, hence a resync of just the marked blocks.
	p.cut()
	p.cable = true
	p.settle(rng())
	if len(a.bits) > 0 || a.data != b.data || b.s.Conn != proto.Connected {
		t.Errorf("not repaired: %v %v\n %+v", a.data, b.data, b.s)
	}
}

func TestVerifyRefused(t *testing.T) {
	p, a, b := syncedPair(t)
	b.s.CanVerify = false
	if err := b.do(Verify{}); code(err) != drbd.SSNoVerifyAlg {
		t.Errorf("without verify-alg: %v", err)
	}
	id, _ := a.command(func(id CommandID) Event { return Verify{ID: id} })
	p.settle(rng())
	if code(a.answers[id]) != drbd.SSCWFailedByPeer || a.s.Conn != proto.Connected {
		t.Errorf("peer without verify-alg: %v", a.answers[id])
	}
	b.s.CanVerify = true
	p.cut()
	if err := a.do(Verify{}); code(err) != drbd.SSNeedConnection {
		t.Errorf("without a link: %v", err)
	}
}

// TestVerifyEnds: a disk that goes, a copy that goes bad, and a link that breaks end a verify on both nodes.
func TestVerifyEnds(t *testing.T) {
	for name, end := range map[string]func(p *simPair, a, b *simNode){
		"disk of the one that compares": func(_ *simPair, _, b *simNode) { b.do(DiskError{Text: "x"}) },
		"disk of the other":             func(_ *simPair, a, _ *simNode) { a.do(DiskError{Text: "x"}) },
		"policy pass_on": func(_ *simPair, _, b *simNode) {
			b.s.OnIOError = IOErrorPassOn
			b.do(DiskError{Text: "x"})
		},
		"link": func(p *simPair, _, _ *simNode) { p.cut() },
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b := syncedPair(t)
			b.command(func(id CommandID) Event { return Verify{ID: id} })
			p.deliver(rng())
			p.deliver(rng())
			if a.s.Conn != proto.VerifyT || b.s.Conn != proto.VerifyS {
				t.Fatal("no verify")
			}
			end(p, a, b)
			p.settle(rng())
			if a.s.Conn.Verifying() || b.s.Conn.Verifying() {
				t.Errorf("%v and %v", a.s.Conn, b.s.Conn)
			}
		})
	}
}

// TestFullSync: invalidate and invalidate-remote, from either node, end with the source's data on both.
func TestFullSync(t *testing.T) {
	for _, c := range []struct {
		name   string
		byGood bool // the command runs on the node with the good copy
		mask   drbd.Change
	}{
		{"invalidate", false, drbd.Change{Mask: 0x1f0, Val: 0x0c0}},
		{"invalidate-remote", true, drbd.Change{Mask: 0x1f0, Val: 0x0b0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, a, b := syncedPair(t)
			b.data = [simBlocks]byte{9, 8, 7}
			good, n := a.data, b
			if c.byGood {
				n = a
			}
			id, err := n.command(func(id CommandID) Event { return Invalidate{ID: id, Peer: c.byGood} })
			if err != nil {
				t.Fatal(err)
			}
			if got := n.out[0][len(n.out[0])-1]; got != (SendChangeReq{Change: c.mask}) {
				t.Fatalf("asked %+v", got)
			}
			p.settle(rng())
			if err, ok := n.answers[id]; !ok || err != nil {
				t.Fatalf("answered %v %v", ok, err)
			}
			want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
			want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
			if a.data != good || b.data != good || a.s.UUIDs.Current&^1 != b.s.UUIDs.Current&^1 {
				t.Errorf("%v and %v, want %v", a.data, b.data, good)
			}
		})
	}
}

// TestSyncUUIDOvertakesConsent: the two come on different sockets.
func TestSyncUUIDOvertakesConsent(t *testing.T) {
	_, _, b := syncedPair(t)
	b.command(func(id CommandID) Event { return Invalidate{ID: id} })
	b.do(SyncUUIDReceived{0x1234560})
	if b.s.Conn != proto.Connected || b.s.Disk != proto.UpToDate {
		t.Fatalf("acted too early: %+v", b.s)
	}
	b.do(PeerChangeReply{drbd.SSSuccess})
	want(t, b, proto.Secondary, proto.Primary, proto.SyncTarget, proto.Inconsistent, proto.UpToDate)
	if b.s.UUIDs.Current != 0x1234560 || len(b.bits) != simBlocks {
		t.Errorf("%x, %d bits", b.s.UUIDs.Current, len(b.bits))
	}
}

// TestConsentOvertakesEndOfVerify: the peer's verify was begun and ended while it was asked for a full resync, and its consent
// comes before the word of that end.
func TestConsentOvertakesEndOfVerify(t *testing.T) {
	for _, other := range []bool{false, true} {
		p, a, b := syncedPair(t)
		a.command(func(id CommandID) Event { return Demote{ID: id} })
		p.settle(rng())
		a.s.ResolveConflicts, b.s.ResolveConflicts = false, true
		b.do(Verify{})
		ask := b.out[0][0]
		b.out[0] = nil
		id, err := a.command(func(id CommandID) Event { return Invalidate{ID: id, Peer: other} })
		if err != nil {
			t.Fatal(err)
		}
		a.receive(ask)
		b.receive(a.out[1][0])
		a.out[1] = nil
		b.do(VerifyDone{})
		p.deliverFrom(a)
		a.receive(b.out[1][0])
		b.out[1] = nil
		if err := a.answers[id]; err != nil {
			t.Fatal(err)
		}
		p.settle(rng())
		want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
		want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	}
}

func TestFullSyncRefused(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := a.do(Invalidate{}); code(err) != drbd.SSDeviceInUse {
		t.Errorf("a Primary's own copy: %v", err)
	}
	if err := b.do(Invalidate{Peer: true}); code(err) != drbd.SSDeviceInUse {
		t.Errorf("the copy of a Primary peer: %v", err)
	}
	a.do(PeerChangeReq{Change: drbd.Change{Mask: 0x1f0, Val: 0x0b0}})
	if got := a.out[1][len(a.out[1])-1]; got != (SendChangeReply{Code: drbd.SSDeviceInUse}) {
		t.Errorf("a peer that overwrites a Primary: %+v", got)
	}
	p.settle(rng())
	p.cut()
	if err := b.do(Invalidate{}); code(err) != drbd.SSNeedConnection {
		t.Errorf("without a link: %v", err)
	}
	_, c, _ := upPair(t)
	for _, e := range []Invalidate{{}, {Peer: true}} {
		if err := c.do(e); code(err) != drbd.SSNoUpToDateDisk {
			t.Errorf("without a good copy: %v", err)
		}
	}
	for _, v := range []uint32{0x0b0, 0x0c0} {
		c.do(PeerChangeReq{Change: drbd.Change{Mask: 0x1f0, Val: v}})
		if got := c.out[1][len(c.out[1])-1]; got != (SendChangeReply{Code: drbd.SSNoUpToDateDisk}) {
			t.Errorf("%#x without a good copy: %+v", v, got)
		}
	}
}

// TestFullSyncInterrupted: whatever breaks in between, both copies end equal.
func TestFullSyncInterrupted(t *testing.T) {
	for steps := range 9 {
		for _, crash := range []int{-1, 0, 1} {
			p, a, b := syncedPair(t)
			if err := a.do(Demote{}); err != nil {
				t.Fatal(err)
			}
			p.settle(rng())
			b.data = [simBlocks]byte{9, 8, 7}
			b.command(func(id CommandID) Event { return Invalidate{ID: id} })
			begun := false
			for range steps {
				if !p.deliver(rng()) {
					p.housework(rng())
				}
				begun = begun || a.s.Conn == proto.SyncSource
			}
			if crash >= 0 {
				p.crash(crash)
			} else {
				p.cut()
			}
			p.cable = true
			p.settle(rng())
			for _, n := range p.n {
				if n.s.Disk == proto.Diskless {
					n.attach()
				}
				n.do(Connect{})
			}
			p.settle(rng())
			if a.s.Conn != proto.Connected || b.s.Conn != proto.Connected || begun && a.data != b.data {
				t.Errorf("%d steps, crash %d: %v %v, %v %v", steps, crash, a.s.Conn, b.s.Conn, a.data, b.data)
			}
		}
	}
}
