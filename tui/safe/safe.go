package safe

import (
	"context"
	"fmt"
	"runtime/debug"

	tea "github.com/charmbracelet/bubbletea"
)

// PanicError is a panic that was caught, with the stack of where it happened. As a Bubble Tea message it asks the root model
// to end the program; as an error it is what Run returns.
type PanicError struct {
	Value any
	Stack []byte
}

func (p PanicError) Error() string { return fmt.Sprintf("bug: %v\n\n%s", p.Value, p.Stack) }

type handlerKey struct{}

// With returns a context whose goroutines report a panic to handle. The handler is called once per panic, from the
// goroutine that panicked.
func With(ctx context.Context, handle func(PanicError)) context.Context {
	return context.WithValue(ctx, handlerKey{}, handle)
}

// Go runs f in a new goroutine. Without a handler in the context a panic goes its usual way.
func Go(ctx context.Context, f func()) {
	handle, ok := ctx.Value(handlerKey{}).(func(PanicError))
	if !ok {
		go f()
		return
	}
	go func() {
		defer func() {
			if v := recover(); v != nil {
				handle(PanicError{Value: v, Stack: debug.Stack()})
			}
		}()
		f()
	}()
}

// Cmd makes a panic in cmd its message.
func Cmd(cmd tea.Cmd) tea.Cmd {
	if cmd == nil {
		return nil
	}
	return func() (msg tea.Msg) {
		defer func() {
			if v := recover(); v != nil {
				msg = PanicError{Value: v, Stack: debug.Stack()}
			}
		}()
		return cmd()
	}
}
