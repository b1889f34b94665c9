package lvmops

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Held is a program that runs for as long as its standard input stays open: until Release, or until this process is gone.
type Held struct {
	in   io.Closer
	pid  int
	done chan struct{}
}

// holdLimit is how long a program that is to be held may take until it echoes.
const holdLimit = 5 * time.Second

// Hold starts a program that must end in copying its input to its output, as cat does. It returns once a line has come
// back: whatever comes before the copying has then succeeded.
func (e *Exec) Hold(argv ...string) (*Held, error) {
	fail := func(cause error) (*Held, error) { return nil, &ExecError{Argv: argv, Exit: -1, Cause: cause} }
	path, err := e.Look(argv[0])
	if err != nil {
		return fail(err)
	}
	var stderr bounded
	c := exec.Command(path, argv[1:]...)
	closeInherited()
	c.Env, c.Dir, c.Stderr = e.environment(), "/", &stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = e.grace()
	in, err := c.StdinPipe()
	if err != nil {
		return fail(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if err := c.Start(); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrStart, err))
	}
	h := &Held{in: in, pid: c.Process.Pid, done: make(chan struct{})}
	echo := make(chan error, 1)
	go func() { // ends with the program
		_, _ = io.WriteString(in, "held\n") // fails if the program has ended, and so does the read
		var err error
		switch line, rerr := bufio.NewReader(out).ReadString('\n'); {
		case rerr != nil:
			err = ErrExit
		case line != "held\n":
			err = fmt.Errorf("%w: it printed %q", ErrExit, Printable(strings.TrimSpace(line)))
		}
		echo <- err
		_, _ = io.Copy(io.Discard, out) // to its end, which Wait must not come before
		_ = c.Wait()                    // how it ended is no news
		close(h.done)
	}()
	timer := time.NewTimer(holdLimit)
	defer timer.Stop()
	select {
	case err = <-echo:
	case <-timer.C:
		err = ErrTimeout
	}
	if err == nil {
		return h, nil
	}
	h.Release()
	xe := &ExecError{Argv: argv, Exit: -1, Cause: err}
	select {
	case <-h.done:
		b, _ := stderr.take()
		xe.Exit, xe.Said = c.ProcessState.ExitCode(), lastLine(b)
	default: // stuck: it may still write
	}
	return nil, xe
}

// Gone is closed when the program has ended.
func (h *Held) Gone() <-chan struct{} { return h.done }

// Release closes the program's input and waits until it has ended; one that does not end is killed.
func (h *Held) Release() {
	_ = h.in.Close() // a second time does nothing
	timer := time.NewTimer(holdLimit)
	defer timer.Stop()
	select {
	case <-h.done:
		return
	case <-timer.C:
	}
	_ = syscall.Kill(-h.pid, syscall.SIGKILL) // not reaped yet, so the number is still its own
	timer.Reset(holdLimit)
	select {
	case <-h.done:
	case <-timer.C: // blocked in the kernel; the goroutine reaps it when that lets go
	}
}
