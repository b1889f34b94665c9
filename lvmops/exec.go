package lvmops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/proto"
)

// searchPath is where programs are looked up, whatever the agent's environment says.
var searchPath = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// Exec runs programs for real.
type Exec struct {
	Node string // goes into proto.Execution.Node; Ops fills in its own where this is ""
	Log  *slog.Logger
	// Grace is the time between SIGTERM and SIGKILL, and again between SIGKILL and giving up. 0 means 2 s.
	Grace time.Duration
	// Path replaces the fixed search path, for tests.
	Path []string

	stuck sync.Map // command line -> pid of a run of it that could not be ended
}

// NewExec returns an Exec that runs programs from the system's own directories.
func NewExec() *Exec { return &Exec{} }

// environment is all that a program gets. LVM_SUPPRESS_FD_WARNINGS is not needed: there are no further descriptors.
func (e *Exec) environment() []string {
	return []string{"LC_ALL=C", "LANG=C", "TZ=UTC", "HOME=/", "PATH=" + strings.Join(e.path(), ":")}
}

func (e *Exec) path() []string {
	if e.Path != nil {
		return e.Path
	}
	return searchPath
}

func (e *Exec) grace() time.Duration {
	if e.Grace > 0 {
		return e.Grace
	}
	return 2 * time.Second
}

// Look finds a program: its absolute path, or an error around ErrNotFound.
func (e *Exec) Look(name string) (string, error) {
	candidates := []string{name}
	if !strings.HasPrefix(name, "/") {
		if name == "" || strings.Contains(name, "/") {
			return "", fmt.Errorf("%q is no program name: %w", name, ErrNotFound)
		}
		candidates = candidates[:0]
		for _, dir := range e.path() {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, c := range candidates {
		if fi, err := os.Stat(c); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return c, nil
		}
	}
	return "", fmt.Errorf("%s (looked in %s): %w", name, strings.Join(e.path(), ", "), ErrNotFound)
}

// Run implements Runner. It returns at the latest after the limit plus two Graces and a little, whatever the program
// does.
func (e *Exec) Run(ctx context.Context, cmd Cmd) (Result, error) {
	started := time.Now()
	res := Result{Execution: proto.Execution{Node: e.Node, Argv: append([]string(nil), cmd.Argv...), Started: started, Exit: -1}}
	err := e.run(ctx, cmd, &res)
	res.Execution.Seconds = time.Since(started).Seconds()
	res.Execution.Output = append(Lines(res.Stdout), Lines(res.Stderr)...)
	if n := len(res.Execution.Output); n > proto.MaxOutputLines {
		res.Execution.Output = res.Execution.Output[n-proto.MaxOutputLines:]
	}
	if err == nil {
		return res, nil
	}
	xe := &ExecError{Argv: res.Execution.Argv, Exit: res.Execution.Exit, Cause: err, Said: lastLine(res.Stderr)}
	var at *stuckError
	if errors.As(err, &at) {
		xe.Cause, xe.Where = ErrStuck, at.where
	}
	res.Execution.Err = xe.Error()
	return res, xe
}

type stuckError struct{ where string }

func (s *stuckError) Error() string { return ErrStuck.Error() }

func (e *Exec) run(ctx context.Context, cmd Cmd, res *Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(cmd.Argv) == 0 {
		return fmt.Errorf("empty command line: %w", ErrStart)
	}
	path, err := e.Look(cmd.Argv[0])
	if err != nil {
		return err
	}
	// While one run of a command hangs in the kernel, the same again would hang beside it.
	line := strings.Join(cmd.Argv, "\x00")
	if pid, hangs := e.stuck.Load(line); hangs {
		return &stuckError{where: fmt.Sprintf("pid %v still hangs", pid)}
	}
	limit := cmd.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	var stdout, stderr bounded
	// os/exec copies the pipes in goroutines of its own; WaitDelay ends them if a grandchild keeps a pipe open.
	// Cancellation is done here and not by CommandContext: it has to reach the whole process group, and in two stages.
	c := exec.Command(path, cmd.Argv[1:]...)
	c.Args[0] = cmd.Argv[0] // lvm is one program with many names
	closeInherited()
	c.Env = append(e.environment(), cmd.Env...)
	c.Dir = "/"
	c.Stdout, c.Stderr = &stdout, &stderr
	if len(cmd.Stdin) > 0 {
		c.Stdin = bytes.NewReader(cmd.Stdin)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = e.grace()
	if err := c.Start(); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrStart, err)
	}
	done := make(chan error, 1)
	go func() { // outlives Run only if the program can not be killed: then it is the reaper
		done <- c.Wait()
		e.stuck.CompareAndDelete(line, c.Process.Pid)
	}()
	cause, waitErr, over := e.await(ctx, c.Process.Pid, limit, done)
	var lost1, lost2 int64
	res.Stdout, lost1 = stdout.take()
	res.Stderr, lost2 = stderr.take()
	res.Dropped = lost1 + lost2
	if !over {
		e.stuck.Store(line, c.Process.Pid)
		select {
		case _ = <-done: // it ended at this very moment
			e.stuck.CompareAndDelete(line, c.Process.Pid)
		default:
		}
		return &stuckError{where: blockedAt(c.Process.Pid)}
	}
	if c.ProcessState != nil {
		res.Execution.Exit = c.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case cause != nil:
		return cause
	case waitErr == nil, errors.Is(waitErr, exec.ErrWaitDelay):
		// ErrWaitDelay: the program itself ended well, but left something behind that holds its output open.
		return nil
	case errors.As(waitErr, &exit) && exit.Exited():
		return ErrExit
	default:
		return fmt.Errorf("%w: %w", ErrExit, waitErr)
	}
}

// closeInherited marks what the agent itself inherited from whoever started it as not to be inherited further; lvm
// complains about such descriptors. All that Go opens is marked already.
var closeInherited = sync.OnceFunc(func() {
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) // fails on a kernel before 5.11: then lvm just complains
})

// await waits for the end of a process, ending it when the limit or the context says so. cause is why it was ended,
// nil if it ended by itself; over is false if it is still there.
func (e *Exec) await(ctx context.Context, pid int, limit time.Duration, done <-chan error) (cause, waitErr error, over bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return nil, err, true
	case <-ctx.Done():
		cause = ctx.Err()
	case <-timer.C:
		cause = fmt.Errorf("limit of %v: %w", limit, ErrTimeout)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// The group exists as long as its leader has not been reaped, so the number can not have been reused.
		if err := syscall.Kill(-pid, sig); err != nil && e.Log != nil && !errors.Is(err, syscall.ESRCH) {
			e.Log.Warn("cannot signal a program's process group", "pid", pid, "signal", sig.String(), "err", err)
		}
		timer.Reset(e.grace())
		select {
		case err := <-done:
			e.sweep(pid)
			return cause, err, true
		case <-timer.C:
		}
	}
	// SIGKILL may have ended it while WaitDelay still drains its pipes.
	timer.Reset(e.grace())
	select {
	case err := <-done:
		return cause, err, true
	case <-timer.C:
		return cause, nil, false
	}
}

// sweep kills what is left of the process group after its leader obeyed SIGTERM. A group keeps its number as long as
// it has a member; ESRCH, the usual answer, says it has none.
func (e *Exec) sweep(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// blockedAt tells where in the kernel a process waits: its state and wchan, as far as they can be read.
func blockedAt(pid int) string {
	where := fmt.Sprintf("pid %d", pid)
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid)); err == nil && len(b) > 1 {
		where += " waits in " + Printable(string(b))
	}
	return where
}

// bounded keeps the first MaxOutput bytes written to it and counts the rest. It never fails, so a program that prints
// without end is drained until its deadline.
type bounded struct {
	mu   sync.Mutex
	buf  []byte
	lost int64
}

var _ io.Writer = (*bounded)(nil)

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := min(MaxOutput-len(b.buf), len(p))
	b.buf = append(b.buf, p[:room]...)
	b.lost += int64(len(p) - room)
	return len(p), nil
}

// take copies: the readers of a stuck program may still write.
func (b *bounded) take() ([]byte, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf), b.lost
}
