package block

// Options say how Open opens a device. The zero value is what a resource's
// backing disk wants.
type Options struct {
	// ReadOnly opens for reading only; writes fail with ErrReadOnly.
	ReadOnly bool
	// Shared opens without claiming the device: no O_EXCL, no flock. For
	// looking at a disk that something else may hold.
	Shared bool
	// Buffered goes through the page cache instead of O_DIRECT.
	Buffered bool
	// MinSize in bytes: a smaller device is refused with ErrTooSmall.
	MinSize int64
}

// Info tells what Open found out about a device.
type Info struct {
	Path string `json:"path"`
	// Block is true for a block device, false for a regular file.
	Block bool `json:"block"`
	// Direct is true when I/O bypasses the page cache.
	Direct bool `json:"direct"`
	// Note says why I/O is buffered although O_DIRECT was asked for.
	Note             string `json:"note,omitempty"`
	Size             int64  `json:"size"`
	LogicalBlockSize int    `json:"logical_block_size"`
}

// Informer is implemented by the devices Open returns.
type Informer interface{ Info() Info }
