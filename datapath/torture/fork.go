package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
)

// forkPolicy is what a pair does about a split brain. Without automatic the operator decides.
type forkPolicy struct {
	on, automatic bool
	after         [3]string
	always        bool
	priLost       bool
}

func (f *forkPolicy) draw(seed uint64) {
	if !f.on {
		return
	}
	r := rand.New(rand.NewPCG(seed, 0xf0))
	f.priLost = r.IntN(2) == 0
	if !f.automatic {
		return
	}
	for i, names := range datapath.AfterSBPolicies {
		f.after[i] = names[r.IntN(len(names))]
	}
	f.always = r.IntN(2) == 0
}

const discardLocal, discardRemote = "discard-local", "discard-remote"

// configure gives both nodes the same, though one calls local what the other calls remote.
func (f *forkPolicy) configure(i int, cfg *datapath.Config) {
	cfg.AfterSB, cfg.AlwaysASBP = f.after, f.always
	if i == 1 {
		switch f.after[0] {
		case discardLocal:
			cfg.AfterSB[0] = discardRemote
		case discardRemote:
			cfg.AfterSB[0] = discardLocal
		}
	}
	if f.priLost {
		cfg.RRConflict = datapath.RRCallPriLost
	}
}

// fork makes a split brain: a node is promoted and written to while the other one is Primary and has gone on alone. What
// it finds on its copy is where its own branch begins.
func (w *world) fork(inc *incarnation) {
	w.mu.Lock()
	m, i := w.model, inc.n.i
	s, other := inc.res.Status(), w.nodes[1-i].inc
	ok := m.forked < 0 && m.level[1-i] == current && m.level[i] == behind && !m.failing[i] && !m.tainted[i] && !m.diskLost &&
		other != nil && w.app == other && other.res.Status().Conn < proto.Connected && seen(s, other.res.Status()) &&
		s.Conn < proto.Connected && s.Role == proto.Secondary && s.Disk == proto.UpToDate
	w.mu.Unlock()
	if !ok {
		if w.chance(30) {
			w.logf("cable: both directions down, for a fork")
			w.net.set([2]bool{true, true})
		}
		return
	}
	writes, stay, rnd := w.rnd.IntN(6), w.chance(30), rand.New(rand.NewPCG(w.rnd.Uint64(), 1))
	loser := w.rnd.IntN(2)
	w.command(inc, fmt.Sprintf("promote beside a Primary (%d writes, %s will have to lose)", writes, names[loser]), func(ctx context.Context) error {
		w.mu.Lock()
		inc.forking = &loser
		w.mu.Unlock()
		err := w.become(ctx, inc, false)
		if err == nil {
			err = w.branch(inc, loser)
		}
		w.mu.Lock()
		inc.forking = nil
		w.mu.Unlock()
		if err != nil {
			return err
		}
		for range writes {
			time.Sleep(time.Duration(rnd.ExpFloat64() * float64(w.pace)))
			w.mu.Lock()
			win := w.model.windows[rnd.IntN(len(w.model.windows))]
			w.mu.Unlock()
			off, n := place(win, rnd)
			w.write(inc, off, n, func(id uint32) error {
				p := block.Buffer(int(n))
				fill(p, id, off)
				_, err := inc.res.WriteAt(p, off)
				return err
			}, false)
			if rnd.IntN(3) == 0 {
				w.flush(inc)
			}
		}
		if stay {
			return nil
		}
		return inc.res.Demote(ctx)
	})
}

// seen says that both nodes will have begun a generation of their own. See datapath/state for the fork that nobody sees.
func seen(s, other *datapath.Status) bool {
	return s.UUIDs.Bitmap == 0 && s.UUIDs.Current&^1 != other.UUIDs.Current&^1
}

// branch begins one with what the node's copy holds.
func (w *world) branch(inc *incarnation, loser int) error {
	w.mu.Lock()
	windows := slices.Clone(w.model.windows)
	w.mu.Unlock()
	forks, err := cellsOf(windows, inc.res)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.isDead() {
		return errPower
	}
	if w.model.level[inc.n.i] != behind || len(windows) != len(w.model.windows) {
		return fmt.Errorf("the nodes have met meanwhile")
	}
	w.diverge(inc.n, forks, loser)
	return nil
}

// cellsOf are those of a copy of which all is known that it holds.
func cellsOf(windows []*window, copyOf io.ReaderAt) ([][]cell, error) {
	forks := make([][]cell, len(windows))
	for k, win := range windows {
		p := block.Buffer(int(win.n))
		if _, err := copyOf.ReadAt(p, win.off); err != nil {
			return nil, err
		}
		for at := 0; at < len(p); at += sector {
			id, err := identify(p[at:at+sector], win.off+int64(at))
			if err != nil {
				return nil, err // a torn write of a power cut
			}
			forks[k] = append(forks[k], cell{now: []uint32{id}, durable: []uint32{id}})
		}
	}
	return forks, nil
}

// diverge begins a branch. The lock is held.
func (w *world) diverge(n *node, forks [][]cell, loser int) {
	for k, win := range w.model.windows {
		win.fork = forks[k]
	}
	w.stats.forks++
	w.model.forked, w.loser = n.i, loser
	w.note("%s goes its own way", n.name)
}

// begun looks for a promotion whose generation is on the disk, though the power went before anybody heard of it: the copy has a
// branch of its own as if it had ended, and nobody can tell when the nodes meet that nothing was written there. s is
// what the node said last. The lock is held.
func (w *world) begun(inc *incarnation, s *datapath.Status) {
	n, m := inc.n, w.model
	if inc.forking == nil || m.forked >= 0 || m.level[n.i] != behind || s.Conn >= proto.Connected {
		return
	}
	md, err := n.openMeta(n.mem, n.md)
	if err != nil || md.Superblock().UUIDs.Bitmap == 0 {
		return
	}
	if forks, err := cellsOf(m.windows, n.mem); err == nil {
		w.diverge(n, forks, *inc.forking)
	}
}

// joined: a forked pair resyncs, so one branch is given up.
func (w *world) joined(loser int) {
	m := w.model
	winner, forked := 1-loser, m.forked
	w.note("the changes of %s are discarded", names[loser])
	if !w.discards[loser] && !w.twist.fork.automatic {
		w.fail("the changes of %s are discarded, and nobody asked for that", names[loser])
	}
	if p := w.twist.fork.after[0]; !w.discards[loser] && (p == discardLocal && loser != 0 || p == discardRemote && loser != 1) && w.alone() {
		w.fail("the changes of %s are discarded against after-sb-0pri %s", names[loser], p)
	}
	if winner == forked {
		for _, win := range m.windows {
			win.cells = win.fork
		}
	}
	for _, win := range m.windows {
		win.fork = nil
	}
	if winner == forked {
		m.level[winner] = current
	}
	m.forked = -1
	m.level[loser], m.crashed[loser] = behind, false
	w.stats.discards++
}

// unheard: node i has lost its peer, or its power. If it had begun to resync a forked one that has not heard of it, the bitmaps go
// back to different generations, and with always-asbp the next handshake settles that with a full resync (rule 100 of
// drbd_uuid_compare, "forced" in drbd_sync_handshake, drbd_receiver.c).
func (m *model) unheard(i int, always bool) {
	m.full = m.full || m.began[i] && m.forked >= 0 && always
	m.began[i] = false
}

// alone: no node is Primary.
func (w *world) alone() bool {
	for _, n := range w.nodes {
		if n.inc != nil && n.inc.res.Status().Role == proto.Primary {
			return false
		}
	}
	return true
}

// unflushed: a forked node has lost power, and with it perhaps what it did not flush.
func (m *model) unflushed(i int) {
	if m.forked != i {
		return
	}
	for _, w := range m.windows {
		for k := range w.fork {
			c := &w.fork[k]
			c.now = append(c.now[:0], c.durable...)
		}
	}
}

func (w *world) isForked() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.model.forked >= 0
}

// resolve connects a node of a forked pair: who has to lose is demoted and discards its changes.
func (w *world) resolve(ctx context.Context, inc *incarnation, s *datapath.Status) error {
	w.mu.Lock()
	lose := w.loser == inc.n.i && s.Problem != "" || strings.Contains(s.Problem, "would be overwritten") ||
		strings.Contains(s.Problem, "has to give its changes up") // the peer goes by the policy, and has no reason to stand alone
	if lose && w.app == inc {
		w.app = nil
	}
	w.mu.Unlock()
	if lose && s.Role == proto.Primary {
		if err := inc.res.Demote(ctx); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.discards[inc.n.i] = lose
	w.mu.Unlock()
	return inc.res.Connect(ctx, lose)
}
