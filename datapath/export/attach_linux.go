package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Supported tells for every kind whether this kernel offers it, best first. It
// loads the modules nbd, fuse and loop with modprobe when they are missing.
func Supported() []Support {
	return []Support{{FUSE, fuseOffered()}, {NBD, nbdOffered()}, {Ublk, ErrNoUblk}}
}

func fuseOffered() error {
	return errors.Join(offered("fuse", "/dev/fuse"), offered("loop", "/dev/loop-control"))
}

func nbdOffered() error {
	if err := offered("nbd", "/sys/module/nbd"); err != nil {
		return err
	}
	return offered("nbd", "/dev/nbd0")
}

// offered tells whether path exists, if need be after loading the module.
func offered(module, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "modprobe", "-q", module).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s is missing, and modprobe %s says: %w %s", ErrNotOffered, path, module, err, out)
	}
	if !waitFor(ctx, settle, func() bool { _, err = os.Stat(path); return err == nil }) {
		return fmt.Errorf("%w: %s is missing although module %s is loaded", ErrNotOffered, path, module)
	}
	return nil
}

// driver is the part of a device that differs between front ends.
type driver interface {
	// node is the kernel's device, /dev/loop3.
	node() string
	// there tells whether the kernel's device is still ours.
	there() bool
	// resize gives the kernel's device a new size.
	resize(size int64) error
	// detach takes the kernel's device away. fd is an exclusive descriptor of
	// it, which detach closes. ErrBusy: somebody still has it open.
	detach(ctx context.Context, fd int) error
	// cleanup ends the server and removes everything else, after the device is
	// gone. It can be called again when it failed.
	cleanup(ctx context.Context) error
}

// device is an Export.
type device struct {
	kind Kind
	o    Options
	b    Backend
	drv  driver
	lock *lockFile

	closing sync.Mutex // one Close at a time; guards closed and gone
	closed  bool
	gone    bool // the kernel's device has been detached

	once sync.Once
	done chan struct{}
	err  error // written before done is closed
}

func attach(ctx context.Context, kind Kind, b Backend, o Options) (_ Export, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export %s as %s: %w", o.Name, kind, err)
		}
	}()
	if err := privateDir(o.RunDir); err != nil {
		return nil, err
	}
	lock, err := claim(ctx, o.RunDir, o.Name)
	if err != nil {
		return nil, err
	}
	d := &device{kind: kind, o: o, b: b, lock: lock, done: make(chan struct{})}
	if err := d.start(ctx, b); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return d, nil
}

// privateDir makes the run directory, or makes sure that it is the caller's and
// nobody else can write to it.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("look at run directory %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%w: run directory %s must be a directory of the agent's user that nobody else can write to", ErrOptions, dir)
	}
	return nil
}

func (d *device) start(ctx context.Context, b Backend) error {
	// The link first: when it cannot be made, nothing has happened yet.
	if err := sweepName(ctx, d.o.RunDir, d.o.Name, d.lock.read()); err != nil {
		return err
	}
	if d.o.Link != "" {
		if _, err := linkIsFree(d.o.Link, ""); err != nil {
			return err
		}
	}
	// A kill from here on leaves at least name and kind for the sweep.
	rec := record{PID: os.Getpid(), Kind: d.kind, Link: d.o.Link}
	if err := d.lock.write(rec); err != nil {
		return err
	}
	var err error
	if d.kind == NBD {
		d.drv, err = startNBD(ctx, b, d.o, d.ended)
	} else {
		d.drv, err = startFUSE(ctx, b, d.o, d.ended)
	}
	if err != nil {
		return err
	}
	rec.Device = d.drv.node()
	if err = d.lock.write(rec); err == nil {
		err = makeLink(d.o.Link, rec.Device)
	}
	if err != nil {
		// ctx may be what failed us; clearing up needs its own time.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(err, d.teardown(ctx))
	}
	return nil
}

// ended is called by the driver when its server has ended, for whatever
// reason. After a Close the reason does not count.
func (d *device) ended(err error) {
	d.once.Do(func() {
		d.err = fmt.Errorf("%s %s: %w: %w", d.kind, d.o.Name, ErrDied, err)
		d.o.Logger.Error("front end ended by itself", "kind", d.kind, "err", err)
		close(d.done)
	})
}

func (d *device) Kind() Kind            { return d.kind }
func (d *device) Device() string        { return d.drv.node() }
func (d *device) Done() <-chan struct{} { return d.done }

func (d *device) Err() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

func (d *device) InUse() (bool, string, error) { return inUse(d.drv.node()) }

// Resize implements Export.
func (d *device) Resize() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.closed || d.gone {
		return nil
	}
	size := d.b.Size()
	if err := d.drv.resize(size); err != nil {
		return fmt.Errorf("make %s of %s %d bytes large: %w", d.drv.node(), d.o.Name, size, err)
	}
	d.o.Logger.Info("device resized", "device", d.drv.node(), "bytes", size)
	return nil
}

// Close implements Export.
func (d *device) Close(ctx context.Context) error {
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.closed {
		return nil
	}
	if err := d.teardown(ctx); err != nil {
		return fmt.Errorf("take away %s of %s: %w", d.drv.node(), d.o.Name, err)
	}
	if err := d.lock.release(); err != nil {
		d.o.Logger.Warn("lock file stays", "err", err)
	}
	d.closed = true
	return nil
}

// teardown removes link, device and server.
func (d *device) teardown(ctx context.Context) error {
	if !d.gone {
		if err := d.detach(ctx); err != nil {
			return err
		}
		d.gone = true
	}
	// From here on the end of the server is meant.
	d.once.Do(func() { close(d.done) })
	return d.drv.cleanup(ctx)
}

// detach removes the link and the kernel's device. The exclusive open is the
// proof that nobody uses it; holding it keeps new users out meanwhile.
func (d *device) detach(ctx context.Context) error {
	node := d.drv.node()
	if !d.drv.there() {
		return removeLink(d.o.Link, node)
	}
	fd, err := openExclusive(node)
	if err != nil {
		return err
	}
	if err := d.flush(ctx, fd); err != nil {
		return err
	}
	if err := removeLink(d.o.Link, node); err != nil {
		_ = unix.Close(fd)
		return err
	}
	if err := d.drv.detach(ctx, fd); err != nil {
		if d.drv.there() {
			err = errors.Join(err, makeLink(d.o.Link, node))
		}
		return err
	}
	return nil
}

// flush writes out what plain writers of the device left in the page cache.
// When ctx ends first it gives up fd to the flush, which cannot be called off;
// until that ends the device stays claimed. A flush that fails is logged: the
// front end may be dead, and must still go away.
func (d *device) flush(ctx context.Context, fd int) error {
	done := make(chan error, 1)
	go func() { done <- unix.Fsync(fd) }()
	select {
	case err := <-done:
		if err != nil {
			d.o.Logger.Error("last flush of the device failed", "device", d.drv.node(), "err", err)
		}
		return nil
	case <-ctx.Done():
		go func() { _ = <-done; _ = unix.Close(fd) }()
		return fmt.Errorf("flush of %s does not end (is the resource suspended?): %w: %w", d.drv.node(), ErrBusy, ctx.Err())
	}
}

// lockedNames are the names that have a lock file in runDir.
func lockedNames(runDir string) (names []string) {
	for _, p := range glob(filepath.Join(runDir, "*.lock")) {
		if n := filepath.Base(p[:len(p)-len(".lock")]); nameRE.MatchString(n) {
			names = append(names, n)
		}
	}
	return names
}
