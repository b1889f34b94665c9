package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long a device may stay held after we let go of it: udev opens
// every block device it hears of for a moment.
const settle = 2 * time.Second

// loopDevice is a loop device that is bound to our file.
type loopDevice struct {
	node    string // /dev/loop3
	backing string // what sysfs says is behind it; nobody else has this
}

func (l *loopDevice) name() string { return filepath.Base(l.node) }

// bound tells whether the device is still bound to our file. It does not open
// the device, which would keep it alive.
func (l *loopDevice) bound() bool { return sysfs(l.name(), "loop/backing_file") == l.backing }

// bindLoop binds a free loop device to the open file and puts m on it.
func bindLoop(ctx context.Context, file int, m string) (*loopDevice, error) {
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/loop-control: %w", err)
	}
	defer unix.Close(ctl)
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		l, err := configureLoop("/dev/loop"+strconv.Itoa(n), file, m)
		if !errors.Is(err, unix.EBUSY) || try == 50 {
			return l, err
		}
		// Somebody took it between the two calls, or only looks at it.
		time.Sleep(10 * time.Millisecond)
	}
}

// configureLoop binds one device. Size, block size and direct I/O are there
// before the device can be opened by anybody with a size other than zero.
func configureLoop(node string, file int, m string) (*loopDevice, error) {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", node, err)
	}
	defer unix.Close(fd)
	cfg := unix.LoopConfig{Fd: uint32(file), Size: SectorSize}
	cfg.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], m)
	if err := unix.IoctlLoopConfigure(fd, &cfg); err != nil {
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w (LOOP_CONFIGURE needs Linux 5.8)", err)
		}
		return nil, fmt.Errorf("bind %s: %w", node, err)
	}
	l := &loopDevice{node: node}
	if l.backing = sysfs(l.name(), "loop/backing_file"); l.backing == "" {
		_ = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		return nil, fmt.Errorf("bind %s: /sys/block/%s/loop does not appear: is /sys mounted?", node, l.name())
	}
	return l, nil
}

// resize takes the file's size (LOOP_SET_CAPACITY); users of the device go on.
func (l *loopDevice) resize() error {
	fd, err := unix.Open(l.node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", l.node, err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", l.node, err)
	}
	return nil
}

// unbind takes the file away from the device, with fd an open descriptor of it,
// which unbind closes. When others have the device open it stays as it was, and
// the error is ErrBusy.
//
// LOOP_CLR_FD on a device with other openers succeeds and does nothing but set
// LO_FLAGS_AUTOCLEAR: the device goes away at some later last close
// (loop_clr_fd in drivers/block/loop.c; newer kernels do it even without other
// openers). So look, and take the flag back where that has happened.
func (l *loopDevice) unbind(ctx context.Context, fd int) error {
	err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
	_ = unix.Close(fd)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("unbind %s: %w", l.node, err)
	}
	if waitFor(ctx, settle, func() bool { return !l.bound() }) {
		return nil
	}
	return l.keep()
}

// keep undoes the delayed unbinding of a device that others have open.
func (l *loopDevice) keep() error {
	fd, err := unix.Open(l.node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		var info *unix.LoopInfo64
		if info, err = unix.IoctlLoopGetStatus64(fd); err == nil {
			info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
			err = unix.IoctlLoopSetStatus64(fd, info)
		}
	}
	if !l.bound() {
		return nil // its last user left in this moment
	}
	if err != nil {
		return errors.Join(busy(l.node, holders(l.node, fd)), fmt.Errorf("%s goes away when its last user does: %w", l.node, err))
	}
	return busy(l.node, holders(l.node, fd))
}

// waitFor polls cond until it holds, d has passed or ctx is done.
func waitFor(ctx context.Context, d time.Duration, cond func() bool) bool {
	end := time.Now().Add(d)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
		time.Sleep(pause)
	}
}

// findLoops finds loop devices bound to file, or that carry the mark m: a loop
// whose mount went away with its mount namespace has lost the path.
func findLoops(file, m string) (found []*loopDevice) {
	for _, attr := range glob("/sys/block/loop*/loop/backing_file") {
		name := strings.Split(attr, "/")[3]
		l := &loopDevice{node: "/dev/" + name, backing: sysfs(name, "loop/backing_file")}
		plain := strings.TrimSuffix(l.backing, " (deleted)")
		if plain == file || filepath.Base(plain) == filepath.Base(file) && l.marked(m) {
			found = append(found, l)
		}
	}
	return found
}

func (l *loopDevice) marked(m string) bool {
	fd, err := unix.Open(l.node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return false
	}
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return string(name) == m
}
