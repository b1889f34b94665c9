package keymap

import (
	"slices"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/tui/view"
	tea "github.com/charmbracelet/bubbletea"
)

var screens = []Screen{Overview, NodeDetail, SyncScreen, EventsScreen, CommandsScreen, DoctorScreen, HelpScreen, CheckPage, PlanPage, ConfirmPage, RunPage, ReportPage}

func runes(s string) tea.KeyMsg { return tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(s)} }

func TestEveryBindingIsDescribed(t *testing.T) {
	for _, b := range Bindings {
		if b.Help().Key == "" || b.Help().Desc == "" || b.Long == "" || b.Action == "" || len(b.Keys()) == 0 {
			t.Errorf("%+v is not complete", b)
		}
	}
}

func TestNothingThatChangesHasAKeyWithControl(t *testing.T) {
	for _, b := range Bindings {
		if b.Changes && slices.ContainsFunc(b.Keys(), func(k string) bool { return strings.HasPrefix(k, "ctrl+") }) {
			t.Errorf("%s changes and is on %v", b.Action, b.Keys())
		}
	}
}

func TestPastesMeanNothing(t *testing.T) {
	if b, ok := Match(Overview, tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("f"), Paste: true}); ok {
		t.Errorf("a paste became %s", b.Action)
	}
}

func TestPagesHaveTheirOwnKeys(t *testing.T) {
	for _, c := range []struct {
		s    Screen
		key  tea.KeyMsg
		want Action
	}{
		{RunPage, runes("k"), Keep}, {EventsScreen, runes("k"), Up}, {RunPage, runes("p"), PauseOp}, {Overview, runes("p"), Prev},
		{Overview, runes("f"), Failover}, {CheckPage, tea.KeyMsg{Type: tea.KeyEnter}, Enter}, {SyncScreen, runes("S"), Start},
		{ConfirmPage, runes("T"), ""}, {ConfirmPage, runes("q"), ""}, {ConfirmPage, runes("?"), ""}, {ConfirmPage, tea.KeyMsg{Type: tea.KeyF1}, Help}, {DoctorScreen, runes("r"), Refresh},
	} {
		if b, _ := Match(c.s, c.key); b.Action != c.want {
			t.Errorf("%s on %s is %q, want %q", c.key, c.s, b.Action, c.want)
		}
	}
	for _, s := range screens {
		if b, _ := Match(s, tea.KeyMsg{Type: tea.KeyCtrlC}); b.Action != Quit {
			t.Errorf("ctrl+c on %s is %q", s, b.Action)
		}
	}
}

func TestReasons(t *testing.T) {
	find := func(a Action) Binding {
		return Bindings[slices.IndexFunc(Bindings, func(b Binding) bool { return b.Action == a })]
	}
	running := State{Pair: view.Pair{Sync: &view.Sync{Sync: proto.Sync{Kind: "resync"}}}}
	for _, c := range []struct {
		a    Action
		s    State
		want string
	}{
		{Takeover, State{Pair: view.Pair{Takeover: view.Way{Why: "both agents answer"}}}, "both agents answer"},
		{Takeover, State{}, ""},
		{UndoOp, State{Pair: view.Pair{Undo: "there is no operation"}}, "there is no operation"},
		{Swap, State{Verb: proto.VerbFailover}, "only where both copies may be the good one"},
		{Swap, State{Verb: proto.VerbResolve}, ""},
		{Verify, State{Pair: view.Pair{Verify: view.Way{Why: "a resync runs"}}}, "a resync runs"},
		{Verify, State{ReadOnly: true}, "this session is read-only"},
		{Failover, State{Pair: view.Pair{Check: "otter does not answer"}}, "otter does not answer"},
		{Failover, State{}, ""},
		{Fix, State{NoFix: "no node proposes a change"}, "no node proposes a change"},
		{Fix, State{ReadOnly: true}, "this session is read-only"},
		{Pause, State{}, "nothing is being synchronised"},
		{Pause, running, ""},
		{Pause, State{Pair: running.Pair, ReadOnly: true}, "this session is read-only"},
		{Attach, State{}, "there is no operation"},
	} {
		if got := find(c.a).Why(c.s); got != c.want {
			t.Errorf("%s: %q, want %q", c.a, got, c.want)
		}
	}
}
