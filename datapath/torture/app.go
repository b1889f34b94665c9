package torture

import (
	"math/rand/v2"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
)

// worker is one thread of the application.
func (w *world) worker(k int) {
	rnd := rand.New(rand.NewPCG(w.seed, uint64(k)))
	pause := w.pace * []time.Duration{1, 3, 20}[rnd.IntN(3)] / 10
	for {
		select {
		case <-w.stopped:
			return
		case <-time.After(time.Duration(rnd.ExpFloat64()*float64(pause)) + 1000*time.Duration(k+1)):
		}
		w.mu.Lock()
		inc := w.app
		if inc == nil || w.paused || w.failure != nil {
			w.mu.Unlock()
			continue
		}
		w.working++
		w.mu.Unlock()
		if !w.operate(inc, rnd) {
			time.Sleep(10 * pause) // nothing can be reached
		}
		w.mu.Lock()
		w.working--
		w.mu.Unlock()
	}
}

func (w *world) operate(inc *incarnation, rnd *rand.Rand) (ok bool) {
	w.mu.Lock()
	win := w.model.windows[rnd.IntN(len(w.model.windows))]
	w.mu.Unlock()
	off, n := place(win, rnd)
	if w.hardware.same && rnd.IntN(10) == 0 {
		return w.writeSame(inc, off, n)
	}
	switch r := rnd.IntN(100); {
	case r < 60:
		return w.write(inc, off, n, func(id uint32) error {
			p := block.Buffer(int(n))
			fill(p, id, off)
			_, err := inc.res.WriteAt(p, off)
			return err
		}, false)
	case r < 66:
		return w.write(inc, off, n, func(uint32) error { return inc.res.WriteZeroes(off, n, rnd.IntN(2) == 0) }, true)
	case r < 70:
		return w.write(inc, off, n, func(uint32) error { return inc.res.Discard(off, n) }, true)
	case r < 80:
		return w.flush(inc)
	default:
		return w.read(inc, off, n)
	}
}

// place picks a range in a window; mostly small, often the same one.
func place(win *window, rnd *rand.Rand) (off, n int64) {
	switch rnd.IntN(10) {
	case 0:
		n = win.n
	case 1, 2:
		n = sector * (1 + rnd.Int64N(win.n/sector))
	case 3, 4, 5:
		n = sector * (1 + rnd.Int64N(min(16, win.n/sector)))
	default:
		n = 4096
	}
	off = sector * rnd.Int64N((win.n-n)/sector+1)
	if n%4096 == 0 {
		off -= off % 4096
	}
	return win.off + off, n
}

func (w *world) write(inc *incarnation, off, n int64, do func(id uint32) error, zero bool) (ok bool) {
	w.mu.Lock()
	if inc.isDead() {
		w.mu.Unlock()
		return false
	}
	id := w.model.begin(inc.n.i, off, n, zero)
	inc.pending[id] = [2]int64{off, n}
	if w.log {
		w.note("write %d: %d bytes at %d (block %d)", id, n, off, off/4096)
	}
	w.mu.Unlock()
	err := do(id)
	time.Sleep(1) // all that happens at the same time has happened: the status is the one of the write's end
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(inc.pending, id)
	if inc.isDead() {
		return false
	}
	if w.log || err != nil {
		w.note("write %d of %d at %d ended: %v", id, n, off, err)
	}
	w.stats.writes++
	w.model.finish(inc.n.i, id, off, n, err == nil && w.acknowledged(inc))
	if inc.res.Status().Disk < proto.UpToDate {
		w.model.apart.log(1-inc.n.i, off, n)
	}
	return err == nil
}

// acknowledged takes note of which copies have what was just confirmed, and says whether any is known to. The lock is
// held.
func (w *world) acknowledged(inc *incarnation) bool {
	s, m, i := inc.res.Status(), w.model, inc.n.i
	local, remote := s.Disk == proto.UpToDate && !w.justFailed(i), replicated(s)
	switch {
	case m.forked == i:
		return local
	case !local && !remote:
		// Disk and link went while it was under way: one copy had it, but which one cannot be told.
		w.note("%s confirmed something and has no copy any more", inc.n.name)
		m.level[i] = behind
		return false
	case !local:
		m.level[i] = behind
	case !remote && m.level[1-i] != behind:
		w.note("%s goes on alone", inc.n.name)
		m.level[1-i] = behind
		w.spare(inc)
	}
	if m.level[0] == behind && m.level[1] == behind {
		w.fail("%s confirmed something though no copy is good", inc.n.name)
	}
	return true
}

// justFailed: a disk that is kept in use after an error has failed so shortly ago that what the node says may not tell yet. With
// its link it loses all good copies at once then, whichever it hears of first. The lock is held.
func (w *world) justFailed(i int) bool {
	return w.twist.onIOError == datapath.OnIOErrorPassOn && w.model.tainted[i] && time.Since(w.model.failed[i]) < time.Millisecond
}

// spare lets the disk of the only good copy be. The lock is held.
func (w *world) spare(inc *incarnation) {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if inc.disk != nil {
		inc.disk.heal()
	}
	w.model.failing[inc.n.i] = false
}

func replicated(s *datapath.Status) bool {
	return s.Conn >= proto.Connected && s.PeerDisk == proto.UpToDate
}

func (w *world) flush(inc *incarnation) (ok bool) {
	ok, doomed := w.flushOnce(inc)
	if doomed {
		w.burn(inc)
	}
	return ok
}

// flushOnce also says that the node is to be lost now.
func (w *world) flushOnce(inc *incarnation) (ok, doomed bool) {
	w.mu.Lock()
	if inc.isDead() {
		w.mu.Unlock()
		return false, false
	}
	since := w.model.tick()
	w.mu.Unlock()
	err := inc.res.Flush()
	time.Sleep(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.isDead() || err != nil || !w.acknowledged(inc) {
		return false, false
	}
	w.stats.flushes++
	w.onlyCopyReturned(inc.n.i, inc.res.Status())
	w.model.flush(inc.n.i, since)
	for k := range w.nodes {
		w.checkSafe(k, "after a flush")
	}
	if doomed = w.doomed == inc; doomed {
		w.doomed, doomed = nil, w.mayBurn(inc)
	}
	return true, doomed
}

// checkSafe: a copy that counts has all that was flushed, whatever its cache loses. The other node, or its disk, may be
// lost for good. The lock is held.
func (w *world) checkSafe(i int, when string) {
	m, n := w.model, w.nodes[i]
	if m.level[i] == behind && m.forked != i || m.tainted[i] || w.failure != nil {
		return
	}
	if err := m.safe(i, n.platters()); err != nil {
		w.fail("%s, if %s loses power now and is all that is left: %v", when, n.name, err)
	}
}

func (w *world) read(inc *incarnation, off, n int64) (ok bool) {
	w.mu.Lock()
	if inc.isDead() {
		w.mu.Unlock()
		return false
	}
	since, before := w.model.tick(), w.model.snapshot(inc.n.i, off, n)
	w.mu.Unlock()
	p := block.Buffer(int(n))
	_, err := inc.res.ReadAt(p, off)
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.isDead() || err != nil {
		return false
	}
	w.stats.reads++
	if err := w.model.check(inc.n.i, p, off, before, since); err != nil {
		w.fail("on %s: %v", inc.n.name, err)
	}
	return true
}

// running is where the application runs, nil for nowhere.
func (w *world) running() *incarnation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.app
}
