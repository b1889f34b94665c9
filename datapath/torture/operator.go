package torture

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// patience is how long a command of the operator may take.
const patience = 2 * time.Minute

// command runs a command on a node in the background, one at a time per node; but those that wait because I/O is suspended
// may wait for the next one.
func (w *world) command(inc *incarnation, what string, f func(ctx context.Context) error) {
	w.mu.Lock()
	n := inc.n
	if n.busy > 0 && !inc.res.Status().Suspended || inc.isDead() {
		w.mu.Unlock()
		return
	}
	n.busy++
	w.note("%s.%d: %s", n.name, inc.boot, what)
	w.mu.Unlock()
	w.task(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := f(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		n.busy--
		if inc.isDead() {
			return
		}
		w.note("%s.%d: %s ended: %v", n.name, inc.boot, what, err)
		if kind, _, _ := strings.Cut(what, " ("); err == nil {
			w.seen.saw("done: %s", kind)
		} else {
			w.seen.saw("refused: %s", kind)
		}
		if ctx.Err() != nil && !inc.res.Status().Suspended {
			w.fail("%s did not end within %v", what, patience)
		}
	})
}

func (w *world) incOf(i int) *incarnation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[i].inc
}

func (w *world) chance(percent int) bool { return w.rnd.IntN(100) < percent }

// act does one step of the operator, or of fate.
func (w *world) act() error {
	i := w.rnd.IntN(2)
	inc := w.incOf(i)
	if inc == nil {
		if w.twist.shelves && w.chance(60) {
			w.shelve(w.nodes[i])
		}
		if w.chance(60) {
			if err := w.powerOn(w.nodes[i]); err != nil {
				return err
			}
			w.arm(w.incOf(i), 15)
			w.join(w.incOf(i))
		}
		return nil
	}
	if w.twist.on() && w.chance(20) {
		w.bend(inc)
		return nil
	}
	if w.hardware.burns && w.chance(15) {
		w.doom()
		return nil
	}
	if (w.hardware.stalls || w.hardware.fragile) && w.chance(6) {
		w.wear(inc)
		return nil
	}
	if w.extra.on && w.chance(15) {
		w.maintain(inc)
		return nil
	}
	switch r := w.rnd.IntN(100); {
	case r < 22:
		w.failover(i)
	case r < 40:
		w.join(inc)
	case r < 46:
		w.command(inc, "disconnect", func(ctx context.Context) error { return inc.res.Disconnect(ctx, w.seed%2 == 0) })
	case r < 58:
		w.cable()
	case r < 66:
		w.arm(inc, 100)
	case r < 70:
		w.cut(inc, "at any time")
	case r < 72:
		w.cut(inc, "together with the peer")
		if peer := w.incOf(1 - i); peer != nil {
			w.cut(peer, "together with the peer")
		}
	case r < 76:
		on := w.chance(40)
		w.command(inc, fmt.Sprintf("pause %v", on), func(ctx context.Context) error {
			if on {
				return inc.res.PauseSync(ctx)
			}
			return inc.res.ResumeSync(ctx)
		})
	case r < 83 && w.seed%2 == 0:
		// disks are whole and stay attached
	case r < 80:
		w.breakDisk(inc)
	case r < 83:
		w.mu.Lock()
		ok := w.model.level[1-i] == current && !w.model.failing[1-i] && replicated(inc.res.Status())
		w.mu.Unlock()
		if ok {
			w.command(inc, "detach", inc.res.Detach)
		}
	default:
		return w.virtualCut()
	}
	return nil
}

// arm lets the power go after some calls.
func (w *world) arm(inc *incarnation, percent int) {
	if inc == nil || !w.chance(percent) {
		return
	}
	kind, k := []string{"disk", "net"}[w.rnd.IntN(2)], 1+w.rnd.IntN([]int{5, 40, 300}[w.rnd.IntN(3)])
	inc.mu.Lock()
	defer inc.mu.Unlock()
	inc.trigger[kind] = k
	w.logf("%s.%d will lose power after %d calls of %s", inc.n.name, inc.boot, k, kind)
}

// join attaches and connects what is not.
func (w *world) join(inc *incarnation) {
	w.command(inc, "attach and connect", func(ctx context.Context) error {
		var why error
		if inc.res.Status().Disk == proto.Diskless {
			why = inc.res.Attach(ctx)
		}
		if why != nil && w.forkedDisk(inc, why) {
			return w.attachForked(ctx, inc)
		}
		if s := inc.res.Status(); s.Conn == proto.StandAlone {
			if w.isForked() {
				return w.resolve(ctx, inc, s)
			}
			return inc.res.Connect(ctx, w.loses(inc, s))
		}
		return why
	})
}

// forkedDisk says that a disk is refused beside the peer, though what only it has may go: nobody was told that it is there, or
// its node had no copy any more when it said so.
func (w *world) forkedDisk(inc *incarnation, why error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, i := w.model, inc.n.i
	return w.paused && strings.Contains(why.Error(), "discard-my-data") && m.level[i] == behind && m.level[1-i] == current
}

// attachForked does what the refusal advises.
func (w *world) attachForked(ctx context.Context, inc *incarnation) error {
	if err := inc.res.Disconnect(ctx, false); err != nil {
		return err
	}
	if err := inc.res.Attach(ctx); err != nil {
		return err
	}
	return inc.res.Connect(ctx, true)
}

// mayYield says that a Primary waits for a peer that has begun a generation, as the Primary wanted to let its disk go, and was
// lost before it did. Neither copy is behind, and people have to say so.
func (w *world) mayYield(inc *incarnation, s *datapath.Status) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ok := s.Role == proto.Primary && s.Suspended && s.Conn == proto.StandAlone && strings.Contains(s.Problem, "would be overwritten") &&
		w.model.level[inc.n.i] == current && w.model.level[1-inc.n.i] != behind
	if ok {
		w.yielded = inc.n
	}
	return ok
}

// loses resolves a split brain: the node whose copy misses something gives its changes up. There may be a split brain
// without lost writes, since a Primary that loses its peer starts a new generation before it writes anything.
func (w *world) loses(inc *incarnation, s *datapath.Status) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, i := w.model, inc.n.i
	if !strings.HasPrefix(s.Problem, "split brain") {
		return false
	}
	w.stats.splits++
	if w.yielded != nil && m.level[w.yielded.i] == current {
		return inc.n != w.yielded // which has not lost its power, and perhaps has what was not flushed
	}
	if m.level[0] != behind && m.level[1] != behind {
		// Either each had declared the disks to be the same, under a name of its own, or each went down in the moment in which it
		// began a generation, before anything was written in it.
		if !(w.twist.skip && m.full) && !(m.mayHaveBegun(0) && m.mayHaveBegun(1)) {
			w.fail("split brain, though both copies are good")
		}
		return i == w.lesser()
	}
	return m.level[i] == behind
}

// lesser is the node of two with good copies that has less to lose. The lock is held.
func (w *world) lesser() int {
	m, a := w.model, w.nodes[0].inc
	if m.level[0] > m.level[1] || m.level[0] == m.level[1] && a != nil && a.res.Status().Role == proto.Primary {
		return 1
	}
	return 0
}

func (w *world) cable() {
	if w.twist.damage && w.chance(60) {
		from, k := w.rnd.IntN(2), 1+w.rnd.IntN(3)
		if app := w.running(); app != nil && w.chance(70) {
			from = app.n.i
		}
		w.logf("cable: damages block %d of data from %s", k, names[from])
		w.net.damage(from, k)
		return
	}
	switch w.rnd.IntN(7) {
	case 0, 1:
		w.logf("cable: both directions down")
		w.seen.saw("cable: down")
		w.net.set([2]bool{true, true})
	case 2:
		one := w.rnd.IntN(2)
		w.logf("cable: %s is not heard", names[one])
		w.seen.saw("cable: one direction down")
		w.net.set([2]bool{one == 0, one == 1})
	case 3:
		w.logf("cable: connections reset")
		w.seen.saw("cable: reset")
		w.net.reset()
	case 4:
		from, k := w.rnd.IntN(2), w.rnd.Int64N([]int64{100, 20000, 2 << 20}[w.rnd.IntN(3)])
		w.logf("cable: connections break after %d bytes from %s", k, names[from])
		w.seen.saw("cable: breaks after some bytes")
		w.net.breakAfter(from, k)
	default:
		w.logf("cable: up")
		w.net.set([2]bool{})
	}
}

var opNames = map[blocktest.Op]string{
	blocktest.OpAny: "all calls", blocktest.OpWrite | blocktest.OpZero: "writes", blocktest.OpFlush: "flushes", blocktest.OpRead: "reads",
}

// breakDisk makes calls on a disk fail, where the other copy is good.
func (w *world) breakDisk(inc *incarnation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	inc.mu.Lock()
	defer inc.mu.Unlock()
	m, i := w.model, inc.n.i
	target := m.level[i] == behind && m.level[1-i] == current && syncTarget(inc.res.Status().Conn)
	if inc.disk == nil || m.level != [2]level{current, current} && !target || m.failing[0] || m.failing[1] || w.nodes[1-i].inc == nil ||
		!replicated(inc.res.Status()) {
		return
	}
	if target {
		w.seen.saw("disk: to fail, of a target")
	}
	rule := blocktest.Rule{Ops: []blocktest.Op{blocktest.OpAny, blocktest.OpWrite | blocktest.OpZero, blocktest.OpFlush, blocktest.OpRead}[w.rnd.IntN(4)],
		Fail: true, Skip: w.rnd.IntN(10), Times: 1 + w.rnd.IntN(5)}
	if w.chance(50) {
		rule.To = w.size
	}
	if app := w.app; app != nil && app != inc && len(app.pending) > 0 { // what the Primary has under way is refused here
		rule.Ops, rule.Skip, rule.To = blocktest.OpWrite|blocktest.OpZero, 0, w.size
	}
	if w.chance(30) {
		rule.Short = sector * (1 + w.rnd.IntN(7)) // of a write that fails
	}
	w.seen.saw("disk: to fail, %s", opNames[rule.Ops])
	w.note("disk of %s.%d will fail: ops %x, after %d, %d times", inc.n.name, inc.boot, rule.Ops, rule.Skip, rule.Times)
	m.failing[i] = true
	if d := inc.disk; d.md != nil && w.chance(40) {
		rule.To = 0
		d.md.inject(rule)
		w.seen.saw("disk: to fail, of metadata")
		return
	}
	inc.disk.inject(rule)
}

// failover moves the application to node i, if that is safe.
func (w *world) failover(i int) {
	if other := w.incOf(1 - i); other != nil && other.res.Status().Role == proto.Primary {
		w.demote(other)
		return
	}
	inc := w.incOf(i)
	w.mu.Lock()
	ok, alone := w.mayPromote(inc)
	w.mu.Unlock()
	if ok {
		w.promote(inc, alone)
	}
}

func (w *world) demote(inc *incarnation) {
	w.mu.Lock()
	if inc.n.busy == 0 && w.app == inc {
		w.app = nil
	}
	w.mu.Unlock()
	w.command(inc, "demote", inc.res.Demote)
}

// mayPromote is the discipline of the operator: a node becomes Primary when it is connected, or when no other copy is
// better. The lock is held.
func (w *world) mayPromote(inc *incarnation) (ok, alone bool) {
	m, i := w.model, inc.n.i
	peer := w.nodes[1-i].inc
	if peer != nil && (peer.res.Status().Role == proto.Primary || w.nodes[1-i].busy > 0) || w.app != nil {
		return false, false
	}
	s := inc.res.Status()
	if s.Role == proto.Primary || m.failing[i] {
		return false, false
	}
	if s.Conn < proto.Connected && w.twist.fork.automatic && m.lone[1-i] {
		return false, false // it would be a split brain, and the policies may take the side of the one that has nothing new
	}
	if s.Conn >= proto.Connected {
		return m.level[i] == current || m.level[1-i] == current && !m.failing[1-i] && (syncTarget(s.Conn) || s.Disk == proto.Diskless), false
	}
	return m.level[i] == current || m.level[i] == flushed && m.level[1-i] != current, true
}

func (w *world) promote(inc *incarnation, alone bool) {
	w.command(inc, fmt.Sprintf("promote (alone %v)", alone), func(ctx context.Context) error {
		if err := w.become(ctx, inc, false); err != nil {
			return err
		}
		return w.open(inc)
	})
}

// become makes a node Primary.
func (w *world) become(ctx context.Context, inc *incarnation, force bool) error {
	w.mu.Lock()
	inc.promoting, inc.over = true, w.nodes[1-inc.n.i].inc
	w.mu.Unlock()
	err := inc.res.Promote(ctx, force)
	w.mu.Lock()
	inc.promoting = false
	w.mu.Unlock()
	return err
}

// open takes a new Primary into use: all that was promised must be there.
func (w *world) open(inc *incarnation) error {
	time.Sleep(1)
	w.mu.Lock()
	s, m, i := inc.res.Status(), w.model, inc.n.i
	if inc.isDead() {
		w.mu.Unlock()
		return errPower
	}
	if s.Disk < proto.Inconsistent && s.Conn < proto.Connected && inc.over != nil && inc.over.isDead() {
		w.app = inc // the peer had agreed and lost its power, and with it the only copy, in the same moment
		w.mu.Unlock()
		return nil
	}
	if s.Disk < proto.UpToDate && s.PeerDisk < proto.UpToDate {
		w.fail("%s was promoted without a good copy: %v/%v", inc.n.name, s.Disk, s.PeerDisk)
	}
	if other := w.nodes[1-i].inc; other != nil && other.res.Status().Role == proto.Primary && other.res.Status().Disk == proto.UpToDate {
		w.fail("%s was promoted while %s is Primary", inc.n.name, names[1-i])
	}
	w.stats.promotes++
	if s.Conn < proto.Connected && w.nodes[1-i].inc == nil {
		w.seen.saw("done: takeover from a node without power")
	}
	sure := false
	if s.Disk < proto.Inconsistent && m.level[i] == behind && m.level[1-i] == flushed && m.crashed[1-i] {
		// It goes on with nothing but the copy of a crashed Primary, as that one would alone: nobody else had what its cache lost.
		m.settle()
	}
	if s.Conn < proto.Connected || s.PeerDisk < proto.Inconsistent {
		if m.level[i] == flushed {
			sure = true
			m.settle()
		}
		if m.level[i] != current {
			w.fail("%s was promoted alone though its copy is %v", inc.n.name, m.level[i])
		}
		m.level[1-i] = behind
	}
	w.mu.Unlock()
	for _, win := range m.windows {
		p := block.Buffer(int(win.n))
		if _, err := inc.res.ReadAt(p, win.off); err != nil {
			w.logf("%s.%d cannot be read: %v", inc.n.name, inc.boot, err)
			break
		}
		w.mu.Lock()
		if !inc.isDead() {
			if err := w.found(i, p, win.off, sure); err != nil {
				w.fail("%s was promoted: %v", inc.n.name, err)
			}
		}
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !inc.isDead() && inc.res.Status().Role == proto.Primary {
		w.app = inc
	}
	return nil
}

// found is what a node's copy holds while nothing is written. The lock is held.
func (w *world) found(node int, p []byte, off int64, sure bool) error {
	back, err := w.model.mayBring(off, int64(len(p)), [2]*blocktest.Mem{w.nodes[0].platters(), w.nodes[1].platters()})
	if err != nil {
		return err
	}
	return w.model.verify(node, p, off, back, sure)
}

// virtualCut looks at what both disks would hold if the power of both went now: every block that differs must be marked
// by one of them.
func (w *world) virtualCut() error {
	return w.lookAt([]int{0, 20, 50, 80, 100}[w.rnd.IntN(5)])
}

// maxGlances bounds what they cost where metadata is written all the time.
const maxGlances = 40

// glance is now and then a virtual cut at the moment in which metadata is in a cache and what it stands for may be in none.
func (w *world) glance(inc *incarnation, superblock bool) {
	draw, odds := w.jitter(lookDraw, inc.n.i), time.Duration(16)
	if superblock { // it is written seldom, and says the most
		odds = 2
	}
	if w.seed < 100 || draw%odds != 0 || inc.isDead() || w.glances.Add(1) > maxGlances {
		return
	}
	if err := w.lookAt([]int{0, 50, 100}[draw/16%3]); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fail("%v", err)
	}
}

// lookAt is virtualCut where so much of the caches survives.
func (w *world) lookAt(percent int) error {
	w.mu.Lock()
	for i := range w.nodes {
		w.checkSafe(i, "at any time")
	}
	if w.model.diskLost {
		w.mu.Unlock()
		return nil
	}
	var disks, mds [2]*blocktest.Mem
	for i, n := range w.nodes {
		if disks[i], mds[i] = n.mem, n.md; n.inc != nil {
			disks[i], mds[i] = n.inc.mem, n.inc.md
		}
		seed := uint64(w.model.tick())*2 + w.seed + uint64(i)
		disks[i], mds[i] = n.crashed(disks[i], mds[i], seed, percent, int(seed))
	}
	w.stats.virtual++
	w.mu.Unlock()
	var maps [2]*meta.Metadata
	for i, d := range disks {
		md, err := w.nodes[i].openMeta(d, mds[i])
		if err != nil {
			return fmt.Errorf("after a power cut now, %s: %w", names[i], err)
		}
		if md.Superblock().UUIDs.Current == meta.JustCreated {
			return nil // it is overwritten in full, whatever the other one has marked
		}
		full := md.NeedsFullSync()
		if _, err := md.ApplyAL(context.Background()); err != nil {
			return fmt.Errorf("after a power cut now, %s: %w", names[i], err)
		}
		if full {
			md.Bitmap().SetAll()
		}
		maps[i] = md
	}
	size := min(maps[0].Superblock().AgreedSize, maps[1].Superblock().AgreedSize)
	bad := differ(disks, size, func(b uint64) bool { return maps[0].Bitmap().Test(b) || maps[1].Bitmap().Test(b) })
	if len(bad) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, md := range maps {
		sb := md.Superblock()
		w.note("%s would have flags %v, uuids %x, %d bits", names[i], sb.Flags, sb.UUIDs, md.Bitmap().Weight())
		w.note("    in block %d %s, and has %s now", bad[0], w.contents(disks[i], bad[0]), w.contents(w.nodes[i].platters(), bad[0]))
	}
	w.fail("after a power cut of both nodes now, blocks %v would differ and be marked nowhere", bad[:min(len(bad), 8)])
	return nil
}

// contents tells what a block of a disk holds. The lock is held.
func (w *world) contents(d *blocktest.Mem, b uint64) string {
	p := make([]byte, 4096)
	if _, err := d.ReadAt(p, int64(b)*4096); err != nil {
		return err.Error()
	}
	var list []string
	for at := 0; at < len(p); at += sector {
		id, err := identify(p[at:at+sector], int64(b)*4096+int64(at))
		what := "something torn"
		if err == nil {
			what = w.model.describe(id)
		}
		if n := len(list); n == 0 || list[n-1] != what {
			list = append(list, what)
		}
	}
	return strings.Join(list, ", ")
}

// differ lists the blocks in which two disks differ, except where skip says otherwise.
func differ(disks [2]*blocktest.Mem, size int64, skip func(b uint64) bool) (bad []uint64) {
	for _, b := range disks[0].Differ(disks[1], size) {
		if skip == nil || !skip(uint64(b)) {
			bad = append(bad, uint64(b))
		}
	}
	return bad
}

func inSync(s *datapath.Status) bool {
	return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate && s.OutOfSync == 0
}

// heal puts everything in order and waits until both copies are good and equal.
func (w *world) heal() error {
	w.logf("heal")
	w.mu.Lock()
	w.paused = true
	w.stats.heals++
	w.mu.Unlock()
	w.net.set([2]bool{})
	for since, round := time.Now(), 0; ; round++ {
		if w.failed() {
			return nil
		}
		if err := w.mend(); err != nil {
			return err
		}
		time.Sleep(time.Second)
		if round < 3 { // resyncs run just now
			if err := w.virtualCut(); err != nil {
				return err
			}
		}
		if w.healed() {
			break
		}
		if time.Since(since) > 30*time.Minute {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fail("the pair does not come together")
			return nil
		}
	}
	time.Sleep(15 * time.Second) // epochs are confirmed
	w.mu.Lock()
	defer w.mu.Unlock()
	disks := [2]*blocktest.Mem{w.nodes[0].inc.mem, w.nodes[1].inc.mem}
	w.grown()
	if bad := differ(disks, w.size, nil); len(bad) > 0 {
		w.fail("in sync, but %d blocks differ: %v", len(bad), bad[:min(len(bad), 8)])
		return nil
	}
	for _, win := range w.model.windows {
		p := make([]byte, win.n)
		if _, err := disks[0].ReadAt(p, win.off); err != nil {
			return err
		}
		if err := w.found(0, p, win.off, false); err != nil {
			w.fail("in sync: %v", err)
			return nil
		}
	}
	w.note("healed")
	w.yielded = nil
	w.model.apart.grown = 0
	w.model.diskLost, w.model.full, w.model.unread = false, false, false
	w.paused = false
	return nil
}

// mend does what brings the pair together.
func (w *world) mend() error {
	for _, n := range w.nodes {
		inc := w.incOf(n.i)
		if inc == nil {
			if err := w.powerOn(n); err != nil {
				return err
			}
			inc = w.incOf(n.i)
		}
		inc.mu.Lock()
		clear(inc.trigger)
		if inc.disk != nil {
			inc.disk.heal()
			w.mended(n.i)
		}
		inc.mu.Unlock()
		s := inc.res.Status()
		if w.twist.suspend && s.Suspended {
			w.resumeIO(inc)
		}
		switch {
		case s.Role == proto.Primary && s.Disk == proto.Diskless && strings.Contains(s.Problem, "generation of data in use"):
			w.demote(inc) // as with DRBD, it had to hear of the generation that its peer began when the disk went
		case s.Role == proto.Primary && strings.Contains(s.Problem, "has the good copy; the one here"), w.mayYield(inc, s):
			w.demote(inc)
		case w.twist.grow && s.Disk == proto.Diskless && s.Conn >= proto.Connected && s.Size > w.usableOf(n.lastSize()):
			w.regrow(inc)
		case s.Disk == proto.Diskless || s.Conn == proto.StandAlone:
			w.join(inc)
		case w.twist.grow && w.stretch(inc, s):
		case w.twist.skip && s.Conn == proto.Connected && s.Disk == proto.Inconsistent && s.PeerDisk == proto.Inconsistent:
			w.command(inc, "skip the initial sync", inc.res.SkipInitialSync)
		case s.PauseHere:
			w.command(inc, "resume", inc.res.ResumeSync)
		case s.Conn == proto.VerifyS:
			w.command(inc, "verify stop", inc.res.VerifyStop)
		case w.twist.onIOError == datapath.OnIOErrorPassOn && s.Conn == proto.Connected && s.Disk == proto.Inconsistent && s.PeerDisk == proto.UpToDate:
			w.replace(inc)
		case w.isTainted(n.i) && s.Conn >= proto.Connected && s.Role == proto.Secondary:
			w.command(inc, "detach, its disk may have failed", inc.res.Detach)
		case w.leftovers(s):
			w.repair(inc, s)
		}
	}
	return nil
}

func (w *world) mended(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.model.failing[i] = false
}

func (w *world) isTainted(i int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.model.tainted[i]
}

func (w *world) healed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.inc == nil || n.busy > 0 || !inSync(n.inc.res.Status()) || w.twist.grow && n.inc.res.Status().Size != w.usable() {
			return false
		}
	}
	return w.working == 0
}

// run is the life of a world.
func (w *world) run() error {
	return w.within(func() error {
		for k := range 1 + w.rnd.IntN(8) {
			w.task(func() { w.worker(k + 1) })
		}
		return w.live()
	})
}

// within begins and ends a world around a life. It leaves nothing behind.
func (w *world) within(life func() error) error {
	if err := w.format(); err != nil {
		return err
	}
	for _, n := range w.nodes {
		if err := w.powerOn(n); err != nil {
			return err
		}
		if !w.fresh() || w.twist.skip {
			w.join(n.inc)
		}
	}
	switch {
	case w.twist.skip:
		w.declare()
	case w.fresh():
		if err := w.begin(); err != nil {
			return err
		}
	}
	err := life()
	close(w.stopped)
	w.mu.Lock()
	w.closed = true
	var alive []*incarnation
	for _, n := range w.nodes {
		if n.inc != nil {
			alive = append(alive, n.inc)
		}
	}
	w.mu.Unlock()
	w.net.set([2]bool{})
	for _, inc := range alive {
		_ = inc.res.Close()
	}
	w.tasks.Wait()
	if w.failure != nil {
		return w.failure
	}
	return err
}

func (w *world) live() error {
	for step := 1; step <= w.steps && !w.failed(); step++ {
		time.Sleep(time.Duration(w.rnd.ExpFloat64()*float64(w.pace)) + 1)
		if err := w.act(); err != nil {
			return err
		}
		if step%w.quiet == 0 || step == w.steps {
			if err := w.heal(); err != nil {
				return err
			}
		}
	}
	return nil
}

// trace is what happened, newest last.
func (w *world) trace(n int) []string {
	return slices.Clone(w.lines[max(0, len(w.lines)-n):])
}
