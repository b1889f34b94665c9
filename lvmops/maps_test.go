package lvmops

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMapsThatHang: a process whose maps can not be read holds up neither the look at the others nor, for long, the look; it is
// named, and nobody waits for it a second time in vain.
func TestMapsThatHang(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	nbd := devno{43, 0}
	tasks := make([]task, 5)
	for i := range tasks {
		dir := filepath.Join(proc, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		tasks[i] = task{process: process{pid: i}, dir: dir}
		if i == 1 || i == 3 { // opening a fifo waits for somebody who writes
			if err := unix.Mkfifo(dir+"/maps", 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(dir+"/maps", []byte("1-2 r--p 0 2b:00 12 /mnt/test/a\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, err := New(Options{Runner: NewExec(), Proc: proc})
	if err != nil {
		t.Fatal(err)
	}
	look := func(ctx context.Context) (*scan, []task, error) {
		f := &family{o: o, root: nbd, devices: map[devno]*device{nbd: {no: nbd, shown: "/dev/drbd0"}}}
		s := &scan{f: f, ids: map[int]mount{7: {}}, mapped: map[devno]devno{nbd: nbd}}
		tasks := append([]task(nil), tasks...)
		err := s.mapsOf(ctx, s.readMaps(tasks), tasks)
		return s, tasks, err
	}
	want := func(s *scan, tasks []task, hung bool) {
		t.Helper()
		notes := strings.Join(s.notes, "; ")
		for i := range tasks {
			bad := hung && (i == 1 || i == 3)
			held := len(tasks[i].held) == 1 && tasks[i].held[0].How == "mmap" && tasks[i].held[0].Path == "/mnt/test/a"
			if held == bad || tasks[i].vague != bad || strings.Contains(notes, fmt.Sprintf("process %d could not", i)) != bad {
				t.Errorf("process %d: %+v; notes %q", i, tasks[i], notes)
			}
		}
	}
	s, seen, err := look(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want(s, seen, true)
	began := time.Now()
	s, seen, err = look(context.Background())
	if took := time.Since(began); err != nil || took > 2*lookLimit {
		t.Errorf("both hang still: %v after %v", err, took)
	}
	want(s, seen, true)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := look(ctx); err == nil {
		t.Error("a look that is over waits all the same")
	}
	o.mu.Lock()
	if len(o.stuck) != 2 {
		t.Errorf("%d looks hang, not 2", len(o.stuck))
	}
	o.mu.Unlock()
	for _, i := range []int{1, 3} { // they answer at last, and are looked at again
		f, err := os.OpenFile(tasks[i].dir+"/maps", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Name(), []byte("1-2 r--p 0 2b:00 12 /mnt/test/a\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s, seen, err = look(context.Background()); err != nil {
		t.Fatal(err)
	}
	want(s, seen, false)
}
