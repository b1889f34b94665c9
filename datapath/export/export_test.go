//go:build linux

package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/goleak"

	"example.com/santui/datapath/export/exporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOptionsAreChecked(t *testing.T) {
	good := exporttest.Null(1 << 20)
	for name, c := range map[string]struct {
		b Backend
		o Options
	}{
		"no backend":    {nil, Options{Name: "r0", RunDir: "/x"}},
		"no name":       {good, Options{RunDir: "/x"}},
		"path in name":  {good, Options{Name: "../r0", RunDir: "/x"}},
		"long name":     {good, Options{Name: strings.Repeat("r", 65), RunDir: "/x"}},
		"no run dir":    {good, Options{Name: "r0"}},
		"relative link": {good, Options{Name: "r0", RunDir: "/x", Link: "dev/drbd0"}},
		"empty device":  {exporttest.Null(0), Options{Name: "r0", RunDir: "/x"}},
		"odd size":      {exporttest.Null(1000), Options{Name: "r0", RunDir: "/x"}},
		"queue":         {good, Options{Name: "r0", RunDir: "/x", Queue: -1}},
	} {
		if _, err := Attach(context.Background(), FUSE, c.b, c.o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := Options{Name: "r0", RunDir: t.TempDir()}
	if _, err := Attach(context.Background(), Ublk, good, o); !errors.Is(err, ErrNoUblk) {
		t.Errorf("ublk: %v", err)
	}
	if _, err := Attach(context.Background(), "iscsi", good, o); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("unknown kind: %v", err)
	}
}

func TestMark(t *testing.T) {
	if mark("/run/a", "r0") == mark("/run/b", "r0") || mark("/run/a", "r0") != mark("/run/a", "r0") {
		t.Error("the mark must tell run directories apart, and nothing else")
	}
	if n := len(mark("/run/a", strings.Repeat("r", 64))); n > 63 {
		t.Errorf("mark of %d bytes", n)
	}
}

func TestLinkRules(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "deep/er/drbd0")
	const dev = "/dev/loop-test-none"
	check := func(want error) {
		t.Helper()
		if err := makeLink(link, dev); !errors.Is(err, want) {
			t.Fatalf("makeLink: %v, want %v", err, want)
		}
	}
	check(nil) // nothing there, not even the directories
	check(nil) // our own, and it leads nowhere
	if got, _ := os.Readlink(link); got != dev {
		t.Fatalf("link leads to %s", got)
	}
	// Somebody else's link is not removed.
	if err := removeLink(link, "/dev/loop999"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Fatal("link of another device was removed")
	}
	if err := removeLink(link, dev); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); err == nil {
		t.Fatal("our link stays")
	}
	for name, make := range map[string]func() error{
		"file":                 func() error { return os.WriteFile(link, nil, 0o600) },
		"directory":            func() error { return os.Mkdir(link, 0o700) },
		"link to another file": func() error { return os.Symlink("/etc/passwd", link) },
		"link to another dev":  func() error { return os.Symlink("/dev/null", link) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if err := makeLink(link, dev); !errors.Is(err, ErrLinkTaken) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(link); err != nil {
			t.Errorf("%s was replaced", name)
		}
	}
	if left := glob(filepath.Join(dir, "deep/er/*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLockTellsTheLivingFromTheDead(t *testing.T) {
	path := lockPath(t.TempDir(), "r0")
	l, err := takeLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write(record{Kind: FUSE, Device: "/dev/loop7", Link: "/dev/drbd0"}); err != nil {
		t.Fatal(err)
	}
	if err := l.write(record{Kind: NBD}); err != nil {
		t.Fatal(err)
	}
	if r := l.read(); r.Kind != NBD || r.Device != "" {
		t.Errorf("record %+v", r)
	}
	if _, err := takeLock(path); !errors.Is(err, ErrAlive) {
		t.Errorf("second lock: %v", err)
	}
	if err := Sweep(context.Background(), filepath.Dir(path)); err != nil {
		t.Errorf("sweep beside a living owner: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the sweep took a living owner's lock away")
	}
	if err := l.release(); err != nil {
		t.Fatal(err)
	}
	if l, err = takeLock(path); err != nil {
		t.Fatal(err)
	}
	if err := l.release(); err != nil {
		t.Fatal(err)
	}
}

// The file system alone, without a kernel.
func TestFileFS(t *testing.T) {
	m := exporttest.NewMemory(1 << 20)
	var fail error
	m.Fail = func(string, int64, int64) error { return fail }
	o := Options{Name: "r0", RunDir: "/x"}
	if err := o.check(m); err != nil {
		t.Fatal(err)
	}
	f := newFileFS(m, "r0", o.Logger)
	write := func(node, off uint64, n int) fuse.Status {
		_, s := f.Write(nil, &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: node}, Offset: off}, make([]byte, n))
		return s
	}
	read := func(off uint64, n int) fuse.Status {
		_, s := f.Read(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: fileNode}, Offset: off, Size: uint32(n)}, make([]byte, n))
		return s
	}
	falloc := func(mode uint32, off, n uint64) fuse.Status {
		return f.Fallocate(nil, &fuse.FallocateIn{InHeader: fuse.InHeader{NodeId: fileNode}, Mode: mode, Offset: off, Length: n})
	}
	fsync := func() fuse.Status {
		return f.Fsync(nil, &fuse.FsyncIn{InHeader: fuse.InHeader{NodeId: fileNode}})
	}
	for i, got := range []fuse.Status{write(fileNode, 0, 512), read(512, 4096), falloc(3, 0, 4096), falloc(0x11, 0, 4096), fsync()} {
		if got != fuse.OK {
			t.Errorf("good call %d: %v", i, got)
		}
	}
	if c := &m.Counts; c.Discards.Load() != 0 || c.Zeroes.Load() != 2 || c.Unmaps.Load() != 1 {
		t.Error("a hole must become zeroes that may be unmapped, never a discard")
	}
	for i, got := range []fuse.Status{
		write(rootNode, 0, 512), write(fileNode, 1, 512), write(fileNode, 0, 100), write(fileNode, 1<<20, 512),
		write(fileNode, 1<<63, 512), write(fileNode, 1<<64-512, 1024), read(1<<20-512, 1024), falloc(3, 512, 1<<64-512),
	} {
		if got != fuse.EINVAL {
			t.Errorf("bad call %d: %v", i, got)
		}
	}
	if got := falloc(0, 0, 512); got != fuse.Status(syscall.EOPNOTSUPP) {
		t.Errorf("fallocate mode 0: %v", got)
	}
	for _, c := range []struct {
		err  error
		want fuse.Status
	}{
		{errors.New("x"), fuse.EIO},
		{fmt.Errorf("w: %w", syscall.ENOSPC), fuse.Status(syscall.ENOSPC)},
		{syscall.ENOSYS, fuse.EIO}, // or the kernel would stop flushing
		{syscall.Errno(0), fuse.EIO},
	} {
		fail = c.err
		for _, got := range []fuse.Status{write(fileNode, 0, 512), read(0, 512), falloc(3, 0, 512), fsync()} {
			if got != c.want {
				t.Errorf("%v became %v", c.err, got)
			}
		}
	}
}

func TestFileFSIsSealed(t *testing.T) {
	f := newFileFS(exporttest.Null(4096), "r0", nil)
	in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: fileNode}}
	var out fuse.OpenOut
	if s := f.Open(nil, in, &out); s != fuse.OK || out.OpenFlags != fuse.FOPEN_DIRECT_IO {
		t.Fatal(s, out)
	}
	f.sealed.Store(true)
	if s := f.Open(nil, in, &out); s != fuse.EBUSY {
		t.Fatal(s)
	}
}
