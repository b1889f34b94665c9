package meta

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Magic numbers of DRBD's superblocks (linux/drbd.h, DRBD_MD_MAGIC_*). They
// stand at byte 60, except version 07's, which stands at byte 28.
const (
	magic06        uint32 = 0x83740269
	magic07        uint32 = 0x8374026a
	magic08        uint32 = 0x8374026b // activity log clean
	magic84Unclean uint32 = 0x8374026c // activity log in use
	magic09        uint32 = 0x8374026d
)

// Flags are the superblock's flags (enum mdf_flag, linux/drbd.h).
type Flags uint32

const (
	FlagConsistent     Flags = 1 << 0
	FlagPrimary        Flags = 1 << 1 // is or was Primary when last written
	FlagConnected      Flags = 1 << 2
	FlagFullSync       Flags = 1 << 3 // every bit counts as set
	FlagWasUpToDate    Flags = 1 << 4
	FlagPeerOutdated   Flags = 1 << 5
	FlagCrashedPrimary Flags = 1 << 6
	FlagALClean        Flags = 1 << 7
	FlagALDisabled     Flags = 1 << 8

	allFlags Flags = 1<<9 - 1
)

// maxKernelExtents is DRBD_AL_EXTENTS_MAX, linux/drbd_limits.h.
const maxKernelExtents = 65534

var flagNames = []string{"Consistent", "Primary", "Connected", "FullSync", "WasUpToDate",
	"PeerOutdated", "CrashedPrimary", "ALClean", "ALDisabled"}

// Has reports whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

func (f Flags) String() string {
	var set []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			set = append(set, name)
			f &^= 1 << i
		}
	}
	if f != 0 {
		set = append(set, fmt.Sprintf("%#x", uint32(f)))
	}
	if len(set) == 0 {
		return "none"
	}
	return strings.Join(set, "|")
}

// JustCreated is the current UUID of a disk that has never held agreed data
// (UUID_JUST_CREATED, linux/drbd.h).
const JustCreated uint64 = 4

// UUIDs name generations of the data. Bit 0 of Current is set while Primary.
type UUIDs struct {
	Current uint64
	Bitmap  uint64
	History [2]uint64 // younger first
}

// Superblock is the v08 superblock without the parts that follow from the
// device's size. Sizes are bytes.
type Superblock struct {
	// AgreedSize is the size both nodes last agreed on; 0 on a fresh disk. A
	// multiple of 512.
	AgreedSize int64
	UUIDs      UUIDs
	DeviceUUID uint64
	Flags      Flags
	// Unclean is the 8.4 magic for "activity log in use".
	Unclean bool
	// ALExtents is the capacity of the activity log when last written.
	ALExtents uint32
	// PeerMaxBIO is the largest request of the last peer in bytes, 0 unknown.
	PeerMaxBIO uint32
}

// NeedsApplyAL reports whether the kernel would refuse to attach before
// "drbdmeta apply-al" ran (drbd_md_read, drbd_main.c).
func (sb *Superblock) NeedsApplyAL() bool { return sb.Unclean || !sb.Flags.Has(FlagALClean) }

// Marshal encodes the superblock into the first SuperblockSize bytes of p.
func (sb *Superblock) Marshal(l Layout, p []byte) error {
	if len(p) < SuperblockSize {
		return fmt.Errorf("buffer of %d bytes for a superblock of %d", len(p), SuperblockSize)
	}
	if err := sb.check(l); err != nil {
		return err
	}
	p = p[:SuperblockSize]
	clear(p)
	be := binary.BigEndian
	be.PutUint64(p[0:], uint64(sb.AgreedSize/sectorSize))
	be.PutUint64(p[8:], sb.UUIDs.Current)
	be.PutUint64(p[16:], sb.UUIDs.Bitmap)
	be.PutUint64(p[24:], sb.UUIDs.History[0])
	be.PutUint64(p[32:], sb.UUIDs.History[1])
	be.PutUint64(p[40:], sb.DeviceUUID)
	be.PutUint32(p[56:], uint32(sb.Flags))
	be.PutUint32(p[60:], magic08)
	if sb.Unclean {
		be.PutUint32(p[60:], magic84Unclean)
	}
	be.PutUint32(p[64:], l.mdSectors())
	be.PutUint32(p[68:], l.alSectorOffset())
	be.PutUint32(p[72:], sb.ALExtents)
	be.PutUint32(p[76:], l.bmSectorOffset())
	be.PutUint32(p[80:], BlockSize)
	be.PutUint32(p[84:], sb.PeerMaxBIO)
	be.PutUint32(p[88:], alStripes)
	be.PutUint32(p[92:], alBlocks)
	return nil
}

// Unmarshal decodes p, SuperblockSize bytes, and checks it against the layout of
// the device it was read from. Errors wrap ErrNoMetadata, ErrUnsupported or
// ErrInvalid and name the field.
func (sb *Superblock) Unmarshal(l Layout, p []byte) error {
	if len(p) < SuperblockSize {
		return fmt.Errorf("superblock of %d bytes, expected %d: %w", len(p), SuperblockSize, ErrInvalid)
	}
	be := binary.BigEndian
	magic := be.Uint32(p[60:])
	if magic != magic08 && magic != magic84Unclean {
		return magicError(l, p)
	}
	if err := checkGeometry(l, p); err != nil {
		return err
	}
	la := be.Uint64(p[0:])
	if la > uint64(l.UsableSize/sectorSize) {
		return fmt.Errorf("%w: la_size_sect at byte 0 of the superblock is %d, expected at most %d, the room for data",
			ErrInvalid, la, l.UsableSize/sectorSize)
	}
	if err := checkValues(p); err != nil {
		return err
	}
	*sb = Superblock{
		AgreedSize: int64(la) * sectorSize,
		UUIDs: UUIDs{Current: be.Uint64(p[8:]), Bitmap: be.Uint64(p[16:]),
			History: [2]uint64{be.Uint64(p[24:]), be.Uint64(p[32:])}},
		DeviceUUID: be.Uint64(p[40:]),
		Flags:      Flags(be.Uint32(p[56:])),
		Unclean:    magic == magic84Unclean,
		ALExtents:  be.Uint32(p[72:]),
		PeerMaxBIO: be.Uint32(p[84:]),
	}
	return nil
}

func (l Layout) describe() string {
	if l.external() {
		return fmt.Sprintf("external metadata of %d bytes at %d", l.MDSize(), l.MDOffset)
	}
	return fmt.Sprintf("a device of %d bytes", l.DeviceSize)
}

// asWritten is the layout of flexible metadata by its superblock, which says how much of the device it takes: less than all
// if the device has grown since. What cannot be is left to Unmarshal.
func (l Layout) asWritten(p []byte) Layout {
	be := binary.BigEndian
	magic, room := be.Uint32(p[60:]), int64(be.Uint32(p[64:]))*sectorSize
	if magic != magic08 && magic != magic84Unclean || room <= SuperblockSize+ALSize || room > l.MDSize() {
		return l
	}
	if written, err := external(l.DeviceSize, l.MDOffset, room); err == nil {
		return written
	}
	return l
}

// sbField is a field of the superblock that follows from the device's size.
type sbField struct {
	name string
	off  int
	want uint32
}

func (l Layout) fields() []sbField {
	return []sbField{{"md_size_sect", 64, l.mdSectors()}, {"al_offset", 68, l.alSectorOffset()},
		{"bm_offset", 76, l.bmSectorOffset()}, {"bm_bytes_per_bit", 80, BlockSize}}
}

// checkGeometry compares what the superblock says of the layout with the layout. A field that differs while the others
// go together is damage; another kind of metadata has all of them different, and consistent in itself.
func checkGeometry(l Layout, p []byte) error {
	be := binary.BigEndian
	stripes, stripeSize := be.Uint32(p[88:]), be.Uint32(p[92:])
	al, bm := int32(be.Uint32(p[68:])), int32(be.Uint32(p[76:]))
	if stripes == 0 && stripeSize == 0 { // written before striping existed
		stripes, stripeSize = alStripes, alBlocks
	}
	// In 64 bits, so that no damage overflows.
	const perBlock = alBlockSize / sectorSize
	log, ahead, behind := uint64(stripes)*uint64(stripeSize), -int64(al), int64(bm)-int64(al)
	looksExternal := al == SuperblockSize/sectorSize && behind > 0 && behind%perBlock == 0 && uint64(behind/perBlock) == log
	looksInternal := ahead > 0 && ahead%perBlock == 0 && uint64(ahead/perBlock) == log
	switch other := stripes != alStripes || stripeSize != alBlocks; {
	case looksExternal && !l.external():
		return fmt.Errorf("%w: activity log behind the superblock (al_offset %d): this is external metadata, and internal was expected here", ErrUnsupported, al)
	case other && (looksInternal && !l.external() || looksExternal && l.external()):
		return fmt.Errorf("%w: activity log of %d stripes of %d blocks of 4 KiB; only %d of %d is handled: recreate the metadata with the default --al-stripes and --al-stripe-size-kB",
			ErrUnsupported, stripes, stripeSize, alStripes, alBlocks)
	}
	for _, f := range append(l.fields(), sbField{"al_stripes", 88, alStripes}, sbField{"al_stripe_size_4k", 92, alBlocks}) {
		got := be.Uint32(p[f.off:])
		switch f.off { // the pair of zeroes was taken as the default
		case 88:
			got = stripes
		case 92:
			got = stripeSize
		}
		if got != f.want {
			return fmt.Errorf("%w: %s at byte %d of the superblock is %d, expected %d for %s",
				ErrInvalid, f.name, f.off, int32(got), int32(f.want), l.describe())
		}
	}
	return nil
}

// checkValues refuses what no DRBD 8 writes: flags without a meaning, an impossible size of the activity log, something
// where it leaves zeroes (md_on_disk_08, drbdmeta.c; drbd_md_write, drbd_main.c).
func checkValues(p []byte) error {
	be := binary.BigEndian
	if f := Flags(be.Uint32(p[56:])); f&^allFlags != 0 {
		return fmt.Errorf("%w: flags at byte 56 of the superblock are %#x, expected none but %#x", ErrInvalid, uint32(f), uint32(allFlags))
	}
	if n := be.Uint32(p[72:]); n > maxKernelExtents {
		return fmt.Errorf("%w: al_nr_extents at byte 72 of the superblock is %d, expected at most %d", ErrInvalid, n, maxKernelExtents)
	}
	for i, b := range p[:SuperblockSize] {
		if b != 0 && (i >= 48 && i < 56 || i >= 96) {
			return fmt.Errorf("%w: byte %d of the superblock, which is reserved, is %#02x, expected 0", ErrInvalid, i, b)
		}
	}
	return nil
}

// check refuses what Unmarshal would not take back.
func (sb *Superblock) check(l Layout) error {
	if sb.AgreedSize < 0 || sb.AgreedSize%sectorSize != 0 {
		return fmt.Errorf("%w: agreed size of %d bytes is not a number of sectors", ErrInvalid, sb.AgreedSize)
	}
	if sb.AgreedSize > l.UsableSize {
		return fmt.Errorf("agreed size of %d bytes, the device has room for %d: %w", sb.AgreedSize, l.UsableSize, ErrTooLarge)
	}
	return nil
}

// magicError tells what stands at the place of the superblock instead.
func magicError(l Layout, p []byte) error {
	be := binary.BigEndian
	fits := 0
	for _, f := range l.fields() {
		if be.Uint32(p[f.off:]) == f.want {
			fits++
		}
	}
	v := detectVersion(p)
	switch {
	case fits == len(l.fields()): // by chance once in 2^128
		return fmt.Errorf("%w: the magic number at byte 60 of the superblock is %#08x, expected %#08x or %#08x; all else fits: the disk has damaged it",
			ErrInvalid, be.Uint32(p[60:]), magic08, magic84Unclean)
	case v == "":
		return fmt.Errorf("%w: no magic number at byte 60 of the 4 KiB block at %d (found %#08x); write fresh metadata with santui-agent create-md or drbdadm create-md",
			ErrNoMetadata, l.MDOffset, be.Uint32(p[60:]))
	default:
		return fmt.Errorf("%w: the superblock is of version %s, only v08 is handled; convert it with drbdadm create-md or recreate it", ErrUnsupported, v)
	}
}

// detectVersion names the version of a superblock by its magic, "" for none.
// Versions 08 and 09 have it at byte 60, 07 at byte 28.
func detectVersion(p []byte) string {
	switch binary.BigEndian.Uint32(p[60:]) {
	case magic08, magic84Unclean:
		return "v08"
	case magic09:
		return "v09"
	}
	switch binary.BigEndian.Uint32(p[28:]) {
	case magic07:
		return "v07"
	case magic06:
		return "v06"
	}
	return ""
}

func (l Layout) mdSectors() uint32      { return uint32(l.MDSize() / sectorSize) }
func (l Layout) alSectorOffset() uint32 { return uint32(int32((l.ALOffset - l.MDOffset) / sectorSize)) }
func (l Layout) bmSectorOffset() uint32 { return uint32(int32((l.BMOffset - l.MDOffset) / sectorSize)) }
