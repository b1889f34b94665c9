package export

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The inodes of the file system: the root is 1 (FUSE_ROOT_ID), the file 2.
const (
	rootNode = fuse.FUSE_ROOT_ID
	fileNode = 2
)

// fileFS is a file system with one file, the device. Nothing in it is cached, and
// only its size changes. After seal nobody can open the file any more: the loop
// device is the only way in.
type fileFS struct {
	fuse.RawFileSystem
	b      Backend
	name   string
	size   atomic.Int64 // as far as it is known
	log    *slog.Logger
	sealed atomic.Bool
}

func newFileFS(b Backend, name string, log *slog.Logger) *fileFS {
	f := &fileFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), b: b, name: name, log: log}
	f.size.Store(b.Size())
	return f
}

// forever: names never change, attributes only by resize. LOOP_GET_STATUS64 asks for the
// attributes too, and with them cached works when the server is dead.
const forever = 10 * 365 * 24 * time.Hour

func (f *fileFS) attr(node uint64, a *fuse.Attr) fuse.Status {
	switch node {
	case rootNode:
		*a = fuse.Attr{Ino: rootNode, Mode: unix.S_IFDIR | 0o700, Nlink: 2, Blksize: 4096}
	case fileNode:
		size := f.b.Size()
		*a = fuse.Attr{Ino: fileNode, Mode: unix.S_IFREG | 0o600, Nlink: 1, Blksize: 4096,
			Size: uint64(size), Blocks: uint64(size / 512)}
	default:
		return fuse.ENOENT
	}
	return fuse.OK
}

func (f *fileFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != rootNode || name != f.name {
		return fuse.ENOENT
	}
	out.NodeId, out.Generation = fileNode, 1
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	return f.attr(fileNode, &out.Attr)
}

func (f *fileFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	return f.attr(in.NodeId, &out.Attr)
}

// StatFs: the loop driver takes the block size as its discard granularity
// (loop_config_discard in drivers/block/loop.c).
func (f *fileFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks = uint64(f.size.Load() / 4096)
	return fuse.OK
}

func (f *fileFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fileNode {
		return fuse.EIO
	}
	if f.sealed.Load() {
		return fuse.EBUSY
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// OpenDir and ReadDir show an empty directory.
func (f *fileFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (f *fileFS) ReadDir(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status {
	return fuse.OK
}

func (f *fileFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if !f.inside(in.NodeId, in.Offset, uint64(in.Size)) {
		return nil, fuse.EINVAL
	}
	buf = buf[:in.Size]
	n, err := f.b.ReadAt(buf, int64(in.Offset))
	// The loop driver pads a short read with zeroes and reports success
	// (lo_complete_rq in drivers/block/loop.c).
	if s := whole(n, len(buf), err); s != fuse.OK {
		return nil, f.failed("read", in.Offset, len(buf), s, err)
	}
	return fuse.ReadResultData(buf), fuse.OK
}

func (f *fileFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if !f.inside(in.NodeId, in.Offset, uint64(len(data))) {
		return 0, fuse.EINVAL
	}
	n, err := f.b.WriteAt(data, int64(in.Offset))
	if s := whole(n, len(data), err); s != fuse.OK {
		return 0, f.failed("write", in.Offset, len(data), s, err)
	}
	return uint32(len(data)), fuse.OK
}

// Fsync is what a flush of the loop device arrives as (lo_req_flush).
func (f *fileFS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId != fileNode {
		return fuse.EINVAL
	}
	err := f.b.Flush()
	if s := status(err); s != fuse.OK {
		return f.failed("flush", 0, 0, s, err)
	}
	return fuse.OK
}

// Flush comes with every close of a descriptor; it promises nothing.
func (f *fileFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fallocate gets what the loop driver makes of discards and zeroing
// (do_req_filebacked and lo_fallocate in drivers/block/loop.c):
//
//	REQ_OP_DISCARD                       KEEP_SIZE | PUNCH_HOLE
//	REQ_OP_WRITE_ZEROES                  KEEP_SIZE | PUNCH_HOLE
//	REQ_OP_WRITE_ZEROES + REQ_NOUNMAP    KEEP_SIZE | ZERO_RANGE
//
// The first two look the same here, so a hole must read as zeroes: a Discard,
// which promises nothing, would corrupt whoever asked for zeroes.
func (f *fileFS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if !f.inside(in.NodeId, in.Offset, in.Length) {
		return fuse.EINVAL
	}
	var unmap bool
	switch in.Mode {
	case unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE:
		unmap = true
	case unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_ZERO_RANGE:
	default:
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	err := f.b.WriteZeroes(int64(in.Offset), int64(in.Length), unmap)
	if s := status(err); s != fuse.OK {
		return f.failed("zero", in.Offset, int(in.Length), s, err)
	}
	return fuse.OK
}

// inside: whole sectors of the file, which may have grown.
func (f *fileFS) inside(node, off, n uint64) bool {
	size := uint64(f.size.Load())
	if off > size || n > size-off {
		size = uint64(f.b.Size())
		f.size.Store(int64(size))
	}
	return node == fileNode && off%SectorSize == 0 && n%SectorSize == 0 && off <= size && n <= size-off
}

// failed logs an error before the kernel reduces it to EIO.
func (f *fileFS) failed(op string, off uint64, n int, s fuse.Status, err error) fuse.Status {
	f.log.Warn("request failed", "op", op, "offset", off, "bytes", n, "status", s.String(), "err", err)
	return s
}

func whole(n, want int, err error) fuse.Status {
	if n == want && err == nil {
		return fuse.OK
	}
	if err == nil {
		return fuse.EIO
	}
	return status(err)
}

// status is the errno of err. ENOSYS must never get out: the kernel would take
// it for "this server has no fsync", and report success for every flush from
// then on (fuse_fsync in fs/fuse/file.c).
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var no syscall.Errno
	if !errors.As(err, &no) || no == 0 || no == syscall.ENOSYS {
		return fuse.EIO
	}
	return fuse.Status(no)
}
