package agent

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/proto"
)

func TestPatient(t *testing.T) {
	slow := proto.Stack{Err: "the first sectors of /dev/nbd0 could not be read: does not answer; it may be blocked in the kernel"}
	whole, broken := proto.Stack{FS: "ext4"}, proto.Stack{Err: "lvm failed"}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		answers []proto.Stack
		looks   int
		want    proto.Stack
		asked   int
	}{
		{"slow once", t.Context(), []proto.Stack{slow, whole}, 4, whole, 2},
		{"always slow", t.Context(), []proto.Stack{slow, slow, slow, slow}, 4, slow, 4},
		{"broken is not slow", t.Context(), []proto.Stack{broken}, 4, broken, 1},
		{"only one look", t.Context(), []proto.Stack{slow}, 1, slow, 1},
		{"no time left", gone, []proto.Stack{slow}, 4, slow, 1},
	} {
		asked := 0
		got := patient(tt.ctx, tt.looks, func() proto.Stack { asked++; return tt.answers[asked-1] })
		if asked != tt.asked || got.Err != tt.want.Err || got.FS != tt.want.FS {
			t.Errorf("%s: %+v after %d looks", tt.name, got, asked)
		}
	}
}

// TestLooksLetStepsGo: no look that nobody asked for comes between the steps of an operation, and one comes at once when
// it ends or stops, and while a step takes long.
func TestLooksLetStepsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resource{name: "r0", eng: &stillEngine{}, news: make(chan struct{}, 1), look: make(chan struct{}, 1)}
		a := &Agent{hub: newHub("otter", slog.Default()), log: slog.Default(), resources: []*resource{r}}
		var looks atomic.Int32
		rev := uint64(0)
		got := func(what string, want int32) {
			t.Helper()
			synctest.Wait()
			if n := looks.Swap(0); n != want {
				t.Errorf("%s: %d looks, want %d", what, n, want)
			}
		}
		on := func(s proto.OpState) {
			rev++
			a.showOp(proto.Op{ID: "1", Rev: rev, State: s})
		}
		on(proto.OpRunning)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.stackLoop(ctx, nil, a.moving, a.stackShare, func() { looks.Add(1) })
		for range 5 {
			on(proto.OpRunning)
			r.forget()
			got("between steps", 0)
			time.Sleep(moveQuiet / 2)
		}
		on(proto.OpStopped)
		got("stopped", 1)
		r.forget()
		got("changed while stopped", 1)
		on(proto.OpUndoing)
		r.forget()
		got("undoing", 0)
		time.Sleep(moveQuiet + stackPeriod)
		got("a long step", 1)
		on(proto.OpUndone)
		got("ended", 1)
	})
}
