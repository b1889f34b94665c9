package lvmops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/santui/proto"
)

// failure is a proto.Error, for people and for the wire, that still unwraps to its cause.
type failure struct {
	pe    *proto.Error
	cause error
}

func (f *failure) Error() string { return f.pe.Error() }

func (f *failure) Unwrap() []error { return []error{f.pe, f.cause} }

// refuse builds an error without a cause below.
func (o *Ops) refuse(code proto.ErrorCode, format string, args ...any) *proto.Error {
	return proto.Errorf(code, format, args...).On(o.opt.Node)
}

// failed wraps what went wrong while doing something. The code follows from the cause.
func (o *Ops) failed(cause error, format string, args ...any) error {
	var pe *proto.Error
	if errors.As(cause, &pe) {
		return cause
	}
	e := proto.Errorf(proto.CodeFailed, "%s: %v", fmt.Sprintf(format, args...), cause).On(o.opt.Node)
	switch {
	case errors.Is(cause, ErrNotFound):
		e = e.WithRemedy("install the package that provides the program")
	case errors.Is(cause, ErrStuck):
		e.Code = proto.CodeTimeout
		e = e.WithRemedy("the kernel does not let the program go; look at dmesg and at the replicated device, then check the state again")
	case errors.Is(cause, ErrTimeout), errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, errHangs):
		e.Code = proto.CodeTimeout
	case errors.Is(cause, context.Canceled):
		e.Code = proto.CodeInterrupted
	}
	return &failure{e, cause}
}

// busy is the error of a step that found its device or mount in use.
func (o *Ops) busy(users []proto.User, cause error, format string, args ...any) error {
	e := o.refuse(proto.CodeBusy, format, args...)
	e.Checks = []proto.Check{{Code: "BUSY", Node: o.opt.Node, Result: proto.CheckFail, Hard: true, Title: e.Text,
		Evidence: Evidence(users), Remedy: "end or move what is listed, then retry"}}
	e = e.WithRemedy("end or move what uses it, then retry")
	if cause == nil {
		return e
	}
	return &failure{e, cause}
}

// Evidence describes users, one line each.
func Evidence(users []proto.User) []string {
	lines := make([]string, 0, len(users))
	for _, u := range users {
		lines = append(lines, describe(u))
	}
	return lines
}

func describe(u proto.User) string {
	s := u.Kind
	if u.Name != "" {
		s += " " + u.Name
	}
	if u.PID != 0 {
		s += fmt.Sprintf(" (pid %d, uid %d)", u.PID, u.UID)
	}
	if u.How != "" {
		s += ": " + u.How
	}
	if u.Path != "" {
		s += " " + u.Path
	}
	if u.Device != "" && u.Device != u.Path {
		s += " on " + u.Device
	}
	return Printable(s)
}

func summary(users []proto.User) string {
	switch len(users) {
	case 0:
		return "nothing was found in /proc that uses it"
	case 1:
		return describe(users[0])
	default:
		return fmt.Sprintf("%s; and %d more", describe(users[0]), len(users)-1)
	}
}

func (o *Ops) run(ctx context.Context, out *Outcome, cmd Cmd) (Result, error) {
	return Run(ctx, o.opt.Runner, o.opt.Node, out, cmd)
}

// Run runs a program on this node and notes it in the outcome, if there is one. What it says on stderr although it
// succeeded is a finding.
func Run(ctx context.Context, r Runner, node string, out *Outcome, cmd Cmd) (Result, error) {
	res, err := r.Run(ctx, cmd)
	if res.Execution.Node == "" {
		res.Execution.Node = node
	}
	if out != nil {
		out.Commands = append(out.Commands, res.Execution)
		if err == nil {
			out.Findings = append(out.Findings, Lines(res.Stderr)...)
		}
	}
	return res, err
}

// Since completes an outcome; use it with defer.
func (out *Outcome) Since(start time.Time) { out.Seconds = time.Since(start).Seconds() }

// Pause waits, or returns the context's error.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func join(lines []string) string { return strings.Join(lines, "; ") }
