package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/santui/proto"
)

// DialUnix connects to an agent's socket on this node.
func DialUnix(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		return conn, nil
	}
	pe := proto.Errorf(proto.CodeUnreachable, "cannot connect to the agent's socket %s: %v", path, rootCause(err))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		pe = pe.WithRemedy("start santui-agent on this node, or name its socket")
	case errors.Is(err, fs.ErrPermission):
		pe.Code = proto.CodeDenied
		pe = pe.WithRemedy("become root, or a member of the group that owns the socket")
	}
	return nil, pe
}

// rootCause is the innermost error of a chain: net's own layers repeat the address.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// SSH says how to reach the agent of a node through the system's own ssh, so that the user's ssh_config, keys, jump
// hosts and known_hosts count.
type SSH struct {
	Host    string   // as ssh understands it; must not begin with "-"
	Program []string // what runs ssh; {"ssh"} if empty
	Options []string // further options of ssh, before the host
	Remote  []string // what to run there; {"santui-agent", "connect"} if empty
}

// Argv is the command line. Words of the remote command are quoted for the shell that ssh gives them to.
func (s SSH) Argv() ([]string, error) {
	if s.Host == "" || strings.HasPrefix(s.Host, "-") || strings.ContainsFunc(s.Host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, proto.Errorf(proto.CodeInvalid, "%q is not a host name that ssh can be given", s.Host)
	}
	argv := s.Program
	if len(argv) == 0 {
		argv = []string{"ssh"}
	}
	// No questions on the cockpit's terminal, no forwardings of the user's configuration twice.
	argv = append(argv[:len(argv):len(argv)], "-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
		"-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes")
	argv = append(argv, s.Options...)
	argv = append(argv, "--", s.Host)
	remote := s.Remote
	if len(remote) == 0 {
		remote = []string{"santui-agent", "connect"}
	}
	for _, w := range remote {
		argv = append(argv, shellQuote(w))
	}
	return argv, nil
}

func shellQuote(w string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,@%+", r)
	}
	if w != "" && !strings.ContainsFunc(w, func(r rune) bool { return !plain(r) }) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// DialSSH runs `ssh OPTIONS HOST santui-agent connect` and uses its standard streams.
func DialSSH(ctx context.Context, host string, options ...string) (io.ReadWriteCloser, error) {
	argv, err := SSH{Host: host, Options: options}.Argv()
	if err != nil {
		return nil, err
	}
	return DialCommand(ctx, argv)
}

// stderrKept is how much of a program's standard error is kept for its error, bytes; killAfter how long it may take to
// end by itself once its standard input is closed.
const (
	stderrKept = 2048
	killAfter  = 500 * time.Millisecond
)

// DialCommand runs a program and uses its standard input and output as the connection. Close ends it: it closes the
// streams, and kills the program with its process group if it does not end by itself. ctx covers the start only.
// When the program fails, Read and Write return a *CommandError.
func DialCommand(ctx context.Context, argv []string) (io.ReadWriteCloser, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, proto.Errorf(proto.CodeInvalid, "no program to run was given")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives ctx; Close kills it
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", argv[0], err)
	}
	// Not StdoutPipe: Wait would close it under a reader that still has bytes to fetch.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", argv[0], err)
	}
	c := &commandConn{argv: argv, cmd: cmd, stdin: stdin, stdout: r, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = w, &c.stderr
	cmd.WaitDelay = killAfter // a background child of ssh (ControlPersist) may hold stderr open
	ownGroup(cmd)
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_, _ = r.Close(), stdin.Close()
		return nil, proto.Errorf(proto.CodeUnreachable, "cannot run %s: %v", argv[0], rootCause(err)).
			WithRemedy("is %s installed?", argv[0])
	}
	go func() {
		defer close(c.exited)
		c.waitErr = cmd.Wait()
	}()
	return c, nil
}

// commandConn is a running program as a connection.
type commandConn struct {
	argv    []string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  *os.File
	stderr  tail
	exited  chan struct{} // closed after Wait
	waitErr error         // valid then
	once    sync.Once
	closed  atomic.Bool
}

func (c *commandConn) Read(b []byte) (int, error) {
	n, err := c.stdout.Read(b)
	if n > 0 || err == nil {
		return n, err
	}
	return 0, c.explain(err)
}

func (c *commandConn) Write(b []byte) (int, error) {
	n, err := c.stdin.Write(b)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// explain replaces the end of a stream by the reason: that the program failed, and what it said.
func (c *commandConn) explain(err error) error {
	if c.closed.Load() { // by us; a program that ends by itself also closes its input, when it is waited for
		return err
	}
	t := time.NewTimer(2 * killAfter)
	defer t.Stop()
	select {
	case <-c.exited:
	case <-t.C:
		return err
	}
	if c.waitErr == nil || errors.Is(c.waitErr, exec.ErrWaitDelay) {
		return err
	}
	return &CommandError{Argv: c.argv, Exit: c.cmd.ProcessState.ExitCode(), Stderr: c.stderr.lines(), Err: c.waitErr}
}

// Close ends the program.
func (c *commandConn) Close() error {
	c.once.Do(func() {
		c.closed.Store(true)
		_ = c.stdin.Close()
		_ = c.stdout.Close()
		t := time.NewTimer(killAfter)
		defer t.Stop()
		select {
		case <-c.exited:
			return
		case <-t.C:
		}
		killGroup(c.cmd)
		<-c.exited
	})
	return nil
}

// CommandError says that the program behind a connection failed. It matches a *proto.Error with CodeUnreachable.
type CommandError struct {
	Argv   []string
	Exit   int      // -1 if a signal ended it
	Stderr []string // the last lines of its standard error
	Err    error    // of exec.Cmd.Wait
}

func (e *CommandError) Error() string {
	s := fmt.Sprintf("%s ended: %v", e.Argv[0], e.Err)
	if len(e.Stderr) > 0 {
		s += ": " + strings.Join(e.Stderr, "; ")
	}
	return s
}

// Unwrap adds what the operator can do. Exit 255 is ssh's own failure, 127 the shell's for an unknown program.
func (e *CommandError) Unwrap() []error {
	pe := proto.Errorf(proto.CodeUnreachable, "%s", e.Error())
	switch e.Exit {
	case 255:
		pe = pe.WithRemedy("try the same connection by hand: %s", strings.Join(e.Argv, " "))
	case 127:
		pe = pe.WithRemedy("install santui-agent on the other side, in the PATH of a login without a terminal")
	}
	return []error{e.Err, pe}
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex // protects b
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b); n > stderrKept {
		t.b = append(t.b[:0], t.b[n-stderrKept:]...)
	}
	return len(p), nil
}

// lines returns the last lines, at most five, without control characters: they end up on a terminal.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, l := range strings.FieldsFunc(string(t.b), func(r rune) bool { return r == '\n' || r == '\r' }) {
		l = strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f {
				return -1
			}
			return r
		}, strings.ToValidUTF8(l, "?"))
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out[max(0, len(out)-5):]
}
