package tui

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/exp/teatest"
	"github.com/muesli/termenv"
)

// TestTheLoop runs a failover through the real program loop over a recording, faster than life.
func TestTheLoop(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := Options{Pair: "store-1", Owner: "root@laptop", Refresh: 10 * time.Millisecond, Out: &bytes.Buffer{}}.withDefaults()
	m := newModel(ctx, source.NewReplay(scene.Film(5, false), 20), o, theme.Mono, false, termenv.Ascii)
	tm := teatest.NewTestModel(t, m, teatest.WithInitialTermSize(80, 24))
	appears := func(what string) {
		t.Helper()
		teatest.WaitFor(t, tm.Output(), func(b []byte) bool { return bytes.Contains(b, []byte(what)) },
			teatest.WithDuration(10*time.Second), teatest.WithCheckInterval(10*time.Millisecond))
	}
	appears("ready: f moves r0 from otter to weasel")
	tm.Type("f")
	appears("Nothing blocks")
	tm.Send(tea.KeyMsg{Type: tea.KeyEnter})
	appears("what will run, in this order")
	tm.Send(tea.KeyMsg{Type: tea.KeyEnter})
	appears("make weasel the Primary?")
	tm.Type("store-1")
	tm.Send(tea.KeyMsg{Type: tea.KeyTab})
	tm.Send(tea.KeyMsg{Type: tea.KeyEnter})
	appears("DONE: r0 is Primary on weasel")
	tm.Send(tea.WindowSizeMsg{Width: 30, Height: 6}) // a window too small in the middle of it all
	tm.Send(tea.WindowSizeMsg{Width: 80, Height: 24})
	tm.Send(tea.KeyMsg{Type: tea.KeyEnter})
	appears("PRIMARY  weasel")
	tm.Type("q")
	final := tm.FinalModel(t, teatest.WithFinalTimeout(5*time.Second)).(*Model)
	if v := final.View(); final.code != codeDone || !strings.Contains(v, "PRIMARY  weasel") {
		t.Errorf("code %d:\n%s", final.code, v)
	}
}
