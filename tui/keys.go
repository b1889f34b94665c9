package tui

import (
	"errors"
	"slices"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/layout"
	"example.com/santui/tui/safe"
	"example.com/santui/tui/screen"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	"example.com/santui/tui/view"
	"example.com/santui/tui/wizard"
	tea "github.com/charmbracelet/bubbletea"
)

// where is the screen that keys belong to.
func (m *Model) where() keymap.Screen {
	if m.screen != keymap.HelpScreen && m.wiz != nil {
		return m.wiz.Screen()
	}
	return m.screen
}

func (m *Model) key(msg tea.KeyMsg) tea.Cmd {
	if msg.Type == tea.KeyCtrlC && !msg.Paste {
		if m.ask != nil && m.ask.leave {
			return m.leave()
		}
		return m.quit()
	}
	switch {
	case m.ask != nil:
		return m.ask.key(m, msg)
	case m.form != nil:
		return m.form.key(m, msg)
	case m.list.Typing:
		m.filterKey(msg)
		return nil
	case m.where() == keymap.ConfirmPage:
		if b, ok := keymap.Match(keymap.ConfirmPage, msg); ok && b.Action == keymap.Help {
			cmd, _ := m.commonKey(b.Action)
			return cmd
		}
		return m.exec(m.wiz.Key(msg, keymap.Binding{}, m.o.now()))
	}
	b, ok := keymap.Match(m.where(), msg)
	if !ok {
		return nil
	}
	if why := b.Why(m.ctxFor().State()); why != "" {
		return m.say(view.Line{Level: view.Warn, Text: b.Desc(m.ctxFor().State()) + " is not possible now: " + why})
	}
	if cmd, done := m.commonKey(b.Action); done {
		return cmd
	}
	if m.wiz != nil {
		return m.exec(m.wiz.Key(msg, b, m.o.now()))
	}
	return m.homeKey(b.Action)
}

// commonKey handles what works on every screen.
func (m *Model) commonKey(a keymap.Action) (tea.Cmd, bool) {
	switch a {
	case keymap.Quit:
		return m.quit(), true
	case keymap.Help:
		if m.screen == keymap.HelpScreen {
			m.screen = m.before
		} else {
			m.before, m.screen = m.where(), keymap.HelpScreen
		}
		m.list.Top = 0
		return nil, true
	case keymap.Back:
		if m.screen != keymap.HelpScreen {
			return nil, false
		}
		m.list.Top, m.screen = 0, keymap.Overview
		if m.wiz == nil {
			m.screen = m.before
		}
		return nil, true
	case keymap.Theme:
		m.nextTheme()
		return m.say(view.Line{Text: "colours: " + string(m.theme.Name)}), true
	case keymap.Redraw:
		return tea.ClearScreen, true
	case keymap.Suspend:
		return tea.Suspend, true
	default:
	}
	if m.screen == keymap.HelpScreen {
		m.scroll(a)
		return nil, true
	}
	return nil, false
}

func (m *Model) nextTheme() {
	m.theme = theme.New(m.theme.Name.Next(), m.o.ASCII, m.profile)
}

func (m *Model) scroll(a keymap.Action) {
	page := max(m.h-6, 1)
	switch a {
	case keymap.Up:
		m.list.Top--
	case keymap.Down:
		m.list.Top++
	case keymap.PageUp:
		m.list.Top -= page
	case keymap.PageDown:
		m.list.Top += page
	case keymap.Top:
		m.list.Top = 0
	case keymap.Bottom:
		m.list.Top = 1 << 20
	default:
	}
}

func (m *Model) homeKey(a keymap.Action) tea.Cmd {
	switch a {
	case keymap.Back:
		m.show(keymap.Overview)
	case keymap.Panel:
		m.moveFocus(1)
	case keymap.PanelBack:
		m.moveFocus(-1)
	case keymap.Enter:
		return m.open()
	case keymap.Sync:
		m.show(keymap.SyncScreen)
	case keymap.Events:
		m.show(keymap.EventsScreen)
	case keymap.Commands:
		m.show(keymap.CommandsScreen)
		return m.fetchOps()
	case keymap.Doctor:
		return m.showDoctor()
	case keymap.Refresh:
		return m.askDoctor(nil, "")
	case keymap.Fix:
		m.ask = m.fixQuestion()
	case keymap.Filter:
		m.list.Typing = true
	case keymap.Copy:
		return m.copyList()
	case keymap.Reconnect:
		for _, n := range m.pair.Stale() {
			m.src.RetryNow(n.Name)
		}
		return m.say(view.Line{Text: "trying again now"})
	case keymap.Next, keymap.Prev:
		m.nextResource(a)
	case keymap.Failover:
		return m.begin(proto.VerbFailover, m.pair.From, m.pair.To)
	case keymap.Drill:
		return m.begin(proto.VerbDrill, m.pair.From, m.pair.To)
	case keymap.Takeover:
		return m.begin(proto.VerbTakeover, m.pair.Takeover.From, m.pair.Takeover.To)
	case keymap.Resolve:
		return m.begin(proto.VerbResolve, m.pair.Resolve.From, m.pair.Resolve.To)
	case keymap.Rejoin:
		return m.begin(proto.VerbRejoin, m.pair.Rejoin.From, m.pair.Rejoin.To)
	case keymap.UndoOp:
		w, reqs := wizard.NewUndo(m.wizardOptions(), *m.pair.Op)
		return m.openWizard(w, reqs)
	case keymap.Setup:
		m.form = newForm(m.setup)
	case keymap.Attach:
		if m.pair.Running() {
			m.started = m.pair.Op.ID
		}
		w, reqs := wizard.Attach(m.wizardOptions(), *m.pair.Op, m.o.now())
		return m.openWizard(w, reqs)
	case keymap.Verify:
		m.ask = m.verifyQuestion()
	case keymap.Pause, keymap.Resume, keymap.Rate, keymap.Start:
		m.ask = m.syncQuestion(a)
	default:
		m.scroll(a)
	}
	return nil
}

// begin opens the wizard for a verb.
func (m *Model) begin(v proto.Verb, from, to string) tea.Cmd {
	w, reqs := wizard.New(m.wizardOptions(), v, m.pair.Resource, from, to)
	return m.openWizard(w, reqs)
}

func (m *Model) show(s keymap.Screen) {
	m.screen, m.list = s, screen.List{}
}

// moveFocus goes to the next part of the overview that is shown.
func (m *Model) moveFocus(d int) {
	n := int(screen.FocusCount)
	if layout.SizeOf(m.w, m.h) != layout.Wide {
		n-- // no commands
	}
	m.focus = screen.Focus((int(m.focus) + d + n) % n)
}

func (m *Model) open() tea.Cmd {
	switch m.focus {
	case screen.FirstNode, screen.SecondNode:
		if i := int(m.focus); i < len(m.pair.Nodes) {
			m.show(keymap.NodeDetail)
			m.node = m.pair.Nodes[i].Name
		}
	case screen.Middle:
		m.show(keymap.SyncScreen)
	case screen.EventList:
		m.show(keymap.EventsScreen)
	case screen.CommandList:
		m.show(keymap.CommandsScreen)
		return m.fetchOps()
	default:
	}
	return nil
}

func (m *Model) nextResource(a keymap.Action) {
	all := slices.Clone(m.pair.Resources)
	slices.Sort(all) // their order by danger may change between two key presses
	i := slices.Index(all, m.pair.Resource)
	if len(all) < 2 || i < 0 {
		return
	}
	d := 1
	if a == keymap.Prev {
		d = len(all) - 1
	}
	m.resource = all[(i+d)%len(all)]
	m.derive()
}

func (m *Model) filterKey(msg tea.KeyMsg) {
	switch msg.Type {
	case tea.KeyEnter:
		if !msg.Paste {
			m.list.Typing = false
		}
	case tea.KeyEsc:
		m.list.Typing, m.list.Filter = false, ""
	case tea.KeyBackspace:
		if r := []rune(m.list.Filter); len(r) > 0 {
			m.list.Filter = string(r[:len(r)-1])
		}
	case tea.KeyRunes, tea.KeySpace:
		m.list.Filter = typed(m.list.Filter, msg.Runes)
	default:
	}
	m.list.Top = 0
}

// askJournals asks once for what was done before, where no agent shows an operation: an agent that was started anew shows none.
func (m *Model) askJournals() tea.Cmd {
	live := slices.ContainsFunc(m.pair.Nodes, view.Node.Live)
	if m.opsAsked || !live {
		return nil
	}
	m.opsAsked = true
	return m.fetchOps()
}

// journalOps is of how many operations, the newest, the steps are fetched.
const journalOps = 8

// fetchOps asks the live agents for the operations they remember, and for what the newest of them ran.
func (m *Model) fetchOps() tea.Cmd {
	var nodes []string
	for _, n := range m.pair.Nodes {
		if n.Live() {
			nodes = append(nodes, n.Name)
		}
	}
	return safe.Cmd(func() tea.Msg {
		ctx, cancel := contextWithLimit(m.ctx)
		defer cancel()
		var all []proto.Op
		var errs []error
		from := map[string]string{} // operation to the node that knows it
		for _, n := range nodes {
			r, err := source.Call[proto.OpsReply](ctx, m.src, n, proto.MethodOps, proto.Empty{})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, op := range r.Ops {
				if !slices.ContainsFunc(all, func(o proto.Op) bool { return o.ID == op.ID }) {
					all = append(all, op)
					from[op.ID] = n
				}
			}
		}
		slices.SortStableFunc(all, func(a, b proto.Op) int { return b.Started.Compare(a.Started) })
		all = all[:min(len(all), journalOps)]
		for i, op := range all { // the lists hold no steps
			r, err := source.Call[proto.Report](ctx, m.src, from[op.ID], proto.MethodReport, proto.OpRequest{ID: op.ID})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			all[i] = r.Op
		}
		return opsMsg{all, errors.Join(errs...)}
	})
}

// quit leaves, or asks first while an operation that was started here still runs.
func (m *Model) quit() tea.Cmd {
	if !m.busy() {
		return m.leave()
	}
	what := "Operation " + m.started + " is not over."
	if m.wiz != nil && m.wiz.Uncertain() {
		what = "An operation was asked for and may have begun."
	}
	m.ask = &question{leave: true, title: "leave while the operation runs?",
		lines:   []string{what + " It runs on the agents and goes on without this window; santui ops shows it, a attaches to it again."},
		buttons: []string{"Stay", "Leave, it goes on"},
		yes:     func(*question) tea.Cmd { return m.leave() }}
	return nil
}

// busy says whether an operation of ours is, or may be, under way.
func (m *Model) busy() bool {
	if m.wiz != nil && (m.wiz.Running() || m.wiz.Uncertain()) {
		return true
	}
	return m.started != "" && m.pair.Running() && m.pair.Op.ID == m.started
}

func (m *Model) leave() tea.Cmd {
	if m.busy() {
		m.code = codeDetached
	}
	m.leaving = true
	return tea.Quit
}
