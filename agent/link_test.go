package agent

import (
	"testing"
	"time"

	"example.com/santui/agent/engine"
)

// TestLinkLook: losses count over half a minute of one link, breaks over ten minutes of all, and the usual round trip is the best
// there was.
func TestLinkLook(t *testing.T) {
	var l linkLook
	now := time.Now()
	since := now
	info := engine.LinkInfo{Since: since, RTT: time.Millisecond, BestRTT: time.Millisecond, MTU: 1500}
	look := func(sent, resent int64, rtt time.Duration) {
		now = now.Add(guardPeriod)
		info.Sent, info.Resent, info.RTT = info.Sent+sent, info.Resent+resent, rtt
		l.note(now, info)
	}
	for range 100 {
		look(100, 0, time.Millisecond)
	}
	if f := l.facts(); f.Resent != 0 || f.Sent < 900 || f.Sent > 1200 || f.Window < 25 || f.Window > 35 || f.MTU != 1500 || f.Breaks != 0 || f.UsualRTT != 0.001 {
		t.Errorf("a good link: %+v", f)
	}
	info.BestRTT = 200 * time.Millisecond // the kernel forgets the best one after minutes
	look(100, 50, 250*time.Millisecond)
	if f := l.facts(); f.Resent != 50 || f.RTT != 0.25 || f.UsualRTT != 0.001 {
		t.Errorf("a poor one: %+v", f)
	}
	for range 12 {
		look(100, 0, time.Millisecond)
	}
	if f := l.facts(); f.Resent != 0 || f.RTT != 0.001 {
		t.Errorf("half a minute later: %+v", f)
	}
	info = engine.LinkInfo{Broken: 2}
	look(0, 0, 0)
	if f := l.facts(); f.Breaks != 2 || !f.LastBreak.Equal(now) || f.Window != 0 && f.RTT != 0 {
		t.Errorf("no link: %+v", f)
	}
	info = engine.LinkInfo{Broken: 3, Since: now, Sent: 10, BestRTT: time.Millisecond}
	look(0, 0, time.Millisecond)
	if f := l.facts(); f.Breaks != 3 || f.Sent != 0 {
		t.Errorf("a new link: %+v", f)
	}
	now = now.Add(breakWindow)
	look(0, 0, time.Millisecond)
	if f := l.facts(); f.Breaks != 0 {
		t.Errorf("ten minutes later: %+v", f)
	}
	info.Broken += 1 << 40
	look(0, 0, 0)
	if f := l.facts(); f.Breaks != maxBreaks {
		t.Errorf("%d breaks are remembered", f.Breaks)
	}
}
