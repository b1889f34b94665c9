package lvmops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/santui/proto"
)

// DefaultLimit is the deadline of a program whose Cmd names none.
const DefaultLimit = 30 * time.Second

// MaxOutput is how many bytes of each of stdout and stderr are kept. The rest is read, counted and dropped.
const MaxOutput = 1 << 20

// Cmd is one external program to run. Argv[0] is a bare name, looked up in a fixed PATH, or an absolute path. Argv is
// shown to people and kept in journals: secrets belong in Stdin.
type Cmd struct {
	Argv  []string
	Limit time.Duration // 0 means DefaultLimit
	Stdin []byte
	Env   []string // "NAME=value", beside the fixed environment
}

// Result is what running a Cmd led to. It is filled as far as it goes in the case of an error too.
type Result struct {
	// Execution is the record to show: argv, times, exit code, printable output (stdout, then stderr).
	Execution proto.Execution
	Stdout    []byte // raw, at most MaxOutput
	Stderr    []byte // raw, at most MaxOutput
	Dropped   int64  // bytes beyond the bounds
}

// Runner runs external programs. The error is nil only if the program ran and ended with exit code 0; otherwise it is
// an *ExecError around one of the errors below.
type Runner interface {
	Run(ctx context.Context, cmd Cmd) (Result, error)
}

// The causes of an ExecError, for errors.Is. A cancelled context's own error is a cause as well.
var (
	ErrNotFound = errors.New("program is not installed")
	ErrStart    = errors.New("program could not be started")
	ErrExit     = errors.New("program failed")
	ErrTimeout  = errors.New("program exceeded its time limit and was ended")
	// ErrStuck: the program could not even be killed within the bound; it is blocked in the kernel and will be reaped
	// when that lets go. Its effect is unknown: read the state again.
	ErrStuck = errors.New("program is blocked in the kernel and could not be ended")
)

// ExecError says which program failed, how, and what it said last.
type ExecError struct {
	Argv  []string
	Exit  int    // -1 if it was killed or never started
	Said  string // last line of stderr, printable
	Cause error  // one of the errors above, or the context's
	Where string // where in the kernel a stuck program sits, if known
}

func (e *ExecError) Error() string {
	s := fmt.Sprintf("%s: %v", strings.Join(e.Argv, " "), e.Cause)
	if errors.Is(e.Cause, ErrExit) {
		s += fmt.Sprintf(" with exit code %d", e.Exit)
	}
	if e.Where != "" {
		s += " (" + e.Where + ")"
	}
	if e.Said != "" {
		s += ": " + e.Said
	}
	return s
}

func (e *ExecError) Unwrap() error { return e.Cause }

// WithObserver returns a Runner that passes the record of every execution to f, in the goroutine that ran it, after
// the program ended.
func WithObserver(r Runner, f func(proto.Execution)) Runner { return &observed{r, f} }

type observed struct {
	next Runner
	f    func(proto.Execution)
}

func (o *observed) Run(ctx context.Context, cmd Cmd) (Result, error) {
	res, err := o.next.Run(ctx, cmd)
	o.f(res.Execution)
	return res, err
}
