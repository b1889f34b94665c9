package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// fuseType is the file system type of our mounts in /proc/self/mountinfo.
const fuseType = "fuse.santui"

// maxFUSEWrite is the largest request; the kernel's default limit of 256 pages.
const maxFUSEWrite = 1 << 20

// fuseDriver is a mounted fileFS with a loop device on its file.
type fuseDriver struct {
	dir    string // the mount point
	name   string // of the file in it
	srv    *fuse.Server
	loop   *loopDevice
	served chan struct{} // closed when the server has ended
	meant  atomic.Bool   // its end is ours
}

func startFUSE(ctx context.Context, b Backend, o Options, ended func(error)) (driver, error) {
	if err := fuseOffered(); err != nil {
		return nil, err
	}
	d := &fuseDriver{dir: mountPath(o.RunDir, o.Name), name: o.Name, served: make(chan struct{})}
	if err := os.Mkdir(d.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make mount point: %w", err)
	}
	ffs := newFileFS(b, o.Name, o.Logger)
	srv, err := mountFUSE(ffs, d.dir, o)
	if err != nil {
		return nil, errors.Join(err, os.Remove(d.dir))
	}
	d.srv = srv
	go func() {
		srv.Serve()
		close(d.served)
		if !d.meant.Load() {
			ended(fmt.Errorf("FUSE mount %s is gone", d.dir))
		}
	}()
	if err := d.bind(ctx, ffs, o); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*settle)
		defer cancel()
		return nil, errors.Join(err, d.cleanup(ctx))
	}
	return d, nil
}

// mountFUSE mounts without fusermount. It opens /dev/fuse itself because the
// library does so without O_CLOEXEC: a child process that outlives a killed
// agent would keep the connection, and with it all I/O, hanging.
func mountFUSE(ffs *fileFS, dir string, o Options) (*fuse.Server, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", fd, os.Geteuid(), os.Getegid(), maxFUSEWrite)
	if err := unix.Mount("santui-"+o.Name, dir, fuseType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("mount FUSE on %s: %w", dir, err)
	}
	srv, err := fuse.NewServer(ffs, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite: maxFUSEWrite,
		// How many requests the kernel keeps with us at a time.
		MaxBackground: o.Queue,
		// Without it the kernel waits for each direct I/O before the next.
		ExtraCapabilities:  fuse.CAP_ASYNC_DIO,
		DisableSplice:      true,
		DisableXAttrs:      true,
		DisableReadDirPlus: true,
		Logger:             slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	})
	if err != nil {
		_ = unix.Unmount(dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
		return nil, fmt.Errorf("start FUSE server on %s: %w", dir, err)
	}
	return srv, nil
}

// bind puts the loop device on the file and locks the file away.
func (d *fuseDriver) bind(ctx context.Context, ffs *fileFS, o Options) error {
	// Not os.OpenFile: that would ask our own server for readiness (FUSE_POLL).
	file := filepath.Join(d.dir, o.Name)
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	ffs.sealed.Store(true)
	if d.loop, err = bindLoop(ctx, fd, mark(o.RunDir, o.Name)); err != nil {
		return err
	}
	if sysfs(d.loop.name(), "loop/dio") != "1" {
		o.Logger.Warn("loop device without direct I/O: correct but slow", "device", d.loop.node)
	}
	return nil
}

func (d *fuseDriver) node() string { return d.loop.node }
func (d *fuseDriver) there() bool  { return d.loop.bound() }

// resize makes the kernel forget the file's size and ask for it, then tells the loop
// device to look, which goes by what the kernel knows of the file.
func (d *fuseDriver) resize(int64) error {
	if s := d.srv.InodeNotify(fileNode, -1, 0); !s.Ok() {
		return fmt.Errorf("tell the kernel that the file has changed: %v", s)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d.dir, d.name), &st); err != nil {
		return fmt.Errorf("look at the file behind it: %w", err)
	}
	return d.loop.resize()
}

func (d *fuseDriver) detach(ctx context.Context, fd int) error { return d.loop.unbind(ctx, fd) }

func (d *fuseDriver) cleanup(ctx context.Context) error {
	d.meant.Store(true)
	if err := unmountFUSE(ctx, d.dir); err != nil {
		return err
	}
	select {
	case <-d.served:
	case <-ctx.Done():
		return fmt.Errorf("FUSE server of %s does not end: %w", d.dir, ctx.Err())
	}
	if err := os.Remove(d.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mount point: %w", err)
	}
	return nil
}

// unmountFUSE unmounts our file system from dir. Nothing uses it any more, so
// MNT_FORCE, which ends the connection first, harms nobody, and it ends the
// server even where a copy of the mount lives on in another mount namespace.
// Not lazy: EBUSY stays EBUSY.
func unmountFUSE(ctx context.Context, dir string) error {
	var err error
	waitFor(ctx, settle, func() bool {
		var mounted bool
		if mounted, err = isOurMount(dir); err != nil || !mounted {
			return true
		}
		err = unix.Unmount(dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
		return err != nil && !errors.Is(err, unix.EBUSY)
	})
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w (a process stands in it)", dir, ErrBusy)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

func isOurMount(dir string) (bool, error) {
	if real, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		dir = filepath.Join(real, filepath.Base(dir)) // not dir itself: stat of a dead mount fails
	}
	ms, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint != dir || m.FSType != fuseType, false
	})
	return len(ms) > 0, err
}
