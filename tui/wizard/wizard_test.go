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
	"example.com/santui/tui/screen"
	"example.com/santui/tui/theme"
	"example.com/santui/tui/view"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/muesli/termenv"
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
	m, reqs := New(o, proto.VerbFailover, "r0", "otter", "weasel")
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
	m, reqs := New(options(), proto.VerbFailover, "r0", "otter", "weasel")
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
	runner, other := scene.Op().Runner, "otter"
	if runner == other {
		other = "weasel"
	}
	for i, want := range []Watch{{Node: other, After: watchAgain, For: copyTime}, {Node: runner, After: watchAgain}, {Node: other, After: watchAgain, For: copyTime}, {Node: runner, After: 2 * watchAgain}} {
		want.ID = scene.Op().ID
		reqs := m.WatchEnded(scene.Op().ID, errors.New("gone"), scene.Now)
		if len(reqs) != 1 || reqs[0].(Watch) != want {
			t.Fatalf("%d: %+v, want %+v", i, reqs, want)
		}
	}
	said := func(after time.Duration) string {
		text, _ := m.Draw(screen.Ctx{Theme: theme.New(theme.Dark, true, termenv.Ascii), W: 200, H: 40, Loc: time.UTC}, scene.Now.Add(after))
		return text
	}
	if text := said(42 * time.Second); !strings.Contains(text, runner+", which runs this, was last heard 42 s ago") {
		t.Errorf("nothing says how old this is:\n%s", text)
	}
	m.Answers(other, scene.Now)
	if text := said(42 * time.Second); !strings.Contains(text, "was last heard") {
		t.Error("a copy of the other agent counts as news of the one that runs it")
	}
	m.Answers(runner, scene.Now)
	if text := said(42 * time.Second); strings.Contains(text, "was last heard") {
		t.Error("it counts as silent although it answers")
	}
	m.See(scene.Done(scene.Op(), 1), scene.Now)
	if m.Op().Rev != scene.Done(scene.Op(), 3).Rev {
		t.Error("an older state replaced a newer one")
	}
	if press(m, esc); m.Op().State != proto.OpRunning {
		t.Error("esc changed the operation")
	}
}

// asks finds the request that changes something: the start of an operation, or the undoing of one that does not run.
func asks(reqs []Request) (confirm string, ok bool) {
	for _, r := range reqs {
		switch r := r.(type) {
		case Begin:
			if !r.Req.DryRun {
				return r.Req.Confirm, true
			}
		case Decide:
			return r.Req.Confirm, true
		}
	}
	return "", false
}

// feed answers what the wizard asked for.
func feed(m *Model, reqs []Request, extra ...proto.Check) {
	for _, r := range reqs {
		switch r := r.(type) {
		case Load:
			p := scene.Replies(extra...)[r.Req.Verb]
			p.Plan.From, p.Plan.To = m.from, m.to
			m.Loaded(r.Gen, p, nil, scene.Now)
		case LoadOp:
			m.LoadedOp(r.Gen, *scene.Orphan().Inputs[1].Snapshot.Op, nil, scene.Now)
		}
	}
}

func begun(v proto.Verb, extra ...proto.Check) (*Model, []Request) {
	if v == VerbUndo {
		return NewUndo(options(), *scene.Orphan().Inputs[1].Snapshot.Op)
	}
	return New(options(), v, "r0", "otter", "weasel")
}

var verbs = []proto.Verb{proto.VerbFailover, proto.VerbDrill, proto.VerbTakeover, proto.VerbResolve, proto.VerbRejoin, VerbUndo}

var phrases = map[proto.Verb]string{proto.VerbTakeover: "store-1 FORCE", proto.VerbResolve: "store-1 DISCARD otter"}

func TestEveryVerbNeedsItsPhrase(t *testing.T) {
	for _, v := range verbs {
		m, reqs := begun(v)
		feed(m, reqs)
		press(m, enter, enter)
		if m.Page() != Confirm {
			t.Fatalf("%s: page %d, note %q", v, m.Page(), m.note.Text)
		}
		if v == proto.VerbTakeover {
			press(m, runes("store-1"), tab, tab, tab, enter) // the name in the wrong field
			m.focus = m.startAt()
			if _, ok := asks(press(m, enter)); ok {
				t.Fatalf("%s without its phrase", v)
			}
			m.toPage(Confirm)
			m.statement = ""
			press(m, runes("cable pulled"), tea.KeyMsg{Type: tea.KeySpace, Runes: []rune(" ")}, runes("by me"), enter)
			if m.statement != "cable pulled by me" || m.focus != m.phraseAt() {
				t.Fatalf("statement %q, focus %d", m.statement, m.focus)
			}
		}
		phrase := phrases[v]
		if phrase == "" {
			phrase = "store-1"
		}
		m.typed = ""
		press(m, runes(phrase[:len(phrase)-1]))
		m.focus = m.startAt()
		if _, ok := asks(press(m, enter)); ok {
			t.Fatalf("%s starts with half of its phrase", v)
		}
		m.focus = m.cancelAt()
		press(m, runes(phrase[len(phrase)-1:]), tab)
		confirm, ok := asks(press(m, enter))
		if !ok || confirm != "store-1" {
			t.Fatalf("%s: confirm %q, %v, typed %q, note %q", v, confirm, ok, m.typed, m.note.Text)
		}
	}
}

func TestATakeoverCarriesTheStatement(t *testing.T) {
	m, reqs := begun(proto.VerbTakeover)
	feed(m, reqs)
	press(m, enter, enter, runes("off by me"), enter, runes("store-1 FORCE"), enter)
	if m.focus != m.cancelAt() {
		t.Fatalf("enter in the last field leads to %d", m.focus)
	}
	r, ok := begin(press(m, tab, enter))
	if !ok || r.Statement != "off by me" || r.Verb != proto.VerbTakeover || r.Confirm != "store-1" || r.To != "weasel" {
		t.Errorf("%+v", r)
	}
}

func TestTheOtherSide(t *testing.T) {
	m, reqs := begun(proto.VerbResolve)
	feed(m, reqs)
	reqs = press(m, runes("x"))
	if l, ok := reqs[0].(Load); !ok || l.Req.To != "otter" {
		t.Fatalf("%+v", reqs)
	}
	feed(m, reqs)
	if m.phrase() != "store-1 DISCARD weasel" {
		t.Errorf("asks for %q", m.phrase())
	}
}

func TestUndoOfAnOrphan(t *testing.T) {
	m, reqs := begun(VerbUndo)
	feed(m, reqs)
	var kinds []proto.StepKind
	for _, s := range m.reply.Plan.Steps {
		kinds = append(kinds, s.Kind)
	}
	if !slices.Equal(kinds, []proto.StepKind{proto.StepPromote, proto.StepActivate, proto.StepMount}) {
		t.Errorf("would run %v", kinds)
	}
	press(m, enter, enter, runes("store-1"), tab)
	reqs = press(m, enter)
	d, ok := reqs[0].(Decide)
	if !ok || d.Node != "weasel" || d.Req.Choice != proto.ChoiceUndo || d.Req.ID != scene.Op().ID {
		t.Fatalf("%+v", reqs)
	}
	op := scene.Undone()
	op.State = proto.OpUndoing
	if reqs = m.Decided(op, nil, scene.Now); m.Page() != Run || len(reqs) != 1 || reqs[0].(Watch).ID != op.ID {
		t.Fatalf("page %d, %+v", m.Page(), reqs)
	}
	end := scene.Undone()
	end.Rev++
	m.See(end, scene.Now)
	if m.Page() != Report {
		t.Errorf("page %d", m.Page())
	}
	done, reqs := begun(VerbUndo)
	done.LoadedOp(reqs[0].(LoadOp).Gen, scene.Finished(), nil, scene.Now)
	if press(done, enter); done.Page() != Check {
		t.Error("a finished operation could be undone")
	}
}

// TestNothingStartsUnconfirmed presses anything, in any order, in the wizard of any verb, with any answers in between.
func TestNothingStartsUnconfirmed(t *testing.T) {
	keys := []tea.KeyMsg{enter, enter, enter, tab, tab, esc, runes("store-1"), runes("store-1 FORCE"), runes("store-1 DISCARD otter"), runes("pulled the plug"), runes("s"), runes("r"),
		runes("b"), runes("d"), runes("y"), runes("x"), {Type: tea.KeySpace, Runes: []rune(" ")}, {Type: tea.KeyShiftTab}, {Type: tea.KeyBackspace}, {Type: tea.KeyCtrlU},
		{Type: tea.KeyUp}, {Type: tea.KeyRunes, Runes: []rune("store-1\r\n"), Paste: true}, {Type: tea.KeyEnter, Paste: true}}
	started := map[proto.Verb]int{}
	rapid.Check(t, func(rt *rapid.T) {
		soft := rapid.Bool().Draw(rt, "soft veto")
		verb := rapid.SampledFrom(verbs).Draw(rt, "verb")
		soft = soft && (verb == proto.VerbFailover || verb == proto.VerbDrill)
		var extra []proto.Check
		if soft {
			extra = append(extra, scene.Failed(proto.CheckBusyProc, "otter", "pid 1"))
		}
		m, reqs := begun(verb)
		if rapid.Bool().Draw(rt, "already on the third page") {
			feed(m, reqs, extra...)
			reqs = press(m, enter, enter)
			if rapid.Bool().Draw(rt, "phrase typed") {
				press(m, runes(m.phrase()))
			}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "keys") {
			if rapid.IntRange(0, 9).Draw(rt, "answered") > 0 {
				feed(m, reqs, extra...)
			}
			page, text, statement, focus, ticked, phrase := m.Page(), m.typed, m.statement, m.focus, m.ticks[proto.CheckBusyProc], "store-1"
			switch verb {
			case proto.VerbTakeover:
				phrase = "store-1 FORCE"
			case proto.VerbResolve:
				phrase = "store-1 DISCARD " + m.from
			}
			from := keys
			if page == Confirm && rapid.Bool().Draw(rt, "on the way") {
				from = []tea.KeyMsg{tab, tab, enter, enter, {Type: tea.KeySpace, Runes: []rune(" ")}}
			}
			k := rapid.SampledFrom(from).Draw(rt, "key")
			reqs = press(m, k)
			confirm, ok := asks(reqs)
			if !ok {
				continue
			}
			started[verb]++
			if page != Confirm || strings.TrimSpace(text) != phrase || confirm != "store-1" || focus != m.startAt() || k.Type != tea.KeyEnter || k.Paste || soft && !ticked ||
				verb == proto.VerbTakeover && len(statement) < 5 {
				rt.Fatalf("%s started from page %d, typed %q, statement %q, focus %d, key %v, ticked %v", verb, page, text, statement, focus, k, ticked)
			}
			m.Began(m.gen, false, proto.Op{}, proto.Errorf(proto.CodeLocked, "busy"), scene.Now)
		}
	})
	t.Logf("started %v", started)
}

func drawn(m *Model, p view.Pair) string {
	text, _ := m.Draw(screen.Ctx{Theme: theme.New(theme.Dark, true, termenv.Ascii), W: 80, H: 24, Loc: time.UTC, Pair: p}, scene.Now)
	return text
}

func TestStepByStepIsTicked(t *testing.T) {
	for _, v := range verbs {
		m, reqs := begun(v)
		feed(m, reqs)
		press(m, enter, enter)
		if v == VerbUndo {
			if m.steppable() || strings.Contains(drawn(m, view.Pair{}), "stop before every step") {
				t.Error("an undo offers what it cannot do")
			}
			continue
		}
		m.statement, m.typed = "pulled the plug", m.phrase()
		m.focus = m.stepAt()
		press(m, tea.KeyMsg{Type: tea.KeySpace, Runes: []rune(" ")})
		if text := drawn(m, view.Pair{}); !strings.Contains(text, "> [x] stop before every step") {
			t.Errorf("%s: no tick:\n%s", v, text)
		}
		m.focus = m.startAt()
		if r, ok := begin(press(m, enter)); !ok || !r.StepByStep {
			t.Errorf("%s started %v, step by step %v", v, ok, r.StepByStep)
		}
	}
	m := loaded(t, options())
	if r, ok := begin(press(m, enter, enter, runes("store-1"), tab, enter)); !ok || r.StepByStep {
		t.Errorf("started %v, step by step without a tick: %v", ok, r.StepByStep)
	}
}

func TestChecksThatCouldNotBeMadeAgainAreOld(t *testing.T) {
	m := loaded(t, options())
	l := press(m, runes("r"))[0].(Load)
	m.Loaded(l.Gen, proto.PlanReply{}, errors.New("the session broke"), scene.Now)
	text := drawn(m, view.Pair{})
	for _, w := range []string{"the session broke", "OLD", "(old) ok      both agents answer"} {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
	if press(m, enter); m.Page() != Check {
		t.Error("old checks lead on")
	}
	l = press(m, runes("r"))[0].(Load)
	m.Loaded(l.Gen, scene.Reply(), nil, scene.Now)
	if text := drawn(m, view.Pair{}); strings.Contains(text, "(old)") || strings.Contains(text, "OLD") {
		t.Errorf("fresh checks are called old:\n%s", text)
	}
}

// TestEveryPageSaysWhoIsSilent: an agent that went away in the middle of the wizard is named, but in a takeover the gone node.
func TestEveryPageSaysWhoIsSilent(t *testing.T) {
	p := view.Derive("store-1", "r0", scene.StalePrimary().Inputs, scene.Now)
	m := loaded(t, options())
	for _, page := range []Page{Check, Plan, Confirm} {
		if text := drawn(m, p); m.Page() != page || !strings.Contains(text, "otter has not answered this window for 42 s") {
			t.Errorf("page %d:\n%s", m.Page(), text)
		}
		press(m, enter)
	}
	over, reqs := begun(proto.VerbTakeover)
	feed(over, reqs)
	if text := drawn(over, p); strings.Contains(text, "has not answered this window") {
		t.Errorf("a takeover warns of what it is for:\n%s", text)
	}
}

func TestALongOutcomeKeepsHowThingsStand(t *testing.T) {
	op := scene.Stopped()
	op.Outcome = "step 6 (activate on weasel) failed: " + strings.Repeat("words of a program ", 40) + ". Now: otter is Secondary, weasel is Primary"
	m, _ := Attach(options(), op, scene.Now)
	text := drawn(m, view.Pair{})
	for _, w := range []string{"step 6 (activate on weasel) failed", "Now: otter is Secondary", "> t  try the failed step again", "step 6 output, tried at 14:02:16"} {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
}

func TestAPauseNamesWhatIsNext(t *testing.T) {
	op := scene.Done(scene.Op(), 1)
	op.Steps[1].Result = proto.StepResult{State: proto.StepWaiting}
	op.State, op.Choices = proto.OpPaused, []proto.Choice{proto.ChoiceResume, proto.ChoiceUndo}
	m, _ := Attach(options(), op, scene.Now)
	if text := drawn(m, view.Pair{}); !strings.Contains(text, "Next is step 2 on otter: vgchange") || !strings.Contains(text, "> g  go on") {
		t.Errorf("%s", text)
	}
	again := scene.Stopped()
	again.State, again.Choices, again.Rev = proto.OpPaused, op.Choices, 50
	m.See(again, scene.Now)
	if text := drawn(m, view.Pair{}); !strings.Contains(text, "Next is step 6 on weasel") {
		t.Errorf("the step that is tried again is not the next:\n%s", text)
	}
	end := scene.Undone()
	end.Rev = 99
	m.See(end, scene.Now)
	if text := drawn(m, view.Pair{}); !strings.Contains(text, "not run  7") || strings.Contains(text, "waiting") {
		t.Errorf("a step that never ran still waits:\n%s", text)
	}
}

func TestEscGoesOnePageBack(t *testing.T) {
	m := loaded(t, options())
	press(m, enter, enter, runes("store-1"))
	for _, page := range []Page{Plan, Check} {
		if reqs := press(m, esc); len(reqs) != 0 || m.Page() != page {
			t.Fatalf("page %d, %+v", m.Page(), reqs)
		}
	}
	if reqs := press(m, esc); len(reqs) != 1 || reqs[0] != (Close{}) {
		t.Errorf("%+v", reqs)
	}
}
