package tui

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/safe"
	"example.com/santui/tui/source"
	"example.com/santui/tui/view"
	"example.com/santui/tui/wizard"
	"github.com/aymanbagabas/go-osc52/v2"
	tea "github.com/charmbracelet/bubbletea"
)

// wizardMsg is an answer for a wizard. If that wizard was left meanwhile, it is dropped.
type wizardMsg struct {
	wiz   *wizard.Model
	apply func(*wizard.Model) []wizard.Request
}

// opStream carries the newest state of a watched operation; err is valid once ch is closed.
type opStream struct {
	ch     chan proto.Op // capacity 1
	err    error
	begins bool // its first state is the answer to the start of a set-up
}

type opSeenMsg struct {
	wiz    *wizard.Model
	stream *opStream
	op     proto.Op
	node   string // that said so
}

func contextWithLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callLimit)
}

func (m *Model) wizardOptions() wizard.Options {
	return wizard.Options{Pair: m.pair.Name, Owner: m.o.Owner, ReadOnly: m.o.ReadOnly, NewID: m.o.newID}
}

func (m *Model) openWizard(w *wizard.Model, reqs []wizard.Request) tea.Cmd {
	m.wiz = w
	m.wizCtx, m.wizEnd = context.WithCancel(m.ctx)
	m.note = view.Line{}
	return m.exec(reqs)
}

func (m *Model) closeWizard() {
	m.wizEnd()
	m.wiz = nil
	m.show(keymap.Overview)
}

// exec carries out what the wizard asks for.
func (m *Model) exec(reqs []wizard.Request) tea.Cmd {
	var cmds []tea.Cmd
	for _, r := range reqs {
		switch r := r.(type) {
		case wizard.Load:
			cmds = append(cmds, ask(m, r.Req.To, proto.MethodPlan, r.Req, func(w *wizard.Model, p proto.PlanReply, err error) []wizard.Request {
				w.Loaded(r.Gen, p, err, m.o.now())
				return nil
			}))
		case wizard.LoadSetup:
			cmds = append(cmds, m.loadSetup(r))
		case wizard.LoadOp:
			cmds = append(cmds, ask(m, r.Node, proto.MethodReport, proto.OpRequest{ID: r.ID}, func(w *wizard.Model, rep proto.Report, err error) []wizard.Request {
				w.LoadedOp(r.Gen, rep.Op, err, m.o.now())
				return nil
			}))
		case wizard.Begin:
			cmds = append(cmds, ask(m, r.Req.To, proto.MethodOpStart, r.Req, func(w *wizard.Model, op proto.Op, err error) []wizard.Request {
				if err == nil && !r.Req.DryRun {
					m.started = op.ID
				}
				return w.Began(r.Gen, r.Req.DryRun, op, err, m.o.now())
			}))
		case wizard.Decide:
			cmds = append(cmds, ask(m, r.Node, proto.MethodOpDecide, r.Req, func(w *wizard.Model, op proto.Op, err error) []wizard.Request {
				if err == nil && !op.State.Final() {
					m.started = op.ID
				}
				return w.Decided(op, err, m.o.now())
			}))
		case wizard.Fetch:
			cmds = append(cmds, ask(m, r.Node, proto.MethodReport, proto.OpRequest{ID: r.ID}, func(w *wizard.Model, rep proto.Report, err error) []wizard.Request {
				if err == nil {
					m.heard(rep.Op)
				}
				w.Fetched(rep, err)
				return nil
			}))
		case wizard.Watch:
			cmds = append(cmds, m.watchOp(r)...)
		case wizard.CopyText:
			cmds = append(cmds, m.copyText(r.Text))
		case wizard.WriteText:
			cmds = append(cmds, m.writeText(r.Name, r.Text))
		case wizard.Close:
			m.closeWizard()
			if r.Note.Text != "" {
				cmds = append(cmds, m.say(r.Note))
			}
		}
	}
	return tea.Batch(cmds...)
}

// ask sends a wizard's request; the answer comes back as a message for that wizard.
func ask[T any](m *Model, node string, method proto.Method, in any, apply func(*wizard.Model, T, error) []wizard.Request) tea.Cmd {
	w, parent, src := m.wiz, m.wizCtx, m.src
	return safe.Cmd(func() tea.Msg {
		ctx, cancel := contextWithLimit(parent)
		defer cancel()
		out, err := source.Call[T](ctx, src, node, method, in)
		return wizardMsg{w, func(w *wizard.Model) []wizard.Request { return apply(w, out, cleanErr(err)) }}
	})
}

// loadSetup asks for checks and plan of a set-up: its dry run, of which there is one state.
func (m *Model) loadSetup(r wizard.LoadSetup) tea.Cmd {
	w, parent, src, now := m.wiz, m.wizCtx, m.src, m.o.now
	return safe.Cmd(func() tea.Msg {
		ctx, cancel := contextWithLimit(parent)
		defer cancel()
		var reply proto.PlanReply
		err := src.Stream(ctx, r.Node, proto.MethodSetup, r.Req, func(raw json.RawMessage) error {
			op, err := source.Decode[proto.Op](raw)
			reply = proto.PlanReply{Plan: op.Plan, Hash: op.PlanHash, Checks: op.Checks}
			return err
		})
		return wizardMsg{w, func(w *wizard.Model) []wizard.Request {
			w.Loaded(r.Gen, reply, cleanErr(err), now())
			return nil
		}}
	})
}

// watchOp follows an operation: one command reads the stream, another hands its newest state on.
func (m *Model) watchOp(r wizard.Watch) []tea.Cmd {
	w, ctx, src := m.wiz, m.wizCtx, m.src
	s := &opStream{ch: make(chan proto.Op, 1), begins: r.Setup != nil}
	method, in := proto.MethodOpWatch, any(proto.OpRequest{ID: r.ID})
	if r.Setup != nil {
		method, in = proto.MethodSetup, *r.Setup
	}
	read := safe.Cmd(func() tea.Msg {
		defer close(s.ch)
		if !sleep(ctx, r.After) {
			s.err = ctx.Err()
			return nil
		}
		if r.For > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, r.For)
			defer cancel()
		}
		s.err = src.Stream(ctx, r.Node, method, in, func(raw json.RawMessage) error {
			op, err := source.Decode[proto.Op](raw)
			if err != nil {
				return err
			}
			s.put(op)
			return nil
		})
		return nil
	})
	return m.streams([]tea.Cmd{read, m.nextOp(w, s, r)})
}

// put replaces a state that was not taken yet; there is one writer.
func (s *opStream) put(op proto.Op) {
	select {
	case <-s.ch:
	default:
	}
	s.ch <- op
}

func (m *Model) nextOp(w *wizard.Model, s *opStream, r wizard.Watch) tea.Cmd {
	now := m.o.now
	return safe.Cmd(func() tea.Msg {
		op, ok := <-s.ch
		if !ok {
			return wizardMsg{w, func(w *wizard.Model) []wizard.Request { return w.WatchEnded(r.ID, cleanErr(s.err), now()) }}
		}
		return opSeenMsg{w, s, op, r.Node}
	})
}

func (m *Model) opSeen(msg opSeenMsg) tea.Cmd {
	m.heard(msg.op)
	next := m.nextOp(msg.wiz, msg.stream, wizard.Watch{Node: msg.node, ID: msg.op.ID})
	if msg.wiz != m.wiz {
		return next // drain until the stream, whose context ended, closes
	}
	m.wiz.Answers(msg.node, m.o.now())
	if msg.stream.begins {
		msg.stream.begins, m.started = false, msg.op.ID
		return tea.Batch(m.exec(m.wiz.SetupBegan(msg.op, m.o.now())), next)
	}
	return tea.Batch(m.exec(m.wiz.See(msg.op, m.o.now())), next)
}

// heard takes an operation's own word that it is over: the snapshots, which busy looks at, may say so later.
func (m *Model) heard(op proto.Op) {
	if op.State.Final() && op.ID == m.started {
		m.started = ""
	}
}

// copyList copies the lines of a list screen.
func (m *Model) copyList() tea.Cmd {
	c := m.ctxFor()
	lines := c.EventLines(m.list.Filter)
	if m.screen == keymap.CommandsScreen {
		lines = nil
		for _, op := range m.allOps() {
			lines = append(lines, c.CommandLines(view.Executions(op), m.list.Filter)...)
		}
	}
	return m.copyText(plainText(lines))
}

// copyText writes the terminal's clipboard by OSC 52, which also works over SSH. Nobody tells whether it was accepted.
func (m *Model) copyText(text string) tea.Cmd {
	if text == "" {
		return nil
	}
	seq := osc52.New(text).Limit(maxClipboard)
	if strings.HasPrefix(os.Getenv("TERM"), "screen") && os.Getenv("TMUX") == "" {
		seq = seq.Screen()
	}
	out := m.o.Out
	return safe.Cmd(func() tea.Msg {
		if len(text) > maxClipboard {
			return doneMsg{view.Line{Level: view.Warn, Text: "too long for the clipboard: w writes a file"}}
		}
		if _, err := io.WriteString(out, seq.String()); err != nil {
			return doneMsg{view.Line{Level: view.Warn, Text: "copying failed: " + err.Error()}}
		}
		return doneMsg{view.Line{Text: fmt.Sprintf("copied %d lines (if the terminal allows OSC 52)", strings.Count(text, "\n"))}}
	})
}

// maxClipboard is what terminals accept at the least, bytes.
const maxClipboard = 72 << 10

// writeText writes a file into the state folder. The name may hold words of an agent, so only harmless letters stay.
func (m *Model) writeText(name, text string) tea.Cmd {
	dir := m.o.StateDir
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, name)
	return safe.Cmd(func() tea.Msg {
		if dir == "" {
			return doneMsg{view.Line{Level: view.Warn, Text: "there is no state folder to write to"}}
		}
		path := filepath.Join(dir, "reports", filepath.Base(name))
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			return doneMsg{view.Line{Level: view.Alert, Text: "writing failed: " + err.Error()}}
		}
		return doneMsg{view.Line{Level: view.Good, Text: "written: " + path}}
	})
}
