package meta

import (
	"errors"
	"fmt"

	"example.com/santui/datapath/block"
)

// Sizes of the v08 format, in bytes.
const (
	// BlockSize is what one bit of the bitmap stands for, and the unit in
	// which metadata is written (BM_BLOCK_SIZE, drbd_int.h).
	BlockSize = 4096
	// ExtentSize is the unit of the activity log (AL_EXTENT_SIZE, drbd_int.h).
	ExtentSize = 4 << 20
	// SuperblockSize is what the superblock takes.
	SuperblockSize = 4096
	// ALSize is the activity log: one stripe of eight 4 KiB blocks, the only
	// geometry supported.
	ALSize = alBlocks * alBlockSize

	sectorSize    = 512
	alBlocks      = 8
	alBlockSize   = 4096
	alStripes     = 1
	bmSectorCover = 512 * 8 * BlockSize // bytes of data one bitmap sector covers
	minDevice     = SuperblockSize + ALSize + BlockSize + BlockSize
	// maxDevice is where the kernel's bitmap ends, 1 PiB (drbd_limits.h).
	maxDevice = 1 << 50
	// SlotSize is what one index takes of a device for external metadata (MD_128MB_SECT, drbd_int.h).
	SlotSize = 128 << 20
	// minFlexible and maxFlexible bound a device that flexible metadata has for itself: the kernel attaches none that is
	// smaller (drbd_adm_attach, drbd_nl.c), and the superblock counts its sectors in 32 bits.
	minFlexible = 1 << 20
	maxFlexible = (1<<32 - 1) * sectorSize
)

// Flexible is the index of external metadata that takes all of its device; MaxIndex is the last slot of those that share
// one (v07_parse, drbdmeta.c).
const (
	Flexible = -1
	MaxIndex = 255
)

// MetaDisk says where external metadata is. The zero value stands for internal metadata.
type MetaDisk struct {
	Device block.Device
	Index  int // slot of SlotSize, or Flexible
}

// What can be wrong with metadata, for errors.Is.
var (
	// ErrNoMetadata: no DRBD superblock where one would be.
	ErrNoMetadata = errors.New("no DRBD metadata")
	// ErrInvalid: there is a v08 superblock, but it contradicts itself or the disk.
	ErrInvalid = errors.New("DRBD metadata is not valid")
	// ErrUnsupported: DRBD metadata of a kind that this package does not handle.
	ErrUnsupported = errors.New("kind of DRBD metadata not supported")
	// ErrUnclean: the activity log has not been applied; call ApplyAL.
	ErrUnclean = errors.New("the activity log has not been applied")
	// ErrALUnreadable: nothing usable in the activity log of a crashed Primary.
	ErrALUnreadable = errors.New("activity log is not readable")
	// ErrMetadataExists: Create found metadata of some DRBD version.
	ErrMetadataExists = errors.New("device already has DRBD metadata")
	// ErrDataExists: Create found a file system or the like that needs the
	// space the metadata would take.
	ErrDataExists = errors.New("device holds data where the metadata would go")
	// ErrTooSmall: the device has no room for metadata and one block of data.
	ErrTooSmall = errors.New("device is too small for DRBD metadata")
	// ErrTooLarge: the device or the agreed size is beyond what fits.
	ErrTooLarge = errors.New("too large")
	// ErrMetaIO: reading or writing metadata failed; the disk must be detached.
	ErrMetaIO = errors.New("metadata I/O failed")
	// ErrClosed: the Metadata was closed.
	ErrClosed = errors.New("metadata is closed")
)

// Layout tells where the parts of the metadata lie on its device. All fields are
// bytes. The formulas are drbd_md_set_sector_offsets in drbd_nl.c.
type Layout struct {
	DeviceSize int64 `json:"device_size"` // of the device that holds the data
	MDOffset   int64 `json:"md_offset"`   // superblock, SuperblockSize bytes
	ALOffset   int64 `json:"al_offset"`
	ALSize     int64 `json:"al_size"`
	BMOffset   int64 `json:"bm_offset"`
	BMSize     int64 `json:"bm_size"`
	// UsableSize is the room for data, from byte 0: up to BMOffset, or, if the metadata is external, as much of the device as
	// the bitmap can cover.
	UsableSize int64 `json:"usable_size"`
}

// LayoutFor computes the layout of internal metadata for a device of that many
// bytes, or returns ErrTooSmall or ErrTooLarge.
func LayoutFor(deviceBytes int64) (Layout, error) {
	if deviceBytes < minDevice {
		return Layout{}, fmt.Errorf("%w: it has %d bytes, at least %d are needed", ErrTooSmall, deviceBytes, minDevice)
	}
	if deviceBytes > maxDevice {
		return Layout{}, fmt.Errorf("device of %d bytes, the format ends at %d: %w", deviceBytes, int64(maxDevice), ErrTooLarge)
	}
	size := deviceBytes - deviceBytes%sectorSize
	bmSectors := (size + bmSectorCover - 1) / bmSectorCover
	bmSize := (bmSectors + 7) / 8 * BlockSize
	l := Layout{DeviceSize: deviceBytes, ALSize: ALSize, BMSize: bmSize}
	l.MDOffset = size - size%BlockSize - SuperblockSize
	l.ALOffset = l.MDOffset - l.ALSize
	l.BMOffset = l.ALOffset - l.BMSize
	l.UsableSize = l.BMOffset
	if l.UsableSize < BlockSize {
		return Layout{}, fmt.Errorf("%w: it has %d bytes, %d are for metadata", ErrTooSmall, deviceBytes, size-l.BMOffset)
	}
	return l, nil
}

// LayoutExternal computes the layout of external metadata for deviceBytes of data, on a device of mdBytes, or returns
// ErrTooSmall, ErrTooLarge or ErrInvalid.
func LayoutExternal(deviceBytes, mdBytes int64, index int) (Layout, error) {
	room, off := mdBytes-mdBytes%sectorSize, int64(0)
	need := int64(minFlexible)
	switch {
	case index < Flexible || index > MaxIndex:
		return Layout{}, fmt.Errorf("index %d of external metadata: %w: it is 0 to %d", index, ErrInvalid, MaxIndex)
	case index != Flexible:
		room, off = SlotSize, int64(index)*SlotSize
		need = off + SlotSize
	case mdBytes > maxFlexible:
		return Layout{}, fmt.Errorf("device for metadata of %d bytes, the format ends at %d: %w", mdBytes, int64(maxFlexible), ErrTooLarge)
	}
	if mdBytes < need {
		return Layout{}, fmt.Errorf("%w: the device for metadata has %d bytes, at least %d are needed", ErrTooSmall, mdBytes, need)
	}
	return external(deviceBytes, off, room)
}

// external lays metadata of room bytes out from off on.
func external(deviceBytes, off, room int64) (Layout, error) {
	if deviceBytes < BlockSize {
		return Layout{}, fmt.Errorf("%w: it has %d bytes", ErrTooSmall, deviceBytes)
	}
	l := Layout{DeviceSize: deviceBytes, MDOffset: off, ALOffset: off + SuperblockSize, ALSize: ALSize}
	l.BMOffset = l.ALOffset + l.ALSize
	l.BMSize = room - SuperblockSize - ALSize
	l.UsableSize = min(deviceBytes-deviceBytes%sectorSize, l.BMSize*8*BlockSize, maxDevice)
	return l, nil
}

// layout is the place of the metadata for deviceBytes of data.
func (d MetaDisk) layout(deviceBytes int64) (Layout, error) {
	if d.Device == nil {
		return LayoutFor(deviceBytes)
	}
	return LayoutExternal(deviceBytes, d.Device.Size(), d.Index)
}

// on is the device that holds the metadata of what is on dev.
func (d MetaDisk) on(dev block.Device) block.Device {
	if d.Device == nil {
		return dev
	}
	return d.Device
}

func (l Layout) external() bool { return l.ALOffset > l.MDOffset }

// start is the first byte that the metadata takes.
func (l Layout) start() int64 { return min(l.BMOffset, l.MDOffset) }

// MDSize is what bitmap, activity log and superblock take together.
func (l Layout) MDSize() int64 { return l.BMSize + l.ALSize + SuperblockSize }
