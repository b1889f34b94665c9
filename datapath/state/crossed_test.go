package state

import (
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// inSync wants a pair at rest with two equal, good copies and nothing marked.
func inSync(t *testing.T, p *simPair) {
	t.Helper()
	p.settle(rng())
	for _, n := range p.n {
		if n.s.Conn != proto.Connected || n.s.Disk != proto.UpToDate || n.s.PeerDisk != proto.UpToDate || len(n.bits) > 0 {
			t.Errorf("%s: %v %v/%v, bits %v", n.name, n.s.Conn, n.s.Disk, n.s.PeerDisk, n.bits)
		}
	}
}

// TestInvalidateBesideAhead: a Primary runs Ahead and writes nothing meanwhile. What the peer said before it fell behind looks
// like the end of that resync, so the peer's invalidate is granted while it is still a target.
func TestInvalidateBesideAhead(t *testing.T) {
	for _, order := range []string{"consent last", "consent first", "consent in between"} {
		p, a, b := syncedPair(t)
		_ = b.do(PauseSync{})
		_ = a.do(Congested{})
		_ = a.do(CaughtUp{})
		p.deliverFrom(b)
		want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
		id, err := b.command(func(id CommandID) Event { return Invalidate{ID: id} })
		if err != nil {
			t.Fatal(err)
		}
		p.deliverFrom(b)
		want(t, a, proto.Primary, proto.Secondary, proto.SyncSource, proto.UpToDate, proto.Inconsistent)
		consent := func() {
			pkt := a.out[1][0]
			a.out[1] = a.out[1][1:]
			b.receive(pkt)
		}
		switch order {
		case "consent first":
			consent()
		case "consent in between":
			for range 2 { // Ahead, and the UUID of its resync
				pkt := a.out[0][0]
				a.out[0] = a.out[0][1:]
				b.receive(pkt)
			}
			consent()
		}
		p.settle(rng())
		_ = b.do(ResumeSync{})
		inSync(t, p)
		if err, ok := b.answers[id]; err != nil || !ok {
			t.Errorf("%s: invalidate: %v, %v", order, err, ok)
		}
	}
}

// TestGrowBesideSkip: two fresh disks are declared to be the same on one node while the other one has begun to grow.
func TestGrowBesideSkip(t *testing.T) {
	for _, tie := range []bool{true, false} {
		p, a, b := upPair(t)
		a.s.ResolveConflicts, b.s.ResolveConflicts = tie, !tie
		a.own, a.s.OwnSize, b.s.PeerSize = 2000, 2000, 2000
		if _, err := a.command(func(id CommandID) Event { return SkipInitialSync{ID: id} }); err != nil {
			t.Fatal(err)
		}
		b.own = 2000
		if _, err := b.command(func(id CommandID) Event { return Resize{ID: id, OwnSize: 2000} }); err != nil {
			t.Fatal(err)
		}
		if err := b.do(SkipInitialSync{}); code(err) != drbd.SSInTransientState {
			t.Errorf("declared while it grows: %v", err)
		}
		inSync(t, p)
		if a.s.Size != 2000 || b.s.Size != 2000 || masked(a.s.UUIDs.Current) != masked(b.s.UUIDs.Current) {
			t.Errorf("sizes %d and %d, %v and %v", a.s.Size, b.s.Size, a.s.UUIDs, b.s.UUIDs)
		}
	}
}

// TestGrowBesideAhead: a node grows while its peer has just run Ahead and does not follow; then one of them tries again.
func TestGrowBesideAhead(t *testing.T) {
	for again := range 2 {
		p, a, b := syncedPair(t)
		a.own, a.s.OwnSize, b.s.PeerSize = 2000, 2000, 2000
		_ = a.do(Congested{})
		a.write(3, 77)
		b.own = 2000
		_ = b.do(Resize{OwnSize: 2000})
		p.deliverFrom(b)
		if a.s.Size != 1000 || b.s.Size != 2000 {
			t.Fatalf("sizes %d and %d", a.s.Size, b.s.Size)
		}
		p.settle(rng())
		u := a.s.UUIDs.History0
		if err := p.n[again].do(Resize{OwnSize: 2000}); err != nil {
			t.Fatal(err)
		}
		inSync(t, p)
		if a.s.Size != 2000 || b.s.Size != 2000 || a.s.UUIDs.History0 == u || a.s.UUIDs.History0 != b.s.UUIDs.History0 {
			t.Errorf("sizes %d and %d, %v and %v: the new part was not resynced", a.s.Size, b.s.Size, a.s.UUIDs, b.s.UUIDs)
		}
	}
}

// TestGrowThenDemote: a Primary grows and is demoted as soon as the peer has answered, whose own request is still open. The
// Primary was the source.
func TestGrowThenDemote(t *testing.T) {
	p, a, b := syncedPair(t)
	a.s.ResolveConflicts, b.s.ResolveConflicts = false, true
	a.s.PeerSize, b.s.OwnSize = 2000, 2000
	if _, err := b.command(func(id CommandID) Event { return Verify{ID: id} }); err != nil {
		t.Fatal(err)
	}
	_ = a.do(Resize{OwnSize: 2000})
	for _, ev := range []Event{Verify{}, Invalidate{Peer: true}} {
		if err := a.do(ev); code(err) != drbd.SSInTransientState {
			t.Errorf("%T while the device grows: %v", ev, err)
		}
	}
	p.deliverFrom(a)
	p.deliverFrom(b)
	want(t, a, proto.Primary, proto.Secondary, proto.SyncSource, proto.UpToDate, proto.Inconsistent)
	if err := a.do(Demote{}); err != nil {
		t.Fatal(err)
	}
	p.deliverFrom(a)
	inSync(t, p)
}

// TestInvalidateNotHeard: the peer agrees to have its copy overwritten, and the link breaks before this node hears of it.
// Nothing was begun, and no marks stay for which nobody would ever resync.
func TestInvalidateNotHeard(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := a.do(Demote{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	if _, err := a.command(func(id CommandID) Event { return Invalidate{ID: id, Peer: true} }); err != nil {
		t.Fatal(err)
	}
	p.deliverFrom(a)
	want(t, b, proto.Secondary, proto.Secondary, proto.WFSyncUUID, proto.Outdated, proto.UpToDate)
	p.cut()
	p.cable = true
	inSync(t, p)
}

// TestForceBesideHalfATarget: the source of a resync loses its target in the middle, is declared Outdated and promoted by force.
// The target, which bears the name of that resync, is still known.
func TestForceBesideHalfATarget(t *testing.T) {
	p, a, b := upPair(t)
	_ = a.do(SkipInitialSync{})
	p.settle(rng())
	if err := promote(t, p, a, false); err != nil {
		t.Fatal(err)
	}
	_ = b.do(PauseSync{})
	for range 2 {
		p.cut()
		p.settle(rng())
		a.write(3, 77)
		p.cable = true
		p.settle(rng())
	}
	want(t, b, proto.Secondary, proto.Primary, proto.PausedSyncT, proto.Inconsistent, proto.UpToDate)
	_ = a.do(Demote{})
	p.cut()
	p.settle(rng())
	_ = a.do(Outdate{})
	if err := a.do(Promote{Force: true}); err != nil {
		t.Fatal(err)
	}
	_ = b.do(ResumeSync{})
	p.cable = true
	inSync(t, p)
	if a.data != b.data {
		t.Errorf("%v and %v", a.data, b.data)
	}
}
