package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"example.com/santui/datapath/block"
)

// What an activity log refuses, for errors.Is.
var (
	// ErrRangeTooLarge: one range touches more extents than the log can hold.
	ErrRangeTooLarge = errors.New("range spans more extents than the activity log holds")
	// ErrNotActive: End for an extent that no Begin holds.
	ErrNotActive = errors.New("extent is not active")
	// ErrBusy: writes are under way.
	ErrBusy = errors.New("activity log is in use")
)

const none int32 = -1

// slot is one place in the log. It is in exactly one of: the free list, the idle
// list (committed, no references), or neither (referenced or pending).
type slot struct {
	extent     uint32 // what it holds on disk
	want       uint32 // what it holds for users: differs from extent while pending
	refs       int32
	pending    bool
	prev, next int32
}

// list is a doubly linked list of slots by index.
type list struct {
	head, tail int32
	n          int
}

// ActivityLog keeps on disk which 4 MiB extents may have writes under way, so
// that after a crash only those need a resync. Begin before a write, End when
// both copies have it, or the bitmap says that they have not. It is safe for
// concurrent use; one Begin at a time does the I/O for all that wait.
type ActivityLog struct {
	mu         sync.Mutex
	slots      []slot
	index      map[uint32]int32 // extent wanted -> slot
	free, idle list             // idle: most recently used first
	pending    []int32          // slots for the next transactions, in order
	committing bool
	queue      []*waiter     // Begins waiting for slots, in order of arrival
	changed    chan struct{} // closed on every change while someone sleeps
	sleepers   int
	err        error // first failure; everything fails afterwards
	number     uint32
	cycle      int

	dev    block.Device // holds the log; the same one if the metadata is internal
	off    int64
	limit  atomic.Int64 // bytes of data the device has room for
	bm     *Bitmap
	inUse  func() error // marks the superblock unclean; before each transaction
	writes atomic.Uint64
	hits   atomic.Uint64
	misses atomic.Uint64

	block alBlock // the committer's
	buf   []byte
}

// waiter stands for one Begin in the queue; it has a size so that each has its own
// address.
type waiter struct{ _ byte }

func newActivityLog(dev block.Device, l Layout, capacity int, bm *Bitmap, inUse func() error) *ActivityLog {
	a := &ActivityLog{dev: dev, off: l.ALOffset, bm: bm, inUse: inUse, slots: make([]slot, capacity),
		changed: make(chan struct{}), buf: block.Buffer(alBlockSize)}
	a.limit.Store(l.UsableSize)
	a.clearSlots()
	return a
}

// clearSlots makes every slot free.
func (a *ActivityLog) clearSlots() {
	a.index = make(map[uint32]int32, 2*len(a.slots))
	a.free, a.idle = list{none, none, 0}, list{none, none, 0}
	a.pending = make([]int32, 0, len(a.slots))
	for i := len(a.slots) - 1; i >= 0; i-- {
		a.slots[i] = slot{extent: freeExtent, want: freeExtent}
		a.push(&a.free, int32(i))
	}
}

// Capacity is the number of extents that can be active at once.
func (a *ActivityLog) Capacity() int { return len(a.slots) }

// Active is the number of extents that are marked on disk or about to be.
func (a *ActivityLog) Active() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.slots) - a.free.n
}

// InUse is the number of extents that writes between Begin and End hold.
func (a *ActivityLog) InUse() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.slots) - a.free.n - a.idle.n
}

// Extents lists the active extents, sorted.
func (a *ActivityLog) Extents() []uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []uint32
	for _, s := range a.slots {
		for _, e := range []uint32{s.extent, s.want} {
			if e != freeExtent {
				out = append(out, e)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TryBegin is Begin for the case that needs neither waiting nor I/O: it takes the
// extents of bytes [off, off+n) and returns true, or takes nothing.
func (a *ActivityLog) TryBegin(off, n int64) bool {
	if n <= 0 || !a.inside(off, n) {
		return false
	}
	a.mu.Lock()
	ok := a.err == nil && len(a.queue) == 0 && a.hit(extentsOf(off, n))
	a.mu.Unlock()
	if ok {
		a.hits.Add(1)
	}
	return ok
}

// Begin makes the extents of bytes [off, off+n) active and returns when the log on
// disk says so; then the write may start. If they are active already it does no
// I/O and allocates nothing. It waits while every slot is taken by others. After
// an error nothing is held: ErrRangeTooLarge, ErrMetaIO (for good: detach),
// ErrUnclean, ErrClosed, or ctx's. Every Begin that succeeds needs one End with
// the same range. n = 0 holds nothing.
func (a *ActivityLog) Begin(ctx context.Context, off, n int64) error {
	if !a.inside(off, n) {
		return fmt.Errorf("activate %d bytes at %d: %w", n, off, block.ErrRange)
	}
	if n == 0 {
		return nil
	}
	if a.TryBegin(off, n) {
		return nil
	}
	first, last := extentsOf(off, n)
	if last-first >= uint32(len(a.slots)) {
		return fmt.Errorf("activate %d bytes at %d, the log has %d extents of 4 MiB: %w: split the request or raise al-extents",
			n, off, len(a.slots), ErrRangeTooLarge)
	}
	a.misses.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.acquire(ctx, first, last); err != nil {
		return err
	}
	for a.pendingIn(first, last) {
		if err := a.progress(ctx); err != nil {
			a.drop(first, last)
			return err
		}
	}
	return nil
}

// End gives up what Begin with the same range took. ErrNotActive tells of an End
// without Begin; the log stays sound.
func (a *ActivityLog) End(off, n int64) error {
	if !a.inside(off, n) {
		return fmt.Errorf("deactivate %d bytes at %d: %w", n, off, block.ErrRange)
	}
	if n == 0 {
		return nil
	}
	first, last := extentsOf(off, n)
	a.mu.Lock()
	ok := a.drop(first, last)
	a.mu.Unlock()
	if !ok {
		return fmt.Errorf("deactivate %d bytes at %d: %w", n, off, ErrNotActive)
	}
	return nil
}

func (a *ActivityLog) inside(off, n int64) bool {
	limit := a.limit.Load()
	return off >= 0 && n >= 0 && off <= limit && n <= limit-off
}

func extentsOf(off, n int64) (first, last uint32) {
	return uint32(off / ExtentSize), uint32((off + n - 1) / ExtentSize)
}

// hit takes the extents if all of them are active and on disk.
func (a *ActivityLog) hit(first, last uint32) bool {
	for e := first; ; e++ {
		i, ok := a.index[e]
		if !ok || a.slots[i].pending {
			return false
		}
		if e == last {
			break
		}
	}
	for e := first; ; e++ {
		a.ref(a.index[e])
		if e == last {
			return true
		}
	}
}

// acquire takes a reference on every extent of the range, all at once so that two
// wide ranges cannot block each other, and in order of arrival so that none starves.
func (a *ActivityLog) acquire(ctx context.Context, first, last uint32) error {
	if len(a.queue) == 0 && a.err == nil && a.fits(first, last) {
		a.take(first, last)
		return nil
	}
	me := new(waiter)
	a.queue = append(a.queue, me)
	defer func() {
		a.queue = slices.DeleteFunc(a.queue, func(w *waiter) bool { return w == me })
		a.wake()
	}()
	for {
		if a.err != nil {
			return a.err
		}
		if a.queue[0] == me && a.fits(first, last) {
			a.take(first, last)
			return nil
		}
		if err := a.progress(ctx); err != nil {
			return err
		}
	}
}

// fits reports whether there are enough free and idle slots for the extents of the
// range that have none.
func (a *ActivityLog) fits(first, last uint32) bool {
	cold, room := 0, a.free.n+a.idle.n
	for e := first; ; e++ {
		if i, ok := a.index[e]; !ok {
			cold++
		} else if s := &a.slots[i]; s.refs == 0 && !s.pending {
			room--
		}
		if e == last {
			return cold <= room
		}
	}
}

func (a *ActivityLog) take(first, last uint32) {
	for e := first; ; e++ { // those present first: they must not be evicted
		if i, ok := a.index[e]; ok {
			a.ref(i)
		}
		if e == last {
			break
		}
	}
	for e := first; ; e++ {
		if _, ok := a.index[e]; !ok {
			a.assign(e)
		}
		if e == last {
			return
		}
	}
}

// assign gives extent e a slot, evicting the least recently used idle one.
func (a *ActivityLog) assign(e uint32) {
	i := a.free.head
	if i != none {
		a.remove(&a.free, i)
	} else {
		i = a.idle.tail
		a.remove(&a.idle, i)
		delete(a.index, a.slots[i].extent)
	}
	s := &a.slots[i]
	s.want, s.refs, s.pending = e, 1, true
	a.index[e] = i
	a.pending = append(a.pending, i)
}

func (a *ActivityLog) ref(i int32) {
	s := &a.slots[i]
	if s.refs == 0 && !s.pending {
		a.remove(&a.idle, i)
	}
	s.refs++
}

func (a *ActivityLog) drop(first, last uint32) bool {
	good := true
	for e := first; ; e++ {
		i, ok := a.index[e]
		if !ok || a.slots[i].refs == 0 {
			good = false
		} else if s := &a.slots[i]; s.refs > 1 {
			s.refs--
		} else {
			s.refs = 0
			if !s.pending {
				a.push(&a.idle, i)
			}
			a.wake()
		}
		if e == last {
			return good
		}
	}
}

func (a *ActivityLog) pendingIn(first, last uint32) bool {
	for e := first; ; e++ {
		if i, ok := a.index[e]; ok && a.slots[i].pending {
			return true
		}
		if e == last {
			return false
		}
	}
}

// progress brings things forward: it writes a transaction if there is something to
// write and nobody does, else it sleeps until something changes. a.mu is held on
// entry and return.
func (a *ActivityLog) progress(ctx context.Context) error {
	if a.err != nil {
		return a.err
	}
	if len(a.pending) > 0 && !a.committing {
		return a.commit()
	}
	return a.sleep(ctx)
}

func (a *ActivityLog) sleep(ctx context.Context) error {
	ch := a.changed
	a.sleepers++
	a.mu.Unlock()
	var err error
	select {
	case <-ch:
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.mu.Lock()
	a.sleepers--
	return err
}

func (a *ActivityLog) wake() {
	if a.sleepers > 0 {
		close(a.changed)
		a.changed = make(chan struct{})
	}
}

// commit writes one transaction with up to 64 of the pending updates. a.mu is held
// on entry and return, not while writing. The writing is not cancelled: half a
// transaction helps nobody.
func (a *ActivityLog) commit() error {
	a.committing = true
	batch := a.pending[:min(len(a.pending), alUpdates)]
	pages := a.prepare(batch)
	a.mu.Unlock()
	err := a.write(pages)
	a.mu.Lock()
	a.committing = false
	defer a.wake()
	if err != nil {
		if a.err == nil {
			a.err = err
		}
		return a.err
	}
	a.advance()
	for _, i := range batch {
		s := &a.slots[i]
		s.extent, s.pending = s.want, false
		if s.refs == 0 {
			a.push(&a.idle, i)
		}
	}
	a.pending = a.pending[:copy(a.pending, a.pending[len(batch):])]
	return nil
}

// advance goes on to the next transaction.
func (a *ActivityLog) advance() {
	a.number++
	if a.cycle += alContext; a.cycle >= len(a.slots) {
		a.cycle = 0
	}
}

// prepare fills a.block and lists the bitmap pages of the extents that go.
func (a *ActivityLog) prepare(batch []int32) (pages []uint64) {
	b := &a.block
	b.Number, b.Type, b.ContextSize, b.ContextStart = a.number, alTypeUpdate, uint16(len(a.slots)), uint16(a.cycle)
	b.Updates = b.Updates[:0]
	for _, i := range batch {
		s := &a.slots[i]
		b.Updates = append(b.Updates, alUpdate{uint16(i), s.want})
		if s.extent != freeExtent {
			pages = append(pages, uint64(s.extent)*(ExtentSize/BlockSize)/pageBits)
		}
	}
	for k := range b.Context {
		b.Context[k] = freeExtent
		if i := a.cycle + k; i < len(a.slots) {
			b.Context[k] = a.slots[i].extent
		}
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}

// write makes the pages durable, then the block in a.block.
func (a *ActivityLog) write(pages []uint64) error {
	if err := a.inUse(); err != nil {
		return err
	}
	if len(pages) > 0 {
		// Data written into the extents that go must not be in the disk's cache any more when the log forgets them, nor when
		// the bitmap says that both copies have it: this flushes it, too.
		if err := a.bm.writePages(context.Background(), pages); err != nil {
			return err
		}
	}
	if err := a.block.marshal(a.buf); err != nil {
		return err
	}
	off := a.off + int64(a.block.Number%alBlocks)*alBlockSize
	if _, err := a.dev.WriteAt(a.buf, off); err != nil {
		return fmt.Errorf("write activity log block at %d: %w: %w", off, ErrMetaIO, err)
	}
	if err := a.dev.Flush(); err != nil {
		return fmt.Errorf("flush the activity log: %w: %w", ErrMetaIO, err)
	}
	a.writes.Add(1)
	return nil
}

// rewrite writes a whole ring of transactions, as the kernel does when the size of
// the data changes (drbd_al_initialize).
func (a *ActivityLog) rewrite(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for done := 0; done < alBlocks; {
		if a.err != nil {
			return a.err
		}
		if a.committing {
			if err := a.sleep(ctx); err != nil {
				return err
			}
			continue
		}
		if err := a.commit(); err != nil {
			return err
		}
		done++
	}
	return nil
}

// reset forgets every extent, writes a fresh ring and calls then, all without any
// transaction in between; ErrBusy while an extent is held.
func (a *ActivityLog) reset(then func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	if a.committing || len(a.queue) > 0 || len(a.pending) > 0 || a.free.n+a.idle.n != len(a.slots) {
		return ErrBusy
	}
	a.committing = true
	a.clearSlots()
	next := a.number
	a.number, a.cycle = 0, 0
	a.mu.Unlock()
	err := initRing(a.dev, a.off, next, len(a.slots))
	if err == nil {
		err = then()
	}
	a.mu.Lock()
	a.committing = false
	if err != nil && a.err == nil {
		a.err = err
	}
	a.wake()
	return err
}

// fail makes everything that waits, and everything later, return err.
func (a *ActivityLog) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
	a.wake()
}

// initRing overwrites the log with blocks that hold no transaction, with a flush after each: cut anywhere it leaves a log
// that still reads, with at most one damaged block. next, where the next transaction would go, is the first to go. If the
// newest transaction holds all slots of a log of that capacity it goes last. Else those before it are needed too, and the
// order is backwards: what is left is the log as it was some transactions ago.
func initRing(dev block.Device, off int64, next uint32, capacity int) error {
	buf := block.GetBuffer(alBlockSize)
	defer block.PutBuffer(buf)
	if err := (&alBlock{Type: alTypeInitialized}).marshal(buf); err != nil {
		return err
	}
	for i := range uint32(alBlocks) {
		if capacity > alContext {
			i = -i
		}
		at := off + int64((next+i)%alBlocks)*alBlockSize
		if _, err := dev.WriteAt(buf, at); err != nil {
			return fmt.Errorf("write activity log block at %d: %w: %w", at, ErrMetaIO, err)
		}
		if err := dev.Flush(); err != nil {
			return fmt.Errorf("flush the activity log: %w: %w", ErrMetaIO, err)
		}
	}
	return nil
}

// push puts slot i at the head of l.
func (a *ActivityLog) push(l *list, i int32) {
	s := &a.slots[i]
	s.prev, s.next = none, l.head
	if l.head != none {
		a.slots[l.head].prev = i
	} else {
		l.tail = i
	}
	l.head = i
	l.n++
}

func (a *ActivityLog) remove(l *list, i int32) {
	s := &a.slots[i]
	if s.prev != none {
		a.slots[s.prev].next = s.next
	} else {
		l.head = s.next
	}
	if s.next != none {
		a.slots[s.next].prev = s.prev
	} else {
		l.tail = s.prev
	}
	l.n--
}
