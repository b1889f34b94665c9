package tui

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/safe"
	"example.com/santui/tui/screen"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
	tea "github.com/charmbracelet/bubbletea"
)

// question is a dialog. The first button changes nothing and has the focus; only enter on the second one acts.
type question struct {
	title   string
	lines   []string
	options []string // of which one is chosen with up and down
	option  int
	asks    bool // for text
	text    string
	why     func(*question) string // why the second button does nothing, "" if it acts
	buttons []string
	focus   int
	yes     func(*question) tea.Cmd
	leave   bool // asks whether to leave the program
}

const maxText = 64

// typed appends what is printable.
func typed(s string, runes []rune) string {
	for _, r := range runes {
		if unicode.IsPrint(r) && len(s) < maxText {
			s += string(r)
		}
	}
	return s
}

func (q *question) blocked() string {
	if q.why == nil {
		return ""
	}
	return q.why(q)
}

func (q *question) key(m *Model, msg tea.KeyMsg) tea.Cmd {
	if msg.Type == tea.KeyRunes || msg.Type == tea.KeySpace {
		if q.asks && !msg.Alt {
			q.text = typed(q.text, msg.Runes)
		}
		return nil
	}
	if msg.Paste {
		return nil
	}
	switch msg.Type {
	case tea.KeyEsc:
		m.ask = nil
	case tea.KeyBackspace:
		if r := []rune(q.text); len(r) > 0 {
			q.text = string(r[:len(r)-1])
		}
	case tea.KeyCtrlU:
		q.text = ""
	case tea.KeyTab, tea.KeyShiftTab, tea.KeyLeft, tea.KeyRight:
		q.focus = 1 - q.focus
	case tea.KeyUp, tea.KeyDown:
		if n := len(q.options); n > 0 {
			d := 1
			if msg.Type == tea.KeyUp {
				d = n - 1
			}
			q.option = (q.option + d) % n
		}
	case tea.KeyEnter:
		if q.focus == 0 {
			m.ask = nil
			return nil
		}
		if q.blocked() != "" {
			return nil
		}
		m.ask = nil
		return q.yes(q)
	default:
	}
	return nil
}

func (q *question) draw(c screen.Ctx) string {
	w := min(c.W, 76) - 4
	var lines []string
	for _, l := range q.lines {
		lines = append(lines, widget.Wrap(l, w)...)
	}
	for i, o := range q.options {
		cursor := "   "
		if i == q.option {
			cursor = " > "
		}
		lines = append(lines, cursor+o)
	}
	if q.asks {
		lines = append(lines, "", "   > "+q.text+"_")
	}
	buttons := append([]string(nil), q.buttons...)
	if why := q.blocked(); why != "" {
		buttons[1] += " (" + why + ")"
	}
	return c.DrawDialog(screen.Dialog{Title: q.title, Lines: lines, Buttons: buttons, Focus: q.focus}, "tab button   enter does it   esc cancel")
}

// syncQuestion asks before the synchronisation is changed.
func (m *Model) syncQuestion(a keymap.Action) *question {
	s := m.pair.Sync
	resource := m.pair.Resource
	switch a {
	case keymap.Start:
		return m.startQuestion()
	case keymap.Rate:
		return &question{title: "limit the rate", asks: true, buttons: []string{"Cancel", "Set"},
			lines: []string{"Bytes a second, with K, M or G for multiples of 1024: 30M.", "Now: " + limitText(s.Limit)},
			why: func(q *question) string {
				if _, err := ParseRate(q.text); err != nil {
					return err.Error()
				}
				return ""
			},
			yes: func(q *question) tea.Cmd {
				n, err := ParseRate(q.text)
				if err != nil {
					return nil
				}
				return m.sync(s.Target, proto.SyncRequest{Resource: resource, Action: proto.SyncRate, Rate: n}, "rate set to "+view.Rate(n))
			}}
	case keymap.Pause:
		return &question{title: "pause the synchronisation?", buttons: []string{"Cancel", "Pause"},
			lines: []string{fmt.Sprintf("Until it is resumed, %s stays %s and cannot take over.", s.Target, proto.Inconsistent)},
			yes: func(*question) tea.Cmd {
				return m.sync(s.Target, proto.SyncRequest{Resource: resource, Action: proto.SyncPause}, "paused")
			}}
	default:
		return &question{title: "resume the synchronisation?", buttons: []string{"Cancel", "Resume"},
			lines: []string{fmt.Sprintf("%s goes on from where it stopped.", s.Title)},
			yes: func(*question) tea.Cmd {
				return m.sync(s.Target, proto.SyncRequest{Resource: resource, Action: proto.SyncResume}, "resumed")
			}}
	}
}

// verifyQuestion asks before a verify is started, or the running one is stopped.
func (m *Model) verifyQuestion() *question {
	resource, node, peer := m.pair.Resource, m.pair.Verify.To, m.pair.Verify.From
	if s := m.pair.Sync; s != nil && s.Kind == "verify" {
		return &question{title: "stop the verify?", buttons: []string{"Cancel", "Stop"},
			lines: []string{fmt.Sprintf("%s of the device is compared. What was found stays marked; the next verify begins anew.", view.Percent(s.Done))},
			yes: func(*question) tea.Cmd {
				return m.verify(node, proto.VerifyRequest{Resource: resource, Action: proto.VerifyStop}, "the verify is stopped")
			}}
	}
	return &question{title: "verify both copies?", buttons: []string{"Cancel", "Verify"},
		lines: []string{fmt.Sprintf("%s reads its whole copy, %s does the same, and their digests are compared. The service goes on; both disks are busy meanwhile.", node, peer),
			"Blocks that differ are marked out of sync; nothing is repaired by it."},
		yes: func(*question) tea.Cmd {
			return m.verify(node, proto.VerifyRequest{Resource: resource, Action: proto.VerifyStart}, "the verify runs on "+node)
		}}
}

// verify sends a request about a verify to a node and says how it went.
func (m *Model) verify(node string, r proto.VerifyRequest, done string) tea.Cmd {
	r.By = m.o.Owner
	return safe.Cmd(func() tea.Msg {
		ctx, cancel := contextWithLimit(m.ctx)
		defer cancel()
		if err := m.src.Call(ctx, node, proto.MethodVerify, r, nil); err != nil {
			return doneMsg{view.Line{Level: view.Alert, Text: "verify " + string(r.Action) + " on " + node + ": " + err.Error()}}
		}
		return doneMsg{view.Line{Level: view.Good, Text: done}}
	})
}

func limitText(n int64) string {
	if n <= 0 {
		return "no limit"
	}
	return view.Rate(n)
}

// startQuestion asks which copy is the good one. What is on the other is lost, so the pair's name is typed.
func (m *Model) startQuestion() *question {
	resource, pair := m.pair.Resource, m.pair.Name
	var names, options []string
	for _, n := range m.pair.Nodes {
		names = append(names, n.Name)
	}
	for i, n := range names {
		options = append(options, fmt.Sprintf("the copy on %s is good; overwrite the one on %s", n, names[len(names)-1-i]))
	}
	return &question{title: "start a full sync", asks: true, options: options, buttons: []string{"Cancel", "Overwrite"},
		lines: []string{"Neither copy is declared good. The one chosen here becomes Primary, and every block of the other is OVERWRITTEN.",
			"Choose with up and down, then type the pair's name " + pair + ":"},
		why: func(q *question) string {
			if q.text != pair {
				return "the name does not match yet"
			}
			return ""
		},
		yes: func(q *question) tea.Cmd {
			return m.sync(names[q.option], proto.SyncRequest{Resource: resource, Action: proto.SyncStart, Confirm: q.text},
				"full sync from "+names[q.option]+" started")
		}}
}

// sync sends a request about the synchronisation to a node and says how it went.
func (m *Model) sync(node string, r proto.SyncRequest, done string) tea.Cmd {
	r.By = m.o.Owner
	return safe.Cmd(func() tea.Msg {
		ctx, cancel := contextWithLimit(m.ctx)
		defer cancel()
		if err := m.src.Call(ctx, node, proto.MethodSync, r, nil); err != nil {
			return doneMsg{view.Line{Level: view.Alert, Text: string(r.Action) + " on " + node + ": " + err.Error()}}
		}
		return doneMsg{view.Line{Level: view.Good, Text: done}}
	})
}

// ParseRate reads bytes a second: a whole number, with K, M or G for multiples of 1024.
func ParseRate(s string) (int64, error) {
	n, err := parseBytes(s)
	if err != nil {
		return 0, fmt.Errorf("not a rate")
	}
	return n, nil
}

// parseBytes reads a number of bytes, more than none, with K, M, G or T for multiples of 1024.
func parseBytes(s string) (int64, error) {
	s = strings.ToUpper(strings.TrimSpace(s))
	shift := 0
	for i, u := range []string{"K", "M", "G", "T"} {
		if t, ok := strings.CutSuffix(s, u); ok {
			s, shift = t, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is no number of bytes", s)
	}
	return n << shift, nil
}
