package state

import (
	"fmt"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

var validAfterSB = [3][]uint32{
	{drbd.AfterSBDisconnect, drbd.AfterSBDiscardYoungerPri, drbd.AfterSBDiscardOlderPri, drbd.AfterSBDiscardZeroChanges,
		drbd.AfterSBDiscardLeastChanges, drbd.AfterSBDiscardLocal, drbd.AfterSBDiscardRemote},
	{drbd.AfterSBDisconnect, drbd.AfterSBConsensus, drbd.AfterSBDiscardSecondary, drbd.AfterSBCallHelper, drbd.AfterSBViolently},
	{drbd.AfterSBDisconnect, drbd.AfterSBCallHelper, drbd.AfterSBViolently},
}

// TestAfterSBTable: what the manual of drbd.conf says of each policy, for two Secondaries.
func TestAfterSBTable(t *testing.T) {
	const keep, lose, none = SourceBitmap, TargetBitmap, SplitBrain2
	young, old := fork{peerOld: true}, fork{older: true}
	with := func(f fork, bits, peer uint64) fork { f.bits, f.peerBits = bits, peer; return f }
	tie := fork{tie: true}
	for _, c := range []struct {
		policy uint32
		f      fork
		want   int
	}{
		{drbd.AfterSBDisconnect, with(young, 0, 9), none},
		{drbd.AfterSBDiscardYoungerPri, with(young, 9, 0), lose},
		{drbd.AfterSBDiscardYoungerPri, with(old, 0, 9), keep},
		{drbd.AfterSBDiscardOlderPri, with(young, 0, 9), keep},
		{drbd.AfterSBDiscardOlderPri, with(old, 9, 0), lose},
		// both were Primary at once, or neither: zero changes first, then least changes
		{drbd.AfterSBDiscardYoungerPri, with(fork{}, 0, 9), lose},
		{drbd.AfterSBDiscardOlderPri, with(fork{older: true, peerOld: true}, 7, 9), lose},
		{drbd.AfterSBDiscardOlderPri, with(fork{}, 9, 7), keep},
		{drbd.AfterSBDiscardZeroChanges, with(fork{}, 0, 9), lose},
		{drbd.AfterSBDiscardZeroChanges, with(fork{}, 9, 0), keep},
		{drbd.AfterSBDiscardZeroChanges, with(fork{}, 7, 9), none},
		{drbd.AfterSBDiscardZeroChanges, with(tie, 0, 0), lose},
		{drbd.AfterSBDiscardZeroChanges, with(fork{}, 0, 0), keep},
		{drbd.AfterSBDiscardLeastChanges, with(fork{}, 7, 9), lose},
		{drbd.AfterSBDiscardLeastChanges, with(fork{}, 9, 7), keep},
		{drbd.AfterSBDiscardLeastChanges, with(tie, 5, 5), lose},
		{drbd.AfterSBDiscardLeastChanges, with(fork{}, 5, 5), keep},
		{drbd.AfterSBDiscardLocal, with(fork{}, 9, 0), lose},
		{drbd.AfterSBDiscardRemote, with(fork{}, 0, 9), keep},
	} {
		if got, _ := c.f.resolve([3]uint32{c.policy, drbd.AfterSBViolently, drbd.AfterSBViolently}); got != c.want {
			t.Errorf("policy %d, %+v: %d, want %d", c.policy, c.f, got, c.want)
		}
	}
}

// kernelVerdict is drbd_asb_recover_1p and 2p over the outcome of 0p (drbd_receiver.c), for a Primary that cannot be
// demoted because it is in use.
func kernelVerdict(policy uint32, primaries int, self proto.Role, hg int) (rv int, helper bool) {
	rv = SplitBrain2
	switch {
	case policy == drbd.AfterSBConsensus && primaries == 1:
		if hg == -1 && self == proto.Secondary || hg == 1 && self == proto.Primary {
			rv = hg
		}
	case policy == drbd.AfterSBViolently:
		rv = hg
	case policy == drbd.AfterSBDiscardSecondary && primaries == 1:
		if rv = -1; self == proto.Primary {
			rv = 1
		}
	case policy == drbd.AfterSBCallHelper:
		if rv = hg; hg == -1 && self == proto.Primary {
			return SplitBrain2, true
		}
	}
	return rv, false
}

// TestAfterSBEverything: every combination of policies, roles, ages, changes and tie. The verdict with Primaries follows
// from that without as the kernel's does, and two nodes never both keep or both lose.
func TestAfterSBEverything(t *testing.T) {
	n := 0
	roles := []proto.Role{proto.Secondary, proto.Primary}
	for _, p0 := range validAfterSB[0] {
		for _, p1 := range validAfterSB[1] {
			for _, p2 := range validAfterSB[2] {
				for mask := range 1 << 4 {
					for _, bits := range []uint64{0, 1, 5, 6} {
						for _, peerBits := range []uint64{0, 1, 5, 6} {
							for _, tie := range []bool{false, true} {
								n++
								f := fork{role: roles[mask&1], peerRole: roles[mask>>1&1], older: mask&4 > 0, peerOld: mask&8 > 0, bits: bits, peerBits: peerBits, tie: tie}
								g := fork{role: f.peerRole, peerRole: f.role, older: f.peerOld, peerOld: f.older, bits: f.peerBits, peerBits: f.bits, tie: !f.tie}
								policy := [3]uint32{p0, p1, p2}
								ours, lost := f.resolve(policy)
								theirs, theirLost := g.resolve([3]uint32{drbd.MirrorAfterSB(p0), p1, p2})
								if ours == theirs && ours != SplitBrain2 || (ours == SplitBrain2) != (theirs == SplitBrain2) && !lost && !theirLost {
									t.Fatalf("%v: %+v: %d here, %d there", policy, f, ours, theirs)
								}
								if k := f.primaries(); k > 0 {
									want, helper := kernelVerdict(policy[k], k, f.role, f.resolve0(p0))
									if ours != want || lost != helper {
										t.Fatalf("%v: %+v: %d, the kernel %d", policy, f, ours, want)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations", n)
}

// TestAfterSBPair: two nodes that have both written meet again.
func TestAfterSBPair(t *testing.T) {
	for _, c := range []struct {
		policy  [3]uint32
		primary int // the node that is Primary when they meet, -1 none
		loser   int // -1: unresolved
		handler string
	}{
		{[3]uint32{}, -1, -1, "split-brain"},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges}, -1, 1, ""},
		{[3]uint32{drbd.AfterSBDiscardYoungerPri}, -1, 1, ""},
		{[3]uint32{drbd.AfterSBDiscardOlderPri}, -1, 0, ""},
		{[3]uint32{drbd.AfterSBDiscardZeroChanges}, -1, -1, "split-brain"},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges}, 1, -1, "split-brain"},
		{[3]uint32{0, drbd.AfterSBDiscardSecondary}, 1, 0, ""},
		{[3]uint32{0, drbd.AfterSBDiscardSecondary}, 0, 1, ""},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges, drbd.AfterSBConsensus}, 0, 1, ""},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges, drbd.AfterSBConsensus}, 1, -1, "split-brain"},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges, drbd.AfterSBCallHelper}, 1, -1, "pri-lost-after-sb"},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges, drbd.AfterSBViolently}, 1, -1, "pri-lost"},
		{[3]uint32{drbd.AfterSBDiscardLeastChanges, drbd.AfterSBViolently}, 0, 1, ""},
	} {
		t.Run(fmt.Sprint(c.policy, c.primary), func(t *testing.T) {
			p, a, b := syncedPair(t)
			for _, n := range p.n {
				n.s.AfterSB, n.s.RRConflict = c.policy, RRCallPriLost
			}
			partWithChanges(t, p)
			b.do(Demote{})
			if c.primary >= 0 {
				if err := promote(t, p, p.n[c.primary], false); err != nil {
					t.Fatal(err)
				}
			}
			p.cable = true
			a.notes, b.notes = nil, nil
			p.settle(rng())
			said := strings.Join(append(a.notes, b.notes...), "\n")
			if c.loser < 0 {
				if a.s.Conn >= proto.Connected && b.s.Conn >= proto.Connected || a.data[5] == 15 || b.data[1] == 11 {
					t.Errorf("resolved: %v %v\n%s", a.s.Conn, b.s.Conn, said)
				}
				if !strings.Contains(said, "handler "+c.handler+"\n") {
					t.Errorf("no handler %s\n%s", c.handler, said)
				}
				return
			}
			if a.s.Conn != proto.Connected || b.s.Conn != proto.Connected || a.data != b.data {
				t.Fatalf("not resolved: %v %v\n%s", a.s.Conn, b.s.Conn, said)
			}
			if (a.data[5] == 15) != (c.loser == 0) {
				t.Errorf("the wrong one has lost: %v", a.data)
			}
			bytes := []string{"8192 bytes in 2 blocks", "4096 bytes in 1 blocks"}[c.loser]
			for _, n := range p.n {
				if s := strings.Join(n.notes, "\n"); !strings.Contains(s, bytes) {
					t.Errorf("%s does not tell of the loss of %s:\n%s", n.name, bytes, s)
				}
			}
		})
	}
}

// partWithChanges has the first node write two blocks, then, Primary instead, the other one a third.
func partWithChanges(t *testing.T, p *simPair) {
	t.Helper()
	a, b := p.n[0], p.n[1]
	p.cut()
	p.settle(rng())
	a.write(1, 11)
	a.write(2, 12)
	a.do(Demote{})
	if err := promote(t, p, b, false); err != nil {
		t.Fatal(err)
	}
	b.write(5, 15)
}

// TestAfterSBIsNotTurnedOver: the link breaks when the loser has taken the winner's bitmap, and by the new counts it would win. It was
// about to give its changes up: people decide, and can.
func TestAfterSBIsNotTurnedOver(t *testing.T) {
	p, a, b := syncedPair(t)
	for _, n := range p.n {
		n.s.AfterSB = [3]uint32{drbd.AfterSBDiscardLeastChanges}
	}
	partWithChanges(t, p)
	b.do(Demote{})
	p.cable = true
	r := rng()
	for b.s.Conn != proto.WFSyncUUID {
		if !p.deliver(r) && !p.housework(r) {
			t.Fatalf("%v %v", a.s.Conn, b.s.Conn)
		}
	}
	p.cut()
	if len(a.bits) >= len(b.bits) || b.s.Disk != proto.Outdated {
		t.Fatalf("%v %v %v", a.bits, b.bits, b.s.Disk)
	}
	p.settle(r)
	p.cable = true
	p.settle(r)
	if a.s.Conn >= proto.Connected || b.s.Conn >= proto.Connected || a.data[1] != 11 || b.data[5] != 15 {
		t.Fatalf("%v %v, %v %v\n%s", a.s.Conn, b.s.Conn, a.data, b.data, strings.Join(a.notes, "\n"))
	}
	for _, n := range p.n {
		if n.s.Conn != proto.StandAlone {
			n.do(Disconnect{})
		}
	}
	p.settle(r)
	if err := b.do(Connect{DiscardMyData: true}); err != nil {
		t.Fatal(err)
	}
	a.do(Connect{})
	p.settle(r)
	if a.s.Conn != proto.Connected || b.data[1] != 11 || b.data[5] == 15 {
		t.Errorf("%v %v, %v %v", a.s.Conn, b.s.Conn, a.data, b.data)
	}
}

// TestAfterSBLostBesideDiscard: by the policy a Primary loses and refuses to; the other one was told to discard its changes,
// but has won by the policy. They must not both be the source.
func TestAfterSBLostBesideDiscard(t *testing.T) {
	p, a, b := syncedPair(t)
	for _, n := range p.n {
		n.s.AfterSB = [3]uint32{drbd.AfterSBDiscardLeastChanges, drbd.AfterSBCallHelper}
	}
	partWithChanges(t, p)
	if err := a.do(Disconnect{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	if err := a.do(Connect{DiscardMyData: true}); err != nil {
		t.Fatal(err)
	}
	p.cable = true
	p.settle(rng())
	if b.s.Conn != proto.StandAlone || a.s.Conn.Syncing() || a.data[1] != 11 || b.data[5] != 15 {
		t.Errorf("%v %v, %v %v", a.s.Conn, b.s.Conn, a.data, b.data)
	}
}

// TestAlwaysASBP: where the histories do not tell when the copies parted, the policies hold only with always-asbp, and all
// is copied. Where they do not even tell that the copies were ever the same, as with two pairs that were made alike, no
// policy holds.
func TestAlwaysASBP(t *testing.T) {
	for _, tt := range []struct {
		always   bool
		history  [2]uint64
		resolved bool
	}{
		{false, [2]uint64{0x5000, 0x6000}, false},
		{true, [2]uint64{0x5000, 0x6000}, true},
		{true, [2]uint64{0, drbd.UUIDJustCreated}, false},
		{true, [2]uint64{}, false},
	} {
		p, a, b := syncedPair(t)
		a.do(Demote{})
		p.settle(rng())
		p.cut()
		p.settle(rng())
		for i, n := range p.n { // other bitmap UUIDs, a common history
			n.s.AfterSB[0], n.s.AlwaysASBP = drbd.AfterSBDiscardLeastChanges, tt.always
			n.s.UUIDs = UUIDs{Current: uint64(0x100 + 0x10*i), Bitmap: uint64(0x1000 + 0x10*i), History0: tt.history[0], History1: tt.history[1]}
		}
		a.data[3], a.bits[3] = 33, true
		p.cable = true
		p.settle(rng())
		if resolved := a.s.Conn == proto.Connected && b.data[3] == 33; resolved != tt.resolved {
			t.Errorf("%+v: %v %v\n%s", tt, a.s.Conn, b.s.Conn, strings.Join(a.notes, "\n"))
		}
	}
}

// TestAfterSBLateAttach: a split brain that comes to light with a late attach. Who finds it marks everything before it
// answers; the answer must tell of what it went by, or the other one goes by something else.
func TestAfterSBLateAttach(t *testing.T) {
	p, a, b := syncedPair(t)
	a.command(func(id CommandID) Event { return Demote{ID: id} })
	for _, n := range p.n {
		n.s.AfterSB, n.s.AlwaysASBP = [3]uint32{drbd.AfterSBDiscardLeastChanges, 0, 0}, true
	}
	p.settle(rng())
	if err := b.do(Detach{Force: true}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	a.md.UUIDs = UUIDs{Current: 0x1000, History0: 0x77}
	a.s.UUIDs, b.s.PeerUUIDs.UUIDs = a.md.UUIDs, a.md.UUIDs
	b.md.UUIDs = UUIDs{Current: 0x2000, History0: 0x77}
	a.bits, b.bits = map[int]bool{1: true}, map[int]bool{2: true, 3: true}
	if err := b.attach(); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if masked(a.s.UUIDs.Current) != 0x2000 {
		t.Errorf("the copy with fewer changes won: %v", a.s.UUIDs)
	}
}
