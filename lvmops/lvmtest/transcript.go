package lvmtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// Run is one program's run as it was recorded.
type Run struct {
	Argv   []string `json:"argv"`
	Exit   int      `json:"exit"`
	Stdout string   `json:"stdout,omitempty"`
	Stderr string   `json:"stderr,omitempty"`
}

// Transcript is a Runner that replays what was recorded: each run once, for the same argv, in the recorded order among
// runs of the same argv. Anything else is an error.
type Transcript struct {
	mu   sync.Mutex
	left []Run
}

// NewTranscript returns a Runner that replays runs.
func NewTranscript(runs ...Run) *Transcript { return &Transcript{left: slices.Clone(runs)} }

// Run implements lvmops.Runner.
func (t *Transcript) Run(ctx context.Context, cmd lvmops.Cmd) (lvmops.Result, error) {
	if err := ctx.Err(); err != nil {
		return answer(cmd, Run{Exit: -1}, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.left, func(r Run) bool { return slices.Equal(r.Argv, cmd.Argv) })
	if i < 0 {
		return answer(cmd, Run{Exit: -1}, fmt.Errorf("the transcript holds no (further) run of it: %w", lvmops.ErrStart))
	}
	r := t.left[i]
	t.left = slices.Delete(t.left, i, i+1)
	return answer(cmd, r, nil)
}

// Left returns the runs that were not asked for.
func (t *Transcript) Left() []Run {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.left)
}

// answer builds what a Runner returns. A cause, or an exit code other than 0, makes it an error.
func answer(cmd lvmops.Cmd, r Run, cause error) (lvmops.Result, error) {
	res := lvmops.Result{Stdout: []byte(r.Stdout), Stderr: []byte(r.Stderr)}
	res.Execution = proto.Execution{Argv: slices.Clone(cmd.Argv), Exit: r.Exit, Output: append(lvmops.Lines(res.Stdout), lvmops.Lines(res.Stderr)...)}
	if cause == nil && r.Exit != 0 {
		cause = lvmops.ErrExit
	}
	if cause == nil {
		return res, nil
	}
	err := &lvmops.ExecError{Argv: res.Execution.Argv, Exit: r.Exit, Cause: cause}
	if lines := lvmops.Lines(res.Stderr); len(lines) > 0 {
		err.Said = lines[len(lines)-1]
	}
	res.Execution.Err = err.Error()
	return res, err
}
