package wizard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/keymap"
	tea "github.com/charmbracelet/bubbletea"
	"pgregory.net/rapid"
)

var (
	enter = tea.KeyMsg{Type: tea.KeyEnter}
	tab   = tea.KeyMsg{Type: tea.KeyTab}
	esc   = tea.KeyMsg{Type: tea.KeyEsc}
)

func runes(s string) tea.KeyMsg { return tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(s)} }

func options() Options {
	n := 0
	return Options{Pair: "store-1", Owner: "root@laptop", NewID: func() string { n++; return fmt.Sprint("request-", n) }}
}

// press sends a key the way the root does.
func press(m *Model, keys ...tea.KeyMsg) (out []Request) {
	for _, k := range keys {
		b, _ := keymap.Match(m.Screen(), k)
		out = append(out, m.Key(k, b, scene.Now)...)
	}
	return out
}

func begin(reqs []Request) (proto.OpStartRequest, bool) {
	for _, r := range reqs {
		if b, ok := r.(Begin); ok && !b.Req.DryRun {
			return b.Req, true
		}
	}
	return proto.OpStartRequest{}, false
}

// loaded is a wizard whose checks are there.
func loaded(t *testing.T, o Options, extra ...proto.Check) *Model {
	t.Helper()
	m, reqs := New(o, "r0", "otter", "weasel")
	l, ok := reqs[0].(Load)
	if !ok || l.Req.To != "weasel" || l.Req.Verb != proto.VerbFailover {
		t.Fatalf("it asks for %+v", reqs)
	}
	m.Loaded(l.Gen, scene.Reply(extra...), nil, scene.Now)
	return m
}

func TestTheWholeWay(t *testing.T) {
	m := loaded(t, options())
	if press(m, enter); m.Page() != Plan {
		t.Fatalf("on page %d after the checks", m.Page())
	}
	if press(m, enter); m.Page() != Confirm {
		t.Fatalf("on page %d after the plan", m.Page())
	}
	reqs := press(m, runes("store-1"), tab, enter)
	r, ok := begin(reqs)
	if !ok || r.Confirm != "store-1" || r.PlanHash != scene.Plan().Hash() || r.To != "weasel" || r.RequestID == "" || r.Owner != "root@laptop" {
		t.Fatalf("asked for %+v", reqs)
	}
	if reqs := press(m, enter); len(reqs) != 0 {
		t.Fatalf("a second enter asks again: %+v", reqs)
	}
	reqs = m.Began(m.gen, false, scene.Op(), nil, scene.Now)
	if m.Page() != Run || len(reqs) != 1 || reqs[0].(Watch).Node != "weasel" {
		t.Fatalf("page %d, %+v", m.Page(), reqs)
	}
	reqs = m.See(scene.Finished(), scene.Now)
	if m.Page() != Report || len(reqs) != 1 || reqs[0].(Fetch).ID != scene.Op().ID {
		t.Fatalf("page %d, %+v", m.Page(), reqs)
	}
	if reqs = press(m, enter); len(reqs) != 1 || reqs[0] != (Close{}) {
		t.Fatalf("%+v", reqs)
	}
}

func TestCancelHasTheFocus(t *testing.T) {
	m := loaded(t, options())
	press(m, enter, enter)
	if reqs := press(m, runes("store-1"), enter); len(reqs) != 0 || m.Page() != Plan {
		t.Errorf("enter on Cancel: page %d, %+v", m.Page(), reqs)
	}
}

func TestPastedNewlineNeverConfirms(t *testing.T) {
	m := loaded(t, options())
	press(m, enter, enter)
	paste := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("store-1\n"), Paste: true}
	if reqs := press(m, tab, paste); len(reqs) != 0 || m.Page() != Confirm || m.typed != "store-1" {
		t.Errorf("page %d, typed %q, %+v", m.Page(), m.typed, reqs)
	}
	if reqs := press(m, tea.KeyMsg{Type: tea.KeyEnter, Paste: true}); len(reqs) != 0 {
		t.Errorf("a pasted enter asks for %+v", reqs)
	}
	if _, ok := begin(press(m, enter)); !ok {
		t.Error("a real enter does not start")
	}
}

func TestHardVetoBlocks(t *testing.T) {
	m := loaded(t, options(), scene.Failed(proto.CheckSync, "weasel", "1.10 TiB out of sync"))
	press(m, enter)
	if m.Page() != Check || !strings.Contains(m.note.Text, "SYNC") {
		t.Errorf("page %d, note %q", m.Page(), m.note.Text)
	}
}

func TestSoftVetoMustBeTicked(t *testing.T) {
	m := loaded(t, options(), scene.Failed(proto.CheckBusyProc, "otter", "pid 4127 smbd"))
	press(m, enter, enter, runes("store-1"), tab)
	if _, ok := begin(press(m, enter)); ok {
		t.Fatal("started without the tick")
	}
	press(m, tab, tea.KeyMsg{Type: tea.KeySpace, Runes: []rune(" ")}, tea.KeyMsg{Type: tea.KeyShiftTab})
	r, ok := begin(press(m, enter))
	if !ok || !slices.Equal(r.Accept, []string{proto.CheckBusyProc}) {
		t.Errorf("started %v, accepts %v", ok, r.Accept)
	}
}

func TestOldChecksAreMadeAgain(t *testing.T) {
	m := loaded(t, options())
	press(m, enter, enter, runes("store-1"), tab)
	later := scene.Now.Add(2 * time.Minute)
	reqs := m.Key(enter, keymap.Binding{}, later)
	l, ok := reqs[0].(Load)
	if !ok {
		t.Fatalf("asked for %+v", reqs)
	}
	m.Loaded(l.Gen, scene.Reply(), nil, later)
	if m.Page() != Confirm || m.typed != "store-1" {
		t.Fatalf("page %d, typed %q", m.Page(), m.typed)
	}
	if _, ok := begin(m.Key(enter, keymap.Binding{}, later)); !ok {
		t.Error("does not start after the checks were made again")
	}
}

func TestChangedPlanMustBeReadAgain(t *testing.T) {
	m := loaded(t, options())
	press(m, enter, enter, runes("store-1"), tab)
	l := m.Key(enter, keymap.Binding{}, scene.Now.Add(2*time.Minute))[0].(Load)
	r := scene.Reply()
	r.Hash = "other"
	m.Loaded(l.Gen, r, nil, scene.Now)
	if m.Page() != Plan || m.typed != "" {
		t.Errorf("page %d, typed %q", m.Page(), m.typed)
	}
}

func TestAnswersOfAnOlderGenerationAreDropped(t *testing.T) {
	m, reqs := New(options(), "r0", "otter", "weasel")
	old := reqs[0].(Load).Gen
	press(m, runes("r"))
	m.Loaded(old, scene.Reply(), nil, scene.Now)
	if m.reply != nil || !m.loading {
		t.Error("an old answer was taken")
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		code proto.ErrorCode
		page Page
		same bool // asks again under the same id
	}{
		{proto.CodeVeto, Check, false}, {proto.CodeStale, Plan, false}, {proto.CodeLocked, Confirm, false}, {proto.CodeUnreachable, Confirm, true},
	} {
		m := loaded(t, options())
		press(m, enter, enter)
		first, _ := begin(press(m, runes("store-1"), tab, enter))
		m.Began(m.gen, false, proto.Op{}, proto.Errorf(c.code, "no"), scene.Now)
		if m.Page() != c.page || m.note.Text == "" {
			t.Errorf("%s: page %d, note %q", c.code, m.Page(), m.note.Text)
		}
		if c.page != Confirm {
			continue
		}
		again, ok := begin(press(m, enter))
		if !ok || (again.RequestID == first.RequestID) != c.same {
			t.Errorf("%s: again %v with id %s after %s", c.code, ok, again.RequestID, first.RequestID)
		}
	}
}

func TestReadOnlyStopsBeforeTheConfirmation(t *testing.T) {
	o := options()
	o.ReadOnly = true
	m := loaded(t, o)
	if press(m, enter, enter); m.Page() != Plan {
		t.Errorf("page %d", m.Page())
	}
}

func TestDecisions(t *testing.T) {
	m, reqs := Attach(options(), scene.Stopped(), scene.Now)
	if len(reqs) != 1 || reqs[0].(Watch).ID != scene.Op().ID {
		t.Fatalf("attaching asks for %+v", reqs)
	}
	if reqs := press(m, enter); len(reqs) != 0 {
		t.Fatalf("an enter right after the choices appeared decides: %+v", reqs)
	}
	b, _ := keymap.Match(m.Screen(), runes("u"))
	if reqs := m.Key(runes("u"), b, scene.Now); len(reqs) != 0 {
		t.Fatalf("one key decides: %+v", reqs)
	}
	b, _ = keymap.Match(m.Screen(), enter)
	reqs = m.Key(enter, b, scene.Now)
	if d, ok := reqs[0].(Decide); !ok || d.Req.Choice != proto.ChoiceUndo || d.Node != "weasel" {
		t.Fatalf("%+v", reqs)
	}
	if reqs := press(m, enter); len(reqs) != 0 {
		t.Errorf("decides twice: %+v", reqs)
	}
	m.See(scene.Undone(), scene.Now)
	if m.Page() != Report {
		t.Errorf("page %d", m.Page())
	}
}

func TestABrokenWatchBeginsAgainAndOldStatesAreIgnored(t *testing.T) {
	m, _ := Attach(options(), scene.Done(scene.Op(), 3), scene.Now)
	reqs := m.WatchEnded(scene.Op().ID, errors.New("gone"))
	if len(reqs) != 1 || reqs[0].(Watch).After != watchAgain {
		t.Fatalf("%+v", reqs)
	}
	m.See(scene.Done(scene.Op(), 1), scene.Now)
	if m.Op().Rev != scene.Done(scene.Op(), 3).Rev {
		t.Error("an older state replaced a newer one")
	}
	if press(m, esc); m.Op().State != proto.OpRunning {
		t.Error("esc changed the operation")
	}
}

// TestNothingStartsUnconfirmed presses anything, in any order, with any answers in between.
func TestNothingStartsUnconfirmed(t *testing.T) {
	keys := []tea.KeyMsg{enter, enter, enter, tab, tab, esc, runes("store-1"), runes("store-1"), runes("s"), runes("r"), runes("b"), runes("d"), runes("y"),
		{Type: tea.KeySpace, Runes: []rune(" ")}, {Type: tea.KeyShiftTab}, {Type: tea.KeyBackspace}, {Type: tea.KeyCtrlU}, {Type: tea.KeyUp},
		{Type: tea.KeyRunes, Runes: []rune("store-1\r\n"), Paste: true}, {Type: tea.KeyEnter, Paste: true}}
	started := 0
	rapid.Check(t, func(rt *rapid.T) {
		soft := rapid.Bool().Draw(rt, "soft veto")
		var extra []proto.Check
		if soft {
			extra = append(extra, scene.Failed(proto.CheckBusyProc, "otter", "pid 1"))
		}
		m, reqs := New(options(), "r0", "otter", "weasel")
		for range rapid.IntRange(1, 60).Draw(rt, "keys") {
			for _, r := range reqs {
				if l, ok := r.(Load); ok && rapid.IntRange(0, 9).Draw(rt, "answered") > 0 {
					m.Loaded(l.Gen, scene.Reply(extra...), nil, scene.Now)
				}
			}
			page, text, focus, ticked := m.Page(), m.typed, m.focus, m.ticks[proto.CheckBusyProc]
			k := rapid.SampledFrom(keys).Draw(rt, "key")
			reqs = press(m, k)
			if _, ok := begin(reqs); !ok {
				continue
			}
			started++
			if page != Confirm || text != "store-1" || focus != m.startAt() || k.Type != tea.KeyEnter || k.Paste || soft && !ticked {
				rt.Fatalf("started from page %d, typed %q, focus %d, key %v, ticked %v", page, text, focus, k, ticked)
			}
			m.Began(m.gen, false, proto.Op{}, proto.Errorf(proto.CodeLocked, "busy"), scene.Now)
		}
	})
	if started == 0 {
		t.Log("no sequence got as far as starting; the other tests do")
	}
}
