package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// Exit codes of every program.
const (
	ExitDone        = 0
	ExitBug         = 1
	ExitUsage       = 2 // usage or configuration
	ExitVeto        = 3 // a check blocks
	ExitNotAllowed  = 4 // not confirmed or not permitted
	ExitUnreachable = 5 // an agent is unreachable, or its data stale
	ExitUndone      = 6 // failed and undone
	ExitAttention   = 7 // stopped half way, or a request failed: look at the state
	ExitLocked      = 8 // another operation holds the lock
	ExitDetached    = 9 // the operation goes on without us
	ExitHUP         = 129
	ExitInterrupted = 130
	ExitTerminated  = 143
)

// ExitError carries an exit code with an error that was, or need not be, printed.
type ExitError struct {
	Code int
	Err  error // nil: nothing more to say
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the error behind the code.
func (e *ExitError) Unwrap() error { return e.Err }

// Exit makes an error that ends the program with code.
func Exit(code int, err error) error { return &ExitError{Code: code, Err: err} }

// Usagef is an error in usage or configuration.
func Usagef(format string, args ...any) error { return Exit(ExitUsage, fmt.Errorf(format, args...)) }

// CodeOf maps any error to the exit code.
func CodeOf(err error) int {
	var exit *ExitError
	var pe *proto.Error
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &pe):
		return codeOf(pe.Code)
	case errors.Is(err, session.ErrBroken), errors.Is(err, context.DeadlineExceeded):
		return ExitUnreachable
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	default:
		return ExitBug
	}
}

func codeOf(c proto.ErrorCode) int {
	switch c {
	case proto.CodeVeto, proto.CodeBusy, proto.CodeState, proto.CodeUnsupported:
		return ExitVeto
	case proto.CodeNotConfirmed, proto.CodeDenied:
		return ExitNotAllowed
	case proto.CodeUnreachable, proto.CodeStale, proto.CodeTimeout, proto.CodeVersion:
		return ExitUnreachable
	case proto.CodeFailed:
		return ExitAttention
	case proto.CodeLocked:
		return ExitLocked
	case proto.CodeInvalid, proto.CodeNotFound, proto.CodeWrongNode:
		return ExitUsage
	case proto.CodeInterrupted:
		return ExitInterrupted
	default:
		return ExitBug
	}
}

// PrintError writes err for people to stderr and, with asJSON, as a document to stdout.
func PrintError(stdout, stderr io.Writer, program string, err error, asJSON bool) {
	var exit *ExitError
	if errors.As(err, &exit) && exit.Err == nil {
		return
	}
	_, _ = fmt.Fprintf(stderr, "%s: %v\n", program, err)
	var pe *proto.Error
	if errors.As(err, &pe) {
		for _, c := range pe.Checks {
			for _, line := range c.Evidence {
				_, _ = fmt.Fprintf(stderr, "  %-12s %s\n", c.Code, line)
			}
		}
	}
	if !asJSON {
		return
	}
	if pe == nil {
		code := session.Code(err)
		if CodeOf(err) == ExitUsage {
			code = proto.CodeInvalid
		}
		pe = proto.Errorf(code, "%v", err)
	}
	_ = PrintJSON(stdout, struct {
		Schema string       `json:"schema"`
		Error  *proto.Error `json:"error"`
		Exit   int          `json:"exit"`
	}{proto.Schema, pe, CodeOf(err)})
}

// PrintJSON writes one document, indented.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
