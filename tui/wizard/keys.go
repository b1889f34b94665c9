package wizard

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/view"
	tea "github.com/charmbracelet/bubbletea"
)

var errTimeout = context.DeadlineExceeded

// Key takes a key that the key map does not handle by itself, and the binding it matched, if any.
func (m *Model) Key(msg tea.KeyMsg, b keymap.Binding, now time.Time) []Request {
	if m.page == Confirm {
		return m.confirmKey(msg, now)
	}
	m.note = view.Line{}
	if m.scrollKey(b.Action) {
		return nil
	}
	switch m.page {
	case Check, Plan:
		return m.readKey(b.Action)
	case Run:
		return m.runKey(b.Action, now)
	default:
		return m.reportKey(b.Action)
	}
}

func (m *Model) scrollKey(a keymap.Action) bool {
	if m.page == Run && len(m.offered(m.op)) > 1 && (a == keymap.Up || a == keymap.Down) {
		d := 1
		if a == keymap.Up {
			d = -1
		}
		m.choice = min(max(m.choice+d, 0), len(m.offered(m.op))-1)
		return true
	}
	switch a {
	case keymap.Up:
		m.top = max(m.top-1, 0)
	case keymap.Down:
		m.top++
	case keymap.PageUp:
		m.top = max(m.top-10, 0)
	case keymap.PageDown:
		m.top += 10
	case keymap.Top:
		m.top = 0
	case keymap.Bottom:
		m.top, m.follow = 0, true
		if m.page != Run {
			m.top, m.follow = 1<<20, false
		}
		return true
	default:
		return false
	}
	m.follow = false
	return true
}

func (m *Model) readKey(a keymap.Action) []Request {
	switch a {
	case keymap.Refresh:
		return m.load()
	case keymap.Enter:
		if why := m.whyNotNext(); why != "" {
			m.note = view.Line{Level: view.Warn, Text: "not yet: " + why}
			return nil
		}
		m.toPage(m.page + 1)
	case keymap.PageBack:
		m.toPage(Check)
	case keymap.Back:
		return []Request{Close{}}
	case keymap.Swap:
		m.from, m.to, m.reply, m.dry = m.to, m.from, nil, nil
		return m.load()
	case keymap.DryRun:
		if m.setup != nil {
			m.note = view.Line{Text: "this plan is a dry run already: the agent has looked at both nodes and changed nothing"}
			return nil
		}
		if m.undoing != nil {
			m.note = view.Line{Text: "an undo has no dry run: each inverse looks first whether there is anything to do"}
			return nil
		}
		if m.reply == nil || m.reply.Hash == "" || m.drying || m.loading {
			return nil
		}
		m.drying = true
		m.dryGen++
		r := m.request(true)
		for _, c := range m.soft() { // nothing is done, so nothing has to be accepted by hand
			r.Accept = append(r.Accept, c.Code)
		}
		return []Request{Begin{Gen: m.dryGen, Req: r}}
	case keymap.Copy:
		return []Request{CopyText{m.readText()}}
	case keymap.Write:
		return []Request{WriteText{Name: string(m.verb) + "-" + m.resource + "-" + m.to + ".txt", Text: m.readText()}}
	default:
	}
	return nil
}

func (m *Model) readText() string {
	if m.reply == nil {
		return ""
	}
	if m.page == Check {
		return checkText(m.reply.Checks)
	}
	return planText(m.reply.Plan)
}

// The tab key visits, on the third page: Cancel, Start, the ticks of what is accepted, that of step by step, and in a takeover the two fields of text. Cancel has the
// focus first, or else the first of the fields, where the enter key does nothing but go on.
func (m *Model) cancelAt() int    { return 0 }
func (m *Model) startAt() int     { return 1 }
func (m *Model) stepAt() int      { return 2 + len(m.soft()) }
func (m *Model) statementAt() int { return m.stepAt() + 1 }
func (m *Model) phraseAt() int    { return m.statementAt() + 1 }

// steppable says whether the operation can be made to stop before every step.
func (m *Model) steppable() bool { return m.undoing == nil && m.setup == nil }

func (m *Model) stops() int {
	switch {
	case m.verb == proto.VerbTakeover:
		return m.phraseAt() + 1
	case m.steppable():
		return m.statementAt()
	}
	return m.stepAt()
}

// confirmKey handles the third page, where letters are text. Pasted text fills the field and nothing else.
func (m *Model) confirmKey(msg tea.KeyMsg, now time.Time) []Request {
	if msg.Type == tea.KeyRunes && !msg.Alt {
		m.typeText(string(msg.Runes))
		return nil
	}
	if msg.Paste {
		return nil
	}
	m.note = view.Line{}
	b, _ := keymap.Match(keymap.ConfirmPage, msg)
	switch b.Action {
	case keymap.Back:
		m.toPage(Plan)
	case keymap.Erase:
		if f := m.field(); *f != "" {
			r := []rune(*f)
			*f = string(r[:len(r)-1])
		}
	case keymap.Clear:
		*m.field() = ""
	case keymap.Panel:
		m.focus = (m.focus + 1) % m.stops()
	case keymap.PanelBack:
		m.focus = (m.focus + m.stops() - 1) % m.stops()
	case keymap.Tick:
		if !m.tick() {
			m.typeText(" ")
		}
	case keymap.Enter:
		return m.confirmEnter(now)
	default:
	}
	return nil
}

// field is where letters go.
func (m *Model) field() *string {
	if m.verb == proto.VerbTakeover && m.focus == m.statementAt() {
		return &m.statement
	}
	return &m.typed
}

func (m *Model) typeText(s string) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	f, limit := m.field(), maxTyped
	if f == &m.statement {
		limit = maxStatement
	}
	if r := []rune(strings.TrimLeft(*f+s, " ")); len(r) <= limit {
		*f = string(r)
	}
}

// tick turns the tick that has the focus over, and says whether one has.
func (m *Model) tick() bool {
	if m.steppable() && m.focus == m.stepAt() {
		m.stepwise = !m.stepwise
		return true
	}
	i := m.focus - 2
	if i < 0 || i >= len(m.soft()) {
		return false
	}
	code := m.soft()[i].Code
	m.ticks[code] = !m.ticks[code]
	return true
}

func (m *Model) confirmEnter(now time.Time) []Request {
	switch m.focus {
	case m.cancelAt():
		m.toPage(Plan)
		return nil
	case m.startAt():
		return m.begin(now)
	}
	if !m.tick() {
		m.focus = (m.focus + 1) % m.stops() // from a field to the next, and on to Cancel
	}
	return nil
}

// whyNotStart tells why the Start button does nothing, "" if it starts.
func (m *Model) whyNotStart() string {
	switch {
	case m.o.ReadOnly:
		return "this session is read-only"
	case m.starting:
		return "asked for, no answer yet"
	case m.loading:
		return "the checks are being made"
	case m.reply == nil || m.reply.Hash == "" || len(m.hard()) > 0:
		return "there is no plan"
	case m.verb == proto.VerbTakeover && len(strings.TrimSpace(m.statement)) < minStatement:
		return "say how you know that " + m.from + " is off"
	case m.typed == "":
		return "type " + m.phrase()
	case m.confirmed() == "":
		return "what is typed does not match yet"
	}
	if slices.ContainsFunc(m.soft(), func(c proto.Check) bool { return !m.ticks[c.Code] }) {
		return "a warning is not accepted"
	}
	return ""
}

// begin is the only place where an operation is started.
func (m *Model) begin(now time.Time) []Request {
	if why := m.whyNotStart(); why != "" {
		m.note = view.Line{Level: view.Warn, Text: "not started: " + why}
		return nil
	}
	if now.Sub(m.at) > checkAge {
		m.note = view.Line{Text: "the checks are older than a minute and are made again"}
		return m.load()
	}
	if m.undoing != nil {
		m.starting = true
		return []Request{Decide{Node: m.runner(), Req: proto.DecideRequest{ID: m.undoing.ID, Choice: proto.ChoiceUndo, Confirm: m.confirmed(), By: m.o.Owner}}}
	}
	if m.setup != nil {
		m.starting = true
		req := *m.setup
		req.Confirm = m.confirmed()
		return []Request{Watch{Node: m.to, Setup: &req}}
	}
	r := m.request(false)
	if m.requestID == "" {
		m.requestID = r.RequestID
	}
	r.RequestID = m.requestID
	m.starting = true
	return []Request{Begin{Gen: m.gen, Req: r}}
}

var choiceOf = map[keymap.Action]proto.Choice{
	keymap.Retry: proto.ChoiceRetry, keymap.Undo: proto.ChoiceUndo, keymap.Keep: proto.ChoiceKeep,
	keymap.PauseOp: proto.ChoicePause, keymap.Resume: proto.ChoiceResume,
}

func (m *Model) runKey(a keymap.Action, now time.Time) []Request {
	if c, ok := choiceOf[a]; ok {
		i := slices.Index(m.offered(m.op), c)
		if i < 0 {
			m.note = view.Line{Level: view.Warn, Text: string(c) + " is not possible now"}
			return nil
		}
		m.choice, m.seen = i, time.Time{} // chosen by its own key: nothing to guard against
		return nil
	}
	switch a {
	case keymap.Enter:
		offered := m.offered(m.op)
		if m.deciding || m.choice < 0 || m.choice >= len(offered) || now.Sub(m.seen) < settle {
			return nil
		}
		if m.o.ReadOnly {
			m.note = view.Line{Level: view.Warn, Text: "this session is read-only"}
			return nil
		}
		m.deciding = true
		return []Request{Decide{Node: m.runner(), Req: proto.DecideRequest{ID: m.op.ID, Choice: offered[m.choice], By: m.o.Owner}}}
	case keymap.Output:
		m.allOutput = !m.allOutput
		m.follow = true
	case keymap.Copy:
		return []Request{CopyText{opText(*m.op)}}
	case keymap.Detach, keymap.Back:
		return []Request{Close{Note: view.Line{Text: "detached: operation " + m.op.ID + " goes on on the agents; a attaches to it again"}}}
	default:
	}
	return nil
}

func (m *Model) reportKey(a keymap.Action) []Request {
	switch a {
	case keymap.Enter, keymap.Back:
		return []Request{Close{}}
	case keymap.Copy:
		return []Request{CopyText{reportText(m.final())}}
	case keymap.Write:
		b, err := json.MarshalIndent(m.final(), "", "  ")
		if err != nil {
			m.note = view.Line{Level: view.Alert, Text: err.Error()}
			return nil
		}
		return []Request{WriteText{Name: "report-" + m.op.ID + ".json", Text: string(b) + "\n"}}
	default:
	}
	return nil
}

// final is the report, or as much of one as is known here.
func (m *Model) final() proto.Report {
	if m.report != nil {
		return *m.report
	}
	return proto.Report{Schema: proto.Schema, Op: *m.op}
}
