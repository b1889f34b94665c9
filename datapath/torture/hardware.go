package torture

import (
	"context"
	"math/rand/v2"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
)

// hardware is what the machines of a pair are like, and how their metadata is laid out on them.
type hardware struct {
	slowFlush [2]time.Duration // a flush of this node's disk takes up to so much more
	slowAck   time.Duration    // and the word from a node that an epoch is on its disk
	alExtents []int            // sizes of the activity log, by boot
	lag       time.Duration    // each direction of a connection is late by up to so much, all the time
	stalls    bool             // disks stand still for seconds
	fragile   bool             // some connections break after little
	same      bool             // applications write one block over and over: it travels as a write-same
	burns     bool             // a node is lost for good
}

func hardwareOf(seed uint64) hardware {
	h := hardware{alExtents: []int{meta.MinALExtents}}
	if seed < 100 {
		return h // as they were when all were alike
	}
	r := rand.New(rand.NewPCG(seed, 0x4a))
	for i := range h.slowFlush {
		h.slowFlush[i] = []time.Duration{0, 0, 0, 10 * time.Millisecond, 50 * time.Millisecond}[r.IntN(5)]
	}
	h.slowAck = []time.Duration{0, 0, 20 * time.Millisecond, 100 * time.Millisecond}[r.IntN(4)]
	if r.IntN(2) == 0 {
		sizes := []int{meta.MinALExtents, meta.MinALExtents + 1, 12, 67, meta.DefaultALExtents, meta.MaxALExtents}
		h.alExtents = nil
		for range 1 + 2*r.IntN(2) {
			h.alExtents = append(h.alExtents, sizes[r.IntN(len(sizes))])
		}
	}
	h.same, h.burns = r.IntN(3) == 0, r.IntN(3) == 0
	h.lag = []time.Duration{0, 0, 30 * time.Millisecond, 150 * time.Millisecond}[r.IntN(4)]
	h.stalls, h.fragile = r.IntN(3) == 0, r.IntN(3) == 0
	return h
}

// alExtentsOf is how large a node's activity log is: al-extents may change from boot to boot.
func (h *hardware) alExtentsOf(n *node) int {
	return h.alExtents[(int(n.boot.Load())+n.i)%len(h.alExtents)]
}

// wear is what becomes of hardware in the long run: a disk tries again for seconds, connections break as soon as they are made.
func (w *world) wear(inc *incarnation) {
	if w.hardware.stalls && (!w.hardware.fragile || w.chance(50)) {
		d := time.Duration(1+w.rnd.IntN(100)) * []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}[w.rnd.IntN(3)]
		inc.mu.Lock()
		if time.Now().After(inc.stalled) {
			inc.still = time.Now()
		}
		inc.stalled = time.Now().Add(d)
		inc.mu.Unlock()
		w.logf("disk of %s stands still for %v", inc.n.name, d)
		w.seen.saw("disk: stands still")
		w.arm(inc, 20)
		return
	}
	k := 1 + w.rnd.IntN(5)
	w.logf("cable: the next %d connections break", k)
	w.seen.saw("cable: new connections break")
	w.net.weaken(k)
	if w.chance(50) {
		w.net.reset()
	}
}

// doom lets the Primary be lost when its next flush has returned.
func (w *world) doom() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.app != nil && w.mayBurn(w.app) {
		w.note("%s will be lost after its next flush", w.app.n.name)
		w.doomed = w.app
	}
}

// mayBurn: the other copy is as good. The lock is held.
func (w *world) mayBurn(inc *incarnation) bool {
	m := w.model
	return m.level == [2]level{current, current} && m.failing == [2]bool{} && m.tainted == [2]bool{} && m.forked < 0 &&
		w.nodes[1-inc.n.i].inc != nil && replicated(inc.res.Status()) && !w.paused && !w.twist.grow
}

// burn takes a Primary away for good, and with it the power of the other node, whose disk is then all that is left. A new
// disk takes the place of the lost one.
func (w *world) burn(inc *incarnation) {
	n, peer := inc.n, w.incOf(1-inc.n.i)
	if w.cut(inc, "lost for good"); !inc.isDead() || peer == nil {
		return
	}
	w.cut(peer, "when its Primary was lost")
	w.mu.Lock()
	defer w.mu.Unlock()
	n.mem, n.md, n.old = blocktest.NewMem(w.devices[n.i]), w.newMD(), nil
	if err := meta.Create(context.Background(), n.mem, meta.CreateOptions{MetaDisk: w.metaDisk(n.md)}); err != nil {
		w.fail("new disk for %s: %v", n.name, err)
	}
	m := w.model
	m.level[n.i], m.crashed[n.i] = behind, false
	m.full, m.diskLost = true, true
	w.note("%s gets a new disk", n.name)
	w.seen.saw("disk: a new one")
}
