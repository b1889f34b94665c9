package tui

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/safe"
	"example.com/santui/tui/screen"
	"example.com/santui/tui/source"
	"example.com/santui/tui/view"
	tea "github.com/charmbracelet/bubbletea"
)

type doctorMsg struct {
	gen   int
	nodes []screen.NodeDiagnosis
	note  view.Line
}

// showDoctor opens the screen and looks at both nodes. Looking changes nothing.
func (m *Model) showDoctor() tea.Cmd {
	m.show(keymap.DoctorScreen)
	m.doctor = screen.Diagnosis{}
	return m.askDoctor(nil, "")
}

// askDoctor asks both nodes what they found, those in fix to write what they propose.
func (m *Model) askDoctor(fix []string, confirm string) tea.Cmd {
	m.doctorGen++
	m.doctor.Loading = true
	ctx, src, gen, names := m.ctx, m.src, m.doctorGen, m.src.Nodes()
	req := proto.DoctorRequest{Resource: m.pair.Resource, By: m.o.Owner}
	return safe.Cmd(func() tea.Msg {
		ctx, cancel := contextWithLimit(ctx)
		defer cancel()
		out := doctorMsg{gen: gen}
		for _, n := range names {
			in, was := req, len(out.nodes)
			for _, f := range fix {
				if f == n {
					in.Fix, in.Confirm = true, confirm
				}
			}
			d := screen.NodeDiagnosis{Node: n}
			if r, err := source.Call[proto.DoctorReply](ctx, src, n, proto.MethodDoctor, in); err != nil {
				d.Err = cleanErr(err)
			} else {
				d.Reply = &r
			}
			out.nodes = append(out.nodes, d)
			switch {
			case !in.Fix:
			case out.nodes[was].Err != nil:
				out.note = view.Line{Level: view.Alert, Text: fmt.Sprintf("%s: not written: %v", n, out.nodes[was].Err)}
			case out.note.Text == "":
				out.note = view.Line{Level: view.Good, Text: "written; the old files are kept"}
			}
		}
		return out
	})
}

func (m *Model) diagnosed(msg doctorMsg) tea.Cmd {
	if msg.gen != m.doctorGen {
		return nil
	}
	m.doctor = screen.Diagnosis{Nodes: msg.nodes}
	if msg.note.Text == "" {
		return nil
	}
	return m.say(msg.note)
}

// fixQuestion asks before LVM's configuration is written: on which nodes, which files. The change itself stands on the screen.
func (m *Model) fixQuestion() *question {
	pair := m.pair.Name
	var nodes []string
	lines := []string{"LVM's configuration is changed as shown. The old file is kept, and put back if LVM does not accept the new one:"}
	for _, n := range m.doctor.Nodes {
		if n.Proposes() {
			nodes = append(nodes, n.Node)
			lines = append(lines, "  "+n.Node+": "+n.Reply.Fix.File)
		}
	}
	return &question{title: "write LVM's configuration?", asks: true, buttons: []string{"Cancel", "Write"},
		lines: append(lines, "Type the pair's name "+pair+":"),
		why: func(q *question) string {
			if q.text != pair {
				return "the name does not match yet"
			}
			return ""
		},
		yes: func(q *question) tea.Cmd { return m.askDoctor(nodes, q.text) }}
}
