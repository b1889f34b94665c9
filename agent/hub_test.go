package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/proto"
)

// TestWatchFollows lets a fast and a slow watcher follow a hub under load; both must end with the hub's snapshot, event
// list included, and see sequence numbers grow only.
func TestWatchFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := newHub("otter", slog.New(slog.DiscardHandler))
		var mu sync.Mutex
		size := int64(0)
		h.build = func() proto.Snapshot {
			mu.Lock()
			defer mu.Unlock()
			return proto.Snapshot{Schema: proto.Schema, Node: "otter", Resources: []proto.Resource{{Name: "r0", Size: size}}, Events: h.eventList()}
		}
		var wg sync.WaitGroup
		wg.Go(func() { h.run(ctx) })
		got := make([]proto.Snapshot, 2)
		for i := range got {
			wg.Go(func() {
				err := h.watch(ctx, func(e proto.WatchEvent) error {
					last := got[i].Seq
					if e.Snapshot != nil {
						got[i] = *e.Snapshot
					} else if next, ok := got[i].Apply(*e.Delta); ok {
						got[i] = next
					} else {
						return fmt.Errorf("delta %d does not follow %d", e.Delta.Base, got[i].Seq)
					}
					if got[i].Seq < last {
						return fmt.Errorf("sequence went back from %d to %d", last, got[i].Seq)
					}
					time.Sleep(time.Duration(i) * 3 * time.Second)
					return nil
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("watcher %d ended: %v", i, err)
				}
			})
		}
		for n := range 100 {
			mu.Lock()
			size = int64(n)
			mu.Unlock()
			h.event(proto.LevelInfo, "r0", "", fmt.Sprint(n))
			time.Sleep(77 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		cancel()
		wg.Wait()
		want := *h.cur.Load()
		for i, g := range got {
			if !reflect.DeepEqual(g, want) {
				t.Errorf("watcher %d ended at seq %d with %d events, the hub at %d with %d", i, g.Seq, len(g.Events), want.Seq, len(want.Events))
			}
		}
		if len(want.Events) != 100 || want.Resources[0].Size != 99 {
			t.Errorf("hub has %d events, size %d", len(want.Events), want.Resources[0].Size)
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	h := newHub("otter", slog.New(slog.DiscardHandler))
	for n := range 3 * proto.MaxEvents {
		h.event(proto.LevelInfo, "", "", fmt.Sprint(n))
	}
	l := h.eventList()
	if len(l) != proto.MaxEvents || l[len(l)-1].Seq != 3*proto.MaxEvents {
		t.Errorf("%d events, last %d", len(l), l[len(l)-1].Seq)
	}
}
