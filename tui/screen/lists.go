package screen

import (
	"fmt"
	"strings"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
	"github.com/charmbracelet/lipgloss"
)

// List is the state of a list screen.
type List struct {
	Top    int
	Filter string
	Typing bool // the filter is being typed
}

func (l List) foot() []string {
	switch {
	case l.Typing:
		return []string{"filter: " + l.Filter + "_   enter keeps it, esc clears it"}
	case l.Filter != "":
		return []string{"filter: " + l.Filter}
	}
	return []string{""}
}

// EventLines are the events that contain filter, newest first.
func (c Ctx) EventLines(filter string) []string {
	width := 0
	for _, n := range c.Pair.Nodes {
		width = max(width, len(n.Name))
	}
	var out []string
	for _, e := range c.Pair.Events {
		if !contains(e.Node+" "+e.Text, filter) {
			continue
		}
		mark, level := "  ", view.Plain
		switch e.Level {
		case proto.LevelWarn:
			mark, level = "! ", view.Warn
		case proto.LevelAlert:
			mark, level = "!!", view.Alert
		case proto.LevelInfo:
		}
		out = append(out, fmt.Sprintf("%s %s ", c.clock(e.At), c.Ink(level).Render(mark))+widget.Fit(c.Theme, e.Node, min(width, 12))+"  "+c.Ink(level).Render(e.Text))
	}
	return out
}

func contains(text, filter string) bool {
	return filter == "" || strings.Contains(strings.ToLower(text), strings.ToLower(filter))
}

// EventList draws all events.
func (c Ctx) EventList(l List) (string, int) {
	lines := c.EventLines(l.Filter)
	if len(lines) == 0 {
		lines = []string{"no events"}
	}
	return c.Draw(Page{Screen: keymap.EventsScreen, Title: c.name() + "  EVENTS", Top: l.Top, Foot: l.foot(), Wide: true,
		Panel: widget.Panel{Title: "events of both nodes, newest first", Lines: lines}})
}

// CommandLines are the programs that were run, each with its exit code, time and the last of its output.
func (c Ctx) CommandLines(list []proto.Execution, filter string) []string {
	var out []string
	for _, e := range list {
		cmd := view.Command(e.Argv)
		if !contains(e.Node+" "+cmd, filter) {
			continue
		}
		out = append(out, c.Theme.Strong.Render(e.Node+"$")+" "+cmd)
		result := fmt.Sprintf("exit %d", e.Exit)
		ink := c.Theme.Dim
		if e.Exit != 0 || e.Err != "" {
			ink = c.Theme.Alert
		}
		if e.Err != "" {
			result += "  " + e.Err
		}
		for _, o := range e.Output {
			out = append(out, "    "+o)
		}
		out = append(out, "  "+ink.Render(result)+c.Theme.Dim.Render("  "+view.Seconds(e.Seconds)+"  at "+c.clock(e.Started)))
	}
	return out
}

// CommandList draws every command of the operations given, newest operation first.
func (c Ctx) CommandList(l List, ops []proto.Op, note string) (string, int) {
	var lines []string
	for _, op := range ops {
		body := c.CommandLines(view.Executions(op), l.Filter)
		if len(body) == 0 {
			continue
		}
		lines = append(lines, c.Theme.Accent.Render(fmt.Sprintf("%s %s > %s  %s  %s", op.Plan.Verb, op.Plan.From, op.Plan.To, op.ID, op.State)))
		lines = append(append(lines, body...), "")
	}
	if len(lines) == 0 {
		lines = []string{"no operation has run a command yet"}
	}
	foot := l.foot()
	if note != "" {
		foot = append(foot, note)
	}
	return c.Draw(Page{Screen: keymap.CommandsScreen, Title: c.name() + "  COMMANDS", Top: l.Top, Foot: foot, Wide: true,
		Panel: widget.Panel{Title: "commands that were run", Lines: lines}})
}

// Help draws the keys of a screen, then all others, each with the reason why it does not work now.
func (c Ctx) Help(from keymap.Screen, top int) (string, int) {
	lines := c.helpLines(keymap.For(from))
	lines = append(lines, "", c.Theme.Accent.Render("elsewhere"))
	var rest []keymap.Binding
	for _, b := range keymap.Bindings {
		if !b.On(from) {
			rest = append(rest, b)
		}
	}
	lines = append(lines, c.helpLines(rest)...)
	lines = append(lines, "", "Text can be selected with the mouse: the cockpit leaves it to your terminal.")
	return c.Draw(Page{Screen: keymap.HelpScreen, Title: c.name() + "  HELP", Top: top, Wide: true,
		Panel: widget.Panel{Title: "keys of this screen: " + string(from), Lines: lines}})
}

func (c Ctx) helpLines(list []keymap.Binding) []string {
	const indent = 11
	var out []string
	add := func(first, text string, ink lipgloss.Style) {
		for i, l := range widget.Wrap(text, c.W-4-indent) {
			if i > 0 {
				first = ""
			}
			out = append(out, ink.Render(widget.Fit(c.Theme, first, indent)+l))
		}
	}
	for _, b := range list {
		why, ink := b.Why(c.State()), c.Theme.Text
		if why != "" {
			ink = c.Theme.Dim
		}
		add(b.Help().Key, b.Long, ink)
		if why != "" {
			add("", "not now: "+why, c.Theme.Warn)
		}
	}
	return out
}
