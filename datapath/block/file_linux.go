package block

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bounceSize is the most that is copied at a time for an unaligned buffer, and
// the unit in which zeroes are written by hand.
const bounceSize = 1 << maxClass

// file is a Device on a block device or a regular file.
type file struct {
	f    *os.File
	info Info // its Size is in size
	size atomic.Int64
	ro   bool
	// closed turns the poller's own error for a closed file into ErrClosed.
	closed atomic.Bool
	// memAlign is what the address of a buffer must be a multiple of.
	memAlign uintptr
}

var (
	_ Device   = (*file)(nil)
	_ Informer = (*file)(nil)
	_ Grower   = (*file)(nil)
)

// Open opens the block device or regular file at path and claims it until
// Close. Errors wrap ErrMissing, ErrInUse, ErrReadOnly, ErrNotDevice or
// ErrTooSmall where one of them is the reason, and say what to do about it.
func Open(path string, opts Options) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, openError(path, false, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFBLK && kind != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: %w: name the disk, the partition or an image file", path, ErrNotDevice)
	}
	isBlock := kind == unix.S_IFBLK
	d := &file{ro: opts.ReadOnly, memAlign: SectorSize, info: Info{Path: path, Block: isBlock}}
	if err := d.open(opts); err != nil {
		return nil, openError(path, isBlock, err)
	}
	if err := d.setup(opts); err != nil {
		_ = d.f.Close() // nothing was written
		return nil, err
	}
	return d, nil
}

// open opens the descriptor, with O_DIRECT if asked for and possible.
func (d *file) open(opts Options) error {
	flags := unix.O_CLOEXEC
	if opts.ReadOnly {
		flags |= unix.O_RDONLY
	} else {
		flags |= unix.O_RDWR
	}
	if d.info.Block && !opts.Shared {
		flags |= unix.O_EXCL
	}
	d.info.Direct = !opts.Buffered
	if d.info.Direct {
		fd, err := openat(d.info.Path, flags|unix.O_DIRECT)
		if err == nil {
			d.f = os.NewFile(uintptr(fd), d.info.Path)
			return nil
		}
		// tmpfs of older kernels and UML's hostfs have no direct I/O.
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		d.info.Direct = false
		d.info.Note = "the file system refuses O_DIRECT"
	}
	fd, err := openat(d.info.Path, flags)
	if err != nil {
		return err
	}
	d.f = os.NewFile(uintptr(fd), d.info.Path)
	return nil
}

func openat(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// setup claims a regular file and finds size and block size.
func (d *file) setup(opts Options) error {
	path := d.info.Path
	if !d.info.Block && !opts.Shared {
		how := unix.LOCK_EX
		if opts.ReadOnly {
			how = unix.LOCK_SH
		}
		if err := unix.Flock(d.fd(), how|unix.LOCK_NB); err != nil {
			return openError(path, false, err)
		}
	}
	d.info.LogicalBlockSize = SectorSize
	if d.info.Block {
		if err := d.askDisk(opts); err != nil {
			return err
		}
	} else if d.info.Direct {
		if err := d.probeDirect(); err != nil {
			return err
		}
	}
	size, err := d.measure()
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if d.info.LogicalBlockSize > int(d.memAlign) {
		d.memAlign = uintptr(d.info.LogicalBlockSize)
	}
	d.size.Store(size)
	if size < opts.MinSize {
		return fmt.Errorf("open %s: %w: it has %d bytes, %d are needed; use a larger disk or enlarge this one",
			path, ErrTooSmall, size, opts.MinSize)
	}
	return nil
}

// measure asks for the size, in whole logical blocks.
func (d *file) measure() (int64, error) {
	var n uint64
	if d.info.Block {
		if err := d.control(func(fd int) error { return ioctlPtr(fd, unix.BLKGETSIZE64, unsafe.Pointer(&n)) }); err != nil {
			return 0, fmt.Errorf("ask for its size (BLKGETSIZE64): %w", err)
		}
	} else {
		st, err := d.f.Stat()
		if err != nil {
			return 0, err
		}
		n = uint64(st.Size())
	}
	return int64(n) - int64(n)%int64(d.info.LogicalBlockSize), nil
}

// Grow implements Grower.
func (d *file) Grow() (int64, error) {
	size, err := d.measure()
	switch was := d.size.Load(); {
	case err != nil:
		return 0, fmt.Errorf("look at the size of %s: %w", d.info.Path, err)
	case size < was:
		return 0, fmt.Errorf("look at the size of %s: %w: it has %d bytes and had %d; give it its old size back", d.info.Path, ErrTooSmall, size, was)
	}
	d.size.Store(size)
	return size, nil
}

// askDisk finds a block device's block size and whether it can be written to.
func (d *file) askDisk(opts Options) error {
	path := d.info.Path
	lbs, err := unix.IoctlGetInt(d.fd(), unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("open %s: ask for its logical block size (BLKSSZGET): %w", path, err)
	}
	if lbs > bufferAlign {
		return fmt.Errorf("open %s: %w: its logical blocks have %d bytes, more than the 4096 of a metadata block", path, ErrUnsupported, lbs)
	}
	d.info.LogicalBlockSize = lbs
	// The kernel opens a read-only disk for writing and fails the writes.
	if ro, err := unix.IoctlGetInt(d.fd(), unix.BLKROGET); err == nil && ro != 0 && !opts.ReadOnly {
		return openError(path, true, unix.EROFS)
	}
	return nil
}

// probeDirect finds the unit of direct I/O on a regular file: what the kernel
// tells (statx, since 6.1), else what a read accepts. Where it takes neither 512
// nor 4096 bytes the file is used through the page cache.
func (d *file) probeDirect() error {
	var sx unix.Statx_t
	err := unix.Statx(d.fd(), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &sx)
	if err == nil && sx.Mask&unix.STATX_DIOALIGN != 0 && sx.Dio_offset_align > 0 && sx.Dio_offset_align <= bufferAlign {
		d.info.LogicalBlockSize = max(SectorSize, int(sx.Dio_offset_align))
		d.memAlign = max(d.memAlign, uintptr(sx.Dio_mem_align))
		return nil
	}
	buf := GetBuffer(bufferAlign)
	defer PutBuffer(buf)
	for _, unit := range []int{SectorSize, bufferAlign} {
		if _, err := unix.Pread(d.fd(), buf[:unit], 0); err == nil {
			d.info.LogicalBlockSize = unit
			return nil
		} else if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("open %s: read its first %d bytes: %w", d.info.Path, unit, err)
		}
	}
	fl, err := unix.FcntlInt(uintptr(d.fd()), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(d.fd()), unix.F_SETFL, fl&^unix.O_DIRECT)
	}
	if err != nil {
		return fmt.Errorf("open %s: switch O_DIRECT off, which the file system cannot serve: %w", d.info.Path, err)
	}
	d.info.Direct = false
	d.info.Note = "the file system serves O_DIRECT neither in 512 nor in 4096 bytes"
	return nil
}

// openError adds a sentinel and a remedy to what the system said.
func openError(path string, isBlock bool, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("open %s: %w: check the path and that the disk is plugged in (lsblk): %w", path, ErrMissing, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		if isBlock {
			return fmt.Errorf("open %s: %w: it is mounted, active in LVM or held by another program; see lsblk %s, unmount or deactivate it: %w",
				path, ErrInUse, path, err)
		}
		return fmt.Errorf("open %s: %w: another program holds a lock on it; see fuser -v %s: %w", path, ErrInUse, path, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("open %s: %w: make it writable (blockdev --setrw, or remount its file system): %w", path, ErrReadOnly, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

func (d *file) fd() int { return int(d.f.Fd()) }

// Info returns what Open found out.
func (d *file) Info() Info {
	info := d.info
	info.Size = d.size.Load()
	return info
}

func (d *file) Size() int64           { return d.size.Load() }
func (d *file) LogicalBlockSize() int { return d.info.LogicalBlockSize }

func (d *file) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	if !d.info.Direct || aligned(p, d.memAlign) {
		n, err := d.f.ReadAt(p, off)
		return n, d.ioError("read", off, int64(len(p)), err)
	}
	buf := GetBuffer(min(len(p), bounceSize))
	defer PutBuffer(buf)
	done := 0
	for done < len(p) {
		part := buf[:min(len(buf), len(p)-done)]
		n, err := d.f.ReadAt(part, off+int64(done))
		done += copy(p[done:], part[:n])
		if err != nil {
			return done, d.ioError("read", off, int64(len(p)), err)
		}
	}
	return done, nil
}

func (d *file) WriteAt(p []byte, off int64) (int, error) {
	if err := d.checkWrite("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	if !d.info.Direct || aligned(p, d.memAlign) {
		n, err := d.f.WriteAt(p, off)
		return n, d.ioError("write", off, int64(len(p)), err)
	}
	buf := GetBuffer(min(len(p), bounceSize))
	defer PutBuffer(buf)
	done := 0
	for done < len(p) {
		part := buf[:copy(buf, p[done:])]
		n, err := d.f.WriteAt(part, off+int64(done))
		done += n
		if err != nil {
			return done, d.ioError("write", off, int64(len(p)), err)
		}
	}
	return done, nil
}

func (d *file) Flush() error {
	if d.ro {
		return nil
	}
	err := d.control(func(fd int) error { return unix.Fdatasync(fd) })
	return d.ioError("flush", 0, d.size.Load(), err)
}

func (d *file) Discard(off, n int64) error {
	if err := d.checkWrite("discard", off, n); err != nil || n == 0 {
		return err
	}
	err := d.control(func(fd int) error {
		if !d.info.Block {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		}
		return ioctlRange(fd, unix.BLKDISCARD, off, n)
	})
	if notSupported(err) {
		return fmt.Errorf("discard %d bytes at %d of %s: %w: %w", n, off, d.info.Path, ErrUnsupported, err)
	}
	return d.ioError("discard", off, n, err)
}

func (d *file) WriteZeroes(off, n int64, unmap bool) error {
	if err := d.checkWrite("zero", off, n); err != nil || n == 0 {
		return err
	}
	err := d.control(func(fd int) error { return d.zeroFast(fd, off, n, unmap) })
	if notSupported(err) {
		err = d.zeroByHand(off, n)
	}
	return d.ioError("zero", off, n, err)
}

// zeroFast asks the kernel to zero: fallocate works on files and, since 4.9, on
// block devices, where a punched hole is one the device promises to read as zero.
func (d *file) zeroFast(fd int, off, n int64, unmap bool) error {
	err := error(unix.EOPNOTSUPP)
	if unmap {
		err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if notSupported(err) {
		err = unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if notSupported(err) && d.info.Block {
		err = ioctlRange(fd, unix.BLKZEROOUT, off, n)
	}
	return err
}

func (d *file) zeroByHand(off, n int64) error {
	buf := GetBuffer(int(min(n, bounceSize)))
	defer PutBuffer(buf)
	clear(buf)
	for n > 0 {
		part := buf[:min(int64(len(buf)), n)]
		if _, err := d.f.WriteAt(part, off); err != nil {
			return err
		}
		off += int64(len(part))
		n -= int64(len(part))
	}
	return nil
}

func (d *file) Close() error {
	d.closed.Store(true)
	return d.ioError("close", 0, d.size.Load(), d.f.Close())
}

// control runs fn on the descriptor, which stays open meanwhile even if another
// goroutine closes the device. EINTR is retried.
func (d *file) control(fn func(fd int) error) error {
	raw, err := d.f.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if opErr = fn(int(fd)); !errors.Is(opErr, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return opErr
}

func (d *file) check(op string, off, n int64) error {
	if err := checkRange(off, n, d.size.Load(), int64(d.info.LogicalBlockSize)); err != nil {
		return fmt.Errorf("%s %s: %w", op, d.info.Path, err)
	}
	return nil
}

func (d *file) checkWrite(op string, off, n int64) error {
	if d.ro {
		return fmt.Errorf("%s %d bytes at %d of %s: %w: it was opened for reading only", op, n, off, d.info.Path, ErrReadOnly)
	}
	return d.check(op, off, n)
}

// ioError adds what was tried where; a file that has shrunk under us shows as
// io.EOF and is named.
func (d *file) ioError(op string, off, n int64, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed), op != "close" && d.closed.Load():
		return fmt.Errorf("%s %s: %w", op, d.info.Path, ErrClosed)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s %d bytes at %d of %s: it is shorter than when it was opened: %w", op, n, off, d.info.Path, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s %d bytes at %d of %s: %w", op, n, off, d.info.Path, err)
}

func notSupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENODEV)
}

func ioctlRange(fd int, req uint, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	return ioctlPtr(fd, req, unsafe.Pointer(&r))
}

func ioctlPtr(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
