package meta

import (
	"context"
	"fmt"
)

// Move brings the metadata to the end of a device that has become deviceBytes
// large. The agreed size stays; afterwards there is room for a larger one. Writes
// may be under way. External metadata stays where it is and only takes more of its
// device, if it must and that has grown.
//
// Bitmap, activity log and superblock are written in this order where they are to
// be, each flushed before the next, then the old superblock is erased. Until the new
// one is there, the old metadata is whole and counts: Open finds it with DeviceSize.
// So the new place must not overlap the old one, else ErrTooSmall. After ErrMetaIO
// the disk must be detached.
//
// In between, when both are there, keep is called to remember deviceBytes for that:
// should the device grow once more before a crash, what is remembered leads to one of
// them. Its error is returned when all else is done.
func (m *Metadata) Move(ctx context.Context, deviceBytes int64, keep func() error) error {
	var kept error
	if m.disk.Device != nil {
		if err := m.widen(ctx, deviceBytes); err != nil {
			return err
		}
		return keep()
	}
	from := m.Layout()
	to, err := LayoutFor(deviceBytes)
	switch {
	case err != nil:
		return err
	case to.MDOffset == from.MDOffset:
		return keep()
	case m.NeedsApplyAL():
		return fmt.Errorf("move the metadata from %d to %d: %w", from.BMOffset, to.BMOffset, ErrUnclean)
	case to.BMOffset < from.MDOffset+SuperblockSize:
		return fmt.Errorf("move the metadata from %d to %d: %w: old and new place overlap; the device must grow by %d bytes or more",
			from.BMOffset, to.BMOffset, ErrTooSmall, to.MDSize())
	}
	err = m.al.pause(ctx, func() error {
		if err := m.bm.move(ctx, to); err != nil {
			return err
		}
		if err := m.al.move(to); err != nil {
			return err
		}
		kept, err = m.moveSuperblock(ctx, from, to, keep) // before a transaction comes that only the new log has
		return err
	})
	if err != nil { // some parts may be here and some there
		m.mu.Lock()
		if m.err == nil {
			m.err = err
		}
		m.mu.Unlock()
		m.al.fail(err)
		return err
	}
	m.log.Info("metadata moved", "from", from.BMOffset, "to", to.BMOffset)
	return kept
}

// widen makes room for deviceBytes of data without moving anything.
func (m *Metadata) widen(ctx context.Context, deviceBytes int64) error {
	from := m.Layout()
	to, err := external(deviceBytes, from.MDOffset, from.MDSize())
	if err == nil && to.UsableSize < deviceBytes-deviceBytes%sectorSize {
		to, err = m.disk.layout(deviceBytes)
	}
	switch {
	case err != nil:
		return err
	case to.UsableSize < m.Superblock().AgreedSize:
		return fmt.Errorf("room for %d bytes: %w: the agreed size is %d", to.UsableSize, ErrTooSmall, m.Superblock().AgreedSize)
	case m.NeedsApplyAL():
		return fmt.Errorf("make room for %d bytes: %w", deviceBytes, ErrUnclean)
	}
	if err := m.lockIO(ctx); err != nil {
		return err
	}
	defer m.unlockIO()
	if err := m.bm.lockIO(ctx); err != nil {
		return err
	}
	defer m.bm.unlockIO()
	if err := m.relocate(to); err != nil {
		m.al.fail(err)
		return err
	}
	// What lies in new room for the bitmap is read when an agreed size reaches there, and written before.
	m.bm.mu.Lock()
	m.bm.room = to.BMSize
	m.bm.mu.Unlock()
	m.al.limit.Store(to.UsableSize)
	return nil
}

// relocate writes the superblock of another layout. I/O is locked.
func (m *Metadata) relocate(to Layout) error {
	m.mu.Lock()
	m.layout = to
	m.mu.Unlock()
	return m.write(m.running(m.Superblock()))
}

// moveSuperblock writes the new superblock and erases the old one, and gives keep's error besides its own.
func (m *Metadata) moveSuperblock(ctx context.Context, from, to Layout, keep func() error) (kept, err error) {
	if err := m.lockIO(ctx); err != nil {
		return nil, err
	}
	defer m.unlockIO()
	if err := m.relocate(to); err != nil {
		return nil, err
	}
	kept = keep()
	return kept, erase(m.dev, []int64{from.MDOffset})
}

// move writes the whole bitmap to its new place. Bits set meanwhile are dirty there.
func (b *Bitmap) move(ctx context.Context, to Layout) error {
	if err := b.lockIO(ctx); err != nil {
		return err
	}
	defer b.unlockIO()
	if err := b.dev.WriteZeroes(to.BMOffset, to.BMSize, false); err != nil {
		return fmt.Errorf("zero the bitmap at %d: %w: %w", to.BMOffset, ErrMetaIO, err)
	}
	b.mu.Lock()
	b.off, b.room = to.BMOffset, to.BMSize
	for pi := range b.pages {
		b.dirty[pi/64] |= 1 << (pi % 64)
	}
	b.mu.Unlock()
	if err := b.flush(); err != nil {
		return err
	}
	for from, more := uint64(0), true; more; {
		var err error
		if from, more, err = b.writeSome(from); err != nil {
			return err
		}
	}
	return nil
}

// pause calls f while no transaction is written and none can be.
func (a *ActivityLog) pause(ctx context.Context, f func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.committing && a.err == nil {
		if err := a.sleep(ctx); err != nil {
			return err
		}
	}
	if a.err != nil {
		return a.err
	}
	a.committing = true
	a.mu.Unlock()
	err := f()
	a.mu.Lock()
	a.committing = false
	a.wake()
	return err
}

// move writes a whole ring at the log's new place: its transactions repeat what is
// active. The caller has paused the log.
func (a *ActivityLog) move(to Layout) error {
	a.off = to.ALOffset // the pause keeps others from it
	a.limit.Store(to.UsableSize)
	if err := initRing(a.dev, to.ALOffset, 0, 0); err != nil {
		return err
	}
	for range alBlocks {
		a.mu.Lock()
		a.prepare(nil)
		a.mu.Unlock()
		if err := a.write(nil); err != nil {
			return err
		}
		a.mu.Lock()
		a.advance()
		a.mu.Unlock()
	}
	return nil
}
