package meta

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"example.com/santui/datapath/block"
)

// OpenOptions say how Open treats the metadata.
type OpenOptions struct {
	// ALExtents is the capacity of the activity log, MinALExtents to
	// MaxALExtents; 0 for DefaultALExtents.
	ALExtents int
	// MetaDisk is where external metadata is.
	MetaDisk MetaDisk
	// DeviceSize is the size in bytes that counts, and at whose end internal
	// metadata is; 0 for the device's. It is smaller on a disk that has grown since.
	DeviceSize int64
	// Log may be nil.
	Log *slog.Logger
}

// Metadata is the open metadata of one backing device. It is safe for concurrent
// use. It does not own the devices: Close leaves them open.
type Metadata struct {
	data   block.Device
	dev    block.Device // holds the metadata; the same one if it is internal
	disk   MetaDisk
	log    *slog.Logger
	bm     *Bitmap
	al     *ActivityLog
	damage string

	io chan struct{} // token: one writer of the superblock at a time

	mu      sync.Mutex
	layout  Layout     // changed by Move only, with io held
	sb      Superblock // as on disk
	unclean bool       // ApplyAL has yet to run
	err     error      // first failure of a superblock write, or ErrClosed
}

// Stats counts metadata I/O since Open, in the words of drbdsetup.
type Stats struct {
	ALWrites uint64 `json:"al_writes"` // activity log transactions
	BMWrites uint64 `json:"bm_writes"` // bitmap pages of 4 KiB
	ALHits   uint64 `json:"al_hits"`   // Begins that needed no I/O
	ALMisses uint64 `json:"al_misses"` // Begins that waited for a transaction
}

// Open reads and checks the metadata of dev. Nothing is written. Errors wrap
// ErrNoMetadata, ErrUnsupported, ErrInvalid, ErrTooSmall, ErrTooLarge or ErrMetaIO.
func Open(dev block.Device, opts OpenOptions) (*Metadata, error) {
	capacity := opts.ALExtents
	if capacity == 0 {
		capacity = DefaultALExtents
	}
	if capacity < MinALExtents || capacity > MaxALExtents {
		return nil, fmt.Errorf("al-extents %d, allowed are %d to %d: %w", capacity, MinALExtents, MaxALExtents, ErrUnsupported)
	}
	size := dev.Size()
	if opts.DeviceSize > size {
		return nil, fmt.Errorf("look for the metadata of %d bytes: %w: the device has %d", opts.DeviceSize, ErrTooSmall, size)
	}
	if opts.DeviceSize != 0 {
		size = opts.DeviceSize
	}
	l, err := opts.MetaDisk.layout(size)
	if err != nil {
		return nil, err
	}
	m := &Metadata{data: dev, dev: opts.MetaDisk.on(dev), disk: opts.MetaDisk, layout: l, log: opts.Log, io: make(chan struct{}, 1)}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if err := m.readSuperblock(); err != nil {
		return nil, err
	}
	if m.bm, err = openBitmap(m.data, m.dev, m.layout, m.sb.AgreedSize); err != nil {
		return nil, err
	}
	r, err := m.readRing()
	if err != nil {
		return nil, err
	}
	m.al = newActivityLog(m.dev, m.layout, capacity, m.bm, m.markInUse)
	// A log that still holds transactions is continued, so that new ones are
	// the newest.
	if len(r.updates) > 0 {
		m.al.number = r.newest + 1
	}
	m.unclean, m.damage = m.sb.NeedsApplyAL(), r.damaged
	return m, nil
}

func (m *Metadata) readSuperblock() error {
	buf := block.GetBuffer(SuperblockSize)
	defer block.PutBuffer(buf)
	if _, err := m.dev.ReadAt(buf, m.layout.MDOffset); err != nil {
		return fmt.Errorf("read the superblock at %d: %w: %w", m.layout.MDOffset, ErrMetaIO, err)
	}
	if m.disk.Device != nil && m.disk.Index == Flexible {
		m.layout = m.layout.asWritten(buf)
	}
	if err := m.sb.Unmarshal(m.layout, buf); err != nil {
		return fmt.Errorf("superblock at %d: %w", m.layout.MDOffset, err)
	}
	return nil
}

func (m *Metadata) readRing() (*ring, error) {
	buf := block.GetBuffer(ALSize)
	defer block.PutBuffer(buf)
	if _, err := m.dev.ReadAt(buf, m.layout.ALOffset); err != nil {
		return nil, fmt.Errorf("read the activity log at %d: %w: %w", m.layout.ALOffset, ErrMetaIO, err)
	}
	return readRing(buf, m.layout.ALOffset), nil
}

// Layout tells where things are on the device.
func (m *Metadata) Layout() Layout {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.layout
}

// Bitmap is the bitmap, of as many bits as the agreed size has blocks. It is the
// same object for as long as m is open.
func (m *Metadata) Bitmap() *Bitmap { return m.bm }

// AL is the activity log. It is the same object for as long as m is open.
func (m *Metadata) AL() *ActivityLog { return m.al }

// Superblock returns a copy of the superblock as it is on disk.
func (m *Metadata) Superblock() Superblock {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sb
}

// Stats returns the counters.
func (m *Metadata) Stats() Stats {
	return Stats{ALWrites: m.al.writes.Load(), BMWrites: m.bm.Writes(), ALHits: m.al.hits.Load(), ALMisses: m.al.misses.Load()}
}

// NeedsApplyAL reports whether ApplyAL must run before anything is changed.
func (m *Metadata) NeedsApplyAL() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unclean
}

// NeedsFullSync reports whether the bitmap cannot be trusted and every bit is to be
// set when attaching: a full sync was due, or a Primary crashed while it ran without
// an activity log (drbd_adm_attach, drbd_nl.c).
func (m *Metadata) NeedsFullSync() bool {
	f := m.Superblock().Flags
	return f.Has(FlagFullSync) || f.Has(FlagALDisabled) && f&(FlagPrimary|FlagCrashedPrimary) != 0
}

// Damage tells which blocks of the activity log Open found damaged, beyond what a power cut leaves: where, what stands
// there and what was expected; "" if none is. What ApplyAL can do without them it does.
func (m *Metadata) Damage() string { return m.damage }

// ApplyResult tells what ApplyAL did.
type ApplyResult struct {
	Extents int    // extents of 4 MiB that were active when the Primary went away
	Bits    uint64 // bits set on their account that were clear
}

// ApplyAL does what "drbdmeta apply-al" does: if the superblock says Primary, the
// bits of every extent in the activity log are set in the bitmap; then the log is
// made fresh and the superblock marked clean. It can be cut and repeated at any
// point. ErrALUnreadable, before anything is changed, when a Primary's log holds
// nothing usable: then every block must count as out of sync, which
// ApplyALWithFullSync does.
func (m *Metadata) ApplyAL(ctx context.Context) (ApplyResult, error) {
	return m.applyAL(ctx, false)
}

// ApplyALWithFullSync is ApplyAL, except that every bit is set when the log is not
// readable.
func (m *Metadata) ApplyALWithFullSync(ctx context.Context) (ApplyResult, error) {
	return m.applyAL(ctx, true)
}

func (m *Metadata) applyAL(ctx context.Context, allIfUnreadable bool) (ApplyResult, error) {
	var res ApplyResult
	if err := m.lockIO(ctx); err != nil {
		return res, err
	}
	defer m.unlockIO()
	if !m.NeedsApplyAL() {
		return res, nil
	}
	r, err := m.readRing()
	if err != nil {
		return res, err
	}
	sb := m.Superblock()
	if sb.Flags.Has(FlagPrimary) {
		extents, err := r.extents()
		switch {
		case err == nil:
			for _, e := range extents {
				res.Bits += m.bm.SetRange(int64(e)*ExtentSize, ExtentSize)
			}
			res.Extents = len(extents)
		case allIfUnreadable:
			res.Bits = m.bm.SetAll()
		default:
			if r.damaged != "" {
				err = fmt.Errorf("%w (%s)", err, r.damaged)
			}
			return res, fmt.Errorf("apply the activity log at %d: %w: treat every block as out of sync", m.layout.ALOffset, err)
		}
		if err := m.bm.WriteDirty(ctx); err != nil {
			return res, err
		}
	}
	if !r.clean() {
		next, capacity := r.nextToReplace()
		if err := initRing(m.dev, m.layout.ALOffset, next, capacity); err != nil {
			return res, err
		}
	}
	m.al.mu.Lock()
	m.al.number, m.al.cycle = 0, 0
	m.al.mu.Unlock()
	sb.Unclean = false
	sb.Flags |= FlagALClean
	if err := m.write(sb); err != nil {
		return res, err
	}
	m.mu.Lock()
	m.unclean = false
	m.mu.Unlock()
	m.log.Info("activity log applied", "extents", res.Extents, "bits", res.Bits)
	return res, nil
}

// Update changes the superblock: fn gets a copy, and what it leaves is written and
// flushed before Update returns. As with the kernel, every such write marks the
// activity log as in use (MarkClean takes that back). fn must not change AgreedSize;
// SetAgreedSize does. If fn changes nothing nothing is written. ErrUnclean before
// ApplyAL. After a failed write the old superblock remains in memory and every
// later change fails with ErrMetaIO.
func (m *Metadata) Update(ctx context.Context, fn func(*Superblock)) error {
	if err := m.lockIO(ctx); err != nil {
		return err
	}
	defer m.unlockIO()
	return m.update(fn)
}

// update is Update for a holder of the token.
func (m *Metadata) update(fn func(*Superblock)) error {
	if m.NeedsApplyAL() {
		return fmt.Errorf("change the superblock at %d: %w", m.layout.MDOffset, ErrUnclean)
	}
	old := m.Superblock()
	sb := old
	fn(&sb)
	if sb.AgreedSize != old.AgreedSize {
		return fmt.Errorf("change the superblock at %d: %w: its agreed size goes with the bitmap's", m.layout.MDOffset, ErrInvalid)
	}
	sb = m.running(sb)
	if sb == old {
		return nil
	}
	return m.write(sb)
}

// running is sb as it looks while the device is in use.
func (m *Metadata) running(sb Superblock) Superblock {
	sb.Unclean = true
	sb.Flags &^= FlagALClean
	sb.ALExtents = uint32(m.al.Capacity())
	return sb
}

// markInUse marks the log as in use on disk unless it is already.
func (m *Metadata) markInUse() error {
	m.mu.Lock()
	marked, err := m.sb.Unclean && !m.unclean, m.err
	m.mu.Unlock()
	if marked || err != nil {
		return err
	}
	return m.Update(context.Background(), func(*Superblock) {})
}

// SetAgreedSize makes the data size bytes large: the bitmap first, the bits of new
// data set if setNew, then the activity log, then the superblock. If the data ended
// within a block of 4 KiB, the rest of that reads as zeroes. Writes must not be
// under way beyond the smaller of the two sizes.
func (m *Metadata) SetAgreedSize(ctx context.Context, size int64, setNew bool) error {
	if size < 0 || size%sectorSize != 0 {
		return fmt.Errorf("agree on a size of %d bytes: %w: not a number of sectors", size, ErrInvalid)
	}
	if size > m.Layout().UsableSize {
		return fmt.Errorf("agree on a size of %d bytes, the device has room for %d: %w", size, m.Layout().UsableSize, ErrTooLarge)
	}
	if m.NeedsApplyAL() {
		return fmt.Errorf("agree on a size of %d bytes: %w", size, ErrUnclean)
	}
	if size == m.Superblock().AgreedSize {
		return nil
	}
	if err := m.fillBlock(m.Superblock().AgreedSize, size); err != nil {
		return err
	}
	if err := m.bm.resize(size, setNew); err != nil {
		return err
	}
	if err := m.bm.WriteAll(ctx); err != nil {
		return err
	}
	if err := m.al.rewrite(ctx); err != nil {
		return err
	}
	if err := m.lockIO(ctx); err != nil {
		return err
	}
	defer m.unlockIO()
	sb := m.Superblock()
	sb.AgreedSize = size
	return m.write(m.running(sb))
}

// fillBlock zeroes the rest of the block in which the data ends, if that is to grow: its bit is that of the data before, so
// what lay behind must be the same on both nodes.
func (m *Metadata) fillBlock(from, to int64) error {
	n := min(-from&(BlockSize-1), to-from)
	if n <= 0 {
		return nil
	}
	if err := m.data.WriteZeroes(from, n, false); err != nil {
		return fmt.Errorf("zero %d bytes of data at %d: %w: %w", n, from, ErrMetaIO, err)
	}
	return nil
}

// MarkClean is for a device that is given back in good order: bitmap written,
// activity log emptied, superblock marked clean, so that the kernel attaches it
// without apply-al. ErrBusy while a write is under way.
func (m *Metadata) MarkClean(ctx context.Context) error {
	if m.NeedsApplyAL() {
		return fmt.Errorf("mark the superblock clean: %w", ErrUnclean)
	}
	if err := m.bm.WriteDirty(ctx); err != nil {
		return err
	}
	err := m.al.reset(func() error {
		if err := m.lockIO(context.Background()); err != nil {
			return err
		}
		defer m.unlockIO()
		sb := m.Superblock()
		sb.Unclean = false
		sb.Flags |= FlagALClean
		return m.write(sb)
	})
	if err != nil {
		return fmt.Errorf("mark the superblock clean: %w", err)
	}
	return nil
}

// Condemn takes flags from a disk that has failed. It is the last that is written there, also after Close or another error,
// and fails with ErrMetaIO if the device does not take it.
func (m *Metadata) Condemn(ctx context.Context, flags Flags) error {
	select {
	case m.io <- struct{}{}:
		defer m.unlockIO()
	case <-ctx.Done():
		return ctx.Err()
	}
	sb := m.running(m.Superblock())
	sb.Flags &^= flags
	return writeSuperblock(m.dev, m.layout, &sb)
}

// Close ends all use: whoever waits in Begin gets ErrClosed. Nothing is written.
func (m *Metadata) Close() error {
	m.mu.Lock()
	if m.err == nil {
		m.err = ErrClosed
	}
	m.mu.Unlock()
	m.al.fail(ErrClosed)
	return nil
}

// write makes sb durable and then visible. The caller holds the token.
func (m *Metadata) write(sb Superblock) error {
	if err := m.failed(); err != nil {
		return err
	}
	if err := writeSuperblock(m.dev, m.layout, &sb); err != nil {
		m.mu.Lock()
		m.err = err
		m.mu.Unlock()
		return err
	}
	m.mu.Lock()
	m.sb = sb
	m.mu.Unlock()
	return nil
}

func writeSuperblock(dev block.Device, l Layout, sb *Superblock) error {
	buf := block.GetBuffer(SuperblockSize)
	defer block.PutBuffer(buf)
	if err := sb.Marshal(l, buf); err != nil {
		return err
	}
	if _, err := dev.WriteAt(buf, l.MDOffset); err != nil {
		return fmt.Errorf("write the superblock at %d: %w: %w", l.MDOffset, ErrMetaIO, err)
	}
	if err := dev.Flush(); err != nil {
		return fmt.Errorf("flush the superblock: %w: %w", ErrMetaIO, err)
	}
	return nil
}

func (m *Metadata) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *Metadata) lockIO(ctx context.Context) error {
	if err := m.failed(); err != nil {
		return err
	}
	select {
	case m.io <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Metadata) unlockIO() { <-m.io }
