package session

import (
	"context"
	"errors"
	"fmt"
	"io"

	"example.com/santui/proto"
)

// ErrBroken is what errors.Is finds in the error of a request whose final frame never arrived: whether it was carried
// out is unknown, its effect must be read again.
var ErrBroken = errors.New("the session broke before the answer was complete")

// ErrClosed is the cause of a session that was closed on this side.
var ErrClosed = errors.New("the session was closed here")

// errPeerClosed is the cause of a session that the other side closed.
var errPeerClosed = fmt.Errorf("the other side closed the connection: %w", io.EOF)

// BrokenError is the error of a request that did not get a whole answer. It matches ErrBroken, its cause, and a
// *proto.Error with proto.CodeUnreachable.
type BrokenError struct {
	Method proto.Method
	Node   string // of the other side
	Cause  error
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("%s on %s: %v: %v", e.Method, nodeName(e.Node), ErrBroken, e.Cause)
}

// Unwrap lists everything that the error stands for.
func (e *BrokenError) Unwrap() []error {
	return []error{ErrBroken, e.Cause, &proto.Error{Code: proto.CodeUnreachable, Text: e.Error(), Node: e.Node,
		Remedy: "the request may have been carried out; look at the state again before repeating it"}}
}

// Code classifies any error of this package: the code of a *proto.Error within it, CodeTimeout and CodeInterrupted for
// the errors of a context, CodeInternal for the rest. It returns "" for nil.
func Code(err error) proto.ErrorCode {
	var pe *proto.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return proto.CodeTimeout
	case errors.Is(err, context.Canceled):
		return proto.CodeInterrupted
	case errors.As(err, &pe):
		return pe.Code
	default:
		return proto.CodeInternal
	}
}

// toWire turns a handler's error into what may cross the link. Errors that nobody shaped for the other side stay here:
// leaked reports that the error was replaced, so that the caller logs it.
func toWire(err error, m proto.Method, node string) (pe *proto.Error, leaked bool) {
	switch {
	case errors.As(err, &pe):
		c := *pe
		pe = &c
	case errors.Is(err, context.DeadlineExceeded):
		pe = proto.Errorf(proto.CodeTimeout, "%s took longer than the caller allowed", m)
	case errors.Is(err, context.Canceled):
		pe = proto.Errorf(proto.CodeInterrupted, "%s was cancelled", m)
	default:
		pe = proto.Errorf(proto.CodeInternal, "%s failed inside the agent", m).
			WithRemedy("the log of santui-agent on %s says why", nodeName(node))
		leaked = true
	}
	if pe.Node == "" {
		pe.Node = node
	}
	return pe, leaked
}

func nodeName(n string) string {
	if n == "" {
		return "an unnamed node"
	}
	return n
}
