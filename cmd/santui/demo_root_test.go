//go:build root

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/santui/cmd/internal/demo"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// demoBase makes a directory of the test's own on a real disk for demos, and demands at the end that it is empty and that
// nothing on this machine refers to it.
func demoBase(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "st-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, what := range leftovers(dir) {
			t.Errorf("left behind: %s", what)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// leftovers lists what still refers to demos below base: files, mounts in any namespace, loop devices, processes, and
// links in /dev that lead nowhere.
func leftovers(base string) []string {
	var out []string
	files, _ := filepath.Glob(base + "/*")
	out = append(out, files...)
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range loops {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(base+"/")) {
			out = append(out, name+" on "+strings.TrimSpace(string(b)))
		}
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p + "/cmdline"); err == nil && bytes.Contains(b, []byte(base+"/")) {
			out = append(out, p+" "+strings.ReplaceAll(string(b), "\x00", " "))
		}
		if b, err := os.ReadFile(p + "/mountinfo"); err == nil && bytes.Contains(b, []byte(base+"/")) {
			out = append(out, "a mount in the namespace of "+p)
		}
	}
	devices, _ := filepath.Glob("/dev/drbd_*")
	for _, link := range devices {
		to, err := os.Readlink(link)
		b, errFile := os.ReadFile("/sys/block/" + filepath.Base(to) + "/loop/backing_file")
		if err == nil && (errFile != nil || filepath.Dir(strings.TrimSpace(string(b))) == "/") {
			out = append(out, link+" leads nowhere: "+to+" "+strings.TrimSpace(string(b)))
		}
	}
	return out
}

// links lists the links to replicated devices in /dev.
func links(t testing.TB) map[string]bool {
	t.Helper()
	names, err := filepath.Glob("/dev/drbd_*")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// script is a running `santui demo --script`.
type script struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	pipe   io.Closer
	stderr *bytes.Buffer
	seen   strings.Builder
}

func startScript(t testing.TB, base string, args ...string) *script {
	t.Helper()
	s := &script{cmd: exec.CommandContext(t.Context(), filepath.Join(bin, "santui"), append([]string{"demo", "--script"}, args...)...), stderr: new(bytes.Buffer)}
	s.cmd.Env = append(os.Environ(), "SANTUI_DEMO_DIR="+base)
	s.cmd.Stderr = s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdout, s.pipe = bufio.NewReader(out), out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// until reads output up to a line that contains mark.
func (s *script) until(t testing.TB, mark string) {
	t.Helper()
	for {
		line, err := s.stdout.ReadString('\n')
		s.seen.WriteString(line)
		if strings.Contains(line, mark) {
			return
		}
		if err != nil {
			t.Fatalf("no %q before %v:\n%s%s", mark, err, s.seen.String(), s.stderr)
		}
	}
}

// end reads the rest and returns the exit code.
func (s *script) end(t testing.TB) int {
	t.Helper()
	rest, _ := io.ReadAll(s.stdout)
	s.seen.Write(rest)
	_ = s.cmd.Wait() // the code tells
	if strings.Contains(s.stderr.String(), "goroutine ") {
		t.Errorf("it panicked: %s", s.stderr)
	}
	return s.cmd.ProcessState.ExitCode()
}

func TestDemoScript(t *testing.T) {
	base, before := demoBase(t), links(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "santui"), "demo", "--script", "--size", "64M", "--json")
	cmd.Env = append(os.Environ(), "SANTUI_DEMO_DIR="+base)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &errs, &out)
	}
	var r demo.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	layout, err := meta.LayoutFor(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if r.Schema != proto.Schema || !r.OK || r.Err != "" || r.Size != 64<<20 || r.Compared != layout.UsableSize || r.Verified != 24<<20 || r.Seconds <= 0 {
		t.Errorf("%+v", r)
	}
	if len(r.Phases) != 10 || len(r.Ops) != 2 {
		t.Fatalf("%d phases, %d operations", len(r.Phases), len(r.Ops))
	}
	for i, to := range []string{"weasel", "otter"} {
		o := r.Ops[i]
		if o.State != proto.OpDone || o.Plan.To != to || o.Runner != to || o.Outage <= 0 || o.Outage > 30 || len(o.Steps) != 5 {
			t.Errorf("operation %d: %+v", i, o)
		}
		for _, s := range o.Steps {
			if s.Result.State != proto.StepDone {
				t.Errorf("operation %d, step %+v", i, s)
			}
		}
	}
	after := links(t)
	for l := range after {
		if !before[l] {
			t.Errorf("left behind: %s", l)
		}
	}
}

// TestDemoSignals ends demos at several points. Everything must be gone in bounded time.
func TestDemoSignals(t *testing.T) {
	for _, tt := range []struct {
		mark string
		sig  syscall.Signal
		args []string
	}{
		{"write metadata", syscall.SIGTERM, nil},
		{"start the agent", syscall.SIGINT, nil},
		{"first full sync", syscall.SIGTERM, nil},
		{"file system on", syscall.SIGINT, []string{"--rate", "200M"}},
		{"fill on otter", syscall.SIGHUP, []string{"--rate", "200M"}},
		{"failover to weasel", syscall.SIGTERM, []string{"--rate", "200M"}},
		{"unmount", syscall.SIGINT, []string{"--rate", "200M"}},
		{"failback to otter", syscall.SIGTERM, []string{"--rate", "200M"}},
	} {
		t.Run(fmt.Sprintf("%s/%v", tt.mark, tt.sig), func(t *testing.T) {
			s := startScript(t, demoBase(t), append([]string{"--size", "64M"}, tt.args...)...)
			s.until(t, tt.mark)
			begin := time.Now()
			if err := s.cmd.Process.Signal(tt.sig); err != nil {
				t.Fatal(err)
			}
			_ = s.cmd.Process.Signal(tt.sig) // impatience changes nothing
			code := s.end(t)
			t.Logf("gone after %v", time.Since(begin).Round(time.Millisecond))
			if code != 128+int(tt.sig) || time.Since(begin) > 20*time.Second {
				t.Errorf("exit %d after %v\n%s%s", code, time.Since(begin), s.seen.String(), s.stderr)
			}
			if strings.Contains(s.stderr.String(), "did not stop") {
				t.Errorf("%s", s.stderr)
			}
		})
	}
}

// TestDemoWithoutReader closes the output of a running demo. It carries on, and takes itself down.
func TestDemoWithoutReader(t *testing.T) {
	s := startScript(t, demoBase(t), "--size", "32M", "--rate", "200M")
	s.until(t, "first full sync")
	if err := s.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, s.stderr)
	}
}

// TestDemoKilled kills a demo outright. Its agents end by themselves; the files it leaves are taken away by the next demo.
func TestDemoKilled(t *testing.T) {
	base := demoBase(t)
	s := startScript(t, base, "--size", "64M", "--rate", "200M")
	s.until(t, "fill on otter")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.end(t)
	begin := time.Now()
	poll(t, time.Minute, "the agents are gone", func() (bool, string) {
		left := leftovers(base)
		for _, what := range left {
			if strings.HasPrefix(what, "/proc/") || strings.HasPrefix(what, "a mount") {
				return false, strings.Join(left, "\n")
			}
		}
		return true, ""
	})
	t.Logf("agents gone after %v, left: %v", time.Since(begin).Round(time.Millisecond), leftovers(base))
	t.Setenv("SANTUI_DEMO_DIR", base)
	poll(t, 20*time.Second, "the next demo takes away what is left", func() (bool, string) { // once the kernel let go of the agents' files
		err := demo.Sweep(t.Logf)
		left := leftovers(base)
		return err == nil && len(left) == 0, fmt.Sprint(err, left)
	})
}

// poll waits until ok says yes; what it says instead is shown when the time is up.
func poll(t testing.TB, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		yes, now := ok()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s. Now:\n%s", limit, what, now)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestDemoWaitsForItsUser: a process works in the file system of a demo that goes. It is named, once, and when it ends the demo is
// gone without a trace.
func TestDemoWaitsForItsUser(t *testing.T) {
	t.Setenv("SANTUI_DEMO_DIR", demoBase(t))
	var mu sync.Mutex
	var said []string
	p, err := demo.Start(t.Context(), demo.Options{Size: 32 << 20, Rate: "1G", Agent: filepath.Join(bin, "santui-agent"), Say: func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, fmt.Sprintf(format, args...))
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.StartSync(t.Context()), p.MakeFS(t.Context())); err != nil {
		t.Error(err)
	}
	pid, stop := (&rig{Pair: p}).busy(t, "otter")
	named := func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		all := strings.Join(said, "\n")
		return strings.Count(all, fmt.Sprintf("pid %d", pid)) == 1 && strings.Contains(all, "sleep"), all
	}
	var gone error
	closed := make(chan struct{})
	go func() { gone = p.Close(); close(closed) }()
	defer func() { stop(); <-closed }()
	poll(t, 20*time.Second, "the process is named", named)
	select {
	case <-closed:
		t.Errorf("it is gone although the process works in it: %v", gone)
	case <-time.After(time.Second):
	}
	once, all := named()
	if t.Logf("%s", all); !once {
		t.Errorf("not once:\n%s", all)
	}
	stop()
	select {
	case <-closed:
		if gone != nil {
			t.Error(gone)
		}
	case <-time.After(20 * time.Second):
		t.Error("the process has ended and the demo is not gone")
	}
}
