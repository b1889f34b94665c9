package datapath

import (
	"sync"

	"example.com/santui/datapath/block"
)

// sectorDisk lets a disk with larger logical blocks be used in sectors of 512 bytes, which is what both applications
// and the peer count in: a write of less than a block reads the block, changes it and writes it back.
type sectorDisk struct {
	block.Device
	unit int64
	mu   sync.RWMutex // a read-modify-write excludes every other write
}

// withSectors wraps d if it needs it.
func withSectors(d block.Device) block.Device {
	if u := d.LogicalBlockSize(); u > block.SectorSize {
		return &sectorDisk{Device: d, unit: int64(u)}
	}
	return d
}

// physical is the unit in which a disk is written without reading first.
func physical(d block.Device) int {
	if s, ok := d.(*sectorDisk); ok {
		return int(s.unit)
	}
	return d.LogicalBlockSize()
}

func (s *sectorDisk) LogicalBlockSize() int { return block.SectorSize }

// Grow implements block.Grower.
func (s *sectorDisk) Grow() (int64, error) { return block.Grow(s.Device) }

func (s *sectorDisk) aligned(off, n int64) bool { return off%s.unit == 0 && n%s.unit == 0 }

// around is the range of whole blocks about [off, off+n).
func (s *sectorDisk) around(off, n int64) (first, length int64) {
	first = off - off%s.unit
	end := off + n + s.unit - 1
	return first, end - end%s.unit - first
}

func (s *sectorDisk) ReadAt(p []byte, off int64) (int, error) {
	if err := block.CheckRange(s, off, int64(len(p))); err != nil {
		return 0, err
	}
	if s.aligned(off, int64(len(p))) {
		return s.Device.ReadAt(p, off)
	}
	first, n := s.around(off, int64(len(p)))
	b := block.GetBuffer(int(n))
	defer block.PutBuffer(b)
	if _, err := s.Device.ReadAt(b, first); err != nil {
		return 0, err
	}
	return copy(p, b[off-first:]), nil
}

func (s *sectorDisk) WriteAt(p []byte, off int64) (int, error) {
	if err := block.CheckRange(s, off, int64(len(p))); err != nil {
		return 0, err
	}
	if s.aligned(off, int64(len(p))) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.Device.WriteAt(p, off)
	}
	if err := s.change(off, int64(len(p)), func(b []byte) { copy(b, p) }); err != nil {
		return 0, err
	}
	return len(p), nil
}

// change rewrites the blocks about [off, off+n) with f applied to that range.
func (s *sectorDisk) change(off, n int64, f func(b []byte)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, length := s.around(off, n)
	b := block.GetBuffer(int(length))
	defer block.PutBuffer(b)
	if _, err := s.Device.ReadAt(b, first); err != nil {
		return err
	}
	f(b[off-first:][:n])
	_, err := s.Device.WriteAt(b, first)
	return err
}

// Discard leaves out blocks that are only touched.
func (s *sectorDisk) Discard(off, n int64) error {
	if err := block.CheckRange(s, off, n); err != nil {
		return err
	}
	first := (off + s.unit - 1) / s.unit * s.unit
	end := (off + n) / s.unit * s.unit
	if end <= first {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.Device.Discard(first, end-first)
}

func (s *sectorDisk) WriteZeroes(off, n int64, unmap bool) error {
	if err := block.CheckRange(s, off, n); err != nil {
		return err
	}
	first := min((off+s.unit-1)/s.unit*s.unit, off+n)
	end := max((off+n)/s.unit*s.unit, first)
	zero := func(b []byte) { clear(b) }
	if first > off {
		if err := s.change(off, first-off, zero); err != nil {
			return err
		}
	}
	if end > first {
		if err := s.zeroBlocks(first, end-first, unmap); err != nil {
			return err
		}
	}
	if end < off+n {
		return s.change(end, off+n-end, zero)
	}
	return nil
}

func (s *sectorDisk) zeroBlocks(off, n int64, unmap bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.Device.WriteZeroes(off, n, unmap)
}
