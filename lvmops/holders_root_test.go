//go:build root

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

	"golang.org/x/sys/unix"
)

// init is what a holder does, a child of TestHiddenHolders. It runs on the main thread.
func init() {
	kind, file := os.Getenv("LVMOPS_HOLDER"), os.Getenv("LVMOPS_FILE")
	if kind == "" {
		return
	}
	f, err := os.Open(file)
	if err == nil && kind == "mmap" {
		_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		_ = f.Close()
		_ = os.Remove(file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { // on another thread
		fmt.Println("holds")
		time.Sleep(time.Minute)
		os.Exit(0)
	}()
	if kind == "thread" {
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // of this thread only
	}
	time.Sleep(time.Hour)
}

// TestHiddenHolders: what keeps a mount busy without showing in a process' directories is found all the same.
func TestHiddenHolders(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "two  spaces")
	file := filepath.Join(target, "file")
	self := func(kind string) *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "LVMOPS_HOLDER="+kind, "LVMOPS_FILE="+file)
		return c
	}
	chroot := exec.Command("chroot", target, "/sleep", "60")
	elsewhere := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "umount '"+target+"'; echo holds; exec sleep 60")
	for _, tt := range []struct {
		name, how, path string
		cmd             *exec.Cmd
	}{
		{"a file that is mapped, closed and deleted", "mmap", file + " (deleted)", self("mmap")},
		{"a process whose first thread has ended", "fd", file, self("thread")},
		{"a file of this namespace open in one that lacks the mount", "fd", file, elsewhere},
		{"a root directory and what runs in it", "cwd,root,exe,mmap", target, chroot},
	} {
		if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := tt.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if tt.cmd == elsewhere {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			tt.cmd.ExtraFiles = []*os.File{f}
		}
		if tt.cmd == chroot {
			sh(t, "cp", "/bin/busybox", filepath.Join(target, "sleep"))
		}
		if err := tt.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(tt.cmd) })
		for _, f := range tt.cmd.ExtraFiles {
			_ = f.Close()
		}
		if tt.cmd == chroot {
			eventually(t, "it runs", func() bool {
				l, _ := os.Readlink(fmt.Sprintf("/proc/%d/root", tt.cmd.Process.Pid))
				return l == target
			})
		} else if said, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatalf("%s: %d, %v", tt.name, said, err)
		}
		time.Sleep(50 * time.Millisecond)
		st, err := o.Stack(ctx, dev, dev)
		u := find(st.Users, "process")
		if err != nil || u == nil || u.PID != tt.cmd.Process.Pid || u.How != tt.how || u.Path != tt.path {
			t.Errorf("%s: %+v %q, %v", tt.name, st.Users, st.Err, err)
		}
		if _, err := o.Unmount(ctx, target); err == nil || !strings.Contains(err.Error(), fmt.Sprint(tt.cmd.Process.Pid)) {
			t.Errorf("%s: unmount: %v", tt.name, err)
		}
		end(tt.cmd)
	}
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Error(err)
	}
}
