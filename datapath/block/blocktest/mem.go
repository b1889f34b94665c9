package blocktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"example.com/santui/datapath/block"
)

const (
	sector  = block.SectorSize
	memPage = 4096
	perPage = memPage / sector
)

// Mem is a disk in memory with a volatile write cache: what is written survives
// CrashClone for certain only after Flush. Pages never written take no memory, so it
// may be as large as one likes. It is safe for concurrent use.
type Mem struct {
	mu     sync.Mutex
	size   int64 // as Size tells it
	real   int64 // after Extend; size follows with Grow
	closed bool
	pages  map[int64]*[memPage]byte // content now, by page number
	// cache has for each sector written since the last flush every content it
	// had: the durable one first, the one of now last.
	cache   map[int64][][]byte
	flushes int
}

var _ block.Device = (*Mem)(nil)

// NewMem makes a disk of size bytes of zeroes; size is rounded down to sectors.
func NewMem(size int64) *Mem {
	size -= size % sector
	return &Mem{size: size, real: size, pages: map[int64]*[memPage]byte{}, cache: map[int64][][]byte{}}
}

// CrashClone is the disk after a power cut now: each sector written since the last
// Flush has, with survivePercent in a hundred, one of the contents it was given
// since (the last one half of the time), and else the content it had at the Flush.
// Larger writes are so kept, lost or torn at 512-byte boundaries. The same seed
// over the same history gives the same clone. Mem itself goes on.
func (m *Mem) CrashClone(seed uint64, survivePercent int) *Mem {
	return m.CrashCloneSplit(seed, survivePercent, 0, survivePercent)
}

// CrashCloneSplit is CrashClone, but from at on beyondPercent survive.
func (m *Mem) CrashCloneSplit(seed uint64, survivePercent int, at int64, beyondPercent int) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rnd := rand.New(rand.NewPCG(seed, 0x5a17))
	c := m.durable()
	sectors := make([]int64, 0, len(m.cache))
	for s := range m.cache {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for _, s := range sectors {
		versions := m.cache[s]
		pick, percent := 0, survivePercent
		if s*sector >= at {
			percent = beyondPercent
		}
		if rnd.IntN(100) < percent {
			pick = len(versions) - 1
			if rnd.IntN(2) == 0 {
				pick = 1 + rnd.IntN(len(versions)-1)
			}
		}
		c.put(s, versions[pick])
	}
	return c
}

// AfterPowerCut calls f with every content that a sector of a range may have after a power cut now, until f fails.
func (m *Mem) AfterPowerCut(off, n int64, f func(off int64, content []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("look at", off, n); err != nil {
		return err
	}
	for s := off / sector; s < (off+n)/sector; s++ {
		versions := m.cache[s]
		if versions == nil {
			content := noPage[:sector]
			if pg := m.pages[s/perPage]; pg != nil {
				content = pg[s%perPage*sector:][:sector]
			}
			if err := f(s*sector, content); err != nil {
				return err
			}
		}
		for _, v := range versions {
			if err := f(s*sector, v); err != nil {
				return err
			}
		}
	}
	return nil
}

var noPage [memPage]byte

// Differ lists the pages of 4096 bytes, up to size, in which two disks do not hold the same now.
func (m *Mem) Differ(o *Mem, size int64) (pages []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	at := func(d *Mem, n int64) []byte {
		if p := d.pages[n]; p != nil {
			return p[:min(memPage, size-n*memPage)]
		}
		return noPage[:min(memPage, size-n*memPage)]
	}
	for _, d := range []*Mem{m, o} {
		for n := range d.pages {
			if n*memPage < size && (d == m || m.pages[n] == nil) && !bytes.Equal(at(m, n), at(o, n)) {
				pages = append(pages, n)
			}
		}
	}
	slices.Sort(pages)
	return pages
}

// Clone is an independent copy of the disk as it reads at one moment, all of it durable.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.durable()
	for s, versions := range m.cache {
		c.put(s, versions[len(versions)-1])
	}
	return c
}

// durable is a copy of what a Flush has made durable.
func (m *Mem) durable() *Mem {
	c := NewMem(m.real)
	for n, p := range m.pages {
		cp := *p
		c.pages[n] = &cp
	}
	return c
}

// Unflushed is the number of sectors that a power cut could lose.
func (m *Mem) Unflushed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.cache)
}

// Flushes counts the calls of Flush.
func (m *Mem) Flushes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushes
}

func (m *Mem) put(s int64, content []byte) {
	p := m.pages[s/perPage]
	if p == nil {
		p = new([memPage]byte)
		m.pages[s/perPage] = p
	}
	copy(p[s%perPage*sector:][:sector], content)
}

// bounds is a Mem whose lock is held.
type bounds struct {
	*Mem
	size int64
}

func (b bounds) Size() int64 { return b.size }

func (m *Mem) begin(op string, off, n int64) error {
	if m.closed {
		return fmt.Errorf("%s memory disk: %w", op, block.ErrClosed)
	}
	if err := block.CheckRange(bounds{m, m.size}, off, n); err != nil {
		return fmt.Errorf("%s memory disk: %w", op, err)
	}
	return nil
}

// ReadAt implements block.Device.
func (m *Mem) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		n := min(len(p)-done, int(memPage-at%memPage))
		if pg := m.pages[at/memPage]; pg != nil {
			copy(p[done:done+n], pg[at%memPage:])
		} else {
			clear(p[done : done+n])
		}
		done += n
	}
	return len(p), nil
}

// WriteAt implements block.Device.
func (m *Mem) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	for i := 0; i < len(p); i += sector {
		m.writeSector((off+int64(i))/sector, p[i:i+sector])
	}
	return len(p), nil
}

func (m *Mem) writeSector(s int64, content []byte) {
	versions := m.cache[s]
	if versions == nil {
		old := make([]byte, sector)
		if pg := m.pages[s/perPage]; pg != nil {
			copy(old, pg[s%perPage*sector:])
		}
		versions = [][]byte{old}
	}
	m.cache[s] = append(versions, slices.Clone(content))
	m.put(s, content)
}

// Flush implements block.Device.
func (m *Mem) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("flush", 0, 0); err != nil {
		return err
	}
	m.flushes++
	clear(m.cache)
	return nil
}

// Discard implements block.Device: what is discarded reads as zeroes.
func (m *Mem) Discard(off, n int64) error { return m.WriteZeroes(off, n, true) }

// WriteZeroes implements block.Device.
func (m *Mem) WriteZeroes(off, n int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("zero", off, n); err != nil {
		return err
	}
	var zero [sector]byte
	for end := off + n; off < end; {
		if m.pages[off/memPage] == nil { // never written: reads as zeroes already
			off = min(end, (off/memPage+1)*memPage)
			continue
		}
		m.writeSector(off/sector, zero[:])
		off += sector
	}
	return nil
}

// Size implements block.Device.
func (m *Mem) Size() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size
}

// Extend makes the disk larger under whoever has it open: they see it when they ask, with Grow.
func (m *Mem) Extend(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.real = size - size%sector
}

// Grow implements block.Grower.
func (m *Mem) Grow() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.real < m.size {
		return 0, fmt.Errorf("grow memory disk to %d bytes: %w", m.real, block.ErrTooSmall)
	}
	m.size = m.real
	return m.size, nil
}

// LogicalBlockSize implements block.Device.
func (m *Mem) LogicalBlockSize() int { return sector }

// Close implements block.Device.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("close memory disk: %w", block.ErrClosed)
	}
	m.closed = true
	return nil
}

// Reopen makes a closed disk usable again, as after a restart without power cut.
func (m *Mem) Reopen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = false
	m.size = m.real
}
