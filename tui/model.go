package tui

import (
	"context"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/clean"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/safe"
	"example.com/santui/tui/screen"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
	"example.com/santui/tui/wizard"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/muesli/termenv"
)

// Model is the root of the cockpit. See Run for the way to start it; tests drive it directly.
type Model struct {
	ctx     context.Context // ends with the program; every request hangs on it
	src     source.Source
	o       Options
	profile termenv.Profile
	updates <-chan source.Update
	after   func(time.Duration, tea.Msg) tea.Cmd // a message later; tests replace it
	streams func([]tea.Cmd) []tea.Cmd            // commands that last as long as an operation; tests replace it

	w, h  int
	theme theme.Theme
	in    map[string]source.Update
	pair  view.Pair

	resource string // chosen by the operator, "" for the most endangered
	screen   keymap.Screen
	before   keymap.Screen // where help was opened
	focus    screen.Focus
	node     string // of NodeDetail
	list     screen.List
	ops      []proto.Op // what the agents' journals hold, newest first
	opsErr   error
	opsAsked bool // for them, because no agent shows an operation
	form     *form
	setup    proto.SetupRequest // what the form asked for last
	doctor   screen.Diagnosis
	note     view.Line
	noteGen  int
	// doctorGen counts the questions to the doctors; an answer to an older one is dropped.
	doctorGen int

	ask     *question
	wiz     *wizard.Model
	wizCtx  context.Context
	wizEnd  context.CancelFunc
	started string // id of the last operation that was started or attached to here

	leaving bool // the operator or a signal decided
	code    int
	fatal   *safe.PanicError
}

// Messages of the root.
type (
	updatesMsg  []source.Update
	closedMsg   struct{} // the source ended
	tickMsg     struct{}
	noteGoneMsg int
	askQuitMsg  struct{}
	opsMsg      struct {
		ops []proto.Op
		err error
	}
	doneMsg   struct{ note view.Line }
	signalMsg int // exit code
)

const (
	callLimit = 30 * time.Second // for a request's answer
	gather    = 30 * time.Millisecond
	noteTime  = 6 * time.Second
)

func newModel(ctx context.Context, src source.Source, o Options, name theme.Name, ascii bool, profile termenv.Profile) *Model {
	o.ASCII = ascii
	m := &Model{ctx: ctx, src: src, o: o, profile: profile, theme: theme.New(name, ascii, profile),
		in: map[string]source.Update{}, screen: keymap.Overview, resource: o.Resource, after: later,
		streams: func(c []tea.Cmd) []tea.Cmd { return c }}
	m.derive()
	return m
}

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd {
	m.updates = m.src.Watch(m.ctx)
	return tea.Batch(m.await(0), m.tick())
}

func later(d time.Duration, msg tea.Msg) tea.Cmd {
	return tea.Tick(d, func(time.Time) tea.Msg { return msg })
}

// tick ages what is shown once a second. Where nothing ages the screen stays the same, and nothing is written.
func (m *Model) tick() tea.Cmd { return m.after(time.Second, tickMsg{}) }

// await waits for updates, not before the pause is over, and gathers those that come together.
func (m *Model) await(pause time.Duration) tea.Cmd {
	ctx, in := m.ctx, m.updates
	return safe.Cmd(func() tea.Msg {
		if !sleep(ctx, pause) {
			return nil
		}
		u, ok := <-in
		if !ok {
			return closedMsg{}
		}
		out := updatesMsg{u}
		t := time.NewTimer(gather)
		defer t.Stop()
		for {
			select {
			case u, ok := <-in:
				if !ok {
					return out
				}
				out = append(out, u)
			case <-t.C:
				return out
			}
		}
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// derive computes what is shown from what is known.
func (m *Model) derive() {
	in := make([]view.Input, 0, len(m.src.Nodes()))
	for _, n := range m.src.Nodes() {
		u, ok := m.in[n]
		if !ok {
			u = source.Update{Node: n}
		}
		in = append(in, u)
	}
	m.pair = view.Derive(m.o.Pair, m.resource, in, m.o.now())
}

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = msg.Width, msg.Height
	case updatesMsg:
		return m, tea.Batch(m.takeUpdates(msg), m.await(m.o.Refresh))
	case tickMsg:
		m.derive()
		return m, m.tick()
	case noteGoneMsg:
		if int(msg) == m.noteGen {
			m.note = view.Line{}
		}
	case doneMsg:
		return m, m.say(msg.note)
	case opsMsg:
		m.ops, m.opsErr = msg.ops, msg.err
		m.opsAsked = m.opsAsked && (len(msg.ops) > 0 || msg.err == nil) // nobody answered: the next news of a node asks again
	case doctorMsg:
		return m, m.diagnosed(msg)
	case wizardMsg:
		if msg.wiz == m.wiz {
			return m, m.exec(msg.apply(m.wiz))
		}
	case opSeenMsg:
		return m, m.opSeen(msg)
	case askQuitMsg:
		return m, m.quit()
	case signalMsg:
		m.code, m.leaving = int(msg), true
		return m, tea.Quit
	case safe.PanicError:
		m.fatal, m.leaving, m.code = &msg, true, codeBug
		return m, tea.Quit
	case tea.ResumeMsg:
		m.derive()
	case tea.KeyMsg:
		cmd := m.key(msg)
		m.settle()
		return m, cmd
	}
	return m, nil
}

func (m *Model) takeUpdates(list []source.Update) tea.Cmd {
	for _, u := range list {
		m.in[u.Node] = u
	}
	m.derive()
	if m.pair.Op == nil {
		return m.askJournals()
	}
	if m.wiz == nil {
		return nil
	}
	return m.exec(m.wiz.See(*m.pair.Op, m.o.now()))
}

// say shows a line in the place of the next one for a while.
func (m *Model) say(l view.Line) tea.Cmd {
	l.Text = clean.String(l.Text)
	m.note = l
	m.noteGen++
	return m.after(noteTime, noteGoneMsg(m.noteGen))
}

func (m *Model) ctxFor() screen.Ctx {
	var choices []proto.Choice
	var verb proto.Verb
	if m.wiz != nil {
		choices, verb = m.wiz.Offered(), m.wiz.Verb()
	}
	var last *proto.Op
	if len(m.ops) > 0 {
		last = &m.ops[0]
	}
	return screen.Ctx{Verb: verb, Last: last, NoFix: m.doctor.WhyNoFix(), Choices: choices, Theme: m.theme, W: m.w, H: m.h, Pair: m.pair, Loc: m.o.Location, ReadOnly: m.o.ReadOnly, Note: m.note}
}

// draw draws what is on top and says where its scrolled part ended up.
func (m *Model) draw() (string, int) {
	c := m.ctxFor()
	if m.screen == keymap.HelpScreen {
		return c.Help(m.before, m.list.Top)
	}
	switch {
	case m.ask != nil:
		return m.ask.draw(c), m.list.Top
	case m.form != nil:
		return m.form.draw(c, m.pair.Resource, m.pair.Setup.To), m.list.Top
	case m.wiz != nil:
		return m.wiz.Draw(c, m.o.now())
	}
	switch m.screen {
	case keymap.NodeDetail:
		return c.NodeDetail(m.node, m.list.Top)
	case keymap.SyncScreen:
		return c.SyncScreen(m.list.Top)
	case keymap.EventsScreen:
		return c.EventList(m.list)
	case keymap.DoctorScreen:
		return c.Doctor(m.doctor, m.list.Top)
	case keymap.CommandsScreen:
		note := ""
		if m.opsErr != nil {
			note = "earlier operations could not be fetched: " + m.opsErr.Error()
		}
		return c.CommandList(m.list, m.allOps(), note)
	default:
		return c.Overview(m.focus), 0
	}
}

// settle keeps scroll positions within what there is, after a key.
func (m *Model) settle() {
	if m.w <= 0 || m.h <= 0 {
		return
	}
	_, top := m.draw()
	if m.wiz != nil && m.screen != keymap.HelpScreen && m.ask == nil {
		m.wiz.Settle(top)
		return
	}
	m.list.Top = top
}

// View implements tea.Model: exactly the window's height in lines of exactly its width.
func (m *Model) View() string {
	if m.w <= 0 || m.h <= 0 {
		return ""
	}
	out, _ := m.draw()
	return strings.Join(widget.Block(m.theme, strings.Split(out, "\n"), m.w, m.h), "\n")
}

// allOps are the operations whose commands are shown: what the snapshots hold, and what was fetched.
func (m *Model) allOps() []proto.Op {
	var out []proto.Op
	if m.pair.Op != nil {
		out = append(out, *m.pair.Op)
	}
	for _, op := range m.ops {
		if m.pair.Op == nil || op.ID != m.pair.Op.ID {
			out = append(out, op)
		}
	}
	return out
}
