package proto

import "fmt"

// ErrorCode classifies an error for programs. Text is for people, codes are for code.
type ErrorCode string

// The error codes of control messages.
const (
	CodeInternal     ErrorCode = "internal"    // a bug
	CodeInvalid      ErrorCode = "invalid"     // the request makes no sense
	CodeNotFound     ErrorCode = "not-found"   // no such method, resource, operation
	CodeVeto         ErrorCode = "veto"        // a check blocks; Checks names it
	CodeNotConfirmed ErrorCode = "confirm"     // the typed confirmation is missing or wrong
	CodeDenied       ErrorCode = "denied"      // the caller may not do this
	CodeUnreachable  ErrorCode = "unreachable" // an agent does not answer
	CodeStale        ErrorCode = "stale"       // the state changed since the caller looked
	CodeLocked       ErrorCode = "locked"      // another operation holds the pair's lock
	CodeBusy         ErrorCode = "busy"        // the device or mount is in use
	CodeState        ErrorCode = "state"       // the state machine refused; Text says which rule
	CodeFailed       ErrorCode = "failed"      // a program or a system call failed
	CodeTimeout      ErrorCode = "timeout"     // a time limit passed; the state was read again
	CodeLimit        ErrorCode = "limit"       // a limit of the protocol was exceeded
	CodeUnsupported  ErrorCode = "unsupported" // known, and refused by this version
	CodeInterrupted  ErrorCode = "interrupted" // cancelled by the caller
	CodeVersion      ErrorCode = "version"     // the two sides do not speak a common version
	CodeWrongNode    ErrorCode = "wrong-node"  // the request belongs to the other agent
)

// Error is an error that crossed, or may cross, a control link.
type Error struct {
	Code     ErrorCode `json:"code"`
	Text     string    `json:"text"`             // what was tried, on which device of which node, and what happened
	Remedy   string    `json:"remedy,omitempty"` // what the operator can do
	Node     string    `json:"node,omitempty"`
	Resource string    `json:"resource,omitempty"`
	Checks   []Check   `json:"checks,omitempty"` // with CodeVeto
	Lock     *Lock     `json:"lock,omitempty"`   // with CodeLocked
}

func (e *Error) Error() string {
	s := e.Text
	if e.Node != "" {
		s = e.Node + ": " + s
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Is makes errors.Is(err, &Error{Code: c}) compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Text == ""
}

// Errorf builds an Error.
func Errorf(code ErrorCode, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// WithRemedy returns a copy that tells the operator what to do.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	c := *e
	c.Remedy = fmt.Sprintf(format, args...)
	return &c
}

// On returns a copy that names the node.
func (e *Error) On(node string) *Error {
	c := *e
	c.Node = node
	return &c
}
