package block

import "errors"

// SectorSize is the unit DRBD counts disks in. Every offset and length given
// to a Device is a multiple of it.
const SectorSize = 512

// Device is a backing disk. All offsets and lengths are bytes and multiples of
// LogicalBlockSize (512, or 4096 where the disk has no smaller unit). A Device
// is safe for concurrent use; overlapping writes that are in flight together
// leave either content.
//
// Errors wrap one of this package's sentinels where one fits, and otherwise the
// system's errno, with the path, the operation and the range in the text.
type Device interface {
	// ReadAt fills p from off, or fails. Reading past the end is ErrRange.
	// p need not be aligned; a buffer from GetBuffer or Buffer avoids a copy.
	ReadAt(p []byte, off int64) (int, error)

	// WriteAt writes all of p at off, or fails, in which case any part of the
	// range may have been written. The data survives a power cut only after
	// a Flush that began once WriteAt had returned.
	WriteAt(p []byte, off int64) (int, error)

	// Flush makes every write that returned before it began durable. After an
	// error nothing is known of the writes since the last good Flush.
	Flush() error

	// Discard tells the disk that [off, off+n) is no longer needed; what it
	// reads as afterwards is undefined. ErrUnsupported when the disk cannot.
	Discard(off, n int64) error

	// WriteZeroes makes [off, off+n) read as zeroes. It always works: where
	// the disk has no command for it, zeroes are written. unmap allows the
	// disk to give the space back.
	WriteZeroes(off, n int64, unmap bool) error

	// Size is the size in bytes when the device was opened, or at the last Grow,
	// rounded down to a multiple of LogicalBlockSize.
	Size() int64

	// LogicalBlockSize is the smallest unit of I/O in bytes: 512 or 4096.
	LogicalBlockSize() int

	// Close gives the device back. I/O that is under way ends first; later
	// calls fail with ErrClosed.
	Close() error
}

// Grower is implemented by devices that may become larger while they are open.
type Grower interface {
	// Grow asks the system for the size again; Size is that from then on, and
	// more can be read and written. A device that has become smaller is
	// ErrTooSmall, and Size stays what it was.
	Grow() (size int64, err error)
}

// Grow is d.Grow where d can do it, and the size as it is elsewhere.
func Grow(d Device) (size int64, err error) {
	if g, ok := d.(Grower); ok {
		return g.Grow()
	}
	return d.Size(), nil
}

// What can be wrong with a backing device, for errors.Is.
var (
	ErrInUse       = errors.New("device is in use")
	ErrMissing     = errors.New("device does not exist")
	ErrReadOnly    = errors.New("device is read-only")
	ErrTooSmall    = errors.New("device is too small")
	ErrNotDevice   = errors.New("neither a block device nor a regular file")
	ErrUnsupported = errors.New("not supported by the device")
	ErrRange       = errors.New("range outside the device")
	ErrAlignment   = errors.New("range not aligned to the device's logical block size")
	ErrClosed      = errors.New("device is closed")
)

// CheckRange returns ErrRange or ErrAlignment, wrapped, unless [off, off+n) is
// a range that d can read and write.
func CheckRange(d Device, off, n int64) error {
	return checkRange(off, n, d.Size(), int64(d.LogicalBlockSize()))
}
