package datapath

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// going runs f in the background; the channel has its outcome.
func going(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

func soon(t *testing.T, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not end", what)
		return nil
	}
}

// With resource-and-stonith all I/O waits while fence-peer runs. A write that was under way is not answered either,
// though it is on the local disk, until the peer is fenced.
func TestSuspendedUntilFenced(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "suspend-io")
	t.Parallel()
	for _, pr := range []proto.Protocol{proto.ProtocolB, proto.ProtocolC} {
		t.Run(pr.String(), func(t *testing.T) {
			var slow *blocktest.Faults
			p, s := scripted(t, func(_ int, c *Config) { c.Fencing, c.Protocol = FencingSuspendIO, pr })
			verdict := make(chan int)
			s[0].run["fence-peer"] = func() (int, error) { return <-verdict, nil }
			_ = p.node[1].Close()
			slow = blocktest.NewFaults(p.node[1].disk)
			p.boot(1, slow)
			p.synced()
			a, b := p.node[0], p.node[1]
			was := a.Status().UUIDs.Current
			hang := make(chan struct{})
			defer sync.OnceFunc(func() { close(hang) })()
			slow.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: 1 << 20, To: 2 << 20, Block: hang})
			first := going(func() error { _, err := a.WriteAt(pattern(1, 8192), 1<<20); return err })
			if pr == proto.ProtocolB { // the peer's receipt is enough as long as the link lives
				a.ok("write", soon(t, "the first write", first))
			} else {
				pending(t, "the first write", first)
			}
			p.cable.pull()
			a.await("the suspension", func(s *Status) bool { return s.Suspended })
			second := going(func() error { _, err := a.WriteAt(pattern(2, 4096), 2<<20); return err })
			read := going(func() error { _, err := a.ReadAt(make([]byte, 4096), 0); return err })
			flush := going(a.Flush)
			pending(t, "a new write", second)
			pending(t, "a read", read)
			pending(t, "a flush", flush)
			if pr == proto.ProtocolC {
				pending(t, "the write under way", first)
			}
			if s := a.Status(); s.UUIDs.Current != was || !strings.Contains(s.Problem, "suspended") {
				t.Errorf("before the verdict: %x, problem %q", s.UUIDs, s.Problem)
			}
			verdict <- 7
			for what, c := range map[string]<-chan error{"the new write": second, "the read": read, "the flush": flush} {
				a.ok(what, soon(t, what, c))
			}
			if pr == proto.ProtocolC {
				a.ok("the write under way", soon(t, "the write under way", first))
			}
			if s := a.Status(); s.Suspended || s.PeerDisk != proto.Outdated || s.UUIDs.Current == was {
				t.Errorf("after the verdict: %+v", s)
			}
			close(hang)
			hang = make(chan struct{})
			b.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
			p.cable.plug()
			p.await("the resync", inSync)
			p.equal()
		})
	}
}

// A demotion ends the suspension, and with it what waited, without success: nobody knows what became of the peer's copy, of
// which a flush would have said that it is safe.
func TestDemotedWhileSuspended(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.Fencing = FencingSuspendIO })
	verdict := make(chan int)
	s[0].run["fence-peer"] = func() (int, error) { return <-verdict, nil }
	defer close(verdict)
	p.synced()
	a := p.node[0]
	a.write(0, pattern(1, 8192))
	p.cable.pull()
	a.await("the suspension", func(s *Status) bool { return s.Suspended })
	waits := map[string]<-chan error{
		"a write": going(func() error { _, err := a.WriteAt(pattern(2, 4096), 2<<20); return err }),
		"a flush": going(a.Flush),
	}
	for what, c := range waits {
		pending(t, what, c)
	}
	a.ok("demote", a.Demote(bg()))
	for what, c := range waits {
		if err := soon(t, what, c); !errors.Is(err, ErrNotPrimary) {
			t.Errorf("%s that waited when the node was demoted: %v", what, err)
		}
	}
}

// The link comes back before anybody was fenced: frozen writes go on and reach the peer. An operator may also let them go.
func TestSuspendedUntilBack(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.Fencing = FencingSuspendIO }, "unfence-peer")
	s[0].on("fence-peer", 1)
	p.synced()
	a := p.node[0]
	if got := s[0].took(t, 1); len(got) != 1 || got[0] != "unfence-peer" {
		t.Errorf("after the resync: %v", got)
	}
	for range 3 {
		w := startWriter(a, 7, 4)
		time.Sleep(10 * time.Millisecond)
		p.cable.pull()
		a.await("the suspension", func(s *Status) bool { return s.Suspended })
		s[0].took(t, 1)
		p.cable.plug()
		p.await("the connection", func(s *Status) bool { return s.Conn >= proto.Connected && !s.Suspended })
		w.end()
		if w.errs > 0 {
			t.Fatalf("%d writes failed", w.errs)
		}
		a.ok("flush", a.Flush())
		p.await("quiet", inSync)
		p.equal()
		w.check(t, w.acked(), a.content())
	}
	p.cable.pull()
	a.await("the suspension", func(s *Status) bool { return s.Suspended })
	w := going(func() error { _, err := a.WriteAt(pattern(3, 4096), 0); return err })
	pending(t, "a write", w)
	a.ok("resume-io", a.ResumeIO(bg()))
	a.ok("the write", soon(t, "the write", w))
}

// A write passed before I/O was suspended and waits for the activity log until the link is back. It is sent by no link: it is
// resynced, and not only marked.
func TestSuspendedBeforeMarked(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.Fencing = FencingSuspendIO })
	s[0].on("fence-peer", 1)
	_ = p.node[0].Close()
	slow := blocktest.NewFaults(p.node[0].disk)
	p.boot(0, slow)
	p.synced()
	a, b := p.node[0], p.node[1]
	a.write(0, pattern(1, 4096))
	md, err := meta.Open(p.node[0].disk, meta.OpenOptions{ALExtents: 67})
	if err != nil {
		t.Fatal(err)
	}
	l := md.Layout()
	hang := make(chan struct{})
	release := sync.OnceFunc(func() { close(hang) })
	defer release()
	slow.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: l.ALOffset, To: l.ALOffset + l.ALSize, Block: hang})
	w := going(func() error { _, err := a.WriteAt(pattern(2, 4096), 8<<20); return err })
	pending(t, "the write", w)
	p.cable.pull()
	a.await("the suspension", func(s *Status) bool { return s.Suspended })
	p.cable.plug()
	b.await("the connection", connected)
	time.Sleep(100 * time.Millisecond) // the Primary compares too, and waits for the write
	release()
	a.ok("the write", soon(t, "the write", w))
	p.await("both copies", inSync)
	p.equal()
}

// A suspended node can be closed; what waited is not acknowledged.
func TestCloseSuspended(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	a.ok("open", a.OpenDevice())
	a.ok("suspend-io", a.SuspendIO(bg()))
	w := going(func() error { _, err := a.WriteAt(pattern(3, 4096), 0); return err })
	pending(t, "a write", w)
	a.ok("resume-io", a.ResumeIO(bg()))
	a.ok("the write", soon(t, "the write", w))
	a.ok("suspend-io", a.SuspendIO(bg()))
	w = going(func() error { _, err := a.WriteAt(pattern(4, 4096), 0); return err })
	pending(t, "a write", w)
	_ = a.Close()
	if err := soon(t, "the write", w); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("the write that waited: %v", err)
	}
}

// on-no-data-accessible suspend-io: I/O without any copy waits, also what failed in the moment when the last one went, and
// is done when the peer or the disk is back.
func TestSuspendedUntilData(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.SuspendOnNoData = true })
	_ = p.node[0].Close()
	faults := blocktest.NewFaults(p.node[0].disk)
	a := p.boot(0, faults)
	p.synced()
	// The peer is away, then the disk fails under the writers' hands.
	p.cable.pull()
	a.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, To: 8 << 20, Fail: true})
	w := going(func() error { _, err := a.WriteAt(pattern(1, 4096), 1<<20); return err })
	a.await("the suspension", func(s *Status) bool { return s.Suspended && s.Disk == proto.Diskless })
	read := going(func() error { _, err := a.ReadAt(make([]byte, 4096), 0); return err })
	flush := going(a.Flush)
	pending(t, "the write", w)
	pending(t, "a read", read)
	pending(t, "a flush", flush)
	heal()
	p.cable.plug()
	// The generation that is in use was on the disk that is gone; the peer has an older one.
	a.await("the refusal", func(s *Status) bool { return s.Conn == proto.StandAlone })
	pending(t, "the write", w)
	a.ok("resume-io", a.ResumeIO(bg()))
	for what, c := range map[string]<-chan error{"the write": w, "the read": read, "the flush": flush} {
		if err := soon(t, what, c); !errors.Is(err, ErrNoData) {
			t.Errorf("%s, after resume-io without data: %v", what, err)
		}
	}
}

// The peer that holds the only copy goes away and comes back.
func TestSuspendedDiskless(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.SuspendOnNoData = true })
	p.synced()
	a, b := p.node[0], p.node[1]
	was := b.Status().UUIDs.Current
	a.ok("detach", a.Detach(bg()))
	b.await("a new generation", func(s *Status) bool { return s.UUIDs.Current&^1 != was&^1 })
	now := b.Status().UUIDs.Current
	a.await("news of it", func(s *Status) bool { return s.PeerUUIDs.Current&^1 == now&^1 })
	for i := range 3 {
		w := startWriter(a, uint64(50+i), 4)
		time.Sleep(10 * time.Millisecond)
		p.cable.pull()
		a.await("the suspension", func(s *Status) bool { return s.Suspended })
		time.Sleep(20 * time.Millisecond)
		p.cable.plug()
		a.await("the peer", func(s *Status) bool { return s.Conn == proto.Connected && !s.Suspended })
		w.end()
		if w.errs > 0 {
			a.dump()
			t.Fatalf("%d writes failed", w.errs)
		}
		a.ok("flush", a.Flush())
		w.check(t, w.acked(), b.content())
	}
	a.ok("attach", a.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

// The Secondary of a Primary that fences leaves as Outdated, and knows it after a restart; so does the peer that a Primary
// leaves.
func TestLeavingOutdates(t *testing.T) {
	t.Parallel()
	for leaver := range 2 {
		p, _ := scripted(t, func(_ int, c *Config) { c.Fencing = FencingResource })
		p.synced()
		a, b := p.node[0], p.node[1]
		p.node[leaver].ok("disconnect", p.node[leaver].Disconnect(bg(), false))
		b.await("Outdated", func(s *Status) bool { return s.Disk == proto.Outdated })
		a.await("its news", func(s *Status) bool { return s.PeerDisk == proto.Outdated && s.Conn < proto.Connected })
		_ = b.Close()
		b = p.boot(1, b.disk)
		b.ok("attach", b.Attach(bg()))
		if d := b.Status().Disk; d != proto.Outdated {
			t.Errorf("after a restart: %v", d)
		}
		if err := b.Promote(bg(), false); err == nil {
			t.Error("an Outdated copy is promoted")
		}
		for _, n := range p.node {
			n.ok("connect", n.Connect(bg(), false))
		}
		p.await("the resync", inSync)
	}
}

// A Consistent copy is promoted once fence-peer says that the peer is no danger, and not before.
func TestPromoteFencesFirst(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.Fencing = FencingResource })
	s[1].on("fence-peer", 0)
	s[0].on("fence-peer", 0)
	p.synced()
	_ = p.node[0].Close()
	_ = p.node[1].Close()
	b := p.boot(1, p.node[1].disk)
	b.ok("attach", b.Attach(bg()))
	if d := b.Status().Disk; d != proto.Outdated && d != proto.Consistent {
		t.Errorf("after a restart: %v", d)
	}
	b.ok("connect", b.Connect(bg(), false))
	if err := b.Promote(bg(), false); err == nil {
		t.Error("promoted though nobody knows of the peer")
	}
	a := p.boot(0, p.node[0].disk)
	a.ok("attach", a.Attach(bg()))
	a.ok("connect", a.Connect(bg(), false))
	p.await("the connection", inSync)
	_ = a.Disconnect(bg(), true)
	b.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	_ = b.Close()
	b = p.boot(1, b.disk)
	b.ok("attach", b.Attach(bg()))
	if d := b.Status().Disk; d != proto.Consistent {
		t.Errorf("after a restart: %v", d)
	}
	if err := b.Promote(bg(), false); err == nil {
		t.Error("promoted though fence-peer failed")
	}
	s[1].on("fence-peer", 4)
	b.ok("promote", b.Promote(bg(), false))
	if s := b.Status(); s.Disk != proto.UpToDate || s.PeerDisk != proto.Outdated {
		t.Errorf("%v/%v", s.Disk, s.PeerDisk)
	}
}
