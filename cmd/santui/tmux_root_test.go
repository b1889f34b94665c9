//go:build root

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// screen is a window of a tmux server of the test's own, with a shell in it.
type screen struct {
	socket, tty string
}

func newScreen(t *testing.T, width, height int) *screen {
	t.Helper()
	s := &screen{socket: filepath.Join(t.TempDir(), "tmux")}
	t.Cleanup(func() { _ = s.command("kill-server").Run() })
	if out, err := s.command("new-session", "-d", "-s", "s", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), "env", "PS1=$ ", "sh").CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	s.tty = strings.TrimSpace(s.tmux(t, "display-message", "-p", "-t", "s", "#{pane_tty}"))
	return s
}

func (s *screen) command(args ...string) *exec.Cmd {
	cmd := exec.Command("tmux", append([]string{"-S", s.socket, "-f", "/dev/null"}, args...)...) //nolint:noctx // also used while cleaning up
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CI=") && !strings.HasPrefix(e, "TMUX") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	return cmd
}

func (s *screen) tmux(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (s *screen) keys(t *testing.T, keys ...string) {
	t.Helper()
	s.tmux(t, append([]string{"send-keys", "-t", "s"}, keys...)...)
}

// see waits until the screen shows all the words.
func (s *screen) see(t *testing.T, limit time.Duration, words ...string) string {
	t.Helper()
	var text string
	poll(t, limit, fmt.Sprintf("the screen shows %q", words), func() (bool, string) {
		text = s.tmux(t, "capture-pane", "-p", "-t", "s")
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false, text
			}
		}
		return true, ""
	})
	return text
}

// restored demands a terminal that echoes and edits lines, out of the alternate screen.
func (s *screen) restored(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "stty", "-a", "-F", s.tty).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " icanon") || !strings.Contains(string(out), " echo ") {
		t.Errorf("the terminal is not as it was: %v\n%s", err, out)
	}
	if alt := strings.TrimSpace(s.tmux(t, "display-message", "-p", "-t", "s", "#{alternate_on} #{cursor_flag}")); alt != "0 1" {
		t.Errorf("alternate screen and cursor are %q", alt)
	}
}

// child is the program that the shell of the screen runs.
func (s *screen) child(t *testing.T, name string) int {
	t.Helper()
	shell := strings.TrimSpace(s.tmux(t, "display-message", "-p", "-t", "s", "#{pane_pid}"))
	out, err := exec.CommandContext(t.Context(), "pgrep", "-P", shell, "-x", name).Output()
	pid, perr := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || perr != nil {
		t.Fatalf("no %s below the shell %s: %v %v", name, shell, err, perr)
	}
	return pid
}

// TestCockpit moves the service by keys, in the demo's own cockpit; larger windows are in TestWizards.
func TestCockpit(t *testing.T) {
	base := demoBase(t)
	s := newScreen(t, 80, 24)
	s.keys(t, fmt.Sprintf("SANTUI_DEMO_DIR=%s %s/santui demo --size 64M --rate 12M; echo code=$?", base, bin), "Enter")
	text := s.see(t, 30*time.Second, "PRIMARY  otter", "SECONDARY  weasel", "SyncSource", "%")
	t.Logf("\n%s", text)
	s.see(t, 60*time.Second, "0 B out of sync", "ready: f moves r0 from otter to weasel")
	s.tmux(t, "resize-window", "-t", "s", "-x", "20", "-y", "5")
	s.tmux(t, "resize-window", "-t", "s", "-x", "80", "-y", "24")
	s.see(t, 5*time.Second, "PRIMARY  otter", "q quit")
	s.toConfirm(t, "f", "FAILOVER demo  otter > weasel", "Nothing blocks", "umount")
	s.start(t, "demo")
	t.Logf("\n%s", s.see(t, 60*time.Second, "5 REPORT"))
	s.keys(t, "Escape")
	s.see(t, 15*time.Second, "PRIMARY  weasel", "SECONDARY  otter")
	s.keys(t, "q")
	s.see(t, 30*time.Second, "code=0")
	s.restored(t)
}

// TestCockpitEnds ends the cockpit by ctrl-c and by signals. The terminal must be as it was.
func TestCockpitEnds(t *testing.T) {
	r := newRig(t, 32<<20, "200M")
	for _, tt := range []struct {
		name string
		end  func(s *screen)
		code string
	}{
		{"q", func(s *screen) { s.keys(t, "q") }, "code=0"},
		{"ctrl-c", func(s *screen) { s.keys(t, "C-c") }, "code=0"}, // in the cockpit it is a key like q, which asks while an operation runs
		{"TERM", func(s *screen) { _ = syscall.Kill(s.child(t, "santui"), syscall.SIGTERM) }, "code=143"},
		{"HUP", func(s *screen) { _ = syscall.Kill(s.child(t, "santui"), syscall.SIGHUP) }, "code=129"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScreen(t, 80, 24)
			s.keys(t, fmt.Sprintf("%s/santui --config %s; echo code=$?", bin, r.config), "Enter")
			s.see(t, 15*time.Second, "SECONDARY  otter", "SECONDARY  weasel", "q quit")
			tt.end(s)
			s.see(t, 10*time.Second, tt.code)
			s.restored(t)
		})
	}
}

// TestTwoCockpits: while one operator steps through a failover, the cockpit and the command line of another one wait and say
// whose it is; when it is over, they go on.
func TestTwoCockpits(t *testing.T) {
	r := inService(t)
	waiting, stepping := newScreen(t, 160, 48), newScreen(t, 100, 30)
	waiting.keys(t, fmt.Sprintf("%s/santui --config %s; echo code=$?", bin, r.config), "Enter")
	waiting.see(t, 60*time.Second, "PRIMARY  otter", "ready: f moves r0 from otter to weasel")
	stepping.keys(t, fmt.Sprintf("%s/santui --config %s failover --to weasel --step --confirm demo; echo code=$?", bin, r.config), "Enter")
	stepping.see(t, 30*time.Second, "next: step 1 on otter: umount")
	t.Logf("\n%s", waiting.see(t, 15*time.Second, "of "+owner()+" is paused"))
	r.run(t, 8, "failover --to weasel --confirm demo", "of "+owner()+" holds the lock", "santui attach")
	waiting.keys(t, "f")
	t.Logf("\n%s", waiting.see(t, 15*time.Second, "of "+owner()+" is under way on weasel"))
	waiting.keys(t, "Escape")
	r.on(t, "otter")
	for range 20 {
		stepping.keys(t, "Enter")
	}
	stepping.see(t, 60*time.Second, "code=0")
	waiting.see(t, 30*time.Second, "PRIMARY  weasel", "ready: f moves r0 from weasel to otter")
	r.on(t, "weasel")
}
