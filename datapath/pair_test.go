package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cable is the network between two nodes: loopback TCP that can be cut.
type cable struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

var errCut = errors.New("cable is cut")

func (c *cable) listen(ctx context.Context, addr string) (net.Listener, error) {
	ln, err := (&Config{}).listenTCP(ctx, addr)
	return ln, err
}

func (c *cable) dial(ctx context.Context, laddr, raddr string) (net.Conn, error) {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	if cut {
		return nil, errCut
	}
	conn, err := (&Config{}).dialTCP(ctx, laddr, raddr)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.cut {
			_ = conn.Close()
			return nil, errCut
		}
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

// pull cuts the cable: connections break at both ends.
func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func (c *cable) plug() {
	c.mu.Lock()
	c.cut = false
	c.mu.Unlock()
}

type node struct {
	*Resource
	t    testing.TB
	name string
	disk block.Device
	mu   sync.Mutex
	said []string
}

func (n *node) heard(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		if strings.Contains(s, text) {
			return true
		}
	}
	return false
}

// pair is two nodes with their own disks.
type pair struct {
	t     testing.TB
	cable *cable
	addr  [2]string
	node  [2]*node
	tweak func(i int, c *Config)
}

var lastAddr atomic.Int32

// freePort gives an address of the loopback network that nobody else uses, so that tests may run side by side.
func freePort(t testing.TB) string {
	t.Helper()
	pid, n := os.Getpid(), lastAddr.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+pid%250, pid/250%250, 1+n%250, 7788+n/250)
}

func freshDisk(t testing.TB, size int64) *blocktest.Mem {
	t.Helper()
	d := blocktest.NewMem(size)
	if err := meta.Create(context.Background(), d, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return d
}

func newPair(t testing.TB, sizeA, sizeB int64, tweak func(i int, c *Config)) *pair {
	t.Helper()
	p := &pair{t: t, cable: &cable{}, addr: [2]string{freePort(t), freePort(t)}, tweak: tweak}
	p.boot(0, freshDisk(t, sizeA))
	p.boot(1, freshDisk(t, sizeB))
	t.Cleanup(func() {
		for _, n := range p.node {
			_ = n.Close()
		}
	})
	return p
}

var names = [2]string{"otter", "weasel"}

// boot starts node i over a disk, without attaching it.
func (p *pair) boot(i int, disk block.Device) *node {
	p.t.Helper()
	n := &node{t: p.t, name: names[i], disk: disk}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("SANTUI_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	cfg := Config{
		Resource: "r0", Device: "/dev/drbd0", Node: names[i], Peer: names[1-i], DiskPath: "mem" + names[i],
		Open:      func() (block.Device, error) { return keepOpen{disk}, nil },
		LocalAddr: p.addr[i], PeerAddr: p.addr[1-i], CRAMAlg: "sha1", Secret: []byte("FooFunFactory"),
		ResyncRate: 1 << 30, ConnectInt: 200 * time.Millisecond, ALExtents: 67, Logger: logger,
		Listen: p.cable.listen, Dial: p.cable.dial,
		Events: func(l proto.Level, s string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.said = append(n.said, s)
		},
	}
	if p.tweak != nil {
		p.tweak(i, &cfg)
	}
	r, err := New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	n.Resource = r
	p.node[i] = n
	return n
}

// keepOpen lets a test look at a disk after the engine closed it.
type keepOpen struct{ block.Device }

func (keepOpen) Close() error { return nil }

// Grow implements block.Grower.
func (k keepOpen) Grow() (int64, error) { return block.Grow(k.Device) }

func (n *node) ok(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.dump()
		n.t.Fatalf("%s: %s: %v", n.name, what, err)
	}
}

func (n *node) dump() {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.Status()
	n.t.Logf("%s: %v/%v %v %v/%v oos %d uuids %x:%x:%x", n.name, s.Role, s.PeerRole, s.Conn, s.Disk, s.PeerDisk, s.OutOfSync, s.UUIDs.Current, s.UUIDs.Bitmap, s.UUIDs.History)
	for _, s := range n.said {
		n.t.Logf("    %s", s)
	}
}

func bg() context.Context { return context.Background() }

// up attaches and connects both nodes.
func (p *pair) up() {
	p.t.Helper()
	for _, n := range p.node {
		n.ok("attach", n.Attach(bg()))
		n.ok("connect", n.Connect(bg(), false))
	}
}

// await waits until both nodes satisfy cond.
func (p *pair) await(what string, cond func(s *Status) bool) {
	p.t.Helper()
	for _, n := range p.node {
		n.await(what, cond)
	}
}

func (n *node) await(what string, cond func(s *Status) bool) {
	n.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		ch := n.Changed()
		if cond(n.Status()) {
			return
		}
		select {
		case <-ch:
		case <-deadline:
			n.dump()
			n.t.Fatalf("%s: waited too long for %s", n.name, what)
		}
	}
}

func connected(s *Status) bool { return s.Conn >= proto.Connected }
func alone(s *Status) bool     { return s.Conn == proto.StandAlone }
func inSync(s *Status) bool {
	return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate && s.OutOfSync == 0
}

// synced brings a fresh pair to Connected UpToDate/UpToDate, otter Primary.
func (p *pair) synced() {
	p.t.Helper()
	p.up()
	p.await("connection", connected)
	p.node[0].ok("promote", p.node[0].Promote(bg(), true))
	p.await("the initial sync", inSync)
}

func (n *node) write(off int64, b []byte) {
	n.t.Helper()
	_, err := n.WriteAt(b, off)
	n.ok(fmt.Sprintf("write %d at %d", len(b), off), err)
}

func pattern(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	r := rand.NewChaCha8(key)
	b := block.Buffer(n)
	_, _ = r.Read(b)
	return b
}

// content reads all of the replicated data straight from a disk.
func (n *node) content() []byte {
	n.t.Helper()
	b := make([]byte, n.Size())
	if _, err := n.disk.ReadAt(b, 0); err != nil {
		n.t.Fatal(err)
	}
	return b
}

// equal checks that both disks hold the same data.
func (p *pair) equal() {
	p.t.Helper()
	a, b := p.node[0].content(), p.node[1].content()
	if bytes.Equal(a, b) {
		return
	}
	for i := 0; i < len(a); i += 4096 {
		if e := min(i+4096, len(a)); !bytes.Equal(a[i:e], b[i:e]) {
			p.node[0].dump()
			p.node[1].dump()
			p.t.Fatalf("the copies differ, first in block %d", i/4096)
		}
	}
}

// TestNothingIsConfirmedBeforeItsGeneration: a Primary whose peer, or the peer's disk, goes confirms no write and no flush before the
// generation that it begins then is on its disk. Else a power cut would leave it with the old one: its peer, promoted meanwhile, would
// overwrite what was confirmed, and no split brain would show. early: the write has passed the gate already, and waits for the
// activity log.
func TestNothingIsConfirmedBeforeItsGeneration(t *testing.T) {
	t.Parallel()
	cable := func(p *pair) (back func()) {
		p.cable.pull()
		return p.cable.plug
	}
	detach := func(p *pair) (back func()) {
		ended := make(chan error, 1)
		go func() { ended <- p.node[1].Detach(context.Background()) }()
		return func() {
			p.node[1].ok("detach", <-ended)
			p.node[1].ok("attach", p.node[1].Attach(context.Background()))
		}
	}
	for _, c := range []struct {
		name  string
		lose  func(p *pair) (back func())
		early bool
	}{{"cable", cable, false}, {"cable, early", cable, true}, {"detach", detach, false}, {"detach, early", detach, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			confirmedBefore(t, c.lose, c.early)
		})
	}
}

func confirmedBefore(t *testing.T, lose func(p *pair) (back func()), early bool) {
	p := newPair(t, testSize, testSize, nil)
	faults, mem := p.faulty(0)
	p.synced()
	a := p.node[0]
	a.write(1<<20, pattern(4, 4096)) // its extent is in the log now
	a.ok("flush", a.Flush())
	p.await("quiet", inSync)
	super, log := make(chan struct{}), make(chan struct{})
	const md, al = 4096, 32 << 10 // in front of the end: superblock, and before it the activity log
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: mem.Size() - md, Block: super})
	done, off := make(chan error, 2), int64(1<<20)
	write := func() {
		_, err := a.WriteAt(pattern(5, 4096), off)
		done <- err
	}
	if early {
		off = 5 << 20
		faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: mem.Size() - md - al, To: mem.Size() - md, Block: log})
		go write()
		for a.gateIs(func(tr *traffic) bool { return tr.inflight == 0 }) {
			time.Sleep(time.Millisecond)
		}
	}
	back := lose(p)
	for a.gateIs(func(tr *traffic) bool { return tr.gate.link != nil }) {
		time.Sleep(time.Millisecond)
	}
	close(log)
	if !early {
		go write()
	}
	go func() { done <- a.Flush() }()
	select {
	case err := <-done:
		t.Errorf("a write or a flush was confirmed before the superblock was written: %v", err)
		done <- err
	case <-time.After(100 * time.Millisecond):
	}
	heal()
	close(super)
	a.ok("the first", <-done)
	a.ok("the other", <-done)
	back()
	p.await("the resync", inSync)
	p.equal()
}

func (n *node) gateIs(cond func(t *traffic) bool) bool {
	n.traffic.mu.Lock()
	defer n.traffic.mu.Unlock()
	return cond(n.traffic)
}

// TestNothingIsConfirmedWithoutItsGeneration: the same if the generation cannot be written, from that moment on.
func TestNothingIsConfirmedWithoutItsGeneration(t *testing.T) {
	t.Parallel()
	for range 5 {
		p := newPair(t, testSize, testSize, nil)
		faults, mem := p.faulty(0)
		p.synced()
		a := p.node[0]
		a.write(1<<20, pattern(4, 4096))
		a.ok("flush", a.Flush())
		p.await("quiet", inSync)
		block := make(chan struct{})
		faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: mem.Size() - 4096, Block: block, Err: syscall.EIO})
		p.cable.pull()
		for linked := true; linked; time.Sleep(time.Millisecond) {
			a.traffic.mu.Lock()
			linked = a.traffic.gate.link != nil
			a.traffic.mu.Unlock()
		}
		done := make(chan error, 8)
		for i := range int64(cap(done)) {
			go func() {
				_, err := a.WriteAt(pattern(5, 4096), 1<<20+i*4096)
				done <- err
			}()
		}
		time.Sleep(20 * time.Millisecond)
		close(block)
		for range cap(done) {
			if err := <-done; !errors.Is(err, ErrNoData) {
				t.Fatalf("a write was confirmed alone though its generation is not on the disk: %v", err)
			}
		}
	}
}
