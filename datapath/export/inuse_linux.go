package export

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openExclusive claims the device as a mount, LVM or swap would: while the
// descriptor is open none of them can start. EBUSY becomes ErrBusy with whom a
// quick look finds.
func openExclusive(node string) (int, error) {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return -1, busy(node, holders(node, -1))
	}
	if err != nil {
		return -1, fmt.Errorf("open %s exclusively: %w", node, err)
	}
	return fd, nil
}

func busy(node, who string) error {
	if who == "" {
		return fmt.Errorf("%s: %w", node, ErrBusy)
	}
	return fmt.Errorf("%s: %w: %s", node, ErrBusy, who)
}

// inUse is Export.InUse.
func inUse(node string) (bool, string, error) {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, holders(node, -1), nil
	case err != nil:
		return false, "", fmt.Errorf("open %s exclusively: %w", node, err)
	}
	defer unix.Close(fd)
	who := holders(node, fd) // plain opens do not collide with O_EXCL
	return who != "", who, nil
}

// holders lists who holds node, as far as /proc and /sys tell. ours is a
// descriptor of this process not to count, or -1.
func holders(node string, ours int) string {
	var who []string
	name := filepath.Base(node)
	var st unix.Stat_t
	if unix.Stat(node, &st) == nil {
		dev := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		who = append(who, mountedAt(dev)...)
	}
	for _, h := range glob(filepath.Join("/sys/block", name, "holders/*")) {
		who = append(who, "block device "+filepath.Base(h))
	}
	who = append(who, swapOn(node)...)
	for _, f := range glob("/sys/block/loop*/loop/backing_file") {
		if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == node {
			who = append(who, "loop device "+strings.Split(f, "/")[3])
		}
	}
	return strings.Join(append(who, openers(node, ours)...), ", ")
}

// pids lists the processes. A pattern over /proc would read every process' directory.
func pids() (list []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, e.Name())
		}
	}
	return list
}

// glob is filepath.Glob for patterns that are known to be well formed.
func glob(pattern string) []string {
	names, _ := filepath.Glob(pattern)
	return names
}

// mountedAt finds mounts of the device in every mount namespace there is a
// process in.
func mountedAt(dev string) (who []string) {
	seen := map[string]bool{}
	for _, pid := range pids() {
		ns, err := os.Readlink(filepath.Join("/proc", pid, "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		f, err := os.Open(filepath.Join("/proc", pid, "mountinfo"))
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if w := strings.Fields(s.Text()); len(w) > 4 && w[2] == dev {
				who = append(who, "mounted on "+w[4])
			}
		}
		_ = f.Close()
	}
	return who
}

func swapOn(node string) []string {
	data, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if w := strings.Fields(line); len(w) > 0 && w[0] == node {
			return []string{"swap"}
		}
	}
	return nil
}

// openers finds processes with an open descriptor of the device.
func openers(node string, ours int) (who []string) {
	self := strconv.Itoa(os.Getpid())
	for _, pid := range pids() {
		dir := filepath.Join("/proc", pid, "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, e := range entries {
			if pid == self && e.Name() == strconv.Itoa(ours) {
				continue
			}
			if t, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && t == node {
				comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
				who = append(who, fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm))))
				break
			}
		}
	}
	return who
}
