package datapath

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// disk is the attached backing disk with its metadata. It is closed when the owner has let go of it and the last
// request on it has ended.
type disk struct {
	dev      block.Device
	mdDev    block.Device // of external metadata; nil: it is internal
	md       *meta.Metadata
	bm       *meta.Bitmap
	refs     int                       // requests under way; the traffic lock guards it
	dying    bool                      // the owner has let go; the traffic lock guards it
	idle     chan struct{}             // closed when dying and refs is 0
	failed   atomic.Bool               // it must not be used any more
	fault    atomic.Pointer[diskFault] // why, set before that
	reported atomic.Bool               // the owner knows of an error
	released chan struct{}             // closed when it is closed
	flushed  bool                      // all that it took is on stable storage; set before that
}

// gone says that nothing is confirmed for being on this disk: there is none, or it must not be used any more.
func (d *disk) gone() bool { return d == nil || d.failed.Load() }

// put ends one request. The traffic lock is held.
func (d *disk) put() {
	if d.refs--; d.refs == 0 && d.dying {
		close(d.idle)
	}
}

// write does the local leg of an application's write.
func (d *disk) write(w *write) error {
	if w.cmd == drbd.CmdZeroes {
		return d.dev.WriteZeroes(w.off, w.n, w.unmap)
	}
	_, err := d.dev.WriteAt(w.p, w.off)
	return err
}

// release lets go of the disk once nothing uses it: the metadata is left clean if that is possible, so that anybody's
// attach finds nothing to repair.
func (t *traffic) releaseDisk(d *disk, clear meta.Flags, log func(proto.Level, string)) {
	t.mu.Lock()
	if t.gate.disk == d {
		t.gate.disk = nil
	}
	d.dying = true
	busy := d.refs > 0
	if !busy {
		close(d.idle)
	}
	t.rouse()
	t.mu.Unlock()
	failed := d.failed.Load()
	if failed {
		_ = d.md.Close() // whoever waits for the activity log need not
	}
	if clear != 0 { // at once: should both nodes lose their power, this disk must not pass for the good one
		if err := d.disown(clear, failed); err != nil {
			log(proto.LevelWarn, fmt.Sprintf("the metadata could not be marked: should %s be attached again, it would pass for a good copy. "+
				"Do that only with the peer connected: %v", t.cfg.DiskPath, err))
		}
	}
	<-d.idle
	if !failed {
		err := d.leaveClean()
		d.flushed = err == nil
		if err != nil {
			log(proto.LevelWarn, fmt.Sprintf("the metadata could not be left clean, the next attach will apply the activity log: %v", err))
		}
		_ = d.md.Close()
	}
	if err := d.close(); err != nil {
		log(proto.LevelWarn, fmt.Sprintf("closing the backing disk: %v", err))
	}
	close(d.released)
}

func (d *disk) close() error {
	err := d.dev.Close()
	if d.mdDev != nil {
		err = errors.Join(err, d.mdDev.Close())
	}
	return err
}

// grow asks for the sizes of the devices again and gives the one of the data's.
func (d *disk) grow() (int64, error) {
	if d.mdDev != nil {
		if _, err := block.Grow(d.mdDev); err != nil {
			return 0, err
		}
	}
	return block.Grow(d.dev)
}

// disown takes flags that make the copy a good one.
func (d *disk) disown(flags meta.Flags, failed bool) error {
	if failed {
		return d.md.Condemn(context.Background(), flags)
	}
	return d.md.Update(context.Background(), func(sb *meta.Superblock) { sb.Flags &^= flags })
}

func (d *disk) leaveClean() error {
	if err := d.dev.Flush(); err != nil {
		return err
	}
	return d.md.MarkClean(context.Background())
}

// found is what an attach found on the disk.
type found struct {
	disk  *disk
	notes []note
}

type note struct {
	level proto.Level
	text  string
}

// openDisk opens backing disk and metadata and applies the activity log of a node that went down as Primary.
func (c *Config) openDisk(ctx context.Context) (*found, error) {
	dev, err := c.Open()
	if err != nil {
		return nil, fmt.Errorf("%s: open the backing disk %s of %s: %w", c.Node, c.DiskPath, c.Resource, err)
	}
	d := &disk{dev: withSectors(dev), idle: make(chan struct{}), released: make(chan struct{})}
	if c.OpenMeta != nil {
		if d.mdDev, err = c.OpenMeta(); err != nil {
			_ = dev.Close()
			return nil, fmt.Errorf("%s: open the device %s for the metadata of %s: %w", c.Node, c.MetaPath, c.Resource, err)
		}
	}
	f, err := c.openMeta(ctx, d)
	if err != nil {
		_ = d.close()
		on := c.DiskPath
		if d.mdDev != nil {
			on += " (metadata on " + c.MetaPath + ")"
		}
		return nil, fmt.Errorf("%s: attach the backing disk %s of %s: %w", c.Node, on, c.Resource, err)
	}
	return f, nil
}

func (c *Config) openMeta(ctx context.Context, d *disk) (*found, error) {
	dev := d.dev
	opts := meta.OpenOptions{ALExtents: c.ALExtents, Log: c.Logger}
	if d.mdDev != nil {
		opts.MetaDisk = meta.MetaDisk{Device: d.mdDev, Index: c.MetaIndex}
	}
	md, err := meta.Open(dev, opts)
	f := &found{disk: d}
	if last := c.LastSize(); last > 0 && last < dev.Size() {
		if opts.MetaDisk.Device == nil && err == nil {
			err = f.twoEnds(dev, opts, md, last)
		} else if countsAsBefore(md, err, opts.MetaDisk, last) {
			opts.DeviceSize = last
			md, err = meta.Open(dev, opts)
		}
	}
	if err != nil {
		return nil, err
	}
	d.md, d.bm = md, md.Bitmap()
	if opts.DeviceSize != 0 {
		f.notes = append(f.notes, note{proto.LevelWarn, fmt.Sprintf(
			"the disk has grown from %d to %d MiB; the end is where it was. Resize the resource to use the rest", opts.DeviceSize>>20, dev.Size()>>20)})
	} else if err := c.KeepSize(dev.Size()); err != nil {
		f.notes = append(f.notes, note{proto.LevelWarn, fmt.Sprintf("the size of the disk cannot be kept, do not enlarge it while the resource is down: %v", err)})
	}
	if bad := md.Damage(); bad != "" {
		f.notes = append(f.notes, note{proto.LevelWarn, "the disk has damaged the activity log: " + bad})
	}
	full := md.NeedsFullSync()
	if md.NeedsApplyAL() {
		res, err := md.ApplyAL(ctx)
		if errors.Is(err, meta.ErrALUnreadable) {
			f.notes = append(f.notes, note{proto.LevelAlert, fmt.Sprintf("%v; the whole disk counts as out of sync", err)})
			res, err = md.ApplyALWithFullSync(ctx)
		}
		if err != nil {
			_ = md.Close()
			return nil, err
		}
		if res.Extents > 0 {
			f.notes = append(f.notes, note{proto.LevelWarn, fmt.Sprintf(
				"the node went down as Primary: the activity log marked %d extents of 4 MiB, %d blocks more than the bitmap had", res.Extents, res.Bits)})
		}
	}
	if full {
		md.Bitmap().SetAll()
		if err := md.Bitmap().WriteDirty(ctx); err != nil {
			_ = md.Close()
			return nil, err
		}
	}
	return f, nil
}

// twoEnds looks, on a disk that is larger than the last one was and has metadata at its end, whether there is some where the
// end was too. What a volume grows into may hold that of another resource, with its own idea of which blocks are good; which
// one is right cannot be told, unless one is a copy of the other one (a move that was cut short) or was just made.
func (f *found) twoEnds(dev block.Device, opts meta.OpenOptions, md *meta.Metadata, last int64) error {
	at := md.Superblock()
	if at.UUIDs.Current == meta.JustCreated {
		return nil
	}
	opts.DeviceSize = last
	old, err := meta.Open(dev, opts)
	if err != nil {
		f.notes = append(f.notes, note{proto.LevelAlert, fmt.Sprintf(
			"this is another disk than before, of %d MiB instead of %d, and it has metadata already: generation %016X. If it comes from another pair, detach it",
			dev.Size()>>20, last>>20, at.UUIDs.Current)})
		return nil
	}
	defer func() { _ = old.Close() }()
	was := old.Superblock()
	if at.UUIDs == was.UUIDs {
		return nil
	}
	defer func() { _ = md.Close() }()
	return fmt.Errorf("%w: the disk has grown from %d to %d bytes; the metadata at its end (superblock at %d) has generation %016X, the one where the "+
		"end was (superblock at %d) %016X. Nothing was changed", ErrTwoMetadata, last, dev.Size(), md.Layout().MDOffset, at.UUIDs.Current,
		old.Layout().MDOffset, was.UUIDs.Current)
}

// countsAsBefore says whether a disk that has grown since it had last bytes counts as it was until it is resized: internal
// metadata is still where the end was. With external metadata the device would grow at the next handshake, which leaves the
// new part marked and unsynced.
func countsAsBefore(md *meta.Metadata, err error, on meta.MetaDisk, last int64) bool {
	if on.Device == nil {
		return errors.Is(err, meta.ErrNoMetadata)
	}
	if err != nil {
		return false
	}
	agreed := md.Superblock().AgreedSize
	return agreed > 0 && agreed <= last
}
