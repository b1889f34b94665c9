package torture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// options say how hard a run is.
type options struct {
	seed  uint64
	steps int
	quiet int // steps between two healings
	log   bool
}

// world is one run: two nodes, their disks, the cable, the application and the operator.
type world struct {
	options
	extra    extra
	twist    twist
	hardware hardware
	rnd      *rand.Rand    // the operator's
	pace     time.Duration // between steps of the operator
	protocol proto.Protocol
	start    time.Time
	size     int64 // of the device
	disk     int64 // how large both disks are meant to be
	occupied int64 // up to where applications use the device, with what has been metadata before

	net   *network
	nodes [2]*node

	mu       sync.Mutex // guards what follows, and the model; no call of the engine is made with it held
	model    *model
	app      *incarnation // where the application runs; nil: nowhere
	doomed   *incarnation // is lost when its next flush has returned
	paused   bool         // the application starts nothing new
	working  int          // operations of the application under way
	lines    []string
	failure  error
	stats    stats
	closed   bool
	tasks    sync.WaitGroup // workers, watchers, commands, the ends of dead incarnations
	stopped  chan struct{}
	glances  atomic.Int64
	diskSlow time.Duration
	netSlow  time.Duration
	barred   [2]bool  // fence-peer of this node may not be called: the other node has called its own
	devices  [2]int64 // how large each disk is
	seen     coverage
	yielded  *node   // was Primary, and is demoted so that people can decide
	loser    int     // who has to discard its changes, if people decide
	discards [2]bool // who was last told to
}

type stats struct {
	cuts, writes, reads, flushes, heals, promotes, virtual, splits, verifies, forks, discards int
}

// node is a machine; it goes on over several incarnations.
type node struct {
	w    *world
	i    int
	name string
	addr string
	mem  *blocktest.Mem // the platters
	md   *blocktest.Mem // those of the disk for external metadata, nil: it is internal
	inc  *incarnation   // nil: no power
	boot atomic.Int64
	old  *shelved     // an old disk, to be put back; nil: there is none
	busy int          // commands of the operator under way
	kept atomic.Int64 // the size of the disk that the engine keeps in mind
}

// incarnation is a node between two losses of power.
type incarnation struct {
	n    *node
	boot int
	dead chan struct{}
	res  *datapath.Resource
	mem  *blocktest.Mem
	md   *blocktest.Mem

	mu      sync.Mutex
	disk    *disk
	trigger map[string]int // calls until the power goes
	still   time.Time      // when its disks last began to do nothing
	stalled time.Time      // until then they do nothing

	promoting bool         // guarded by the world's lock, as what follows
	over      *incarnation // the peer when it was last told to promote itself
	forking   *int         // a promotion beside a Primary is under way, and who has to lose if people decide

	pending map[uint32][2]int64 // the application's writes under way
}

func (inc *incarnation) isDead() bool {
	select {
	case <-inc.dead:
		return true
	default:
		return false
	}
}

// tick counts a call of a kind down to the loss of power.
func (inc *incarnation) tick(kind string) {
	inc.mu.Lock()
	k := inc.trigger[kind]
	if k > 0 {
		inc.trigger[kind] = k - 1
	}
	inc.mu.Unlock()
	if k == 1 {
		inc.n.w.cut(inc, "after a call of "+kind)
	}
}

var names = [2]string{"otter", "weasel"}

func newWorld(o options) *world {
	w := &world{options: o, extra: extraOf(o.seed), twist: twistOf(o.seed), hardware: hardwareOf(o.seed),
		rnd: rand.New(rand.NewPCG(o.seed, 0x70f)), start: time.Now(), stopped: make(chan struct{})}
	w.diskSlow = []time.Duration{50 * time.Microsecond, 500 * time.Microsecond, 5 * time.Millisecond}[w.rnd.IntN(3)]
	w.netSlow = []time.Duration{20 * time.Microsecond, 300 * time.Microsecond, 4 * time.Millisecond}[w.rnd.IntN(3)]
	w.protocol = []proto.Protocol{proto.ProtocolC, proto.ProtocolC, proto.ProtocolC, proto.ProtocolB, proto.ProtocolA}[w.seed%5]
	if w.twist.congestion != "" {
		w.protocol = proto.ProtocolA
	}
	w.pace = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}[w.rnd.IntN(3)]
	w.net = newNetwork(w)
	device := []int64{9 << 20, 24 << 20, 48 << 20, 80 << 20}[w.rnd.IntN(4)]
	if w.twist.comb {
		device = 9 << 20
	}
	w.disk, w.occupied, w.devices = device, device, [2]int64{device, device}
	for i := range w.nodes {
		w.nodes[i] = &node{w: w, i: i, name: names[i], addr: fmt.Sprintf("10.0.0.%d:7788", i+1), mem: blocktest.NewMem(device), md: w.newMD()}
	}
	return w
}

// format makes two disks that hold the same, empty, data.
func (w *world) format() error {
	for _, n := range w.nodes {
		if err := meta.Create(context.Background(), n.mem, meta.CreateOptions{MetaDisk: w.metaDisk(n.md)}); err != nil {
			return err
		}
		if w.fresh() {
			continue
		}
		md, err := meta.Open(n.mem, meta.OpenOptions{MetaDisk: w.metaDisk(n.md)})
		if err != nil {
			return err
		}
		w.size = md.Layout().UsableSize
		if err := md.SetAgreedSize(context.Background(), w.size, false); err != nil {
			return err
		}
		err = md.Update(context.Background(), func(sb *meta.Superblock) {
			sb.UUIDs.Current = 0x1122334455667788
			sb.Flags = meta.FlagConsistent | meta.FlagWasUpToDate
		})
		if err == nil {
			err = md.MarkClean(context.Background())
		}
		if err != nil {
			return err
		}
		_ = md.Close()
	}
	if w.fresh() {
		md, err := meta.Open(w.nodes[1].mem, meta.OpenOptions{MetaDisk: w.metaDisk(w.nodes[1].md)})
		if err != nil {
			return err
		}
		w.size = md.Layout().UsableSize
	}
	w.model = newModel(w.rnd, w.size, w.twist.comb)
	w.model.apart.memory = slices.Max(w.hardware.alExtents) + waiting
	if w.fresh() && !w.twist.skip {
		return w.scribble(w.nodes[1])
	}
	return nil
}

func (w *world) fresh() bool { return w.extra.fresh || w.twist.skip }

// jitter is how long something takes: a function of the seed, of what it is and of when it happens, so that it does not
// depend on the order in which goroutines run.
func (w *world) jitter(kind int, parts ...int) time.Duration {
	h := w.seed*0x9e3779b97f4a7c15 + uint64(kind)*0xff51afd7ed558ccd + uint64(time.Since(w.start))
	for _, p := range parts {
		h = (h ^ uint64(p)) * 0xc4ceb9fe1a85ec53
		h ^= h >> 29
	}
	r := rand.New(rand.NewPCG(h, h>>7))
	base := w.diskSlow
	if kind == netDelay {
		base = w.netSlow
	}
	d := time.Duration(r.ExpFloat64() * float64(base))
	return 1000 + min(d, 20*base) + time.Duration(r.IntN(997))
}

// upTo is how much longer something takes at this moment, that takes up to limit longer.
func (w *world) upTo(limit time.Duration, node int) time.Duration {
	if limit == 0 {
		return 0
	}
	return time.Duration(uint64(w.jitter(moreDelay, node))*0x9e3779b97f4a7c15>>20) % limit
}

const (
	diskDelay = 1
	netDelay  = 2
	moreDelay = 5
	lookDraw  = 6
	weakDraw  = 7
)

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(format, args...)
}

const keptLines = 3000

// note is logf for a holder of the lock.
func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf("%12.6f ", time.Since(w.start).Seconds()) + fmt.Sprintf(format, args...)
	if w.log {
		fmt.Fprintln(os.Stderr, line)
	}
	w.lines = append(w.lines, line)
	if len(w.lines) > 2*keptLines {
		w.lines = append([]string(nil), w.lines[keptLines:]...)
	}
}

// fail ends the run; the first failure counts. The lock is held.
func (w *world) fail(format string, args ...any) {
	if w.failure != nil {
		return
	}
	w.failure = fmt.Errorf(format, args...)
	w.note("FAILED: %v", w.failure)
	for _, n := range w.nodes {
		w.note("    %s", w.describe(n))
	}
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure != nil
}

func (w *world) describe(n *node) string {
	if n.inc == nil {
		return fmt.Sprintf("%s: no power, copy %v", n.name, w.model.level[n.i])
	}
	s := n.inc.res.Status()
	return fmt.Sprintf("%s: %v/%v %v %v/%v oos %d uuids %x:%x:%x copy %v problem %q", n.name, s.Role, s.PeerRole, s.Conn, s.Disk, s.PeerDisk,
		s.OutOfSync, s.UUIDs.Current, s.UUIDs.Bitmap, s.UUIDs.History, w.model.level[n.i], s.Problem)
}

// task runs f; the run waits for it.
func (w *world) task(f func()) {
	w.tasks.Add(1)
	go func() {
		defer w.tasks.Done()
		f()
	}()
}

// powerOn boots a node without power.
func (w *world) powerOn(n *node) error {
	w.mu.Lock()
	inc := &incarnation{n: n, boot: int(n.boot.Add(1)), dead: make(chan struct{}), mem: n.mem, md: n.md, trigger: map[string]int{}, pending: map[uint32][2]int64{}}
	w.mu.Unlock()
	cfg := datapath.Config{
		Resource: "r0", Device: "/dev/drbd0", Node: n.name, Peer: names[1-n.i], DiskPath: "disk of " + n.name,
		Open: func() (block.Device, error) {
			inc.mu.Lock()
			defer inc.mu.Unlock()
			if inc.disk != nil && !inc.disk.closed.Load() {
				return nil, block.ErrInUse
			}
			inc.mem.Reopen() // as large as it is by now
			inc.disk = newDisk(inc, inc.mem)
			return inc.disk, nil
		},
		LocalAddr: n.addr, PeerAddr: w.nodes[1-n.i].addr, CRAMAlg: "sha1", Secret: []byte("FooFunFactory"),
		Protocol: w.protocol, ResyncRate: []int64{256 << 10, 8 << 20, 1 << 30}[w.seed%3],
		SyncControl: []*datapath.SyncControl{nil, {FillTarget: 50 << 10, MinRate: 250 << 10, MaxRate: 64 << 20}}[w.seed/24%2],
		YieldRate:   []int64{0, 250 << 10}[w.seed/24%2],
		ConnectInt:  time.Second, PingInt: 3 * time.Second, Timeout: 2 * time.Second, KoCount: 3,
		ALExtents: w.hardware.alExtentsOf(n), MaxEpochSize: []int{2048, 1, 3, 20}[w.seed/3%4], MaxBuffers: []int{2048, 64}[w.seed/12%2],
		Logger: slog.New(slog.DiscardHandler),
		Listen: func(ctx context.Context, _ string) (net.Listener, error) { return w.net.listen(inc) },
		Dial:   func(ctx context.Context, _, _ string) (net.Conn, error) { return w.net.dial(ctx, inc) },
		Events: func(l proto.Level, s string) {
			if !inc.isDead() {
				w.logf("%s.%d says: %s", n.name, inc.boot, s)
			}
		},
	}
	if w.extra.on {
		w.extra.configure(w, &cfg)
	}
	if w.twist.on() {
		w.twist.configure(w, inc, &cfg)
	}
	if n.md != nil {
		cfg.OpenMeta, cfg.MetaIndex, cfg.MetaPath = inc.openMD, w.slot(), "metadata of "+n.name
	}
	if w.log {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.sawConfig(&cfg)
	res, err := datapath.New(cfg)
	if err != nil {
		return err
	}
	inc.res = res
	w.mu.Lock()
	n.inc = inc
	w.note("power on for %s.%d", n.name, inc.boot)
	w.mu.Unlock()
	w.net.powerOn(n.i)
	w.task(func() { w.watch(inc) })
	return nil
}

// deaf is for how long after a failed call of a disk the power stays on. A Primary whose disk fails, and power that goes
// before both nodes know, are two failures at once: the crashed Primary comes back as the source of the resync.
const deaf = 10 * time.Second

// cut takes the power from an incarnation: from this moment on nothing it does has an effect.
func (w *world) cut(inc *incarnation, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.isDead() || w.closed {
		return
	}
	n := inc.n
	if time.Since(w.model.failed[0]) < deaf || time.Since(w.model.failed[1]) < deaf {
		return
	}
	close(inc.dead)
	w.net.powerOff(inc)
	w.stats.cuts++
	s := inc.res.Status()
	percent := []int{0, 10, 50, 90, 100}[int(uint64(w.jitter(3, n.i, inc.boot))%5)]
	w.note("POWER CUT of %s.%d %s: %v %v %v, %d sectors in its cache, %d%% survive, copy %v", n.name, inc.boot, why, s.Role, s.Conn, s.Disk,
		inc.mem.Unflushed(), percent, w.model.level[n.i])
	w.seen.saw("power: %s", why)
	w.checkSafe(n.i, "at a power cut")
	n.mem, n.md = n.crashed(inc.mem, inc.md, w.seed+uint64(inc.boot)*2+uint64(n.i), percent, inc.boot)
	n.inc = nil
	for id, r := range inc.pending {
		w.model.finish(n.i, id, r[0], r[1], false)
	}
	w.model.unflushed(n.i)
	w.begun(inc, s)
	w.model.unheard(n.i, w.twist.fork.always)
	w.part()
	if s.Role == proto.Primary || w.app == inc || n.busy > 0 {
		w.model.apart.down(n.i)
	}
	peer := w.nodes[1-n.i].inc
	if (s.PeerRole == proto.Primary || peer != nil && peer.promoting) && s.PeerDisk < proto.Inconsistent {
		w.model.apart.down(n.i) // it keeps the log for a Primary without a disk, besides what it wrote itself before
		w.model.apart.down(1 - n.i)
	}
	w.model.lone[n.i] = w.model.lone[n.i] || (s.Role == proto.Primary || inc.promoting) && s.Conn < proto.Connected
	w.model.lostPower(n.i, s.Role == proto.Primary || w.app == inc)
	if s.Role == proto.Primary || w.app == inc {
		w.orphan(n.i)
	}
	if w.app == inc {
		w.app = nil
	}
	w.task(func() { _ = inc.res.Close() })
}

// orphan: under protocol A what a Primary was told is done may not have left it when its link ends.
func (w *world) orphan(primary int) {
	if m := w.model; w.protocol == proto.ProtocolA && m.level[1-primary] == current {
		m.level[1-primary] = flushed
	}
}

// lostPower lowers what is known of a copy.
func (m *model) lostPower(i int, primary bool) {
	if m.level[i] == current {
		m.level[i] = flushed
	}
	m.crashed[i] = m.crashed[i] || primary
	m.tainted[i], m.failing[i] = false, false
}

// diskFault is called when a call on a disk was made to fail.
func (w *world) diskFault(inc *incarnation, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.isDead() || errors.Is(err, block.ErrClosed) {
		return
	}
	w.note("disk of %s.%d: %v", inc.n.name, inc.boot, err)
	w.seen.saw("disk: fails while the node is %v", inc.res.Status().Role)
	w.model.diskLost = true
	w.model.apart.down(inc.n.i)
	w.model.level[inc.n.i], w.model.tainted[inc.n.i], w.model.failed[inc.n.i] = behind, true, time.Now()
}

// watch follows what a node publishes.
func (w *world) watch(inc *incarnation) {
	for {
		ch := inc.res.Changed()
		w.observe(inc)
		select {
		case <-ch:
		case <-inc.dead:
			return
		case <-w.stopped:
			return
		}
	}
}

func syncTarget(c proto.ConnState) bool { return c == proto.SyncTarget || c == proto.PausedSyncT }

// observe draws the conclusions from a node's status.
func (w *world) observe(inc *incarnation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.isDead() {
		return
	}
	i, m := inc.n.i, w.model
	s := inc.res.Status()
	w.seen.saw("conn: %v", s.Conn)
	w.seen.saw("state: %v %v/%v", s.Role, s.Disk, s.PeerDisk)
	if s.Suspended {
		w.seen.saw("state: suspended")
	}
	if s.Role == proto.Primary && s.PeerRole == proto.Primary {
		w.fail("%s sees two Primaries", inc.n.name)
	}
	if !inSync(s) {
		w.part()
	}
	w.checkMarks(inc.n, s)
	if m.tainted[i] && s.Disk != proto.UpToDate {
		m.tainted[i] = false
	}
	peer := w.nodes[1-i].inc
	w.resyncs(i, s)
	if s.Disk == proto.Outdated && (s.Conn == proto.WFBitMapT || s.Conn == proto.WFSyncUUID) && m.forked < 0 { // else see joined
		m.level[i], m.target[i] = behind, true // its source, back from a crash, may have been promoted already
		if peer != nil && m.failing[1-i] {
			w.spare(peer) // see resyncs: the target only waits for the source's word
		}
	}
	if s.Conn < proto.Connected {
		m.target[i] = false
		if s.Role == proto.Primary {
			m.lone[i], m.solo[i] = true, true
			w.orphan(i)
		}
		return
	}
	m.solo[i] = false
	if s.Disk >= proto.Inconsistent && s.PeerDisk >= proto.Inconsistent && s.PeerDisk != proto.DUnknown {
		w.meet()
	}
	if m.tainted[0] || m.tainted[1] {
		return
	}
	var p datapath.Status // of the peer, as long as it has power
	if peer != nil {
		p = *peer.res.Status()
	}
	if p.Conn >= proto.Connected {
		w.onlyCopyReturned(i, s)
	}
	ended := m.target[i] && s.Conn == proto.Connected && s.PeerDisk == proto.UpToDate && p.Conn != proto.Connected
	// Of a source that lost its power meanwhile the target has all too: in a resync every write waits for it.
	has := m.level[1-i] == current || ended && m.level[1-i] == flushed
	if (ended || s.Conn == proto.Ahead && peer != nil) && s.Disk == proto.UpToDate && has && m.level[i] == behind && !m.solo[1-i] {
		w.note("%s has all, its source has not heard or has gone", inc.n.name)
		m.level[i], m.target[i] = current, false
	}
	if s.Conn == proto.Connected && p.Conn == proto.Connected && s.Disk == proto.UpToDate && p.Disk == proto.UpToDate &&
		s.PeerDisk == proto.UpToDate && p.PeerDisk == proto.UpToDate {
		if m.level[0] != current || m.level[1] != current {
			w.note("both copies are good")
		}
		m.level, m.target = [2]level{current, current}, [2]bool{}
		if s.OutOfSync == 0 {
			m.crashed, m.lone = [2]bool{}, [2]bool{}
		}
		if s.OutOfSync == 0 && p.OutOfSync == 0 && !m.apart.together {
			m.apart.join()
			w.barred = [2]bool{}
		}
	}
}

// checkMarks: no more is to be resynced than can differ. The lock is held.
func (w *world) checkMarks(n *node, s *datapath.Status) {
	if s.OutOfSync == 0 {
		return
	}
	for _, n := range w.nodes {
		if n.inc != nil {
			w.model.apart.underWay(n.inc.pending)
		}
	}
	if limit := w.model.mayDiffer(s.Size); s.OutOfSync > limit*4096 {
		w.fail("%s has %d blocks to resync, there can be %d", n.name, s.OutOfSync/4096, limit)
	}
}

// resyncs draws the conclusions from a resync that node i takes part in, or does no more. The lock is held.
func (w *world) resyncs(i int, s *datapath.Status) {
	m := w.model
	switch {
	case syncTarget(s.Conn):
		if m.forked >= 0 {
			w.joined(i)
		}
		m.level[i], m.target[i], m.began = behind, true, [2]bool{}
		if peer := w.nodes[1-i].inc; peer != nil && m.failing[1-i] {
			w.spare(peer) // it was to fail while this copy was good
		}
	case s.Conn == proto.SyncSource || s.Conn == proto.PausedSyncS:
		m.began[i] = m.began[i] || m.forked >= 0
	case s.Conn < proto.Connected:
		m.unheard(i, w.twist.fork.always)
	}
}

// onlyCopyReturned: a Primary without a good copy of its own has written again what its peer lost with its power, before I/O
// goes on.
func (w *world) onlyCopyReturned(i int, s *datapath.Status) {
	m := w.model
	if s.Role == proto.Primary && s.Conn >= proto.Connected && s.Disk < proto.UpToDate && s.PeerDisk == proto.UpToDate && !s.Suspended &&
		w.app != nil && w.app.n.i == i && m.level[i] == behind && m.level[1-i] == flushed {
		w.note("%s has written again what %s lost with its power", names[i], names[1-i])
		m.level[1-i] = current
	}
}

// meet is the moment in which two nodes have compared their histories. A copy that lost its cache counts from now on if
// nobody has more, or if it crashed as Primary and its peer was not taken into use: the crashed Primary decides, as it
// would alone (rule 40 of the comparison). A Primary that is behind itself sees to it that nothing is lost.
func (w *world) meet() {
	m := w.model
	for k := range 2 {
		primary := w.app != nil && w.app.n.i == 1-k
		if m.level[k] == flushed && !primary && (m.level[1-k] != current || m.crashed[k]) {
			w.note("what was not flushed may be lost: %s lost power", names[k])
			m.settle()
			return
		}
	}
}

// settle makes what a loss of power left the truth.
func (m *model) settle() {
	m.widen()
	for k := range m.level {
		if m.level[k] == flushed {
			m.level[k] = current
		}
	}
}
