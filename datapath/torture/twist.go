package torture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
)

// twist is what few seeds do: policies that most pairs do not configure, and what their operators do besides.
type twist struct {
	fencing datapath.FencingPolicy
	noData  bool // I/O that no copy can serve waits
	suspend bool // the operator suspends I/O and resumes it
	grow    bool // disks and device grow
	skip    bool // the two disks were just made and are declared to be the same
	shelves bool // an old disk is put back
	damage  bool // the cable damages data; there are digests that tell
	comb    bool // a Primary alone writes every other block of most of the device: its bitmap is longer compressed than plain

	onIOError  datapath.IOErrorPolicy
	congestion datapath.CongestionPolicy // under protocol A
	thin       int64                     // rs-discard-granularity
	fork       forkPolicy
}

// twists are drawn by the seed modulo their number; package documentation says what they are.
var twists = [13]twist{
	0:  {fencing: datapath.FencingResource},
	1:  {fencing: datapath.FencingSuspendIO},
	2:  {fencing: datapath.FencingSuspendIO, noData: true},
	3:  {noData: true, suspend: true},
	4:  {grow: true},
	5:  {grow: true, suspend: true},
	6:  {fork: forkPolicy{on: true}},
	7:  {fork: forkPolicy{on: true, automatic: true}},
	8:  {skip: true},
	9:  {congestion: datapath.CongestionPullAhead, damage: true},
	10: {onIOError: datapath.OnIOErrorPassOn, shelves: true, thin: 64 << 10},
	11: {onIOError: datapath.OnIOErrorCall, congestion: datapath.CongestionPullAhead, shelves: true},
	12: {damage: true, thin: 4096, shelves: true, comb: true},
}

func twistOf(seed uint64) twist {
	if seed < 100 {
		return twist{} // as they were before there were any
	}
	t := twists[seed%uint64(len(twists))]
	t.fork.draw(seed)
	if t.congestion != "" && seed/13%5 == 1 {
		t.congestion = datapath.CongestionDisconnect
	}
	return t
}

func (t *twist) on() bool { return *t != twist{} }

func (t *twist) fences() bool { return t.fencing != "" }

func (t *twist) configure(w *world, inc *incarnation, cfg *datapath.Config) {
	cfg.Fencing, cfg.SuspendOnNoData, cfg.Helper = t.fencing, t.noData, helper{w, inc}
	t.fork.configure(inc.n.i, cfg)
	cfg.OnIOError, cfg.RSDiscardGranularity = t.onIOError, t.thin
	if t.damage {
		cfg.DataIntegrityAlg = "md5"
	}
	if t.congestion != "" {
		cfg.OnCongestion = t.congestion
		cfg.CongestionFill = []int64{1, 16 << 10, 128 << 10, 0}[w.seed/13%4]
		cfg.CongestionExtents = []int{1237, 4}[w.seed/26%2]
	}
	if t.grow {
		cfg.LastSize, cfg.KeepSize = inc.n.lastSize, inc.keepSize
	}
}

// bend is what the operator of such a pair does.
func (w *world) bend(inc *incarnation) {
	t := &w.twist
	switch {
	case t.fork.on:
		w.fork(inc)
	case t.grow && w.chance(60):
		w.grow(inc)
	case t.fences() && w.chance(30):
		w.command(inc, "outdate", inc.res.Outdate)
	case t.fences():
		w.reckless(inc)
	case t.suspend || t.noData:
		w.suspendIO(inc)
	case t.congestion != "":
		w.jam()
	case t.comb:
		w.comb()
	}
}

// jam lets the network stand still for less than anybody would call it lost: what is under way piles up.
func (w *world) jam() {
	d := time.Duration(1+w.rnd.IntN(1500)) * time.Millisecond
	w.logf("cable: stands still for %v", d)
	w.seen.saw("cable: stands still")
	w.net.set([2]bool{true, true})
	time.Sleep(d)
	w.net.set([2]bool{})
	for i := range w.nodes {
		if inc := w.incOf(i); inc != nil && inc.res.Status().Conn == proto.Behind {
			w.arm(inc, 50) // in the resync that comes, where what it was told is all it goes by
		}
	}
}

// comb writes every other block of the widest window, if the application runs on a node that is alone; else it sees to that.
func (w *world) comb() {
	app := w.running()
	if app == nil || app.isDead() || app.res.Status().Conn >= proto.Connected {
		w.net.set([2]bool{true, true})
		return
	}
	w.seen.saw("done: comb")
	win := w.model.windows[0]
	for off := win.off; off < win.off+win.n; off += 2 * 4096 {
		if w.running() != app || !w.write(app, off, 4096, func(id uint32) error {
			p := block.Buffer(4096)
			fill(p, id, off)
			_, err := app.res.WriteAt(p, off)
			return err
		}, false) {
			return
		}
	}
}

// sawConfig takes note of what a node is configured to do.
func (w *world) sawConfig(cfg *datapath.Config) {
	c := &w.seen
	c.saw("config: protocol %v", cfg.Protocol)
	c.saw("config: on-io-error %v", cmp.Or(cfg.OnIOError, datapath.OnIOErrorDetach))
	c.saw("config: fencing %v", cmp.Or(cfg.Fencing, datapath.FencingDontCare))
	c.saw("config: on-congestion %v", cmp.Or(cfg.OnCongestion, datapath.CongestionBlock))
	for i, p := range cfg.AfterSB {
		if p != "" {
			c.saw("config: after-sb-%dpri %s", i, p)
		}
	}
	c.saw("config: max-epoch-size %d", cfg.MaxEpochSize)
	for _, f := range []struct {
		on   bool
		name string
	}{
		{cfg.OpenMeta != nil, "external metadata"}, {cfg.SyncControl != nil, "c-plan-ahead"}, {cfg.CsumsAlg != "", "csums-alg"},
		{cfg.DataIntegrityAlg != "", "data-integrity-alg"}, {cfg.SuspendOnNoData, "on-no-data-accessible suspend-io"},
		{cfg.AlwaysASBP, "always-asbp"}, {cfg.RRConflict == datapath.RRCallPriLost, "rr-conflict call-pri-lost"},
		{cfg.RSDiscardGranularity > 0, "rs-discard-granularity"}, {cfg.MaxBuffers < 2048, "few max-buffers"},
	} {
		if f.on {
			c.saw("config: %s", f.name)
		}
	}
}

func (w *world) suspendIO(inc *incarnation) {
	if w.twist.suspend && w.chance(40) {
		w.command(inc, "suspend-io", inc.res.SuspendIO)
		return
	}
	w.resumeIO(inc)
}

// resumeIO does not wait for other commands, which may wait for it.
func (w *world) resumeIO(inc *incarnation) {
	w.logf("%s.%d: resume-io", inc.n.name, inc.boot)
	w.task(func() { _ = inc.res.ResumeIO(context.Background()) })
}

// reckless is an operator who trusts in fencing: any node may be promoted, at any time. It must not be possible where
// that would lose something.
func (w *world) reckless(inc *incarnation) {
	w.mu.Lock()
	s := inc.res.Status()
	m, i := w.model, inc.n.i
	peer := w.nodes[1-i].inc
	two := peer != nil && peer.res.Status().Role == proto.Primary && peer.res.Status().Disk == proto.UpToDate
	force := peer == nil && w.app == nil && m.level[i] == current && s.Role != proto.Primary && s.Conn < proto.Connected && s.Disk >= proto.Outdated && s.Disk < proto.UpToDate
	// It only waits for this copy, or will as soon as its disk has taken down that it is Primary.
	lost := peer != nil && !two && (peer.res.Status().Role == proto.Primary || peer.promoting && peer.res.Status().Disk <= proto.Inconsistent)
	// With resource-only a lost Primary may have written what nobody knows of, also one that is lost while this node tries.
	waits := w.twist.fencing == datapath.FencingSuspendIO
	ok := s.Role != proto.Primary && !m.failing[i] && !lost && (two && waits || w.app == nil && (waits || !two && m.level[i] == current))
	w.mu.Unlock()
	switch {
	case force && w.chance(70):
		w.command(inc, "promote by force", func(ctx context.Context) error { // the other node is off and has nothing more
			if err := w.become(ctx, inc, true); err != nil {
				return err
			}
			w.mu.Lock()
			w.model.full = true // it begins a generation in any case: the bitmap may not reach back to the peer's
			w.mu.Unlock()
			return w.open(inc)
		})
	case ok:
		w.promote(inc, s.Conn < proto.Connected)
	}
}

// helper runs the handlers of a node: fence-peer reaches the other node by another way than the replication link.
type helper struct {
	w   *world
	inc *incarnation
}

func (h helper) Has(handler string) bool {
	return handler != "fence-peer" || h.w.twist.fences()
}

var errHandler = errors.New("the handler cannot be started")

func (h helper) Run(ctx context.Context, handler string) (int, string, error) {
	h.w.seen.saw("handler: %s", handler)
	if handler != "fence-peer" {
		return 0, "", nil
	}
	draw := uint64(h.w.jitter(4, h.inc.n.i, h.inc.boot))
	took := time.Duration(draw%1000) * time.Millisecond * []time.Duration{1, 10, 40}[draw/1000%3]
	h.w.bar(h.inc.n.i)
	if !h.wait(ctx, took/2) {
		return 0, "", errPower
	}
	exit, err := h.w.fence(ctx, h.inc, draw/3000)
	if !h.wait(ctx, took/2) {
		return 0, "", errPower
	}
	h.w.seen.saw("fence-peer: exit code %d, error %v", exit, err != nil)
	h.w.logf("%s.%d: fence-peer took %v: exit code %d, %v", h.inc.n.name, h.inc.boot, took, exit, err)
	return exit, "", err
}

func (h helper) wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-h.inc.dead:
	case <-ctx.Done():
	}
	return false
}

// bar takes the peer's right to fence in turn, until both are in sync again. The usual handlers do that first of all, by a
// constraint of the cluster.
func (w *world) bar(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.barred[1-i] = w.barred[1-i] || !w.barred[i]
}

// fence is what the handler does. It tells the truth, or fails. If the peer is Primary, that one may fence again. A copy whose
// peer is fenced is the only one that may be used, whether anything was confirmed alone or not: its disk does not fail.
func (w *world) fence(ctx context.Context, inc *incarnation, draw uint64) (exit int, err error) {
	if exit, err = w.tryFence(ctx, inc, draw); exit == 4 || exit == 5 || exit == 7 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.spare(inc)
	}
	return exit, err
}

func (w *world) tryFence(ctx context.Context, inc *incarnation, draw uint64) (int, error) {
	i := inc.n.i
	w.mu.Lock()
	barred, peer := w.barred[i], w.nodes[1-i].inc
	if draw%8 < 2 || barred || w.paused { // paused: the power stays on while the pair heals
		w.mu.Unlock()
		w.logf("%s.%d: fence-peer fails (barred: %v)", inc.n.name, inc.boot, barred)
		return []int{0, 1, 20, 255}[draw/8%4], []error{nil, errHandler}[draw/32%2]
	}
	w.mu.Unlock()
	switch {
	case peer == nil:
		return 5, nil
	case w.twist.fencing == datapath.FencingSuspendIO && draw%8 < 4 && inc.res.Status().Disk == proto.UpToDate:
		if w.cut(peer, "shot by its peer"); peer.isDead() {
			return 7, nil
		}
		return 1, nil
	}
	s := peer.res.Status()
	switch {
	case s.Role == proto.Primary:
		w.mu.Lock()
		w.barred[1-i] = false
		w.mu.Unlock()
		return 6, nil
	case s.Disk == proto.Inconsistent && s.Conn < proto.Connected:
		return 3, nil
	case s.Disk < proto.Inconsistent:
		return 1, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := peer.res.Outdate(ctx); err != nil {
		return 1, fmt.Errorf("outdate of %s: %w", peer.n.name, err)
	}
	return 4, nil
}
