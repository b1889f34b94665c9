package state

import (
	"math/rand/v2"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// fencedPair is syncedPair with a fencing policy, and exit as what fence-peer returns on both nodes.
func fencedPair(t *testing.T, f FencingPolicy, exit int) (*simPair, *simNode, *simNode) {
	p, a, b := syncedPair(t)
	for _, n := range p.n {
		n.s.Fencing = f
		if exit >= 0 {
			n.fence = func(*simNode) int { return exit }
		}
	}
	return p, a, b
}

func command(t *testing.T, p *simPair, n *simNode, mk func(CommandID) Event) error {
	t.Helper()
	id, err := n.command(mk)
	if err != nil {
		return err
	}
	p.settle(rng())
	err, ok := n.answers[id]
	if !ok {
		t.Fatalf("%s: not answered: %+v", n.name, n.s)
	}
	return err
}

// TestFencePeerExitCodes: a Primary loses its peer.
func TestFencePeerExitCodes(t *testing.T) {
	for _, policy := range []FencingPolicy{FencingDontCare, FencingResource, FencingAndSuspendIO} {
		for _, c := range []struct {
			exit int
			pdsk proto.DiskState
		}{
			{0, proto.DUnknown}, {1, proto.DUnknown}, {3, proto.Inconsistent}, {4, proto.Outdated}, {5, proto.Outdated},
			{6, proto.DUnknown}, {7, proto.Outdated}, {20, proto.DUnknown},
		} {
			p, a, _ := fencedPair(t, policy, c.exit)
			before := a.s.UUIDs.Current
			p.cut()
			if policy == FencingAndSuspendIO && (!a.s.SuspFen || a.s.UUIDs.Current != before) {
				t.Errorf("exit %d: before the handler has ended: suspended %v, %v", c.exit, a.s.SuspFen, a.s.UUIDs)
			}
			p.settle(rng())
			pdsk := c.pdsk
			if policy == FencingDontCare {
				pdsk = proto.DUnknown
			}
			want(t, a, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, pdsk)
			frozen := policy == FencingAndSuspendIO && pdsk == proto.DUnknown
			if a.s.Suspended() != frozen {
				t.Errorf("policy %d, exit %d: suspended %v", policy, c.exit, a.s.Suspended())
			}
			if grown := a.s.UUIDs.Current != before; grown == frozen {
				t.Errorf("policy %d, exit %d: a new generation: %v", policy, c.exit, grown)
			}
			if outdated := a.md.Flags&MDPeerOutdated != 0; outdated != (pdsk != proto.DUnknown) {
				t.Errorf("policy %d, exit %d: the metadata say that the peer is Outdated: %v", policy, c.exit, outdated)
			}
			if frozen {
				if err := command(t, p, a, func(id CommandID) Event { return ResumeIO{ID: id} }); err != nil || a.s.Suspended() || a.md.UUIDs.Current == before {
					t.Errorf("exit %d: resume-io: %v, %+v", c.exit, err, a.s)
				}
			}
		}
	}
}

// TestPromoteFences: the node that was Secondary is asked to take over when the Primary is gone, or after a reboot of its
// own, when its copy is only Consistent.
func TestPromoteFences(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		for _, c := range []struct {
			exit  int
			force bool
			ok    bool
			code  drbd.RetCode
		}{
			{exit: 4, ok: true}, {exit: 3, ok: true}, {exit: 7, ok: true},
			{exit: 5, ok: !reboot, code: drbd.SSNoUpToDateDisk}, // down: what it has may be newer
			{exit: 6, code: drbd.SSNoUpToDateDisk},
			{exit: 0, code: drbd.SSPrimaryNOP},
			{exit: 0, force: true, ok: true},
			{exit: 6, force: true, ok: true},
		} {
			p, _, b := fencedPair(t, FencingResource, c.exit)
			p.cut()
			p.settle(rng())
			disk := proto.UpToDate
			if reboot {
				p.crash(1)
				if err := b.attach(); err != nil {
					t.Fatal(err)
				}
				disk = proto.Consistent
			}
			want(t, b, proto.Secondary, proto.RoleUnknown, b.s.Conn, disk, proto.DUnknown)
			err := promote(t, p, b, c.force)
			if (err == nil) != c.ok || (b.s.Role == proto.Primary) != c.ok {
				t.Errorf("reboot %v, exit %d, force %v: %v", reboot, c.exit, c.force, err)
				continue
			}
			switch {
			case c.ok && (b.s.Disk != proto.UpToDate || b.s.PeerDisk > proto.Outdated):
				t.Errorf("reboot %v, exit %d: Primary on %v/%v", reboot, c.exit, b.s.Disk, b.s.PeerDisk)
			case !c.ok && c.exit == 6 && b.s.Disk != proto.Outdated:
				t.Errorf("the peer is Primary, and this copy is %v", b.s.Disk)
			case !c.ok && code(err) != c.code && !(reboot && c.exit == 0 && code(err) == drbd.SSNoUpToDateDisk):
				t.Errorf("reboot %v, exit %d: %v", reboot, c.exit, err)
			}
		}
	}
}

// TestFencedFailover: the Primary is frozen for want of its peer, which fences it and takes over. Nothing was written
// meanwhile, so the old Primary just follows; without the delay of its generation this would be a split brain.
func TestFencedFailover(t *testing.T) {
	p, a, b := fencedPair(t, FencingAndSuspendIO, 0)
	p.cut()
	p.settle(rng())
	if !a.s.SuspFen || !a.s.UUIDDue {
		t.Fatalf("not suspended: %+v", a.s)
	}
	p.crash(0) // its power is switched off
	b.fence = func(*simNode) int { return peerStonithed }
	if err := promote(t, p, b, false); err != nil {
		t.Fatal(err)
	}
	b.write(2, 9)
	if err := a.attach(); err != nil {
		t.Fatal(err)
	}
	p.cable = true
	a.do(Connect{})
	p.settle(rng())
	want(t, a, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data {
		t.Error("the old Primary has not followed")
	}
}

// TestFrozenWriteIsResynced: a write was under way when the link broke, and the link comes back. The peer may lack it.
func TestFrozenWriteIsResynced(t *testing.T) {
	p, a, b := fencedPair(t, FencingAndSuspendIO, 0)
	p.cut()
	a.data[4], a.bits[4] = 77, true // as the engine marks it when it gives the link up
	before := a.s.UUIDs.Current
	p.settle(rng())
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data || a.s.Suspended() || a.s.UUIDDue || a.s.UUIDs.Current == before {
		t.Errorf("after the link came back: %v %v, %+v", a.data, b.data, a.s)
	}
	p.cut() // nothing under way: the same generation goes on
	before = a.s.UUIDs.Current
	p.settle(rng())
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.s.UUIDs.Current != before || a.s.Suspended() {
		t.Errorf("a new generation, though nothing was written: %+v", a.s)
	}
}

// TestFrozenUntilPeerIsOutdated: as above. I/O goes on when the peer's metadata say that its copy misses something, not when
// the link is back: else the Primary might be lost now, and the peer, fenced in turn, would be promoted without a write that
// was confirmed, or flushed, meanwhile.
func TestFrozenUntilPeerIsOutdated(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		p, a, b := fencedPair(t, FencingAndSuspendIO, 0)
		p.cut()
		p.settle(r)
		a.data[4], a.bits[4] = 77, true
		p.cable = true
		for p.deliver(r) || p.housework(r) {
			if good := b.md.Flags&MDWasUpToDate != 0; good && a.data != b.data && !a.s.Suspended() {
				t.Fatalf("seed %d: I/O goes on while the peer's copy passes for UpToDate:\n%+v\n%+v", seed, a.s, b.s)
			}
		}
		want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
		if a.data != b.data || a.s.Suspended() {
			t.Fatalf("seed %d: %v %v, %+v", seed, a.data, b.data, a.s)
		}
	}
}

// TestFenceLate: the nodes meet again before the handler has ended; its outcome is void.
func TestFenceLate(t *testing.T) {
	p, a, _ := fencedPair(t, FencingResource, 4)
	p.cut()
	for len(a.todo) > 0 { // but not the handler's end
		ev := a.todo[0]
		if _, ok := ev.(FencePeerDone); ok {
			break
		}
		a.todo = a.todo[1:]
		a.do(ev)
	}
	late := a.todo
	a.todo = nil
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	for _, ev := range late {
		a.do(ev)
	}
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.s.Fence.Running || !strings.Contains(strings.Join(a.notes, "\n"), "does not count") {
		t.Errorf("%+v\n%v", a.s.Fence, a.notes)
	}
}

// TestGracefulDisconnectOutdates: with fencing, whoever leaves, the Secondary remembers that it is Outdated; the packets
// are those of a kernel.
func TestGracefulDisconnectOutdates(t *testing.T) {
	for leaver := range 2 {
		p, a, b := fencedPair(t, FencingResource, 0)
		id, err := p.n[leaver].command(func(id CommandID) Event { return Disconnect{ID: id} })
		if err != nil {
			t.Fatal(err)
		}
		if req, _ := p.n[0].request(); leaver == 0 && req != (drbd.Change{Mask: 0x1e1f0, Val: 0xa010}) {
			t.Errorf("the Primary asks for %x", req)
		}
		p.settle(rng())
		if err := p.n[leaver].answers[id]; err != nil {
			t.Errorf("n%d cannot leave: %v", leaver+1, err)
		}
		if a.s.PeerDisk != proto.Outdated || b.s.Disk != proto.Outdated || b.md.Flags&(MDConsistent|MDWasUpToDate) != MDConsistent {
			t.Errorf("n%d left: %v here, %v there, flags %x", leaver+1, a.s.PeerDisk, b.s.Disk, b.md.Flags)
		}
		if err := promote(t, p, b, false); code(err) != drbd.SSNoUpToDateDisk {
			t.Errorf("an Outdated copy is promoted: %v", err)
		}
		p.crash(1)
		b.attach()
		want(t, b, proto.Secondary, proto.RoleUnknown, proto.StandAlone, proto.Outdated, proto.DUnknown)
		p.cable = true
		a.do(Connect{})
		b.do(Connect{})
		p.settle(rng())
		want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
	}
}

// request is the change request that waits to be delivered.
func (n *simNode) request() (drbd.Change, bool) {
	for _, p := range n.out[0] {
		if r, ok := p.(SendChangeReq); ok {
			return r.Change, true
		}
	}
	return drbd.Change{}, false
}

func TestOutdate(t *testing.T) {
	outdate := func(id CommandID) Event { return Outdate{ID: id} }
	p, a, b := syncedPair(t)
	if err := command(t, p, b, outdate); code(err) != drbd.SSConnectedOutdates {
		t.Errorf("while connected: %v", err)
	}
	p.cut()
	p.settle(rng())
	if err := command(t, p, a, outdate); code(err) != drbd.SSNoUpToDateDisk {
		t.Errorf("of a Primary: %v", err)
	}
	for range 2 {
		if err := command(t, p, b, outdate); err != nil || b.s.Disk != proto.Outdated {
			t.Errorf("of a Secondary: %v, %v", err, b.s.Disk)
		}
	}
	if err := promote(t, p, b, false); code(err) != drbd.SSNoUpToDateDisk {
		t.Errorf("promoted: %v", err)
	}
	if err := promote(t, p, b, true); err != nil || b.s.Disk != proto.UpToDate {
		t.Errorf("not promoted by force: %v", err)
	}
	b.do(Detach{Force: true})
	p.settle(rng())
	if err := command(t, p, b, outdate); code(err) != drbd.SSLowerThanOutdated {
		t.Errorf("without disk: %v", err)
	}
}

// TestNoDataSuspends: a Primary loses its disk and then its peer, and gets back one or the other.
func TestNoDataSuspends(t *testing.T) {
	for _, policy := range []NoDataPolicy{NoDataFails, NoDataSuspends} {
		p, a, _ := syncedPair(t)
		a.s.OnNoData = policy
		a.do(DiskError{Text: "test"})
		p.settle(rng())
		want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.Diskless, proto.UpToDate)
		if a.s.Suspended() {
			t.Error("suspended, though the peer has the data")
		}
		p.cut()
		p.settle(rng())
		if a.s.SuspNoD != (policy == NoDataSuspends) {
			t.Errorf("policy %d: %+v", policy, a.s)
		}
		p.cable = true
		p.settle(rng())
		want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.Diskless, proto.UpToDate)
		if a.s.Suspended() {
			t.Error("suspended, though the peer is back")
		}
		p.cut()
		p.settle(rng())
		if err := command(t, p, a, func(id CommandID) Event { return ResumeIO{ID: id} }); err != nil || a.s.Suspended() {
			t.Errorf("resume-io: %v", err)
		}
	}
}
