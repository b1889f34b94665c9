package meta

import (
	"context"
	"fmt"

	"example.com/santui/datapath/block"
)

// CreateOptions say what metadata Create makes.
type CreateOptions struct {
	// Force overwrites existing metadata, and data of others.
	Force bool
	// MetaDisk is where external metadata goes.
	MetaDisk MetaDisk
	// ALStripes and ALStripeSize (bytes): 0, or the only ones supported, 1 and
	// ALSize.
	ALStripes    int
	ALStripeSize int
	// ALExtents is the capacity noted in the superblock, 0 for DefaultALExtents.
	ALExtents int
}

// Create makes fresh metadata for dev, at its end or on opts.MetaDisk, as "drbdmeta create-md"
// does: current UUID JustCreated, no flags but ALClean, no agreed size, a bitmap of
// zeroes (the full sync comes from the agreed size growing from 0), an empty
// activity log. Unless opts.Force it refuses with ErrMetadataExists over metadata of
// any DRBD version, and with ErrDataExists where a file system, volume or partition
// table reaches into the space that the metadata takes. Other slots of a device for
// external metadata are left alone.
//
// The superblock goes last. Old metadata is made invalid first, so that a cut leaves
// either the old, or none, or the new.
func Create(ctx context.Context, dev block.Device, opts CreateOptions) error {
	if opts.ALStripes == 0 {
		opts.ALStripes = alStripes
	}
	if opts.ALStripeSize == 0 {
		opts.ALStripeSize = ALSize
	}
	if opts.ALExtents == 0 {
		opts.ALExtents = DefaultALExtents
	}
	if opts.ALStripes != alStripes || opts.ALStripeSize != ALSize {
		return fmt.Errorf("activity log of %d stripes of %d bytes, only %d of %d can be made: %w", opts.ALStripes, opts.ALStripeSize, alStripes, ALSize, ErrUnsupported)
	}
	if opts.ALExtents < MinALExtents || opts.ALExtents > MaxALExtents {
		return fmt.Errorf("al-extents %d, allowed are %d to %d: %w", opts.ALExtents, MinALExtents, MaxALExtents, ErrUnsupported)
	}
	l, err := opts.MetaDisk.layout(dev.Size())
	if err != nil {
		return err
	}
	md := opts.MetaDisk.on(dev)
	found, err := Probe(md)
	if err != nil {
		return err
	}
	if l.external() {
		slots, err := probeSlots(md)
		if err != nil {
			return err
		}
		found = append(slots, found...)
	}
	if err := refuse(found, l, opts.Force); err != nil {
		return err
	}
	if err := erase(md, superblocks(found, l)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := md.WriteZeroes(l.BMOffset, l.BMSize, false); err != nil {
		return fmt.Errorf("zero the bitmap: %w: %w", ErrMetaIO, err)
	}
	if err := initRing(md, l.ALOffset, 0, 0); err != nil { // flushes the bitmap too
		return err
	}
	return writeSuperblock(md, l, &Superblock{
		UUIDs: UUIDs{Current: JustCreated}, Flags: FlagALClean, ALExtents: uint32(opts.ALExtents)})
}

// refuse turns what was found into an error unless it may be overwritten.
func refuse(found []Content, l Layout, force bool) error {
	if force {
		return nil
	}
	for _, c := range found {
		if c.DRBD != "" && c.meets(l) {
			return fmt.Errorf("%w: a superblock of version %s at %d: attach it as it is, or wipe it by force", ErrMetadataExists, c.DRBD, c.Offset)
		}
	}
	for _, c := range found {
		switch first := l.start(); {
		case c.DRBD != "":
		case c.Size == 0:
			return fmt.Errorf("%w: %s may reach to the end of the device; metadata takes all from byte %d on: remove it, or overwrite it by force",
				ErrDataExists, c.Kind, first)
		case c.Size > first:
			return fmt.Errorf("%w: %s takes %d bytes, metadata leaves %d: shrink it by %d bytes, enlarge the device, or overwrite it by force",
				ErrDataExists, c.Kind, c.Size, first, c.Size-first)
		}
	}
	return nil
}

// meets says whether DRBD metadata that was found takes some of the place that l is for, or has its data there: internal
// metadata has that from byte 0 on.
func (c Content) meets(l Layout) bool {
	return !l.external() || c.Offset%SlotSize != 0 || c.Offset < l.MDOffset+l.MDSize() && max(c.Size, c.Offset+SuperblockSize) > l.MDOffset
}

// superblocks are the places where one may be valid now and must not be any more.
func superblocks(found []Content, l Layout) []int64 {
	offs := []int64{l.MDOffset}
	for _, c := range found {
		if c.DRBD != "" && c.Offset != l.MDOffset && c.meets(l) {
			offs = append(offs, c.Offset)
		}
	}
	return offs
}

// erase makes superblocks invalid.
func erase(dev block.Device, offs []int64) error {
	for _, off := range offs {
		if err := dev.WriteZeroes(off, SuperblockSize, false); err != nil {
			return fmt.Errorf("erase the old superblock at %d: %w: %w", off, ErrMetaIO, err)
		}
	}
	if err := dev.Flush(); err != nil {
		return fmt.Errorf("flush the erased superblock: %w: %w", ErrMetaIO, err)
	}
	return nil
}
