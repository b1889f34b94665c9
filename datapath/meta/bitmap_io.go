package meta

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"example.com/santui/datapath/block"
)

// ioPages is the most that is written before a flush, so that a large write-out
// does not keep the activity log waiting.
const ioPages = 256

// openBitmap makes the bitmap of the data's size from what is on the device. data is the device of the data.
func openBitmap(data, dev block.Device, l Layout, size int64) (*Bitmap, error) {
	b := &Bitmap{data: data, dev: dev, off: l.BMOffset, room: l.BMSize, io: make(chan struct{}, 1), spare: make([]*page, 0, sparePages)}
	if err := b.resize(size, false); err != nil {
		return nil, err
	}
	buf := block.GetBuffer(ioPages * BlockSize)
	defer block.PutBuffer(buf)
	for first := 0; first < len(b.pages); first += ioPages {
		n := min(ioPages, len(b.pages)-first)
		off := b.off + int64(first)*BlockSize
		p := b.inRoom(buf[:n*BlockSize], first)
		clear(buf[len(p) : n*BlockSize])
		if _, err := dev.ReadAt(p, off); err != nil {
			return nil, fmt.Errorf("read %d bytes of bitmap at %d: %w: %w", len(p), off, ErrMetaIO, err)
		}
		for i := range n {
			b.loadPage(uint64(first+i), buf[i*BlockSize:][:BlockSize])
		}
	}
	clear(b.dirty)
	return b, nil
}

// loadPage takes page pi from disk; bits behind the last are dropped, they may
// be set there by drbdmeta apply-al.
func (b *Bitmap) loadPage(pi uint64, p []byte) {
	last := (b.nbits + 63) / 64
	for i := range uint64(pageWords) {
		w := pi*pageWords + i
		if w >= last {
			return
		}
		v := binary.LittleEndian.Uint64(p[i*8:])
		if w == last-1 {
			v &= lastWordMask(b.nbits)
		}
		if v != 0 {
			b.orWord(w, v)
		}
	}
}

// Dirty is the number of 4 KiB pages that differ from what is on disk.
func (b *Bitmap) Dirty() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, w := range b.dirty {
		n += bits.OnesCount64(w)
	}
	return n
}

// Writes counts the bitmap pages written to disk since Open ("bm-writes").
func (b *Bitmap) Writes() uint64 { return b.writes.Load() }

// WriteDirty writes the pages that have changed since they were last written,
// and flushes. When it returns nil every bit set before the call is durable, and
// so is, at any time, what was written before a bit was cleared that is clear on disk.
// ErrMetaIO on failure: the pages stay marked, and the disk should be detached.
func (b *Bitmap) WriteDirty(ctx context.Context) error {
	from := uint64(0)
	for {
		if err := b.lockIO(ctx); err != nil {
			return err
		}
		next, more, err := b.writeSome(from)
		b.unlockIO()
		if err != nil || !more {
			return err
		}
		from = next
	}
}

// WriteAll writes every page, changed or not, and flushes.
func (b *Bitmap) WriteAll(ctx context.Context) error {
	b.mu.Lock()
	for pi := range b.pages {
		b.dirty[pi/64] |= 1 << (pi % 64)
	}
	b.mu.Unlock()
	return b.WriteDirty(ctx)
}

// writePages makes those pages durable; pages is sorted. It tells nothing about
// pages that are not dirty: whoever wrote them has flushed them, since the
// token is held until then. The data's device is flushed in any case.
func (b *Bitmap) writePages(ctx context.Context, pages []uint64) error {
	if err := b.lockIO(ctx); err != nil {
		return err
	}
	defer b.unlockIO()
	for len(pages) > 0 {
		batch := pages[:min(len(pages), pagesPerCommit)]
		pages = pages[len(batch):]
		if err := b.writeBatch(batch, true); err != nil {
			return err
		}
	}
	return nil
}

// pagesPerCommit is how many pages one transaction of the activity log can have.
const pagesPerCommit = alUpdates

// writeSome writes up to ioPages dirty pages from page from on, and flushes.
func (b *Bitmap) writeSome(from uint64) (next uint64, more bool, err error) {
	var pages [ioPages]uint64
	n := 0
	for n < ioPages {
		pi, ok := b.nextDirty(from)
		if !ok {
			break
		}
		pages[n] = pi
		n++
		from = pi + 1
	}
	return from, n == ioPages, b.writeBatch(pages[:n], false)
}

// writeBatch makes those of the pages that are dirty durable. What they say is taken before the data's device is flushed: a bit
// that was cleared later, as a resync goes on meanwhile, stands for data that may be in the device's cache only, and is
// not to be lost with it. always flushes even if none is dirty. The token is held.
func (b *Bitmap) writeBatch(pages []uint64, always bool) error {
	buf := block.GetBuffer(max(len(pages), 1) * BlockSize)
	defer block.PutBuffer(buf)
	taken := pages[:0]
	for _, pi := range pages {
		if b.takeDirty(pi, buf[len(taken)*BlockSize:][:BlockSize]) {
			taken = append(taken, pi)
		}
	}
	if len(taken) == 0 && !always {
		return nil
	}
	err := b.flushData()
	for i := 0; i < len(taken) && err == nil; {
		run := 1
		for i+run < len(taken) && taken[i+run] == taken[i]+uint64(run) {
			run++
		}
		err = b.writeAt(buf[i*BlockSize:][:run*BlockSize], taken[i])
		i += run
	}
	if err == nil && len(taken) > 0 {
		err = b.flush()
	}
	if err != nil {
		b.markDirty(taken...)
	}
	return err
}

func (b *Bitmap) flushData() error {
	if err := b.data.Flush(); err != nil {
		return fmt.Errorf("flush the data before the bitmap: %w: %w", ErrMetaIO, err)
	}
	return nil
}

// inRoom cuts p, pages from page first on, to the room on the device: external metadata may end within a page.
func (b *Bitmap) inRoom(p []byte, first int) []byte {
	return p[:min(int64(len(p)), b.room-int64(first)*BlockSize)]
}

func (b *Bitmap) writeAt(p []byte, pi uint64) error {
	off := b.off + int64(pi)*BlockSize
	if _, err := b.dev.WriteAt(b.inRoom(p, int(pi)), off); err != nil {
		return fmt.Errorf("write %d bytes of bitmap at %d: %w: %w", len(p), off, ErrMetaIO, err)
	}
	b.writes.Add(uint64(len(p) / BlockSize))
	return nil
}

func (b *Bitmap) flush() error {
	if err := b.dev.Flush(); err != nil {
		return fmt.Errorf("flush the bitmap: %w: %w", ErrMetaIO, err)
	}
	return nil
}

// nextDirty finds the first dirty page at or after from.
func (b *Bitmap) nextDirty(from uint64) (uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := from / 64; w < uint64(len(b.dirty)); w++ {
		v := b.dirty[w]
		if w == from/64 {
			v &= ^uint64(0) << (from % 64)
		}
		if v != 0 {
			return w*64 + uint64(bits.TrailingZeros64(v)), true
		}
	}
	return 0, false
}

// takeDirty copies page pi to p and marks it clean; false if it was clean.
func (b *Bitmap) takeDirty(pi uint64, p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if pi >= uint64(len(b.pages)) || b.dirty[pi/64]>>(pi%64)&1 == 0 {
		return false
	}
	b.dirty[pi/64] &^= 1 << (pi % 64)
	pg := b.pages[pi]
	if pg == nil {
		clear(p)
		return true
	}
	for i, v := range pg {
		binary.LittleEndian.PutUint64(p[i*8:], v)
	}
	return true
}

func (b *Bitmap) markDirty(pages ...uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, pi := range pages {
		if pi < uint64(len(b.pages)) {
			b.dirty[pi/64] |= 1 << (pi % 64)
		}
	}
}

func (b *Bitmap) lockIO(ctx context.Context) error {
	if b.dev == nil {
		return fmt.Errorf("write the bitmap: it is in memory only: %w", ErrNoMetadata)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.io <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bitmap) unlockIO() { <-b.io }
