package datapath

import (
	"errors"
	"syscall"
)

// ioError is an error that carries an errno for front ends and can be found with errors.Is.
type ioError struct {
	text  string
	errno syscall.Errno
}

func (e *ioError) Error() string { return e.text }
func (e *ioError) Unwrap() error { return e.errno }

// Errors of I/O on a resource. Each wraps the errno that an application should see.
var (
	// ErrNotPrimary: only a Primary does application I/O.
	ErrNotPrimary error = &ioError{"not Primary on this node", syscall.EROFS}
	// ErrNoData: neither the local disk nor the peer can serve the request.
	ErrNoData error = &ioError{"no UpToDate copy can be reached", syscall.EIO}
	// ErrRange: the request lies outside the device or is not aligned to 512 bytes.
	ErrRange error = &ioError{"request outside the device or not aligned to sectors", syscall.EINVAL}
	// ErrInUse: the device is held open.
	ErrInUse error = &ioError{"device is in use", syscall.EBUSY}
)

// ErrClosed: the resource was closed.
var ErrClosed = errors.New("resource is closed")

// ErrTwoMetadata: a disk that has grown has metadata at its end, and other metadata where its end was.
var ErrTwoMetadata = errors.New("metadata at the end of the disk, and other metadata where the end was")
