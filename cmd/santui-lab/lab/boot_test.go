//go:build lab

package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBoot(t *testing.T) {
	t.Parallel()
	began := time.Now()
	l := ForTest(t, Options{ExtraFiles: map[string]string{"/etc/extra/note": "extra\n"}})
	took := time.Since(began)
	otter, weasel := l.Node("otter"), l.Node("weasel")
	t.Logf("both nodes answer after %s; the guests say %.1f s and %.1f s", took, otter.BootSeconds(), weasel.BootSeconds())
	if took > 60*time.Second {
		t.Errorf("boot took %s, want less than a minute", took)
	}
	ctx := t.Context()
	for _, n := range l.Nodes() {
		name, err := n.Sh(ctx, "hostname; cat /etc/hostname")
		if err != nil || name != n.Name()+"\n"+n.Name() {
			t.Errorf("%s: hostname %q, %v", n.Name(), name, err)
		}
		if text := n.Console(); strings.Contains(text, "insmod") {
			t.Errorf("console of %s: %s", n.Name(), text)
		}
		if _, err := n.Sh(ctx, "test -b /dev/nbd15 -a -c /dev/mapper/control -a -c /dev/fuse -a -c /dev/loop-control; "+
			"cmp /dev/md3 /dev/ubdb; test $(blockdev --getsize64 /dev/ubdb) = 268435456; vgs"); err != nil {
			t.Error(err)
		}
		if _, err := n.Sh(ctx, "modprobe drbd; grep -q ^drbd /proc/modules"); err == nil {
			t.Errorf("%s: the kernel's DRBD loads on a node that was not given it", n.Name())
		}
	}
	if _, err := otter.Run(ctx, "busybox", "ping", "-c", "2", "-W", "2", "weasel"); err != nil {
		t.Error(err)
	}
	if _, err := weasel.Run(ctx, "busybox", "ping", "-c", "2", "-W", "2", otter.Addr()); err != nil {
		t.Error(err)
	}
	checkFiles(t, weasel)
	start := time.Now()
	for range 10 {
		if _, err := otter.Run(ctx, "true"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a command takes %s", time.Since(start)/10)
}

// checkFiles moves a file through both directions and starts and stops a program in the background.
func checkFiles(t *testing.T, n *Node) {
	t.Helper()
	ctx := t.Context()
	if text, err := n.ReadFile(ctx, "/etc/extra/note"); err != nil || string(text) != "extra\n" {
		t.Errorf("ExtraFiles: %q, %v", text, err)
	}
	data := make([]byte, 1<<20)
	rand.Read(data)
	from, back := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "back")
	if err := os.WriteFile(from, data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := n.Put(ctx, from, "/opt/new folder/file"); err != nil {
		t.Fatal(err)
	}
	if mode, err := n.Sh(ctx, "stat -c %a '/opt/new folder/file'"); err != nil || mode != "750" {
		t.Errorf("mode %s, %v", mode, err)
	}
	if err := n.Get(ctx, "/opt/new folder/file", back); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
		t.Errorf("put and get: %d bytes, %v", len(got), err)
	}
	if err := n.Daemon(ctx, "napper", "sh", "-c", "echo awake; exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	if out, err := n.Sh(ctx, "sleep 0.2; cat /var/log/napper.log; cat /proc/$(cat /run/napper.pid)/comm"); err != nil || out != "awake\nsleep" {
		t.Errorf("daemon: %q, %v", out, err)
	}
	if err := n.StopDaemon(ctx, "napper"); err != nil {
		t.Error(err)
	}
	if _, err := n.Sh(ctx, "pgrep -x sleep >/dev/null && test -e /run/napper.pid"); err == nil {
		t.Error("the daemon is still there")
	}
	var exit *ExitError
	if res, err := n.Run(ctx, "sh", "-c", "echo out; echo err >&2; exit 3"); !errors.As(err, &exit) || exit.Code != 3 || res.Stdout != "out\n" || res.Stderr != "err\n" {
		t.Errorf("failing command: %+v, %v", res, err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := n.Run(short, "sleep", "5"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command past its time: %v", err)
	}
}
