//go:build root

package block_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

func loop(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"--find", "--show"}, append(args, image(t, t.TempDir(), 8<<20))...)
	out, err := exec.Command("losetup", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup %v: %v: %s (this test needs root and loop devices)", args, err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

func TestLoopSuite(t *testing.T) {
	for name, args := range map[string][]string{"512": nil, "4096": {"--sector-size", "4096"}, "Direct": {"--direct-io=on"}} {
		t.Run(name, func(t *testing.T) {
			blocktest.Suite(t, func(t *testing.T) block.Device {
				d, err := block.Open(loop(t, args...), block.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if info := d.(block.Informer).Info(); !info.Block || !info.Direct {
					t.Errorf("info %+v", info)
				}
				return d
			})
		})
	}
}

func TestLoopClaimed(t *testing.T) {
	dev := loop(t)
	d, err := block.Open(dev, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := block.Open(dev, block.Options{}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("second opener: %v", err)
	}
	if _, err := unix.Open(dev, unix.O_RDONLY|unix.O_EXCL, 0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a stranger's exclusive open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = block.Open(dev, block.Options{}); err != nil {
		t.Errorf("after Close: %v", err)
	} else {
		d.Close()
	}
}

func TestLoopReadOnly(t *testing.T) {
	if _, err := block.Open(loop(t, "--read-only"), block.Options{}); !errors.Is(err, block.ErrReadOnly) {
		t.Errorf("writable open of a read-only disk: %v", err)
	}
}

// TestTmpfs runs the suite where direct I/O may not exist.
func TestTmpfs(t *testing.T) {
	blocktest.Suite(t, func(t *testing.T) block.Device {
		dir := t.TempDir()
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=64m"); err != nil {
			t.Fatalf("mount a tmpfs: %v (this test needs root)", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Errorf("unmount %s: %v", dir, err)
			}
		})
		d, err := block.Open(image(t, dir, 8<<20), block.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", d.(block.Informer).Info())
		t.Cleanup(func() { d.Close() })
		return d
	})
}
