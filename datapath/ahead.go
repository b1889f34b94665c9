package datapath

import (
	"fmt"
	"time"

	"example.com/santui/datapath/state"
	"example.com/santui/proto"
)

// Ahead: with on-congestion pull-ahead a Primary does not wait for a congested link. What it writes from then on is marked
// out of sync, and announced instead of sent, so that both nodes have the same bits when the resync begins: once the peer
// has confirmed all that was sent before, and a moment later (got_BarrierAck, drbd_receiver.c).

// calmTime is that moment, as long as DRBD's.
const calmTime = time.Second

// maxMarks bounds the announcements that wait for the socket. What is written side by side is one of them.
const maxMarks = 16 << 10

// full says whether writers have to wait until announcements are sent. l may be nil.
func (l *link) full() bool { return l != nil && l.out.marks.Load() >= maxMarks }

// announce tells a peer that is left behind of a range that is out of sync. l may be nil.
func (l *link) announce(off, n int64) {
	if l != nil {
		l.out.put(outItem{kind: outMark, off: off, n: n})
	}
}

// joins makes one of two announcements if next follows it. The queue's lock is held.
func (it *outItem) joins(next *outItem) bool {
	if it.kind != outMark || it.off+it.n != next.off || it.n+next.n > maxRange {
		return false
	}
	it.n += next.n
	return true
}

// goOn lets writers look again.
func (t *traffic) goOn() {
	t.mu.Lock()
	t.rouse()
	t.mu.Unlock()
}

// tellTime is how often a congestion is reported while it lasts.
const tellTime = 100 * time.Millisecond

// watchCongestion reports that too much is under way, with w. The lock is held.
func (t *traffic) watchCongestion(w *write) {
	if t.gate.syncing || w.disk == nil {
		return
	}
	text := ""
	if fill := t.cfg.CongestionFill; fill > 0 && t.log.bytes >= fill {
		text = fmt.Sprintf("%d KiB are under way (congestion-fill %d KiB)", t.log.bytes>>10, fill>>10)
	} else if n := w.disk.md.AL().InUse(); n >= t.cfg.CongestionExtents {
		text = fmt.Sprintf("%d extents of the activity log are in use (congestion-extents %d)", n, t.cfg.CongestionExtents)
	}
	if now := time.Now(); text != "" && now.Sub(t.told) >= tellTime {
		t.told = now
		t.tell(congestion{l: w.link, text: text})
	}
}

// congested runs ahead of the peer, or gives the link up. Bits that the peer may not have would make the resync endless.
func (o *owner) congested(c congestion) {
	if c.l != o.link || o.disk == nil {
		return
	}
	if n := o.disk.bm.Weight(); n > 0 && o.r.cfg.OnCongestion == CongestionPullAhead {
		if !c.l.stuck {
			c.l.stuck = true
			o.r.event(proto.LevelWarn, "the link is congested, but this node does not run Ahead while %d blocks are out of sync: writes wait. "+
				"Reconnect to resync them", n)
		}
		return
	}
	_ = o.step(state.Congested{Text: c.text})
}

// catchUp begins the resync of a peer that was left behind.
func (o *owner) catchUp() {
	if o.st.Conn != proto.Ahead || o.r.traffic.logged() > 0 {
		o.calm = time.Time{}
		return
	}
	now := time.Now()
	if o.calm.IsZero() {
		o.calm = now
	}
	if now.Sub(o.calm) >= calmTime && !o.link.held.Load() {
		o.calm = time.Time{}
		o.handle(fromPeer{l: o.link, ev: state.CaughtUp{}})
	}
}

// logged is how many writes the peer has not confirmed.
func (t *traffic) logged() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.log.writes
}
