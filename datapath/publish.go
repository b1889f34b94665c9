package datapath

import (
	"fmt"
	"time"

	"example.com/santui/proto"
)

// counters are what traffic counts, in bytes where they are not numbers. The traffic lock guards them.
type counters struct {
	read, written int64
	epochs        int64
}

// progress is what is known of a resync that runs.
type progress struct {
	on      bool
	started time.Time
	total   int64
	samples []sample // the last seconds, oldest first
}

type sample struct {
	at   time.Time
	left int64
}

const (
	rateWindow = 5 * time.Second
	stallTime  = 10 * time.Second
)

func (p *progress) begin(total uint64) {
	*p = progress{on: true, started: time.Now(), total: int64(total), samples: p.samples[:0]}
}

func (p *progress) end() { p.on = false }

// note records how much is left and gives the rate over the last seconds.
func (p *progress) note(now time.Time, left int64) (rate int64) {
	if n := len(p.samples); n == 0 || now.Sub(p.samples[n-1].at) >= 100*time.Millisecond {
		p.samples = append(p.samples, sample{now, left})
	}
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) > rateWindow {
		p.samples = p.samples[:copy(p.samples, p.samples[1:])]
	}
	first := p.samples[0]
	if d := now.Sub(first.at); d >= 100*time.Millisecond {
		rate = int64(float64(first.left-left) / d.Seconds())
	}
	return max(rate, 0)
}

// event tells operators.
func (r *Resource) event(level proto.Level, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.cfg.Logger.Info(text, "level", string(level))
	r.cfg.Events(level, text)
}

// diskFailed reports the first failure of a disk to the owner.
func (r *Resource) diskFailed(d *disk, meta bool, err error) {
	if meta || r.cfg.OnIOError != OnIOErrorPassOn {
		d.fault.CompareAndSwap(nil, &diskFault{d, meta, err})
		d.failed.Store(true)
	}
	if d.reported.Swap(true) && !meta {
		r.cfg.Logger.Warn("disk error", "disk", r.cfg.DiskPath, "err", err)
		return
	}
	r.inbox.put(diskFault{d, meta, err})
}

// publish makes a new Status if anything changed.
func (o *owner) publish() {
	s := o.observe()
	old := o.r.status.Load()
	if old.same(s) {
		return
	}
	s.Seq = old.Seq + 1
	o.r.status.Store(s)
	c := make(chan struct{})
	close(*o.r.changed.Swap(&c))
}

// same compares all but time stamps.
func (s *Status) same(n *Status) bool {
	a, b := *s, *n
	a.Seq, a.At, a.LastInSync, a.Sync = b.Seq, b.At, b.LastInSync, b.Sync
	if a != b || (s.Sync == nil) != (n.Sync == nil) {
		return false
	}
	return s.Sync == nil || *s.Sync == *n.Sync
}

func (o *owner) observe() *Status {
	st, now := &o.st, time.Now()
	s := &Status{
		At: now, Role: st.Role, PeerRole: st.PeerRole, Conn: st.Conn, Disk: st.Disk, PeerDisk: st.PeerDisk,
		Open: o.open, Size: int64(st.Size) * 512, SizeLimit: int64(st.Limit) * 512,
		UUIDs:      proto.UUIDs{Current: st.UUIDs.Current, Bitmap: st.UUIDs.Bitmap, History: [2]uint64{st.UUIDs.History0, st.UUIDs.History1}},
		PauseAfter: o.waits, PauseHere: st.UserISP, PausePeer: st.PeerISP, Suspended: o.gate().suspended, Degraded: o.degraded,
	}
	if p := st.PeerUUIDs; p.Known {
		s.PeerUUIDs = proto.UUIDs{Current: p.Current, Bitmap: p.Bitmap, History: [2]uint64{p.History0, p.History1}}
	}
	if o.disk != nil {
		s.OutOfSync = min(int64(o.disk.bm.Weight())*block4k, s.Size)
	}
	if o.link != nil && st.Linked() {
		s.PeerProtocol = o.link.agreed.version
	}
	o.count(s)
	if st.Conn == proto.Connected && st.Disk == proto.UpToDate && st.PeerDisk == proto.UpToDate && s.OutOfSync == 0 {
		o.inSync, o.problem = now, ""
	}
	s.LastInSync, s.Problem = o.inSync, o.problem
	s.LastVerify = o.verified
	switch {
	case st.Conn.Verifying() && o.link != nil:
		s.Sync = o.verifyStatus(now)
	case o.progress.on && st.Conn.Syncing():
		s.Sync = o.syncStatus(s, now)
	}
	return s
}

// count fills in the counters.
func (o *owner) count(s *Status) {
	t := o.r.traffic
	t.mu.Lock()
	s.Counters = proto.Counters{
		Read: t.count.read, Written: t.count.written, Epochs: t.count.epochs,
		AppPending: int64(t.inflight), Pending: int64(t.log.writes),
	}
	t.mu.Unlock()
	s.Counters.Sent, s.Counters.Received, s.Counters.ProtocolErrors = t.sentBytes.Load(), t.recvBytes.Load(), t.badPackets.Load()
	if d := o.disk; d != nil {
		m := d.md.Stats()
		s.Counters.ALWrites, s.Counters.BMWrites = int64(m.ALWrites), int64(m.BMWrites)
		t.mu.Lock()
		s.Counters.LocalInFly = int64(d.refs)
		t.mu.Unlock()
	}
	if l := o.link; l != nil {
		l.limit.mu.Lock()
		s.Counters.Unacked = (l.limit.used + block4k - 1) / block4k
		l.limit.mu.Unlock()
		s.Counters.Pending += (l.asked.outstanding() + block4k - 1) / block4k
	}
}

func (o *owner) syncStatus(s *Status, now time.Time) *proto.Sync {
	p, c := &o.progress, &o.r.cfg
	left := s.OutOfSync
	y := &proto.Sync{
		Kind: "resync", Source: c.Node, Target: c.Peer, Started: p.started, Total: p.total, Left: left,
		Rate: p.note(now, left), Limit: o.r.rate.limit(), Finish: -1,
		Paused: s.Conn == proto.PausedSyncS || s.Conn == proto.PausedSyncT,
	}
	if s.Conn == proto.SyncTarget || s.Conn == proto.PausedSyncT {
		y.Source, y.Target = c.Peer, c.Node
	}
	if o.link != nil && o.disk != nil {
		y.Failed = int64(o.link.asked.bad(o.disk.bm)) * block4k
	}
	if d := now.Sub(p.started).Seconds(); d > 0 {
		y.Mean = max(int64(float64(p.total-left)/d), 0)
	}
	switch {
	case y.Paused && s.PauseHere:
		y.By = c.Node
	case y.Paused && s.PauseAfter != "":
		y.By = "resync-after " + s.PauseAfter
	case y.Paused && s.PausePeer:
		y.By = c.Peer
	case !y.Paused && y.Rate > 0:
		y.Finish = float64(left) / float64(y.Rate)
	case !y.Paused && now.Sub(p.started) > stallTime:
		y.Stalled = true
	}
	return y
}
