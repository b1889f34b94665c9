package torture

import (
	"context"
	"math/rand/v2"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/proto"
)

// extra is what a seed does besides the life of writes, failovers and faults that every seed has.
type extra struct {
	on        bool
	fresh     bool   // the two disks were just made and hold different things: a full sync comes first
	verify    string // algorithms
	csums     string
	integrity string
}

// extraOf: package documentation says which seeds do what.
func extraOf(seed uint64) extra {
	k := seed / 7
	x := extra{on: seed%7 < 4, fresh: k%3 == 0, verify: "md5"}
	if !x.on {
		return extra{}
	}
	if k%2 == 0 {
		x.csums = "sha1"
	}
	if k/2%2 == 0 {
		x.integrity = "md5"
	}
	return x
}

func (x *extra) configure(w *world, cfg *datapath.Config) {
	cfg.VerifyAlg, cfg.CsumsAlg, cfg.DataIntegrityAlg = x.verify, x.csums, x.integrity
	cfg.Verified = w.verified
}

// maintain is what an operator does besides: verify and full syncs.
func (w *world) maintain(inc *incarnation) {
	switch r := w.rnd.IntN(100); {
	case r < 40:
		from := int64(0)
		if w.chance(30) {
			from = w.rnd.Int64N(w.size)
		}
		w.command(inc, "verify", func(ctx context.Context) error { return inc.res.VerifyStart(ctx, from) })
	case r < 55:
		w.command(inc, "verify stop", inc.res.VerifyStop)
	case r < 80:
		w.overwrite(inc, false)
	default:
		w.overwrite(inc, true)
	}
}

// overwrite copies all of one copy over the other, if both are good: it leaves a single one.
func (w *world) overwrite(inc *incarnation, peer bool) {
	w.mu.Lock()
	m := w.model
	ok := m.level == [2]level{current, current} && m.failing == [2]bool{} && m.tainted == [2]bool{} && w.nodes[1-inc.n.i].busy == 0 &&
		replicated(inc.res.Status())
	if ok {
		m.full = true
	}
	w.mu.Unlock()
	switch {
	case !ok:
	case peer:
		w.command(inc, "invalidate-remote", inc.res.InvalidateRemote)
	default:
		w.command(inc, "invalidate", inc.res.Invalidate)
	}
}

// verified judges the outcome of a verify: copies that were brought together do not differ.
func (w *world) verified(v *proto.Verify) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.verifies++
	switch {
	case w.model.diskLost:
		// What was being compared when it ended early is marked after its outcome, if it could not be read.
		w.model.unread = w.model.unread || v.Differ+v.Failed > 0 || v.Why != ""
	case v.Differ > 0:
		w.fail("%s compared %d bytes and found %d that differ: %v", v.By, v.Checked, v.Differ, v.Ranges)
	}
}

// leftovers says that marks stay between two copies of the same generation, which DRBD leaves to the operator: those
// of blocks that one node could not read for a verify, and of what the device grew by when the link broke before both had
// grown. Nothing else may leave any.
func (w *world) leftovers(s *datapath.Status) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate && s.OutOfSync > 0 &&
		(w.model.unread || w.twist.grow)
}

// repair gets rid of them.
func (w *world) repair(inc *incarnation, s *datapath.Status) {
	w.mu.Lock()
	w.model.full = true
	w.mu.Unlock()
	if s.Role == proto.Primary {
		w.command(inc, "invalidate-remote, marks are left", inc.res.InvalidateRemote)
		return
	}
	w.command(inc, "invalidate, marks are left", inc.res.Invalidate)
}

// scribble puts something else on a fresh disk, in the windows and around them.
func (w *world) scribble(n *node) error {
	junk := make([]byte, 64<<10)
	rnd := rand.New(rand.NewPCG(w.seed, 0x5c))
	put := func(off, size int64) error {
		for done := int64(0); done < size; done += int64(len(junk)) {
			for i := range junk {
				junk[i] = byte(rnd.Uint32()) | 1
			}
			if _, err := n.mem.WriteAt(junk[:min(size-done, int64(len(junk)))], off+done); err != nil {
				return err
			}
		}
		return nil
	}
	for _, win := range w.model.windows {
		if err := put(win.off, win.n); err != nil {
			return err
		}
	}
	for range 4 {
		if err := put(4096*rnd.Int64N(w.size/4096-16), 64<<10); err != nil {
			return err
		}
	}
	return n.mem.Flush()
}

// begin takes two fresh disks into use: one becomes Primary by force, before or after it meets the other, whose copy is
// worth nothing until the full sync is done.
func (w *world) begin() error {
	a := w.nodes[0].inc
	m := w.model
	m.level, m.full = [2]level{current, behind}, true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.res.Attach(ctx); err != nil {
		return err
	}
	if w.chance(50) {
		w.join(w.nodes[1].inc)
		w.join(a)
		for since := time.Now(); a.res.Status().Conn != proto.Connected && time.Since(since) < patience; {
			time.Sleep(time.Second)
		}
	}
	if err := a.res.Promote(ctx, true); err != nil {
		return err
	}
	if err := w.open(a); err != nil {
		return err
	}
	for _, n := range w.nodes {
		w.join(n.inc)
	}
	return nil
}

// declare takes two fresh disks into use that hold the same.
func (w *world) declare() {
	m := w.model
	m.full = true
	time.Sleep(5 * time.Second)
	for k := range w.nodes {
		if inc := w.incOf(k); inc != nil && (k == 0 || w.chance(30)) {
			w.arm(inc, 40)
			w.command(inc, "skip the initial sync", inc.res.SkipInitialSync)
		}
	}
	time.Sleep(w.pace)
}
