package torture

import (
	"sync/atomic"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
)

// disk is a node's backing disk as its engine sees it: it takes time, may lose power at any call, and may fail.
type disk struct {
	inc    *incarnation
	mem    *blocktest.Mem
	faults *blocktest.Faults
	rules  []func() // take faults away again; the incarnation's lock guards it
	closed atomic.Bool
	md     *disk // that for external metadata, nil until it was opened
}

func newDisk(inc *incarnation, mem *blocktest.Mem) *disk {
	return &disk{inc: inc, mem: mem, faults: blocktest.NewFaults(mem)}
}

// inject makes calls fail until heal.
func (d *disk) inject(r blocktest.Rule) { d.rules = append(d.rules, d.faults.Inject(r)) }

func (d *disk) heal() {
	for _, remove := range d.rules {
		remove()
	}
	d.rules = nil
	if d.md != nil {
		d.md.heal()
	}
}

// around does a call in the middle of the time it takes.
func (d *disk) around(kind int, off, n int64, f func() error) error {
	if d.closed.Load() {
		return block.ErrClosed
	}
	if d.inc.isDead() {
		return errPower
	}
	took := d.inc.n.w.jitter(diskDelay, d.inc.n.i, kind, int(off), int(n))
	if kind == opFlush {
		took += d.inc.n.w.upTo(d.inc.n.w.hardware.slowFlush[d.inc.n.i], d.inc.n.i)
	}
	time.Sleep(took / 2)
	for !d.inc.isDead() {
		d.inc.mu.Lock()
		wait := time.Until(d.inc.stalled)
		d.inc.mu.Unlock()
		if wait <= 0 {
			break
		}
		select {
		case <-time.After(wait):
		case <-d.inc.dead:
		}
	}
	if d.inc.isDead() {
		return errPower
	}
	err := f()
	if err != nil {
		d.inc.n.w.diskFault(d.inc, err)
	}
	if kind != opRead {
		d.inc.tick("disk")
	}
	if kind == opWrite && err == nil && d.isMeta(off) {
		d.inc.n.w.glance(d.inc, d.isSuperblock(off))
	}
	time.Sleep(took - took/2)
	if d.inc.isDead() {
		return errPower
	}
	return err
}

// isMeta says that metadata is there.
func (d *disk) isMeta(off int64) bool {
	return d.mem == d.inc.md || d.inc.md == nil && off >= d.inc.n.w.usableOf(d.mem.Size())
}

// isSuperblock says which metadata it is.
func (d *disk) isSuperblock(off int64) bool {
	if d.mem == d.inc.md {
		return off%meta.SlotSize == 0
	}
	return off >= d.mem.Size()-meta.SuperblockSize
}

const (
	opRead = iota
	opWrite
	opFlush
)

func (d *disk) ReadAt(p []byte, off int64) (n int, err error) {
	err = d.around(opRead, off, int64(len(p)), func() error {
		n, err = d.faults.ReadAt(p, off)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	err := d.around(opWrite, off, int64(len(p)), func() error { return d.put(p, off) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// put writes p, blocks of zeroes as such: they cost no memory where nothing was written before.
func (d *disk) put(p []byte, off int64) error {
	for len(p) > 0 {
		n, zero := 0, isZero(p[:min(len(p), 4096)])
		for n < len(p) && isZero(p[n:min(len(p), n+4096)]) == zero {
			n = min(len(p), n+4096)
		}
		var err error
		if zero {
			if err = d.faults.WriteZeroes(off, int64(n), false); err != nil {
				return err
			}
		} else if _, err = d.faults.WriteAt(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func (d *disk) Flush() error { return d.around(opFlush, 0, 0, d.faults.Flush) }

func (d *disk) Discard(off, n int64) error { return d.WriteZeroes(off, n, true) }

func (d *disk) WriteZeroes(off, n int64, unmap bool) error {
	return d.around(opWrite, off, n, func() error { return d.faults.WriteZeroes(off, n, unmap) })
}

func (d *disk) Size() int64           { return d.mem.Size() }
func (d *disk) LogicalBlockSize() int { return d.mem.LogicalBlockSize() }

// Grow implements block.Grower.
func (d *disk) Grow() (size int64, err error) {
	err = d.around(opRead, 0, 0, func() error {
		size, err = d.mem.Grow()
		return err
	})
	return size, err
}

// Close leaves the platters to the next one.
func (d *disk) Close() error {
	d.closed.Store(true)
	return nil
}
