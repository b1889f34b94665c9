//go:build lab

package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/datapath/export/exporttest"
)

// insideVar is set for the copy of this test that runs in the lab's kernel.
const insideVar = "SANTUI_EXPORT_INSIDE"

// labInit is the init program of a user-mode Linux node: it makes the machine
// as usual as the tests need, runs them and powers off. Its root is the host's
// file system, read only.
const labInit = `#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
mount -t tmpfs mnt /mnt
mount -t hostfs -o %[1]s none /srv
M=/usr/lib/uml/modules/$(uname -r)/kernel
busybox insmod $M/drivers/block/nbd.ko || echo insmod nbd failed
busybox insmod $M/fs/fuse/fuse.ko
busybox insmod $M/drivers/block/loop.ko
mkdir /mnt/tmp
cd /mnt
TMPDIR=/mnt/tmp HOME=/mnt %[2]s=1 %[3]s -test.v -test.timeout=100s -test.run '%[4]s' > /srv/out 2>&1
echo "exit $?" >> /srv/out
dmesg | tail -40 > /srv/dmesg
busybox poweroff -f
`

// Not busybox as the shell: it runs its applets through /proc/self/exe, which
// before the first mount is the host's. inLab boots a kernel with nbd and runs the tests that match run in it.
func inLab(t *testing.T, run string) {
	uml, err := exec.LookPath("linux.uml")
	if err != nil {
		t.Fatalf("the lab needs Debian's user-mode-linux: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "init")
	if err := os.WriteFile(script, fmt.Appendf(nil, labInit, dir, insideVar, self, run), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, uml, "mem=512M", "rootfstype=hostfs", "ro", "root=/dev/root", "hostfs=/", "init="+script,
		"umid=santui-export-"+fmt.Sprint(os.Getpid()), "uml_dir="+dir, "con=null", "con0=null,fd:1", "quiet")
	node.Env = append(os.Environ(), "TMPDIR="+dir)
	node.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	node.Cancel = func() error { return syscall.Kill(-node.Process.Pid, syscall.SIGKILL) }
	console, err := node.CombinedOutput()
	out, _ := os.ReadFile(filepath.Join(dir, "out"))
	t.Logf("%s", out)
	if ctx.Err() != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "exit 0") {
		dmesg, _ := os.ReadFile(filepath.Join(dir, "dmesg"))
		t.Fatalf("node: %v\n%s\n%s", err, console, dmesg)
	}
}

func TestLabNBD(t *testing.T) { inLab(t, "^TestInsideNBD") }

// inside tells whether this is the lab's kernel; on the host the tests below
// are only carried along.
func inside() bool { return os.Getenv(insideVar) != "" }

func TestInsideNBDFileSystem(t *testing.T) {
	if inside() {
		fileSystem(t, NBD, true)
	}
}

func TestInsideNBDGrows(t *testing.T) {
	if inside() {
		grows(t, NBD, true)
	}
}

func TestInsideNBDHolder(t *testing.T) {
	if inside() {
		holder(t, NBD)
	}
}

func TestInsideNBDRequests(t *testing.T) {
	if inside() {
		requests(t, NBD)
	}
}

func TestInsideNBDKilled(t *testing.T) {
	if inside() {
		killed(t, NBD)
	}
}

func TestInsideNBDUndead(t *testing.T) {
	if inside() {
		undeadOwner(t, NBD)
	}
}

// The FUSE front end on this older kernel too.
func TestInsideNBDThenFUSE(t *testing.T) {
	if inside() {
		fileSystem(t, FUSE, false)
		t.Run("holder", func(t *testing.T) { holder(t, FUSE) })
		t.Run("requests", func(t *testing.T) { requests(t, FUSE) })
		t.Run("killed", func(t *testing.T) { killed(t, FUSE) })
	}
}

func TestInsideNBDOffered(t *testing.T) {
	if !inside() {
		return
	}
	if k, err := Pick(); k != FUSE || err != nil {
		t.Errorf("Pick: %s, %v", k, err)
	}
	for _, s := range Supported() {
		if (s.Err == nil) == (s.Kind == Ublk) {
			t.Errorf("%s: %v", s.Kind, s.Err)
		}
	}
}

// Two at a time get two devices.
func TestInsideNBDTwo(t *testing.T) {
	if !inside() {
		return
	}
	a, _ := attached(t, NBD, exporttest.NewMemory(rootSize))
	b, _ := attached(t, NBD, exporttest.NewMemory(rootSize))
	if a.Device() == b.Device() {
		t.Fatal(a.Device())
	}
}

// Somebody disconnects the device: Done, Err, and Close clears up.
func TestInsideNBDDies(t *testing.T) {
	if !inside() {
		return
	}
	e, _ := attached(t, NBD, exporttest.NewMemory(rootSize))
	if err := nbdDisconnect(e.(*device).drv.(*nbdDriver).index); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done is not closed")
	}
	if !errors.Is(e.Err(), ErrDied) {
		t.Error(e.Err())
	}
}

// What dd wrote is there, and arrives once flushed.
func TestInsideNBDBulk(t *testing.T) {
	if !inside() {
		return
	}
	m := exporttest.NewMemory(rootSize)
	e, _ := attached(t, NBD, m)
	t.Log(run(t, "dd", "if=/dev/urandom", "of="+e.Device(), "bs=1M", "count=64", "conv=fsync"))
	want := make([]byte, rootSize)
	f, err := os.Open(e.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := unix.Pread(int(f.Fd()), want, 0); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, rootSize)
	if _, err := m.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Error("device and backend differ", err)
	}
}

// TestLabSpeed compares the front ends inside one node with fio over a backend
// that does nothing; only the ratios mean anything.
func TestLabSpeed(t *testing.T) { inLab(t, "^TestInsideSpeed") }

func TestInsideSpeed(t *testing.T) {
	if !inside() {
		return
	}
	for _, kind := range []Kind{NBD, FUSE} {
		e, _ := attached(t, kind, exporttest.Null(1<<30))
		for _, job := range [][]string{{"--bs=4k", "--iodepth=1"}, {"--bs=4k", "--iodepth=32"}, {"--bs=1m", "--iodepth=8"}} {
			argv := append([]string{"fio", "--name=x", "--filename=" + e.Device(), "--direct=1", "--ioengine=libaio", "--rw=randwrite",
				"--runtime=1", "--time_based", "--minimal"}, job...)
			w := strings.Split(run(t, argv...), ";")
			t.Logf("%s %v: %s IOPS, %s KiB/s", kind, job, w[48], w[47])
		}
	}
}
