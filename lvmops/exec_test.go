package lvmops

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

func newExec() *Exec { return &Exec{Node: "otter", Grace: 200 * time.Millisecond} }

func TestExecKeepsStreamsApart(t *testing.T) {
	t.Parallel()
	res, err := newExec().Run(context.Background(), Cmd{Argv: []string{"sh", "-c", "echo out; echo err >&2; cat; exit 3"}, Stdin: []byte("in\n")})
	var xe *ExecError
	if !errors.As(err, &xe) || !errors.Is(err, ErrExit) || xe.Exit != 3 || xe.Said != "err" {
		t.Fatalf("err = %v (%+v)", err, xe)
	}
	if string(res.Stdout) != "out\nin\n" || string(res.Stderr) != "err\n" {
		t.Fatalf("stdout %q stderr %q", res.Stdout, res.Stderr)
	}
	ex := res.Execution
	if ex.Exit != 3 || ex.Node != "otter" || strings.Join(ex.Output, "|") != "out|in|err" || ex.Err == "" || ex.Seconds <= 0 || ex.Started.IsZero() {
		t.Fatalf("execution = %+v", ex)
	}
}

func TestExecEnvironment(t *testing.T) {
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("LVM_SYSTEM_DIR", "/tmp/evil")
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := newExec().Run(context.Background(), Cmd{Argv: []string{"sh", "-c", "env; ls /proc/self/fd | wc -w; pwd; ps -o pgid= -p $$ >/dev/null; cut -d' ' -f5 /proc/$$/stat; echo $$"}})
	if err != nil {
		t.Fatal(err)
	}
	out := string(res.Stdout)
	if !strings.Contains(out, "LC_ALL=C\n") || strings.Contains(out, "LVM_SYSTEM_DIR") {
		t.Errorf("environment:\n%s", out)
	}
	lines := strings.Fields(out)
	n := len(lines)
	if lines[n-4] != "4" { // 0, 1, 2, and ls' own on the directory
		t.Errorf("%s descriptors, want 4", lines[n-4])
	}
	if lines[n-3] != "/" || lines[n-2] != lines[n-1] {
		t.Errorf("directory %s, process group %s of pid %s", lines[n-3], lines[n-2], lines[n-1])
	}
}

func TestExecNotFound(t *testing.T) {
	t.Parallel()
	for _, argv := range [][]string{{"no-such-program"}, {"/no/such"}, {"../bin/sh"}, {""}, {"/etc/passwd"}} {
		res, err := newExec().Run(context.Background(), Cmd{Argv: argv})
		if !errors.Is(err, ErrNotFound) || res.Execution.Exit != -1 {
			t.Errorf("%v: %v, exit %d", argv, err, res.Execution.Exit)
		}
	}
	if _, err := newExec().Run(context.Background(), Cmd{}); !errors.Is(err, ErrStart) {
		t.Errorf("empty argv: %v", err)
	}
}

func TestExecDeadlineEndsTheGroup(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(t.TempDir(), "pid")
	start := time.Now()
	// The child ignores SIGTERM, so does its own child.
	_, err := newExec().Run(context.Background(), Cmd{Argv: []string{"sh", "-c", "trap '' TERM; (trap '' TERM; sleep 60) & echo $! >" + mark + "; wait; sleep 60"},
		Limit: 100 * time.Millisecond})
	if !errors.Is(err, ErrTimeout) {
		t.Fatalf("err = %v", err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Fatalf("took %v", d)
	}
	pid, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		b, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the grandchild survived")
}

func TestExecGrandchildHoldsThePipe(t *testing.T) {
	t.Parallel()
	start := time.Now()
	res, err := newExec().Run(context.Background(), Cmd{Argv: []string{"sh", "-c", "setsid sleep 5 & echo done"}, Limit: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 3*time.Second || string(res.Stdout) != "done\n" {
		t.Fatalf("took %v, stdout %q", d, res.Stdout)
	}
}

func TestExecCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := newExec().Run(ctx, Cmd{Argv: []string{"sleep", "60"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("err = %v", err)
	}
	if _, err := newExec().Run(ctx, Cmd{Argv: []string{"true"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with a dead context: %v", err)
	}
}

func TestExecBoundsOutput(t *testing.T) {
	t.Parallel()
	res, err := newExec().Run(context.Background(), Cmd{Argv: []string{"sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x; echo; printf '\\033[31mred\\007\\n' >&2"}, Limit: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Stdout) != MaxOutput || res.Dropped != 100_000_001-MaxOutput {
		t.Fatalf("kept %d, dropped %d", len(res.Stdout), res.Dropped)
	}
	out := res.Execution.Output
	if len(out) != 2 || len(out[0]) != proto.MaxOutputLine || out[1] != "?[31mred?" {
		t.Fatalf("%d lines, last %q", len(out), out[len(out)-1])
	}
}

func TestExecKilledBySignal(t *testing.T) {
	t.Parallel()
	res, err := newExec().Run(context.Background(), Cmd{Argv: []string{"sh", "-c", "kill -SEGV $$"}})
	if !errors.Is(err, ErrExit) || !strings.Contains(err.Error(), "segmentation fault") || res.Execution.Exit != -1 {
		t.Fatalf("err = %v, exit %d", err, res.Execution.Exit)
	}
}

func TestObserver(t *testing.T) {
	t.Parallel()
	var seen []proto.Execution
	r := WithObserver(newExec(), func(e proto.Execution) { seen = append(seen, e) })
	_, _ = r.Run(context.Background(), Cmd{Argv: []string{"true"}})
	_, _ = r.Run(context.Background(), Cmd{Argv: []string{"false"}})
	if len(seen) != 2 || seen[0].Argv[0] != "true" || seen[1].Exit != 1 || seen[1].Err == "" {
		t.Fatalf("seen %+v", seen)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	got := Lines([]byte("  a\tb\r\n\n\x1b[2Jc\u202e\xff\n"))
	if strings.Join(got, "|") != "a b|?[2Jc??" {
		t.Errorf("%q", got)
	}
	many := Lines([]byte(strings.Repeat("x\n", 1000) + "last\n"))
	if len(many) != proto.MaxOutputLines || many[len(many)-1] != "last" {
		t.Errorf("%d lines, last %q", len(many), many[len(many)-1])
	}
	if s := cut("ab\u00e9", 3); s != "ab" {
		t.Errorf("cut: %q", s)
	}
}
