package state

import (
	"strings"
	"testing"

	"example.com/santui/proto"
)

// halfSynced is a pair of Secondaries whose link broke in the resync from the first to the second node: when it was finished, and
// the source had not heard of it, or when it had begun, and the target had not.
func halfSynced(t *testing.T, finished bool) (*simPair, *simNode, *simNode) {
	t.Helper()
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	a.write(3, 77)
	_ = a.do(Demote{})
	p.cable = true
	late := func() bool { return a.s.Conn == proto.SyncSource }
	if finished {
		late = func() bool { return b.s.Conn == proto.SyncTarget && len(b.bits) == 0 }
	}
	p.until(t, late)
	if finished {
		_ = b.do(ResyncDone{})
		b.out = [2][]any{}
	}
	p.cut()
	p.settle(rng())
	return p, a, b
}

// TestSourceGoesOnAlone: a source whose target has finished, or not heard of the beginning, is promoted alone, perhaps again and
// again. What it writes is resynced and nothing more, and it is not forgotten if its node loses its power before that.
func TestSourceGoesOnAlone(t *testing.T) {
	for _, finished := range []bool{true, false} {
		for times := 1; times <= 4; times++ {
			p, a, b := halfSynced(t, finished)
			for range times {
				if err := promote(t, p, a, false); err != nil {
					t.Fatal(err)
				}
				a.write(4, 55)
				_ = a.do(Demote{})
			}
			b.data[6] = 66 // a full resync would make this one equal too
			p.cable = true
			p.until(t, func() bool { return a.s.Conn == proto.WFBitMapS })
			p.crash(0)
			p.settle(rng())
			_ = a.attach()
			_ = a.do(Connect{})
			for range 2 {
				p.until(t, func() bool { return a.s.Conn == proto.SyncSource })
				p.cut() // the target has not heard
				p.settle(rng())
				p.cable = true
			}
			inSync(t, p)
			if b.data[4] != 55 || b.data[3] != 77 || b.data[6] != 66 || a.s.UUIDs.masked() != b.s.UUIDs.masked() {
				t.Errorf("finished %v: %v and %v, %v and %v", finished, a.data, b.data, a.s.UUIDs, b.s.UUIDs)
			}
		}
	}
}

// TestForkBesideResync: in the same situation both are promoted alone. It is a split brain, and an operator decides.
func TestForkBesideResync(t *testing.T) {
	for _, finished := range []bool{true, false} {
		for loser := range 2 {
			p, a, b := halfSynced(t, finished)
			for i, n := range p.n {
				if err := promote(t, p, n, n.s.Disk < proto.UpToDate); err != nil {
					t.Fatal(err)
				}
				n.write(4+i, 55)
				_ = n.do(Demote{})
			}
			p.cable = true
			p.settle(rng())
			for _, n := range p.n {
				if text := strings.Join(n.notes, "\n"); n.s.Conn != proto.StandAlone || !strings.Contains(text, "split brain") {
					t.Fatalf("finished %v: %v, %v and %v\n%s", finished, n.s.Conn, a.s.UUIDs, b.s.UUIDs, text)
				}
			}
			for i, n := range p.n {
				_ = n.do(Connect{DiscardMyData: i == loser})
			}
			inSync(t, p)
			if kept := p.n[1-loser].data; kept[4+1-loser] != 55 || kept[4+loser] == 55 || a.data != b.data {
				t.Errorf("finished %v, %d loses: %v and %v", finished, loser, a.data, b.data)
			}
		}
	}
}

// TestSuspendedPrimaryOutlivesSource: a target was promoted during its resync, and the source lost its power when that was finished
// and it had not heard. The Primary, whose I/O waits for its peer, is not overwritten, and goes on with it when it is back.
func TestSuspendedPrimaryOutlivesSource(t *testing.T) {
	p, a, b := syncedPair(t)
	for _, n := range p.n {
		n.s.Fencing, n.fence = FencingAndSuspendIO, func(*simNode) int { return 0 }
	}
	a.fence = outdateOther
	p.cut()
	p.settle(rng())
	a.write(3, 77)
	_ = a.do(Demote{})
	p.cable = true
	p.until(t, func() bool { return b.s.Conn == proto.SyncTarget })
	id, _ := b.command(func(id CommandID) Event { return Promote{ID: id} })
	for {
		if _, ok := b.answers[id]; ok {
			break
		}
		p.deliver(rng())
	}
	for len(b.bits) > 0 {
		b.resyncOne()
	}
	_ = b.do(ResyncDone{})
	p.crash(0)
	p.settle(rng())
	want(t, b, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.UpToDate, proto.DUnknown)
	if !b.s.SuspFen {
		t.Fatal("I/O is not suspended")
	}
	b.data[5] = 55 // was under way when the link broke
	b.bits[5] = true
	_ = a.attach()
	_ = a.do(Connect{})
	inSync(t, p)
	if b.s.Role != proto.Primary || b.s.Suspended() || a.data[5] != 55 || a.data[3] != 77 {
		t.Errorf("%v, suspended %v: %v and %v\n%s", b.s.Role, b.s.Suspended(), a.data, b.data, strings.Join(b.notes, "\n"))
	}
}

// TestForkedDiskAttached: both copies have changed, and one is attached while its node is connected. It is refused, and what the
// refusal advises leads to two copies of what was to be kept.
func TestForkedDiskAttached(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	a.write(3, 77)
	if err := promote(t, p, b, false); err != nil {
		t.Fatal(err)
	}
	b.write(4, 55)
	p.crash(1)
	p.cable = true
	_ = b.do(Connect{})
	p.settle(rng())
	_ = b.do(AttachStart{})
	id := b.id()
	_ = b.do(Attached{ID: id, UUIDs: b.md.UUIDs, Flags: b.md.Flags, Size: b.md.Size, OwnSize: b.own})
	if err := b.answers[id]; err == nil || !strings.Contains(err.Error(), "disconnect and attach it; then the node whose changes are to be lost connects with discard-my-data") {
		t.Fatalf("attach: %v", err)
	}
	p.settle(rng())
	_, _ = b.command(func(id CommandID) Event { return Disconnect{ID: id} })
	p.settle(rng())
	_ = b.attach()
	if err := b.do(Connect{DiscardMyData: true}); err != nil {
		t.Fatal(err)
	}
	inSync(t, p)
	if b.data[3] != 77 || b.data[4] == 55 || a.data != b.data {
		t.Errorf("%v and %v", a.data, b.data)
	}
}

// TestPrimaryWithoutGoodCopy: a node was promoted as the target of a resync and lost the source, which was promoted too. The
// Primary without a good copy is told to give way, and then they come together.
func TestPrimaryWithoutGoodCopy(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	a.write(3, 77)
	_ = a.do(Demote{})
	p.cable = true
	p.until(t, func() bool { return b.s.Conn == proto.SyncTarget && a.s.Conn == proto.SyncSource })
	_ = b.do(PauseSync{})
	if err := promote(t, p, b, false); err != nil {
		t.Fatal(err)
	}
	p.cut()
	p.settle(rng())
	if err := promote(t, p, a, false); err != nil {
		t.Fatal(err)
	}
	p.cable = true
	p.settle(rng())
	for n, want := range map[*simNode]string{a: "demote the peer first", b: "the one here is Inconsistent. Demote this node"} {
		if text := strings.Join(n.notes, "\n"); n.s.Conn != proto.StandAlone || !strings.Contains(text, want) {
			t.Errorf("%s, %v:\n%s", n.name, n.s.Conn, text)
		}
	}
	_, _ = b.do(Demote{}), b.do(ResumeSync{})
	_, _ = a.do(Connect{}), b.do(Connect{})
	inSync(t, p)
	if b.data[3] != 77 {
		t.Errorf("%v and %v", a.data, b.data)
	}
}

// TestSuspendedPrimaryGivesWay: a Primary lost its peer and waits, and the peer has taken over. What the refusal advises brings
// them together, with the changes of either lost.
func TestSuspendedPrimaryGivesWay(t *testing.T) {
	for loser := range 2 {
		p, a, b := syncedPair(t)
		for i, n := range p.n {
			n.s.Fencing, n.fence = FencingAndSuspendIO, func(*simNode) int { return []int{0, peerDown}[i] }
		}
		p.cut()
		p.settle(rng())
		if err := promote(t, p, b, false); err != nil {
			t.Fatal(err)
		}
		b.write(4, 55)
		_ = b.do(Demote{})
		p.cable = true
		p.settle(rng())
		text := strings.Join(a.notes, "\n")
		if a.s.Conn != proto.StandAlone || !a.s.Suspended() || !strings.Contains(text, "Demote it in any case") {
			t.Fatalf("%v, suspended %v:\n%s", a.s.Conn, a.s.Suspended(), text)
		}
		_, _ = a.do(Demote{}), a.do(Connect{})
		p.settle(rng())
		for i, n := range p.n {
			if err := n.do(Connect{DiscardMyData: i == loser}); err != nil {
				t.Error(err)
			}
		}
		inSync(t, p)
		if a.data != b.data || (a.data[4] == 55) != (loser == 0) {
			t.Errorf("%d loses: %v and %v", loser, a.data, b.data)
		}
	}
}
