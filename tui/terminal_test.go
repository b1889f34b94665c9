//go:build unix

package tui

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "santui-tui-test") // TestMain removes it
	if err != nil {
		return "", err
	}
	leftover = dir
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./internal/shots", "./testdata/panics").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return dir, nil
})

// terminalRun is a program on a terminal that never answers a question.
type terminalRun struct {
	cmd *exec.Cmd
	pty *os.File
	mu  sync.Mutex // protects out
	out bytes.Buffer
	end chan struct{}
}

func start(t *testing.T, program string, args ...string) *terminalRun {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	r := &terminalRun{cmd: exec.Command(filepath.Join(dir, program), args...), end: make(chan struct{})}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CI=") && !strings.HasPrefix(e, "NO_COLOR=") && !strings.HasPrefix(e, "TERM=") && !strings.HasPrefix(e, "TMUX=") {
			r.cmd.Env = append(r.cmd.Env, e)
		}
	}
	r.cmd.Env = append(r.cmd.Env, "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	r.pty, err = pty.StartWithSize(r.cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.end)
		b := make([]byte, 4096)
		for {
			n, err := r.pty.Read(b)
			r.mu.Lock()
			r.out.Write(b[:n])
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.pty.Close()
		<-r.end
	})
	return r
}

func (r *terminalRun) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func (r *terminalRun) await(t *testing.T, what string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(r.text(), what) {
			return
		}
	}
	t.Fatalf("%q never came: %q", what, r.text())
}

// wait returns the exit code.
func (r *terminalRun) wait(t *testing.T) int {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); _ = r.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = r.cmd.Process.Kill()
		<-done
		t.Fatal("it does not end")
	}
	select {
	case <-r.end:
	case <-time.After(time.Second): // another process may hold the terminal; what was written is there
	}
	return r.cmd.ProcessState.ExitCode()
}

// restored says whether the alternate screen was left and the cursor shown again, after everything else.
func (r *terminalRun) restored(t *testing.T) {
	t.Helper()
	s := r.text()
	if in, out := strings.LastIndex(s, "\x1b[?1049h"), strings.LastIndex(s, "\x1b[?1049l"); in < 0 || out < in || !strings.Contains(s[in:], "\x1b[?25h") {
		t.Errorf("the terminal was not given back: %q", s)
	}
}

func TestHelpIsQuickOnASilentTerminal(t *testing.T) {
	best := time.Hour
	for range 20 {
		began := time.Now()
		r := start(t, "shots", "--help")
		if code := r.wait(t); code != 0 {
			t.Fatalf("exit %d: %s", code, r.text())
		}
		best = min(best, time.Since(began))
		if strings.ContainsRune(r.text(), '\x1b') {
			t.Fatalf("it asks the terminal: %q", r.text())
		}
		if best <= 500*time.Millisecond { // the question alone would take 5 s; a busy machine gets more tries
			return
		}
	}
	t.Errorf("--help took %v at best", best)
}

func TestSignalsGiveTheTerminalBack(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGINT: 130} {
		r := start(t, "shots", "play")
		r.await(t, "PRIMARY")
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := r.wait(t); code != want {
			t.Errorf("%v: exit %d", sig, code)
		}
		r.restored(t)
	}
}

func TestPanicsGiveTheTerminalBack(t *testing.T) {
	t.Parallel()
	for where, key := range map[string]string{"goroutine": "", "command": "c", "update": "R"} {
		r := start(t, "panics", where)
		if key != "" {
			r.await(t, "otter")
			if _, err := r.pty.WriteString(key); err != nil {
				t.Fatal(err)
			}
		}
		if code := r.wait(t); code != 1 {
			t.Errorf("%s: exit %d", where, code)
		}
		r.restored(t)
		if s := r.text(); !strings.Contains(s, "boom in") || !strings.Contains(s[strings.LastIndex(s, "\x1b[?1049l"):], "ended by:") {
			t.Errorf("%s: the reason is not told after the screen is back: %q", where, s)
		}
	}
}

func TestIdleWritesNothing(t *testing.T) {
	t.Parallel()
	r := start(t, "shots", "play", "--still")
	r.await(t, "ready: f moves")
	time.Sleep(700 * time.Millisecond) // what belongs to the first frames
	before := len(r.text())
	time.Sleep(2500 * time.Millisecond)
	if n := len(r.text()) - before; n != 0 {
		t.Errorf("%d bytes while nothing happened: %q", n, r.text()[before:])
	}
	if _, err := r.pty.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	r.restored(t)
}

// TestASyncIsCheapOverSSH holds the budget for a running sync at 80x24: 700 bytes a second.
func TestASyncIsCheapOverSSH(t *testing.T) {
	t.Parallel()
	r := start(t, "shots", "play")
	r.await(t, "full sync")
	time.Sleep(700 * time.Millisecond)
	before, began := len(r.text()), time.Now()
	time.Sleep(4 * time.Second)
	if rate := float64(len(r.text())-before) / time.Since(began).Seconds(); rate > 700 || rate == 0 {
		t.Errorf("%.0f bytes a second", rate)
	} else {
		t.Logf("%.0f bytes a second", rate)
	}
}

func TestNoTerminalIsAUsageError(t *testing.T) {
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "shots"), "play").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs a terminal") {
		t.Errorf("%v: %s", err, out)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("%v", err)
	}
}
