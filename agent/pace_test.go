package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/lvmops/lvmtest"
	"example.com/santui/proto"
)

func TestPaceOf(t *testing.T) {
	for cost, want := range map[time.Duration]time.Duration{
		0:                     stackPeriod,
		10 * time.Millisecond: stackPeriod,
		40 * time.Millisecond: 10 * time.Second,
		time.Minute:           longestPause,
	} {
		if got := paceOf(cost, idleShare, stackPeriod); got != want {
			t.Errorf("after a look of %v: %v, want %v", cost, got, want)
		}
	}
}

// slowLVM is a node where lvm takes half a second.
type slowLVM struct {
	*lvmtest.Machine
	runs atomic.Int32
}

func (s *slowLVM) Run(ctx context.Context, cmd lvmops.Cmd) (lvmops.Result, error) {
	if cmd.Argv[0] == "lvm" {
		s.runs.Add(1)
		time.Sleep(500 * time.Millisecond)
	}
	return s.Machine.Run(ctx, cmd)
}

// TestStackLoop: on a node where looks are costly the loop looks rarely, sees a mount at once all the same, and who asks for
// a fresh look gets one.
func TestStackLoop(t *testing.T) {
	dir, target := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m, err := lvmtest.NewMachine(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AddDevice("nbd0", 43, 0, "/dev/drbd0"); err != nil {
			t.Fatal(err)
		}
		slow := &slowLVM{Machine: m}
		opt := m.Options("otter")
		opt.Runner = slow
		ops, err := lvmops.New(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for _, f := range []func() (lvmops.Outcome, error){
			func() (lvmops.Outcome, error) { return ops.PVCreate(ctx, "/dev/nbd0") },
			func() (lvmops.Outcome, error) { return ops.VGCreate(ctx, "storage", "/dev/nbd0") },
			func() (lvmops.Outcome, error) { return ops.LVCreate(ctx, "storage", "test", 64<<20, "/dev/nbd0") },
			func() (lvmops.Outcome, error) { return ops.Mkfs(ctx, "ext4", "/dev/storage/test") },
		} {
			if _, err := f(); err != nil {
				t.Fatal(err)
			}
		}
		r := &resource{name: "r0", look: make(chan struct{}, 1), news: make(chan struct{}, 1),
			eng: &stillEngine{st: proto.Resource{Role: proto.Primary, Device: "/dev/drbd0", Node: "/dev/nbd0"}}}
		ended := make(chan struct{})
		slow.runs.Store(0)
		go func() {
			defer close(ended)
			r.stackLoop(ctx, ops, func() bool { return false }, func() float64 { return idleShare }, func() {})
		}()
		time.Sleep(10 * time.Minute)
		if n := slow.runs.Load(); n < 1 || n > 2 { // nothing changes that lvm would report
			t.Errorf("lvm ran %d times in 10 minutes", n)
		}
		if st := r.cached(idleShare); len(st.VGs) != 1 || len(st.Mounts) != 0 {
			t.Errorf("seen %+v", st)
		}
		before := r.at
		if _, err := m.Run(ctx, lvmops.Cmd{Argv: []string{"mount", "-t", "ext4", "/dev/storage/test", target}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(stackPeriod + time.Second)
		if st := r.cached(idleShare); len(st.Mounts) != 1 || !r.at.After(before) {
			t.Errorf("a mount is not seen: %+v", st)
		}
		if err := m.AddProcess(4711, "sleep", target); err != nil {
			t.Fatal(err)
		}
		if st := r.stack(ctx, ops, age{}, idleShare); len(st.Users) != 1 {
			t.Errorf("fresh: %+v", st)
		}
		// One that has not run since it was looked at holds what it held, which a check goes by and an operation does not.
		still := func(whole bool, users int) {
			t.Helper()
			if !whole {
				time.Sleep(time.Millisecond) // or the look before is recent enough
			}
			if st := r.stack(ctx, ops, age{whole: whole}, idleShare); len(st.Users) != users {
				t.Errorf("whole %v: %+v", whole, st)
			}
		}
		if err := m.AddProcess(4712, "sleep", "/"); err != nil {
			t.Fatal(err)
		}
		still(false, 1)
		if err := m.MoveProcess(4712, target); err != nil {
			t.Fatal(err)
		}
		still(false, 1)
		still(true, 2)
		if err := m.RemoveProcess(4712); err != nil {
			t.Fatal(err)
		}
		r.forget()
		time.Sleep(time.Second)
		if st := r.stack(ctx, ops, age{most: r.idleAge(idleShare)}, idleShare); len(st.Users) != 1 {
			t.Errorf("after a change: %+v", st)
		}
		cancel()
		<-ended
	})
}

func TestEvery(t *testing.T) {
	r := &resource{eng: &stillEngine{st: proto.Resource{Role: proto.Primary, Node: "/dev/nbd0"}}}
	for cost, want := range map[time.Duration]float64{0: 0, 20 * time.Millisecond: 0, 100 * time.Millisecond: 30} {
		r.cost = cost
		if got := r.cached(idleShare).Every; got != want {
			t.Errorf("looks of %v: %v s, want %v", cost, got, want)
		}
	}
	r.cost = 100 * time.Millisecond
	if got := r.cached(watchedShare).Every; got != 0 {
		t.Errorf("while somebody watches: %v s", got)
	}
}
