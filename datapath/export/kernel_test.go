//go:build root || lab

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
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/santui/datapath/export/exporttest"
)

const rootSize = 64 << 20

// aligned fails a test when a front end hands over memory that O_DIRECT would
// not take.
type aligned struct {
	*exporttest.Memory
	t testing.TB
}

func (a aligned) see(p []byte) {
	if len(p) > 0 && uintptr(unsafe.Pointer(&p[0]))%4096 != 0 {
		a.t.Errorf("buffer of %d bytes at %p", len(p), &p[0])
	}
}

func (a aligned) ReadAt(p []byte, off int64) (int, error) {
	a.see(p)
	return a.Memory.ReadAt(p, off)
}

func (a aligned) WriteAt(p []byte, off int64) (int, error) {
	a.see(p)
	return a.Memory.WriteAt(p, off)
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// attached exports b and takes it away at the end of the test, which must
// leave nothing.
func attached(t *testing.T, kind Kind, b Backend) (Export, Options) {
	t.Helper()
	dir := t.TempDir()
	o := Options{Name: "r0", RunDir: filepath.Join(dir, "run"), Link: filepath.Join(dir, "dev/drbd0")}
	e, err := Attach(deadline(t), kind, b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(deadline(t)); err != nil {
			t.Errorf("Close: %v", err)
		}
		nothingLeft(t, o)
	})
	return e, o
}

func nothingLeft(t *testing.T, o Options) {
	t.Helper()
	if names := glob(filepath.Join(o.RunDir, "*")); len(names) != 0 {
		t.Errorf("left in the run directory: %v", names)
	}
	if _, err := os.Lstat(o.Link); err == nil {
		t.Error("the link is left")
	}
	if l := findLoops(filepath.Join(mountPath(o.RunDir, o.Name), o.Name), mark(o.RunDir, o.Name)); len(l) != 0 {
		t.Errorf("loop device left: %v", l[0])
	}
	if n := findNBDs(mark(o.RunDir, o.Name)); len(n) != 0 {
		t.Errorf("nbd device left: %v", n)
	}
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// growing shows only a part of a Memory at first.
type growing struct {
	*exporttest.Memory
	size atomic.Int64
}

func (g *growing) Size() int64 { return g.size.Load() }

// grows: the device grows under a mounted file system, which grows with it, online where the kernel lets us.
func grows(t *testing.T, kind Kind, online bool) {
	const before, after = 32 << 20, 80 << 20
	b := &growing{Memory: exporttest.NewMemory(after)}
	b.size.Store(before)
	e, _ := attached(t, kind, b)
	run(t, "mkfs.ext4", "-q", "-F", e.Device())
	mnt := t.TempDir()
	run(t, "mount", e.Device(), mnt)
	defer run(t, "umount", mnt)
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+mnt+"/f", "bs=1M", "count=40").CombinedOutput(); err == nil {
		t.Fatalf("40 MiB fit before: %s", out)
	}
	run(t, "rm", mnt+"/f")
	b.size.Store(after)
	if err := e.Resize(); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(run(t, "blockdev", "--getsize64", e.Device())); got != fmt.Sprint(after) {
		t.Fatalf("the device has %s bytes", got)
	}
	if !online {
		run(t, "umount", mnt)
		run(t, "e2fsck", "-f", "-p", e.Device())
	}
	run(t, "resize2fs", e.Device())
	if !online {
		run(t, "mount", e.Device(), mnt)
	}
	run(t, "dd", "if=/dev/urandom", "of="+mnt+"/f", "bs=1M", "count=40", "conv=fsync", "status=none")
}

// fileSystem runs an ext4 through its life on a front end.
func fileSystem(t *testing.T, kind Kind, mayDiscard bool) {
	m := exporttest.NewMemory(rootSize)
	e, o := attached(t, kind, aligned{m, t})
	if got, _ := os.Readlink(o.Link); got != e.Device() {
		t.Fatalf("link leads to %q, device is %s", got, e.Device())
	}
	run(t, "mkfs.ext4", "-q", "-b", "4096", o.Link)
	mnt := t.TempDir()
	run(t, "mount", "-t", "ext4", o.Link, mnt)
	data := bytes.Repeat([]byte("santui"), 1<<20)
	if err := os.WriteFile(filepath.Join(mnt, "f"), data, 0o600); err != nil {
		t.Error(err)
	}
	run(t, "sync", "-f", mnt)
	if busy, who, err := e.InUse(); !busy || err != nil || !strings.Contains(who, "mounted on "+mnt) {
		t.Errorf("InUse while mounted: %v %q %v", busy, who, err)
	}
	if err := e.Close(deadline(t)); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), mnt) {
		t.Errorf("Close while mounted: %v", err)
	}
	if _, err := os.Stat(o.Link); err != nil {
		t.Errorf("refused Close took the link: %v", err)
	}
	run(t, "dd", "if=/dev/urandom", "of="+filepath.Join(mnt, "g"), "bs=1M", "count=8", "oflag=direct", "status=none")
	if err := os.Remove(filepath.Join(mnt, "g")); err != nil {
		t.Error(err)
	}
	run(t, "fstrim", mnt)
	run(t, "umount", mnt)
	run(t, "e2fsck", "-fn", o.Link)
	run(t, "mount", "-t", "ext4", "-o", "ro", o.Link, mnt)
	got, err := os.ReadFile(filepath.Join(mnt, "f"))
	run(t, "umount", mnt)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("file differs: %v", err)
	}
	if busy, who, err := e.InUse(); busy || err != nil {
		t.Errorf("InUse after umount: %v %q %v", busy, who, err)
	}
	c := &m.Counts
	t.Logf("%s: reads %d writes %d flushes %d discards %d zeroes %d unmaps %d", kind, c.Reads.Load(), c.Writes.Load(),
		c.Flushes.Load(), c.Discards.Load(), c.Zeroes.Load(), c.Unmaps.Load())
	if c.Flushes.Load() == 0 {
		t.Error("no flush arrived")
	}
	if d := c.Discards.Load(); d != 0 && !mayDiscard || d+c.Unmaps.Load() == 0 {
		t.Errorf("%d discards and %d unmaps arrived", d, c.Unmaps.Load())
	}
}

// holder: a plain open must stop Close, and the device must survive that.
func holder(t *testing.T, kind Kind) {
	m := exporttest.NewMemory(rootSize)
	e, o := attached(t, kind, m)
	f, err := os.OpenFile(o.Link, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if busy, who, err := e.InUse(); !busy || err != nil || !strings.Contains(who, fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("InUse while open: %v %q %v", busy, who, err)
	}
	if err := e.Close(deadline(t)); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "process") {
		t.Errorf("Close while open: %v", err)
	}
	block := bytes.Repeat([]byte{7}, 4096)
	if _, err := f.WriteAt(block, 8192); err != nil {
		t.Errorf("write after a refused Close: %v", err)
	}
	if got, _ := os.Readlink(o.Link); got != e.Device() {
		t.Errorf("link after a refused Close: %q", got)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	// The last close must not have taken the device away (autoclear).
	if f, err = os.Open(o.Link); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4096)
	if _, err := f.ReadAt(got, 8192); err != nil || !bytes.Equal(got, block) {
		t.Errorf("read after the last close: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	x, err := unix.Open(o.Link, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(deadline(t)); !errors.Is(err, ErrBusy) {
		t.Errorf("Close while open exclusively: %v", err)
	}
	_ = unix.Close(x)
	if n, _ := m.ReadAt(got, 8192); n != 4096 || !bytes.Equal(got, block) {
		t.Error("the write did not arrive")
	}
	if e.Err() != nil {
		t.Error(e.Err())
	}
}

// requests checks what single block-layer requests become.
func requests(t *testing.T, kind Kind) {
	m := exporttest.NewMemory(rootSize)
	var fail atomic.Pointer[error]
	m.Fail = func(op string, off, _ int64) error {
		if e := fail.Load(); e != nil && off == 32<<20 {
			return *e
		}
		return nil
	}
	e, _ := attached(t, kind, m)
	fd, err := unix.Open(e.Device(), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	for i := range page {
		page[i] = 9
	}
	if n, err := unix.Pwrite(fd, page, 1<<20); n != len(page) || err != nil {
		t.Fatal(n, err)
	}
	if n, err := unix.Pwrite(fd, page[:512], 512); n != 512 || err != nil {
		t.Error("a single sector: ", n, err)
	}
	zero := [2]uint64{1 << 20, 64 << 10}
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&zero))); no != 0 {
		t.Errorf("BLKZEROOUT: %v", no)
	}
	if n, err := unix.Pread(fd, page[:128<<10], 1<<20); n != 128<<10 || err != nil {
		t.Fatal(n, err)
	}
	if !bytes.Equal(page[:64<<10], make([]byte, 64<<10)) || page[64<<10] != 9 {
		t.Error("BLKZEROOUT did not zero what it should")
	}
	before := m.Counts.Flushes.Load()
	if err := unix.Fsync(fd); err != nil || m.Counts.Flushes.Load() == before {
		t.Errorf("fsync: %v, flushes %d", err, m.Counts.Flushes.Load()-before)
	}
	noSpace := unix.ENOSPC
	if kind == NBD {
		noSpace = unix.EIO // the kernel's client knows no other error
	}
	for err, want := range map[error]error{errors.New("disk gone"): unix.EIO, syscall.ENOSPC: noSpace} {
		fail.Store(&err)
		if _, got := unix.Pwrite(fd, page[:4096], 32<<20); !errors.Is(got, want) {
			t.Errorf("%v: the writer got %v", err, got)
		}
		if _, got := unix.Pread(fd, page[:4096], 32<<20); got == nil {
			t.Errorf("%v: the reader got nothing", err)
		}
	}
	if size, err := unix.Seek(fd, 0, unix.SEEK_END); size != rootSize || err != nil {
		t.Errorf("size %d, %v", size, err)
	}
	if bs, err := unix.IoctlGetInt(fd, unix.BLKSSZGET); bs != 512 || err != nil {
		t.Errorf("logical block size %d, %v", bs, err)
	}
}

// killed: the leftovers of a killed process go away with the next Attach, but
// not under somebody's feet.
func killed(t *testing.T, kind Kind, wrap ...string) {
	dir := t.TempDir()
	o := Options{Name: "r0", RunDir: filepath.Join(dir, "run"), Link: filepath.Join(dir, "drbd0")}
	child, dev := startChild(t, kind, o, wrap...)
	if _, err := Attach(deadline(t), kind, exporttest.Null(rootSize), o); !errors.Is(err, ErrAlive) {
		t.Errorf("Attach beside a living owner: %v", err)
	}
	if err := Sweep(deadline(t), o.RunDir); err != nil {
		t.Error(err)
	}
	if got, _ := os.Readlink(o.Link); got != dev {
		t.Errorf("the sweep touched a living export: link %q", got)
	}
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if err := Sweep(deadline(t), o.RunDir); !errors.Is(err, ErrBusy) {
		t.Errorf("sweep while held: %v", err)
	}
	_ = f.Close()
	e, err := Attach(deadline(t), kind, exporttest.NewMemory(rootSize), o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", o.Link)
	if err := e.Close(deadline(t)); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o)
}

// startChild runs an export in a process of its own.
func startChild(t *testing.T, kind Kind, o Options, wrap ...string) (*exec.Cmd, string) {
	t.Helper()
	argv := append(wrap, os.Args[0], "-test.run=^TestChild$", "-test.v")
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "SANTUI_EXPORT_CHILD="+string(kind), "RUN="+o.RunDir, "LINK="+o.Link)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	var dev string
	if !waitFor(deadline(t), 10*time.Second, func() bool { dev, _ = os.Readlink(o.Link); return dev != "" }) {
		t.Fatal("the child does not export")
	}
	return c, dev
}

// TestChild is the process that killed starts; alone it has nothing to do.
func TestChild(t *testing.T) {
	kind := os.Getenv("SANTUI_EXPORT_CHILD")
	if kind == "" {
		return
	}
	o := Options{Name: "r0", RunDir: os.Getenv("RUN"), Link: os.Getenv("LINK")}
	m := exporttest.NewMemory(rootSize)
	var stuck atomic.Bool
	m.Fail = func(op string, _, _ int64) error {
		if op == "flush" && stuck.Load() {
			_ = os.WriteFile(o.RunDir+"/stuck", nil, 0o600)
			select {}
		}
		return nil
	}
	e, err := Attach(deadline(t), Kind(kind), m, o)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("STUCK") != "" {
		stuck.Store(true)
		_ = e.Close(context.Background())
	}
	time.Sleep(time.Minute)
}

// undeadOwner: a killed process whose own thread waits for the device it served.
func undeadOwner(t *testing.T, kind Kind) {
	dir := t.TempDir()
	o := Options{Name: "r0", RunDir: filepath.Join(dir, "run"), Link: filepath.Join(dir, "drbd0")}
	t.Setenv("STUCK", "1")
	child, _ := startChild(t, kind, o)
	if !waitFor(deadline(t), settle, func() bool { _, err := os.Stat(o.RunDir + "/stuck"); return err == nil }) {
		t.Fatal("the child does not close")
	}
	time.Sleep(100 * time.Millisecond)
	_ = child.Process.Kill()
	if !waitFor(deadline(t), settle, func() bool { return undead(child.Process.Pid) }) {
		t.Fatal("the child did not get stuck")
	}
	if err := Sweep(deadline(t), o.RunDir); err != nil {
		t.Error(err)
	}
	_ = child.Wait()
	_ = os.Remove(o.RunDir + "/stuck")
	nothingLeft(t, o)
}
