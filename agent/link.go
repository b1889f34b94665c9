package agent

import (
	"time"

	"example.com/santui/agent/engine"
	"example.com/santui/proto"
)

// lossWindow is over how long lost segments are counted, breakWindow over how long breaks are.
const (
	lossWindow  = 30 * time.Second
	breakWindow = 10 * time.Minute
)

// maxBreaks bounds the breaks that are remembered.
const maxBreaks = 100

// linkLook is what the replication link of one resource was like over the last minutes. The guard feeds it, every guardPeriod.
type linkLook struct {
	looks  []linkAt      // of the present link, oldest first, those of lossWindow
	usual  time.Duration // the shortest round trip seen
	broken int64         // as of the last look
	breaks []time.Time   // when they were seen, oldest first
}

type linkAt struct {
	at   time.Time
	info engine.LinkInfo
}

func (l *linkLook) note(now time.Time, i engine.LinkInfo) {
	for range min(i.Broken-l.broken, maxBreaks) {
		l.breaks = append(l.breaks, now)
	}
	l.broken = i.Broken
	l.breaks = l.breaks[max(0, len(l.breaks)-maxBreaks):]
	for len(l.breaks) > 0 && now.Sub(l.breaks[0]) > breakWindow {
		l.breaks = l.breaks[1:]
	}
	if n := len(l.looks); n > 0 && !l.looks[n-1].info.Since.Equal(i.Since) {
		l.looks = nil
	}
	if i.Since.IsZero() {
		return
	}
	if i.BestRTT > 0 && (l.usual == 0 || i.BestRTT < l.usual) {
		l.usual = i.BestRTT
	}
	l.looks = append(l.looks, linkAt{now, i})
	for len(l.looks) > 2 && now.Sub(l.looks[0].at) > lossWindow {
		l.looks = l.looks[1:]
	}
}

// facts are what checks need to know of it.
func (l *linkLook) facts() *proto.LinkFacts {
	f := &proto.LinkFacts{Breaks: len(l.breaks), BreaksIn: breakWindow.Seconds(), UsualRTT: l.usual.Seconds()}
	if n := len(l.breaks); n > 0 {
		f.LastBreak = l.breaks[n-1]
	}
	if n := len(l.looks); n > 0 {
		first, last := l.looks[0], l.looks[n-1]
		f.Window = last.at.Sub(first.at).Seconds()
		f.Sent, f.Resent = last.info.Sent-first.info.Sent, last.info.Resent-first.info.Resent
		f.RTT, f.MTU = last.info.RTT.Seconds(), last.info.MTU
	}
	return f
}
