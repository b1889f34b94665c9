package state

import (
	"strings"
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
	for _, order := range []string{"consent last", "consent first", "consent in between", "consent while Behind"} {
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
		case "consent while Behind":
			pkt := a.out[0][0]
			a.out[0] = a.out[0][1:]
			b.receive(pkt)
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

// TestGrowBesideDiskless: a node asks its peer for its size when that has just lost its disk. The device stays what it is, and
// the one that asked is not kept waiting.
func TestGrowBesideDiskless(t *testing.T) {
	p, a, b := syncedPair(t)
	_ = a.do(DiskError{Text: "broken"})
	_ = a.do(DiskReleased{})
	a.todo, b.own = nil, 2000
	if err := b.do(Resize{OwnSize: 2000}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.Diskless)
	if a.s.Size != 1000 || b.s.Size != 1000 || b.s.Asking {
		t.Errorf("sizes %d and %d, asking %v", a.s.Size, b.s.Size, b.s.Asking)
	}
	_ = a.attach()
	inSync(t, p)
	a.own = 2000
	if err := a.do(Resize{OwnSize: 2000}); err != nil {
		t.Fatal(err)
	}
	inSync(t, p)
	if a.s.Size != 2000 || b.s.Size != 2000 {
		t.Errorf("sizes %d and %d", a.s.Size, b.s.Size)
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

// TestGrowToDifferentSizes: the disks go on growing while the nodes agree on a size, each by another step. Both devices end
// with the same one, and its new part is resynced.
func TestGrowToDifferentSizes(t *testing.T) {
	for _, tc := range []struct {
		name          string
		both, paused  bool
		told, ownA    uint64 // what a has when it asks, and when it hears the answer
		toldB, ownB   uint64 // what b has if it asks too, and when it hears of a's
		size          uint64
		primary, tieA bool
	}{
		{name: "answered", told: 1500, ownA: 3000, ownB: 3000, size: 1500},
		{name: "answered, paused", paused: true, told: 1500, ownA: 3000, ownB: 3000, size: 1500, tieA: true},
		{name: "answered to a Primary", primary: true, told: 1500, ownA: 3000, ownB: 3000, size: 1500},
		{name: "answered with less", told: 2000, ownA: 3000, ownB: 1500, size: 1500},
		{name: "both ask", both: true, told: 1500, ownA: 3000, toldB: 2000, ownB: 3000, size: 1500},
		{name: "both ask, paused", both: true, paused: true, told: 2000, ownA: 3000, toldB: 1500, ownB: 2000, size: 1500, tieA: true},
		{name: "both ask, one is Primary", both: true, primary: true, told: 2000, ownA: 2000, toldB: 1500, ownB: 3000, size: 1500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, a, b := syncedPair(t)
			if !tc.primary {
				_ = a.do(Demote{})
				p.settle(rng())
			}
			a.s.ResolveConflicts, b.s.ResolveConflicts = tc.tieA, !tc.tieA
			if tc.paused {
				_ = a.do(PauseSync{})
				p.settle(rng())
			}
			if err := a.do(Resize{OwnSize: tc.told}); err != nil {
				t.Fatal(err)
			}
			if tc.both {
				if err := b.do(Resize{OwnSize: tc.toldB}); err != nil {
					t.Fatal(err)
				}
			}
			a.own, b.own = tc.ownA, tc.ownB
			u := a.s.UUIDs.History0
			p.settle(rng())
			_ = a.do(ResumeSync{})
			inSync(t, p)
			if a.s.Size != tc.size || b.s.Size != tc.size || a.s.UUIDs.History0 == u || a.s.UUIDs.History0 != b.s.UUIDs.History0 {
				t.Errorf("sizes %d and %d, %v and %v: the new part was not resynced", a.s.Size, b.s.Size, a.s.UUIDs, b.s.UUIDs)
			}
			if err := a.do(Resize{OwnSize: 3000}); err != nil {
				t.Fatal(err)
			}
			b.own = 3000
			inSync(t, p)
			if a.s.Size != 3000 || b.s.Size != 3000 {
				t.Errorf("sizes %d and %d after another resize", a.s.Size, b.s.Size)
			}
		})
	}
}

// TestGrowCleanBesideGrow: both nodes grow the device at once, and one of them says that the new part is the same on both. It
// does not begin half a resync.
func TestGrowCleanBesideGrow(t *testing.T) {
	for _, both := range []bool{true, false} {
		p, a, b := syncedPair(t)
		a.own, b.own = 2000, 2000
		_ = a.do(Resize{OwnSize: 2000, AssumeClean: true})
		_ = b.do(Resize{OwnSize: 2000, AssumeClean: both})
		inSync(t, p)
		if a.s.Size != 2000 || b.s.Size != 2000 || a.s.UUIDs.Bitmap != 0 {
			t.Errorf("sizes %d and %d, %v", a.s.Size, b.s.Size, a.s.UUIDs)
		}
		if said := strings.Contains(strings.Join(a.notes, "\n"), "only one of them says"); said == both {
			t.Errorf("said so: %v", said)
		}
	}
}

// TestGrowByLateAttach: a disk that has grown is attached beside one that has grown too, and both devices do.
func TestGrowByLateAttach(t *testing.T) {
	p, a, b := syncedPair(t)
	if _, err := b.command(func(id CommandID) Event { return Detach{ID: id} }); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	a.own, b.own = 2000, 2000
	b.attach()
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.s.Size != 2000 || b.s.Size != 2000 {
		t.Errorf("sizes %d and %d", a.s.Size, b.s.Size)
	}
}

// TestLateAttachDoesNotOutgrow: a kernel keeps its device as it is when a disk comes late, though its own disk has grown: the
// device here must not be larger, or the two bitmaps that follow are not of one length.
func TestLateAttachDoesNotOutgrow(t *testing.T) {
	p, _, b := syncedPair(t)
	if _, err := b.command(func(id CommandID) Event { return Detach{ID: id} }); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	size := b.s.Size
	b.own = 2 * size
	_ = b.attach()
	if b.s.Disk != proto.Negotiating {
		t.Fatalf("the disk is %v", b.s.Disk)
	}
	b.do(PeerSizes{Sizes: drbd.Sizes{Disk: 2 * size, Current: size}})
	if b.s.Size != size {
		t.Errorf("the device has grown from %d to %d, the peer's has not", size, b.s.Size)
	}
	b.do(PeerSizes{Sizes: drbd.Sizes{Disk: 2 * size, Current: 2 * size}})
	if b.s.Size != 2*size {
		t.Errorf("the device has %d, the peer's %d", b.s.Size, 2*size)
	}
}

// TestGrowBesideDetach: the device grows here while the peer lets its disk go, and so never answers. What is attached there later
// takes the size, and no resync begins on one node only.
func TestGrowBesideDetach(t *testing.T) {
	p, a, b := syncedPair(t)
	_ = a.do(Demote{})
	p.settle(rng())
	a.s.PeerSize, b.s.OwnSize, a.own, b.own = 1500, 1500, 1500, 1500
	if _, err := b.command(func(id CommandID) Event { return Detach{ID: id, Force: true} }); err != nil {
		t.Fatal(err)
	}
	if err := a.do(Resize{OwnSize: 1500, AssumeClean: true}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Diskless)
	a.own, b.own = 2000, 2000
	_ = b.attach()
	inSync(t, p)
	if a.s.Size != 2000 || b.s.Size != 2000 {
		t.Errorf("sizes %d and %d", a.s.Size, b.s.Size)
	}
}

// TestGrowBesideResync: the peer has grown as it was asked to, but a resync that it begins has overtaken its answer.
func TestGrowBesideResync(t *testing.T) {
	p, a, b := upPair(t)
	a.own, b.own = 2000, 2000
	if _, err := a.command(func(id CommandID) Event { return Promote{ID: id, Force: true} }); err != nil {
		t.Fatal(err)
	}
	p.deliverFrom(a) // the request
	_ = b.do(Resize{OwnSize: 2000})
	consent := b.out[1][0]
	b.out[1] = b.out[1][1:]
	a.receive(consent) // it has the resync begin
	p.deliverFrom(b)   // the question
	if a.s.Size != 2000 {
		t.Fatalf("size %d", a.s.Size)
	}
	inSync(t, p)
	if a.s.Size != 2000 || b.s.Size != 2000 {
		t.Errorf("sizes %d and %d", a.s.Size, b.s.Size)
	}
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
