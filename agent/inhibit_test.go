package agent

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// fakeSystemd is a folder with a systemd-inhibit that keeps a log: "take ARGUMENTS", "end".
type fakeSystemd struct {
	dir  string
	told []string
}

func (f *fakeSystemd) inhibitor() *inhibitor {
	return &inhibitor{exec: &lvmops.Exec{Path: []string{f.dir, "/usr/bin", "/bin"}}, booted: f.dir,
		tell: func(l proto.Level, text string) { f.told = append(f.told, string(l)+" "+text) }}
}

func newFakeSystemd(t *testing.T) *fakeSystemd {
	f := &fakeSystemd{dir: t.TempDir()}
	script := fmt.Sprintf("#!/bin/sh\n[ -e %[1]s/down ] && { echo no bus >&2; exit 1; }\necho \"take $*\" >>%[1]s/log\n"+
		"while [ \"${1#--}\" != \"$1\" ]; do shift; done\n\"$@\"\necho end >>%[1]s/log\n", f.dir)
	if err := os.WriteFile(filepath.Join(f.dir, "systemd-inhibit"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

// held is how many inhibitors are taken and not ended, and the newest one's arguments.
func (f *fakeSystemd) held(t *testing.T) (n int, newest string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if args, ok := strings.CutPrefix(strings.TrimSpace(line), "take "); ok {
			n, newest = n+1, args
		} else {
			n--
		}
	}
	return n, newest
}

// TestInhibitorFollows walks through reasons at random: there is one inhibitor with the newest reason, or none.
func TestInhibitorFollows(t *testing.T) {
	f := newFakeSystemd(t)
	i := f.inhibitor()
	reasons := []string{"", "r0: this node is Primary", "r0: a resync is running", "r0: operation 1 runs"}
	for range 40 {
		why := reasons[rand.IntN(len(reasons))]
		i.follow(why)
		n, newest := f.held(t)
		if want := min(len(why), 1); n != want || want == 1 && newest != "--what=shutdown --mode=block --who=santui --why="+why+" cat" {
			t.Fatalf("after %q: %d held, the newest %q", why, n, newest)
		}
	}
	i.follow("")
	if n, _ := f.held(t); n != 0 || len(f.told) != 0 {
		t.Errorf("%d held at the end; said %q", n, f.told)
	}
}

// TestInhibitorFails: no systemd, and a systemd that refuses, are each said once and stop nothing.
func TestInhibitorFails(t *testing.T) {
	f := newFakeSystemd(t)
	i := f.inhibitor()
	i.booted = filepath.Join(f.dir, "none")
	i.follow("a")
	i.follow("b")
	if len(f.told) != 1 || !strings.Contains(f.told[0], "info there is no systemd here") {
		t.Errorf("%q", f.told)
	}
	i.booted = f.dir
	down := filepath.Join(f.dir, "down")
	if err := os.WriteFile(down, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.told = nil
	i.follow("c")
	i.why = "" // as after inhibitRetry
	i.follow("c")
	if len(f.told) != 1 || !strings.Contains(f.told[0], "no bus") {
		t.Errorf("%q", f.told)
	}
	if err := os.Remove(down); err != nil {
		t.Fatal(err)
	}
	i.follow("d")
	if n, _ := f.held(t); n != 1 {
		t.Errorf("%d held", n)
	}
	i.follow("")
}

// TestInhibitorDiesWithAgent kills a process that holds one.
func TestInhibitorDiesWithAgent(t *testing.T) {
	const name = "SANTUI_TEST_INHIBIT"
	if dir := os.Getenv(name); dir != "" {
		(&fakeSystemd{dir: dir}).inhibitor().follow("r0: this node is Primary")
		fmt.Println("held")
		time.Sleep(time.Minute)
		return
	}
	f := newFakeSystemd(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestInhibitorDiesWithAgent$")
	cmd.Env = append(os.Environ(), name+"="+f.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if n, _ := f.held(t); err != nil || line != "held\n" || n != 1 {
		t.Errorf("%q, %v, %d held", line, err, n)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, _ := f.held(t); n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the inhibitor outlives its agent")
		}
	}
}

// TestUnsafe: the inhibitor says what the light says.
func TestUnsafe(t *testing.T) {
	on, off := proto.Light{On: true, Why: "Secondary"}, proto.Light{Why: "this node is Primary"}
	for _, tt := range []struct {
		lights []proto.Light
		want   string
	}{
		{nil, ""},
		{[]proto.Light{on}, ""},
		{[]proto.Light{on, off}, "r1: this node is Primary"},
		{[]proto.Light{{}}, ""}, // nothing is known yet
	} {
		var s proto.Snapshot
		for i, l := range tt.lights {
			s.Resources = append(s.Resources, proto.Resource{Name: fmt.Sprint("r", i), Lights: proto.Lights{SafePowerOff: l}})
		}
		if got := unsafe(s); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.lights, got, tt.want)
		}
	}
}
