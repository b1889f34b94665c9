//go:build root || node

package lvmops

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// TestMain runs the tests in a mount namespace of their own: whatever they leave mounted goes away with it.
func TestMain(m *testing.M) {
	if os.Getenv("LVMOPS_NAMESPACE") != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), "LVMOPS_NAMESPACE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a mount namespace of their own (needs root and unshare):", err)
		os.Exit(1)
	}
}

func newOps(t *testing.T) *Ops {
	t.Helper()
	r := WithObserver(&Exec{Node: "otter"}, func(e proto.Execution) {
		t.Logf("$ %s -> %d in %.3f s: %q %s", strings.Join(e.Argv, " "), e.Exit, e.Seconds, e.Output, e.Err)
	})
	o, err := New(Options{Runner: r, Node: "otter"})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func sh(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// loopDevice makes a loop device over a file.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	dev := sh(t, "losetup", "--find", "--show", file)
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", dev).Run() })
	return dev
}

// background starts a program and returns its pid; it ends with the test.
func background(t *testing.T, dir string, argv ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = dir
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(c) })
	return c
}

func end(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// mounted makes ext4 on a loop device and mounts it through Ops.
func mounted(t *testing.T, o *Ops, name string) (dev, target string) {
	t.Helper()
	ctx := context.Background()
	dev = loopDevice(t, 64<<20)
	if _, err := o.Mkfs(ctx, "ext4", dev); err != nil {
		t.Fatal(err)
	}
	target = filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := o.Mount(ctx, proto.Mount{Source: dev, Target: target, FSType: "ext4", Options: "rw,noatime"})
	if err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-R", target).Run() })
	return dev, target
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 100 {
		if f() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("never: " + what)
}

func find(users []proto.User, kind string) *proto.User {
	for i := range users {
		if users[i].Kind == kind {
			return &users[i]
		}
	}
	return nil
}
