package safe

import (
	"context"
	"strings"
	"testing"

	tea "github.com/charmbracelet/bubbletea"
)

func TestGoHandsThePanicOver(t *testing.T) {
	got := make(chan PanicError, 1)
	Go(With(context.Background(), func(p PanicError) { got <- p }), func() { panic("boom") })
	if p := <-got; p.Value != "boom" || !strings.Contains(string(p.Stack), "safe_test.go") {
		t.Errorf("got %v", p)
	}
}

func TestCmdTurnsAPanicIntoAMessage(t *testing.T) {
	if p, ok := Cmd(func() tea.Msg { panic("boom") })().(PanicError); !ok || p.Value != "boom" {
		t.Errorf("got %v", p)
	}
	if m := Cmd(func() tea.Msg { return 7 })(); m != 7 {
		t.Errorf("got %v", m)
	}
	if Cmd(nil) != nil {
		t.Error("nil became a command")
	}
}
