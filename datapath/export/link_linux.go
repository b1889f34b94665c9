package export

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeLink makes link a symbolic link to device. It replaces nothing but a
// symbolic link that leads nowhere, or to a loop or nbd device nobody has
// bound, or to device itself.
func makeLink(link, device string) error {
	if link == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("make directory of link %s: %w", link, err)
	}
	replace, err := linkIsFree(link, device)
	if err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.santui-%d", link, os.Getpid())
	_ = os.Remove(tmp) // of a dead process with our pid
	if err := os.Symlink(device, tmp); err != nil {
		return fmt.Errorf("make link %s: %w", link, err)
	}
	var flags uint = unix.RENAME_NOREPLACE
	if replace {
		flags = 0
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, link, flags)
	if err == nil {
		return nil
	}
	_ = os.Remove(tmp)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("link %s appeared meanwhile: %w", link, ErrLinkTaken)
	}
	return fmt.Errorf("make link %s: %w", link, err)
}

// linkIsFree tells whether device may be linked at link, and whether that
// replaces an old link.
func linkIsFree(link, device string) (replace bool, err error) {
	st, err := os.Lstat(link)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at link %s: %w", link, err)
	}
	switch {
	case st.Mode()&fs.ModeDevice != 0:
		return false, fmt.Errorf("link %s: %w", link, ErrLinkIsDevice)
	case st.Mode()&fs.ModeSymlink == 0:
		return false, fmt.Errorf("link %s: %w (%s)", link, ErrLinkTaken, st.Mode())
	}
	target, err := filepath.EvalSymlinks(link)
	if errors.Is(err, fs.ErrNotExist) || target == device {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("follow link %s: %w", link, err)
	}
	name, ok := strings.CutPrefix(target, "/dev/")
	if ok && (strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "nbd")) {
		if !bound(name) {
			return true, nil
		}
		return false, fmt.Errorf("link %s leads to %s, which is bound to something else (remove the link if it is stale): %w", link, target, ErrLinkTaken)
	}
	return false, fmt.Errorf("link %s leads to %s: %w", link, target, ErrLinkTaken)
}

// bound tells whether a loop or nbd device has something behind it.
func bound(name string) bool {
	return sysfs(name, "loop/backing_file") != "" || sysfs(name, "pid") != ""
}

// removeLink removes link if it still leads to device.
func removeLink(link, device string) error {
	if link == "" {
		return nil
	}
	target, err := os.Readlink(link)
	if err != nil || target != device {
		return nil // somebody else's by now, or gone
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove link %s: %w", link, err)
	}
	return nil
}

// sysfs reads an attribute of a block device; empty when there is none.
func sysfs(name, attr string) string {
	data, err := os.ReadFile(filepath.Join("/sys/block", name, attr))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(data), "\n")
}
