//go:build root

package export

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/datapath/export/exporttest"
)

func TestFUSEFileSystem(t *testing.T) { fileSystem(t, FUSE, false) }
func TestFUSEGrows(t *testing.T)      { grows(t, FUSE, false) } // CAP_SYS_RESOURCE may be missing here
func TestFUSEHolder(t *testing.T)     { holder(t, FUSE) }
func TestFUSERequests(t *testing.T)   { requests(t, FUSE) }
func TestFUSEKilled(t *testing.T)     { killed(t, FUSE) }

// A process in a mount namespace of its own takes its mounts with it; the loop
// device stays and has lost its path.
func TestFUSEKilledInMountNamespace(t *testing.T) {
	killed(t, FUSE, "unshare", "--mount", "--propagation", "private")
}

// Somebody ends the FUSE connection: Done, Err, and Close clears up.
func TestFUSEDies(t *testing.T) {
	e, o := attached(t, FUSE, exporttest.NewMemory(rootSize))
	_ = unix.Unmount(mountPath(o.RunDir, o.Name), unix.MNT_FORCE) // EBUSY, but the connection is cut
	select {
	case <-e.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done is not closed")
	}
	if !errors.Is(e.Err(), ErrDied) {
		t.Error(e.Err())
	}
	if err := e.Close(deadline(t)); err != nil {
		t.Error(err)
	}
	if err := e.Close(deadline(t)); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestLinkNeverReplacesADevice(t *testing.T) {
	dir := t.TempDir()
	o := Options{Name: "r0", RunDir: filepath.Join(dir, "run"), Link: filepath.Join(dir, "drbd0")}
	if err := unix.Mknod(o.Link, unix.S_IFBLK|0o600, int(unix.Mkdev(147, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(deadline(t), FUSE, exporttest.Null(rootSize), o); !errors.Is(err, ErrLinkIsDevice) {
		t.Errorf("over a device node: %v", err)
	}
	if err := os.Remove(o.Link); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, o)
	// A link to a device that somebody else has bound is not stale.
	e, other := attached(t, FUSE, exporttest.Null(rootSize))
	if err := os.Symlink(e.Device(), o.Link); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(deadline(t), FUSE, exporttest.Null(rootSize), o); !errors.Is(err, ErrLinkTaken) {
		t.Errorf("over a live link: %v", err)
	}
	if _, err := os.Stat(other.Link); err != nil {
		t.Error(err)
	}
}

func TestFUSEUndead(t *testing.T) { undeadOwner(t, FUSE) }

// Close does not hang on a suspended resource, and does not let go of it either.
func TestFUSECloseOfSuspended(t *testing.T) {
	m := exporttest.NewMemory(rootSize)
	gate := make(chan struct{})
	var suspended atomic.Bool
	m.Fail = func(op string, _, _ int64) error {
		if op == "flush" && suspended.Load() {
			<-gate
		}
		return nil
	}
	e, o := attached(t, FUSE, m)
	suspended.Store(true) // not before: binding the loop device flushes
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Stat(o.Link); err != nil {
		t.Error(err)
	}
	close(gate)
	if !waitFor(deadline(t), settle, func() bool { b, _, _ := e.InUse(); return !b }) {
		t.Error("the device stays claimed")
	}
}

// This machine's kernel has no nbd: the refusal says so.
func TestNBDNotOffered(t *testing.T) {
	if _, err := os.Stat("/dev/nbd0"); err == nil {
		return
	}
	o := Options{Name: "r0", RunDir: filepath.Join(t.TempDir(), "run")}
	if _, err := Attach(deadline(t), NBD, exporttest.Null(rootSize), o); !errors.Is(err, ErrNotOffered) {
		t.Error(err)
	}
	if k, err := Pick(); k != FUSE || err != nil {
		t.Errorf("Pick: %s, %v", k, err)
	}
	nothingLeft(t, o)
}
