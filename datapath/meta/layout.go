package meta

import (
	"errors"
	"fmt"
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
)

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

// Layout tells where the parts of internal metadata lie on a device. All fields
// are bytes. The formulas are drbd_md_set_sector_offsets in drbd_nl.c.
type Layout struct {
	DeviceSize int64 `json:"device_size"`
	MDOffset   int64 `json:"md_offset"` // superblock, SuperblockSize bytes
	ALOffset   int64 `json:"al_offset"`
	ALSize     int64 `json:"al_size"`
	BMOffset   int64 `json:"bm_offset"`
	BMSize     int64 `json:"bm_size"`
	// UsableSize is what is left for data, from byte 0; equal to BMOffset.
	UsableSize int64 `json:"usable_size"`
}

// LayoutFor computes the layout for a device of that many bytes, or returns
// ErrTooSmall or ErrTooLarge.
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

// MDSize is what bitmap, activity log and superblock take together.
func (l Layout) MDSize() int64 { return l.BMSize + l.ALSize + SuperblockSize }
