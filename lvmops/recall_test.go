package lvmops_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/lvmops/lvmtest"
)

// TestAround: who asks again and again what lvm sees gets the answer without lvm while nothing has changed that lvm goes by, and
// lvm's own as soon as something has.
func TestAround(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	m, _, _ := built(t)
	if err := m.AddDevice("sda", 8, 0, ""); err != nil {
		t.Fatal(err)
	}
	opt := m.Options("otter")
	opt.Etc = t.TempDir()
	o, err := lvmops.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	conf := func(text string) error {
		if err := os.MkdirAll(filepath.Join(opt.Etc, "lvm/devices"), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(opt.Etc, text), []byte(text), 0o600)
	}
	runs := func() (n int) {
		for _, c := range m.Calls() {
			if strings.HasPrefix(c, "pvs ") {
				n++
			}
		}
		return n
	}
	ask := func(what string, asked bool, others ...string) {
		t.Helper()
		before := runs()
		v, lv, err := o.Around(ctx, "/dev/sda", "/dev/nbd0")
		if err != nil || lv != nil || !v.Installed || !v.Device || len(v.Backing) == 0 || !slices.Equal(v.Others, others) {
			t.Errorf("%s: %+v, %v, %v", what, v, lv, err)
		}
		if (runs() > before) != asked {
			t.Errorf("%s: lvm was asked %d times", what, runs()-before)
		}
	}
	settled := func(others ...string) {
		t.Helper()
		_, _, err := o.Around(ctx, "/dev/sda", "/dev/nbd0") // now it is known which devices lvm reads
		if err != nil {
			t.Error(err)
		}
		ask("nothing has changed", false, others...)
	}
	ask("at first", true)
	settled()
	for _, tt := range []struct {
		name   string
		do     func() error
		others []string
	}{
		{"another disk", func() error { return m.AddDevice("sdb", 8, 16, "") }, nil},
		{"a group on it", func() error {
			if _, err := o.PVCreate(ctx, "/dev/sdb"); err != nil {
				return err
			}
			_, err := o.VGCreate(ctx, "local", "/dev/sdb")
			return err
		}, []string{"local"}},
		{"lvm.conf", func() error { return conf("lvm/lvm.conf") }, []string{"local"}},
		{"lvmlocal.conf", func() error { return conf("lvm/lvmlocal.conf") }, []string{"local"}},
		{"a device event", func() error { return m.DeviceEvent() }, []string{"local"}},
	} {
		if err := tt.do(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		ask(tt.name, true, tt.others...)
		settled(tt.others...)
	}
	if err := os.Truncate(filepath.Join(opt.Dev, "sdb"), 0); err != nil { // it can not be read any more
		t.Fatal(err)
	}
	ask("a disk that is empty now", true, "local")
	m.SetFailure("pvs", lvmtest.Failure{Times: -1, Exit: 5})
	if err := m.DeviceEvent(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Around(ctx, "/dev/sda", "/dev/nbd0"); err == nil {
		t.Error("lvm failed, and what it said before was shown")
	}
}

// TestSettledReport: what lvm reports of plain volumes is asked for once, and again for each change of the group; with a volume
// that changes by itself it is asked for again.
func TestSettledReport(t *testing.T) {
	synctest.Test(t, settledReport)
}

func settledReport(t *testing.T) {
	ctx := context.Background()
	m, o, _ := built(t)
	look := func(whole bool) int {
		t.Helper()
		before := m.Reports()
		var err error
		if whole {
			_, err = o.Stack(ctx, "/dev/drbd0", "/dev/nbd0")
		} else {
			_, _, err = o.Watch(ctx, "/dev/drbd0", "/dev/nbd0", 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.Reports() - before
	}
	later := func() { time.Sleep(time.Minute) }
	look(false)
	for _, tt := range []struct {
		name  string
		do    func()
		whole bool
		want  int
	}{
		{"again", func() {}, false, 0},
		{"some time later", later, false, 0},
		{"by an operation", later, true, 1},
		{"a new volume", func() {
			_, err := m.Run(ctx, lvmops.Cmd{Argv: []string{"lvcreate", "--name", "new", "--devices", "/dev/drbd0", "storage"}})
			if err != nil {
				t.Fatal(err)
			}
		}, false, 1},
		{"a pool among them", func() { m.SetAttr("storage", "new", "twi-aotz--"); o.Forget() }, false, 1},
		{"again, with a pool", func() {}, false, 0},
		{"some time later, with a pool", later, false, 1},
	} {
		tt.do()
		if n := look(tt.whole); n != tt.want {
			t.Errorf("%s: lvm was asked %d times, want %d", tt.name, n, tt.want)
		}
	}
}
