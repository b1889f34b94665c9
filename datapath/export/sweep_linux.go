package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sweep removes what exports of dead processes left in runDir and in the
// kernel: links, loop and nbd devices, FUSE mounts. It touches only what
// carries the mark of a name in this runDir, and no name whose owner still
// runs. A device that is still held stays, and ErrBusy says by whom.
func Sweep(ctx context.Context, runDir string) error {
	dir, err := filepath.Abs(runDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range lockedNames(dir) {
		lock, err := claim(ctx, dir, name)
		if errors.Is(err, ErrAlive) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := sweepName(ctx, dir, name, lock.read()); err != nil {
			// The file stays: it is how the next sweep finds the name.
			errs = append(errs, err, lock.f.Close())
			continue
		}
		errs = append(errs, lock.release())
	}
	return errors.Join(errs...)
}

// claim takes the lock of a name, also from an owner that was killed and cannot
// die: a thread of it waits, where no signal reaches, for an answer to its own
// I/O on the device it served itself, so its descriptors stay open, the lock
// among them. Cutting the connection answers that I/O with an error.
func claim(ctx context.Context, runDir, name string) (*lockFile, error) {
	lock, err := takeLock(lockPath(runDir, name))
	if !errors.Is(err, ErrAlive) {
		return lock, err
	}
	r := readRecord(lockPath(runDir, name))
	if !undead(r.PID) {
		return nil, fmt.Errorf("%w (process %d)", err, r.PID)
	}
	dir := mountPath(runDir, name)
	if ours, _ := isOurMount(dir); ours {
		_ = unix.Unmount(dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW) // EBUSY: it is cut all the same
	}
	for _, i := range findNBDs(mark(runDir, name)) {
		_ = nbdDisconnect(i)
	}
	waitFor(ctx, settle, func() bool {
		lock, err = takeLock(lockPath(runDir, name))
		return !errors.Is(err, ErrAlive)
	})
	return lock, err
}

// undead tells whether a process has been killed and still has threads: its
// first thread is a zombie, or has a SIGKILL waiting (proc_pid_status(5)).
func undead(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "State":
			if strings.HasPrefix(value, "Z") {
				return true
			}
		case "SigPnd", "ShdPnd":
			set, err := strconv.ParseUint(value, 16, 64)
			if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// sweepName clears one name, whose lock the caller has: link, devices, mount.
func sweepName(ctx context.Context, runDir, name string, r record) error {
	if r.Device != "" {
		if err := removeLink(r.Link, r.Device); err != nil {
			return fmt.Errorf("sweep %s: %w", name, err)
		}
	}
	m := mark(runDir, name)
	for _, i := range findNBDs(m) {
		if err := sweepNBD(ctx, i, m); err != nil {
			return fmt.Errorf("sweep %s: %w", name, err)
		}
	}
	dir := mountPath(runDir, name)
	real := dir
	if r, err := filepath.EvalSymlinks(runDir); err == nil {
		real = mountPath(r, name)
	}
	for _, l := range findLoops(filepath.Join(real, name), m) {
		if err := sweepLoop(ctx, l); err != nil {
			return fmt.Errorf("sweep %s: %w", name, err)
		}
	}
	if err := unmountFUSE(ctx, dir); err != nil {
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	return nil
}

// sweepLoop unbinds a loop device whose server is dead. When somebody still
// holds it, the kernel unbinds it when they let go; nothing is lost by that.
func sweepLoop(ctx context.Context, l *loopDevice) error {
	fd, err := unix.Open(l.node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if !l.bound() {
			return nil
		}
		return fmt.Errorf("open dead %s: %w", l.node, err)
	}
	err = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
	_ = unix.Close(fd)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("unbind dead %s: %w", l.node, err)
	}
	if !waitFor(ctx, settle, func() bool { return !l.bound() }) {
		return fmt.Errorf("its server is dead, unmount or close it: %w", busy(l.node, holders(l.node, -1)))
	}
	return nil
}

func sweepNBD(ctx context.Context, index int, m string) error {
	name := "nbd" + strconv.Itoa(index)
	// EINVAL: disconnected already, and still held open.
	if err := nbdDisconnect(index); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if !waitFor(ctx, settle, func() bool { return !nbdOurs(name, m) }) {
		return fmt.Errorf("its server is dead, unmount or close it: %w", busy("/dev/"+name, holders("/dev/"+name, -1)))
	}
	return nil
}
