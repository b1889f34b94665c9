package datapath

import (
	"fmt"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
)

// TestSyncOrder: who waits for whom, as told to the resources.
func TestSyncOrder(t *testing.T) {
	var s SyncOrder
	waits := map[string]string{}
	join := func(name string, after ...string) {
		s.join(name, after, func(w string) { waits[name] = w })
	}
	join("r1", "r0")
	join("r0")
	s.report("r0", true)
	join("r2", "r1", "r0")
	check := func(want string) {
		t.Helper()
		if got := fmt.Sprintf("r0 %q r1 %q r2 %q", waits["r0"], waits["r1"], waits["r2"]); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	check(`r0 "" r1 "r0" r2 "r0"`)
	s.report("r1", true)
	check(`r0 "" r1 "r0" r2 "r0, r1"`)
	s.report("r0", false)
	check(`r0 "" r1 "" r2 "r1"`)
	s.leave("r1")
	check(`r0 "" r1 "" r2 ""`)
}

// TestResyncAfter: of two resources of a pair of nodes the second one is resynced when the first one has been, on both
// nodes, whoever of them is configured for it; a resync under way gives way.
func TestResyncAfter(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resync-after")
	t.Parallel()
	for _, both := range []bool{true, false} {
		var orders [2]SyncOrder
		var pairs [2]*pair
		for r := range pairs {
			pairs[r] = newPair(t, testSize, testSize, func(i int, c *Config) {
				c.Resource = fmt.Sprintf("r%d", r)
				c.SyncOrder = &orders[i]
				c.ResyncRate = 64 << 20
				if r == 1 && (both || i == 1) {
					c.ResyncAfter = []string{"r0"}
				}
			})
			pairs[r].synced()
		}
		first, second := pairs[0], pairs[1]
		first.node[0].ok("slow", first.node[0].SetResyncRate(1<<20))
		first.node[1].ok("slow", first.node[1].SetResyncRate(1<<20))
		second.node[1].ok("slow", second.node[1].SetResyncRate(1<<20))
		second.node[0].ok("invalidate-remote", second.node[0].InvalidateRemote(bg()))
		second.node[1].await("the resync", func(s *Status) bool { return s.Conn == proto.SyncTarget && s.Sync != nil })
		first.node[0].ok("invalidate-remote", first.node[0].InvalidateRemote(bg()))
		second.node[0].await("the pause", func(s *Status) bool { return s.Conn == proto.PausedSyncS && s.PausePeer })
		second.node[1].await("the pause", func(s *Status) bool {
			return s.Conn == proto.PausedSyncT && s.PauseAfter == "r0" && s.Sync != nil && s.Sync.Paused && s.Sync.By == "resync-after r0"
		})
		if s := second.node[0].Status(); both != (s.PauseAfter == "r0") {
			t.Errorf("the source waits for %q", s.PauseAfter)
		}
		before := second.node[1].Status().OutOfSync
		time.Sleep(100 * time.Millisecond)
		if s := first.node[1].Status(); s.Conn != proto.SyncTarget || second.node[1].Status().OutOfSync < before-1<<20 {
			t.Errorf("%s is %v, and the second resync went on", first.node[1].cfg.Resource, s.Conn)
		}
		first.node[1].ok("fast", first.node[1].SetResyncRate(1<<30))
		first.await("the first resync", inSync)
		second.node[1].await("its turn", func(s *Status) bool { return s.Conn == proto.SyncTarget || inSync(s) })
		second.node[1].ok("fast", second.node[1].SetResyncRate(1<<30))
		second.await("the second resync", inSync)
		first.equal()
		second.equal()
		// The first one stays paused: nothing of it is under way, but it has not had its turn.
		first.node[1].ok("pause-sync", first.node[1].PauseSync(bg()))
		second.node[1].await("the wait", func(s *Status) bool { return s.PauseAfter == "r0" })
		first.node[1].ok("close", first.node[1].Close())
		second.node[1].await("its turn", func(s *Status) bool { return s.PauseAfter == "" })
	}
}
