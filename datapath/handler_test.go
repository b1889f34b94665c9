package datapath

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto"
)

// scripts is a Helper whose handlers are functions. Names without one are not configured.
type scripts struct {
	mu  sync.Mutex
	run map[string]func() (int, error)
	ran []string
}

func (s *scripts) Has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run[name] != nil
}

func (s *scripts) Run(_ context.Context, name string) (int, string, error) {
	s.mu.Lock()
	f := s.run[name]
	s.mu.Unlock()
	exit, err := f()
	s.mu.Lock()
	s.ran = append(s.ran, name)
	s.mu.Unlock()
	return exit, "", err
}

func (s *scripts) on(name string, exit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run[name] = func() (int, error) { return exit, nil }
}

// took gives the handlers that ran since the last call, once there are n of them.
func (s *scripts) took(t *testing.T, n int) []string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		ran := s.ran
		if len(ran) >= n || time.Now().After(end) {
			s.ran = nil
			s.mu.Unlock()
			return ran
		}
		s.mu.Unlock()
	}
}

// scripted is a pair whose nodes have handlers that all succeed.
func scripted(t *testing.T, tweak func(i int, c *Config), names ...string) (*pair, [2]*scripts) {
	var s [2]*scripts
	for i := range s {
		s[i] = &scripts{run: map[string]func() (int, error){}}
		for _, name := range names {
			s[i].on(name, 0)
		}
	}
	p := newPair(t, testSize, testSize, func(i int, c *Config) {
		c.Helper = s[i]
		if tweak != nil {
			tweak(i, c)
		}
	})
	return p, s
}

// Both sides' handlers run before a resync moves a block; either can refuse it, and then nothing has changed.
func TestHandlersAroundResync(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, nil, "before-resync-target", "before-resync-source", "after-resync-target")
	p.synced()
	a, b := p.node[0], p.node[1]
	if got := s[0].took(t, 1); !slices.Equal(got, []string{"before-resync-source"}) {
		t.Errorf("the source ran %v", got)
	}
	if got := s[1].took(t, 2); !slices.Equal(got, []string{"before-resync-target", "after-resync-target"}) {
		t.Errorf("the target ran %v", got)
	}
	for i, name := range []string{"before-resync-source", "before-resync-target"} {
		b.ok("disconnect", b.Disconnect(bg(), false))
		a.write(int64(i)<<20, pattern(uint64(i), 64<<10))
		s[i].on(name, 1)
		before := b.content()
		b.ok("connect", b.Connect(bg(), false))
		refuser := p.node[i]
		refuser.await("its refusal", func(s *Status) bool { return alone(s) && refuser.heard("does not want the resync") })
		if d := b.Status().Disk; d != proto.Outdated && d != proto.UpToDate {
			t.Errorf("%s refused, but the target is %v", name, d)
		}
		if !slices.Equal(before, b.content()) {
			t.Errorf("%s refused, but blocks were copied", name)
		}
		s[i].on(name, 0)
		refuser.ok("connect", refuser.Connect(bg(), false))
		p.await("the resync", inSync)
		p.equal()
	}
	s[0].took(t, 0)
	a.ok("invalidate-remote", a.InvalidateRemote(bg()))
	p.await("the full resync", inSync)
	if got := s[0].took(t, 1); !slices.Contains(got, "before-resync-source") {
		t.Errorf("before a full resync: %v", got)
	}
}

// A target that waits for its handler keeps the link, though its peer hears nothing for longer than a write may take.
func TestHandlerHoldsResync(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.Timeout, c.KoCount = 100*time.Millisecond, 2 })
	release := make(chan struct{})
	s[1].run["before-resync-target"] = func() (int, error) { <-release; return 0, nil }
	p.up()
	p.await("connection", connected)
	a, b := p.node[0], p.node[1]
	a.ok("promote", a.Promote(bg(), true))
	b.await("the handler", func(s *Status) bool { return s.Conn == proto.WFSyncUUID })
	time.Sleep(500 * time.Millisecond)
	if s := b.Status(); s.Conn != proto.WFSyncUUID || b.heard("link is lost") {
		t.Errorf("while the handler runs: %v", s.Conn)
	}
	close(release)
	p.await("the resync", inSync)
	p.equal()
}

// A handler that cannot be run says no as well; a node may be closed while one runs.
func TestHandlerFails(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, nil)
	s[1].run["before-resync-target"] = func() (int, error) { return -1, errors.New("no shell") }
	p.up()
	a, b := p.node[0], p.node[1]
	p.await("connection", connected)
	a.ok("promote", a.Promote(bg(), true))
	b.await("its refusal", func(s *Status) bool { return alone(s) && b.heard("handler before-resync-target: no shell") })
}

func TestHandlerLocalIOError(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.OnIOError = OnIOErrorCall }, "local-io-error", "pri-on-incon-degr")
	_ = p.node[0].Close()
	faults := blocktest.NewFaults(p.node[0].disk)
	a := p.boot(0, faults)
	p.synced()
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Fail: true, To: 8 << 20})
	a.write(0, pattern(1, 4096))
	a.await("the end of its disk", func(s *Status) bool { return s.Disk == proto.Diskless })
	p.cable.pull()
	if got := s[0].took(t, 2); !slices.Equal(got, []string{"local-io-error", "pri-on-incon-degr"}) {
		t.Errorf("ran %v", got)
	}
}

// A split brain is told twice on both nodes: when it is found, and when nothing resolved it.
func TestHandlersOfSplitBrain(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, nil, "initial-split-brain", "split-brain")
	p.synced()
	p.fork()
	p.cable.plug()
	for _, s := range s {
		if got := s.took(t, 2); !slices.Equal(got, []string{"initial-split-brain", "split-brain"}) {
			t.Errorf("ran %v", got)
		}
	}
}
