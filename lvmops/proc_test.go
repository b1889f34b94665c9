package lvmops

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMappings(t *testing.T) {
	t.Parallel()
	maps := "55d0c0000000-55d0c0001000 r-xp 00001000 fd:01 1234                       /usr/bin/cat\n" +
		"7f0000000000-7f0000001000 r--p 00000000 2b:00 12                         /mnt/two  spaces/a\\012b (deleted)\n" +
		"7f0000002000-7f0000003000 r--p 00000000 2b:00 12                         /mnt/two  spaces/a\\012b (deleted)\n" +
		"7f0000004000-7f0000005000 rw-p 00000000 00:00 0 \n" +
		"7f0000006000-7f0000007000 rw-s 00000000 00:2f 257                        /mnt/btrfs/x\n" +
		"7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0                          [stack]\nnonsense\n1-2 r 0\n"
	nbd := devno{43, 0}
	got := mappings([]byte(maps), map[devno]devno{nbd: nbd, {0, 0x2f}: nbd})
	want := []mapping{{nbd, "/mnt/two  spaces/a\nb (deleted)"}, {nbd, "/mnt/two  spaces/a\nb (deleted)"}, {nbd, "/mnt/btrfs/x"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := mappings([]byte(maps), nil); got != nil {
		t.Errorf("of no device: %+v", got)
	}
}

func TestReadsOfTheKernelsTrees(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"10", "9", "x", "1x", "77777777777", "self"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", 5000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := entries(dir); !slices.Equal(got, []string{"10", "1x", "77777777777", "9", "self", "x"}) {
		t.Errorf("entries: %q", got)
	}
	got := numbered([]int{1}, dir)
	if slices.Sort(got); !slices.Equal(got, []int{1, 9, 10}) {
		t.Errorf("numbered: %v", got)
	}
	if got := numbered(nil, dir+"/gone"); got != nil {
		t.Errorf("of nothing: %v", got)
	}
	for limit, ok := range map[int]bool{4999: false, 5000: true, 1 << 20: true} {
		if b, err := readBounded(filepath.Join(dir, "x"), limit); (err == nil) != ok || ok && len(b) != 5000 {
			t.Errorf("limit %d: %d bytes, %v", limit, len(b), err)
		}
	}
	if _, err := readBounded(filepath.Join(dir, "gone"), 1); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := &Ops{opt: Options{Proc: "/proc"}}
	if dir, exe, ok := o.program(os.Getpid()); !ok || exe != self || !strings.HasPrefix(dir, "/proc/") {
		t.Errorf("this program: %q %q %v", dir, exe, ok)
	}
	if got, err := o.Running([]string{"no-such-program"}); err != nil || len(got) > 0 {
		t.Errorf("running: %q, %v", got, err)
	}
	if list, err := (&Ops{opt: Options{Proc: dir + "/gone"}}).processes(); err == nil {
		t.Errorf("processes of a node without /proc: %v", list)
	}
	if o, err := os.ReadFile("/proc/2/comm"); err == nil && string(o) == "kthreadd\n" {
		if !kernelThread("/proc/2") || kernelThread("/proc/self") {
			t.Errorf("kernel threads: %v %v", kernelThread("/proc/2"), kernelThread("/proc/self"))
		}
	}
	if dir, exe, ok := o.program(2); ok && exe == "" { // a kernel thread, except in a container
		t.Errorf("process 2: %q %q %v", dir, exe, ok)
	}
}

// TestEndingProcess: a process that ends has no program any more before it closes its files.
func TestEndingProcess(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	dir := filepath.Join(proc, "4711")
	if err := os.MkdirAll(filepath.Join(dir, "task/4711"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := &Ops{opt: Options{Proc: proc}}
	for flags, want := range map[string]bool{"4194308": true, "2129984": false} { // PF_EXITING; PF_KTHREAD
		stat := "4711 (a) b) D 1 4711 4711 0 -1 " + flags + " 0 0\n"
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, exe, ok := o.program(4711); ok != want || ok && (got != dir || exe != "") {
			t.Errorf("flags %s: %q %q %v", flags, got, exe, ok)
		}
	}
}
