package agent

import (
	"log/slog"
	"slices"
	"testing"

	"example.com/santui/proto"
)

// TestReadinessIsToldOnce: a change of what blocks a failover is one line of the event list, and what was there in one look only
// is none.
func TestReadinessIsToldOnce(t *testing.T) {
	a := &Agent{cfg: Config{Node: "weasel"}, hub: newHub("weasel", slog.New(slog.DiscardHandler)), told: map[string]verdict{}}
	list := func(codes ...string) (l proto.CheckList) {
		l.Checks = []proto.Check{{Code: proto.CheckRoles, Result: proto.CheckOK}, {Code: proto.CheckClock, Result: proto.CheckWarn}}
		for _, c := range codes {
			def, _ := proto.CodeOf(c)
			l.Checks = append(l.Checks, proto.Check{Code: c, Hard: def.Hard, Result: proto.CheckFail})
		}
		return l
	}
	for _, l := range []proto.CheckList{
		list(proto.CheckSync), list(proto.CheckSync), list(proto.CheckSync),
		list(), list(), list(),
		list(proto.CheckFacts), list(), // once only
		list(proto.CheckBusyProc), list(proto.CheckBusyProc), list(proto.CheckBusyProc),
		list(proto.CheckBusyProc, proto.CheckLink, proto.CheckLink), list(proto.CheckBusyProc, proto.CheckLink), list(proto.CheckLink), list(proto.CheckBusyProc, proto.CheckLink),
		list(), list(),
	} {
		a.announce("r0", l)
	}
	a.announce("r1", list())
	a.announce("r1", list())
	var got []string
	for _, e := range a.hub.eventList() {
		got = append(got, e.Resource+" "+string(e.Level)+" "+e.Text)
	}
	want := []string{
		"r0 warn failover to weasel not ready: SYNC", "r0 info failover to weasel ready",
		"r0 warn failover to weasel not ready: BUSY-PROC", "r0 warn failover to weasel not ready: LINK, BUSY-PROC",
		"r0 info failover to weasel ready", "r1 info failover to weasel ready",
	}
	if !slices.Equal(got, want) {
		t.Errorf("events\n%q, want\n%q", got, want)
	}
}
