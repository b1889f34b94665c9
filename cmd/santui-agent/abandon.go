package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// abandon cuts off the FUSE mounts below dir before the process that serves them ends while they are in use. The forced
// unmount fails, for they are busy, but what is written to them from then on is answered with an error. Without it, a
// process that is the last one in its mount namespace would be made to unmount the file system on top while it dies, and
// wait for ever for its own answer.
func abandon(dir string) error {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.FSType, "fuse") || !strings.HasPrefix(m.Mountpoint, filepath.Clean(dir)+"/"), false
	})
	if err != nil {
		return fmt.Errorf("find the mounts below %s: %w", dir, err)
	}
	var errs []error
	for _, m := range mounts {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("cut off %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
