package screen

import (
	"fmt"
	"slices"
	"strings"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/layout"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
	"github.com/charmbracelet/x/ansi"
)

// Focus is which part of the overview the keys work on.
type Focus int

// The parts, in the order of the tab key.
const (
	FirstNode Focus = iota
	SecondNode
	Middle
	EventList
	CommandList
	FocusCount
)

// Overview draws the home screen.
func (c Ctx) Overview(f Focus) string {
	title, body := c.middle()
	next := c.NextLines(2)
	l := layout.ForOverview(c.W, c.H, len(body), len(next))
	if l.Next.H < len(next) {
		next = c.NextLines(1)
	}
	if l.Size == layout.Tiny {
		return c.Tiny("")
	}
	lines := []string{c.Header(c.name())}
	first, second := c.nodeAt(0), c.nodeAt(1)
	if l.Size == layout.Small {
		lines = append(lines, c.shortPanel(first, f == FirstNode).Draw(c.Theme, l.First.W, l.First.H)...)
		lines = append(lines, c.shortPanel(second, f == SecondNode).Draw(c.Theme, l.Second.W, l.Second.H)...)
	} else {
		lines = append(lines, widget.Beside(
			c.panelFor(first, f == FirstNode, l.First.W, l.First.H).Draw(c.Theme, l.First.W, l.First.H),
			c.panelFor(second, f == SecondNode, l.Second.W, l.Second.H).Draw(c.Theme, l.Second.W, l.Second.H))...)
	}
	lines = append(lines, widget.Panel{Title: title, Lines: body, Focus: f == Middle}.Draw(c.Theme, l.Middle.W, l.Middle.H)...)
	foot := "l: all events"
	if f == EventList {
		foot = "enter: all events"
	}
	events := widget.Panel{Title: "events", Lines: c.EventLines(""), Foot: foot, Focus: f == EventList}.Draw(c.Theme, l.Events.W, l.Events.H)
	if l.Commands.W > 0 {
		events = widget.Beside(events, c.commandPanel(l.Commands.H-2, f == CommandList).Draw(c.Theme, l.Commands.W, l.Commands.H))
	}
	lines = append(lines, events...)
	return join(append(append(lines, next...), c.Keys(keymap.Overview)))
}

// commandPanel shows the last of what the newest operation ran, and whose words that are.
func (c Ctx) commandPanel(room int, focus bool) widget.Panel {
	op, title := c.Pair.Op, "commands of"
	if op == nil {
		op, title = c.Last, "from the journal:"
	}
	p := widget.Panel{Title: "commands", Foot: "c: all", Focus: focus}
	if op == nil {
		p.Lines = []string{"the agents show no operation"}
		return p
	}
	p.Title = fmt.Sprintf("%s %s %s, %s", title, op.Plan.Verb, op.Started.In(c.Loc).Format("01-02 15:04"), op.State)
	cmds := c.CommandLines(view.Executions(*op), "")
	if len(cmds) == 0 {
		cmds = []string{"it has run no program"}
	}
	p.Lines, _ = widget.Window(cmds, len(cmds), room)
	return p
}

func (c Ctx) nodeAt(i int) view.Node {
	if i < len(c.Pair.Nodes) {
		return c.Pair.Nodes[i]
	}
	return view.Node{Name: "(no second node)"}
}

// mark is the sign of a node's role; the word stands beside it.
func (c Ctx) mark(n view.Node) string {
	g := c.Theme.Glyphs
	switch {
	case !n.Live():
		return c.Theme.Warn.Render(g.Unknown)
	case n.Role() == proto.Primary:
		return c.Theme.Good.Render(g.Primary)
	case n.Role() == proto.Secondary:
		return g.Secondary
	default:
		return g.Unknown
	}
}

func (c Ctx) nodeTitle(n view.Node) string {
	t := n.Title()
	switch {
	case !n.Live():
		t = c.Theme.Warn.Render(t)
	case n.Resource != nil && n.Resource.SplitBrain:
		t = c.Theme.Alert.Render(t)
	case n.Mark != "":
		t = c.Theme.Warn.Render(t)
	case n.Role() == proto.Primary:
		t = c.Theme.Good.Render(t)
	}
	return c.mark(n) + " " + t
}

// panelFor is the node's panel of w cells and h lines with the facts that matter most.
func (c Ctx) panelFor(n view.Node, focus bool, w, h int) widget.Panel {
	return widget.Panel{Title: c.nodeTitle(n), Lines: c.factLines(most(c.Pair.Facts(n, c.Loc), h-2), w-4), Focus: focus, Dim: !n.Live()}
}

// most keeps the n facts of lowest rank, in their order.
func most(facts []view.Fact, n int) []view.Fact {
	if len(facts) <= n {
		return facts
	}
	ranks := make([]int, len(facts))
	for i, f := range facts {
		ranks[i] = f.Rank
	}
	slices.Sort(ranks)
	if n <= 0 {
		return nil
	}
	limit, ties := ranks[n-1], 0
	for _, r := range ranks[:n] {
		if r == limit {
			ties++
		}
	}
	var out []view.Fact
	for _, f := range facts {
		if f.Rank < limit || f.Rank == limit && ties > 0 {
			out = append(out, f)
			if f.Rank == limit {
				ties--
			}
		}
	}
	return out
}

func (c Ctx) factLines(facts []view.Fact, w int) []string {
	label := 0
	for _, f := range facts {
		label = max(label, len(f.Label))
	}
	out := make([]string, 0, len(facts))
	for _, f := range facts {
		ink := c.Ink(f.Level)
		if f.Old {
			ink = c.Theme.Dim
		}
		room, mark := w-label-2, f.OldMark()
		text := ink.Render(strings.TrimRight(widget.FitPaths(c.Theme, f.Value, max(room-len(mark), 0)), " ") + mark)
		out = append(out, c.Theme.Dim.Render(widget.Fit(c.Theme, f.Label, label))+"  "+text)
	}
	return out
}

// shortPanel is a node in one line.
func (c Ctx) shortPanel(n view.Node, focus bool) widget.Panel {
	parts := []string{}
	for _, f := range c.Pair.Facts(n, c.Loc) {
		switch f.Label {
		case "disk":
			state, _, _ := strings.Cut(f.Value, "  ")
			parts = append(parts, c.Ink(f.Level).Render(state))
		case "mount", "problem":
			v := f.Value
			if v == "-" {
				v = "not mounted"
			}
			parts = append(parts, c.Ink(f.Level).Render(strings.TrimRight(widget.FitPaths(c.Theme, v, min(24, ansi.StringWidth(v))), " ")))
		case "vg":
			if f.Value != "-" {
				parts = append(parts, c.Ink(f.Level).Render("vg "+f.Value))
			}
		}
	}
	line := strings.Join(parts, " "+c.Theme.Glyphs.Vertical+" ")
	foot := ""
	if n.Live() && n.Resource != nil {
		foot = light(c, "safe to power off", n.Resource.Lights.SafePowerOff)
	}
	switch n.Contact {
	case view.Waiting:
		line = c.Theme.Warn.Render(n.StaleError())
	case view.Stale:
		line = c.Theme.Dim.Render("(old) " + ansi.Strip(line))
	case view.Live:
	}
	return widget.Panel{Title: c.nodeTitle(n), Lines: []string{line}, Foot: foot, Focus: focus, Dim: !n.Live()}
}

// middle is the panel between the nodes and the events: what a silence means, the synchronisation, or how good the
// copies are.
func (c Ctx) middle() (title string, lines []string) {
	if m := c.Pair.Meaning; len(m) > 0 {
		for _, t := range m {
			lines = append(lines, widget.Wrap(t, c.W-4)...)
		}
		return "what this means", lines
	}
	if c.Pair.Sync != nil {
		return c.syncTitle(), c.syncLines(c.W - 4)
	}
	return "replication", c.calm()
}

func (c Ctx) syncTitle() string {
	s := c.Pair.Sync
	return fmt.Sprintf("%s  %s > %s   started %s", s.Title, s.Source, s.Target, c.clock(s.Started))
}

// syncLines are the bar and the numbers of the running synchronisation.
func (c Ctx) syncLines(w int) []string {
	s := c.Pair.Sync
	pct := fmt.Sprintf("%6s", view.Percent(s.Done))
	bar := widget.Bar(c.Theme, s.Done, w-len(pct)-2) + "  " + pct
	parts := []string{view.Of(s.Total-s.Left, s.Total)}
	switch {
	case s.Paused && s.By != "":
		parts = append(parts, c.Theme.Warn.Render("PAUSED by "+s.By))
	case s.Paused:
		parts = append(parts, c.Theme.Warn.Render("PAUSED"))
	case s.Stalled:
		parts = append(parts, c.Theme.Alert.Render("STALLED"))
	default:
		parts = append(parts, view.Speeds(s.Rate, s.Mean), "finish "+view.Clock(s.Finish))
	}
	if s.Kind == "verify" {
		parts = append(parts, view.Bytes(s.Differ)+" differ")
		if s.Differ > 0 {
			parts[len(parts)-1] = c.Theme.Alert.Render(parts[len(parts)-1])
		}
	}
	if s.Limit > 0 {
		parts = append(parts, "limit "+view.Rate(s.Limit))
	}
	if s.Failed > 0 {
		parts = append(parts, c.Theme.Alert.Render(view.Bytes(s.Failed)+" FAILED"))
	}
	return []string{bar, strings.Join(parts, "   ")}
}

// calm says in two lines how the copies stand while nothing is synchronised.
func (c Ctx) calm() []string {
	var out int64
	known := false
	var lights []string
	for _, n := range c.Pair.Nodes {
		r := n.Resource
		if r == nil || !n.Live() {
			continue
		}
		known = true
		out = max(out, r.OutOfSync)
		lights = append(lights, fmt.Sprintf("%s: %s", n.Name, c.lights(r.Lights)))
	}
	if !known {
		return []string{"nothing is known of any resource yet", ""}
	}
	first := c.Ink(c.Pair.ConnLevel).Render(c.Pair.Conn) + ", " + view.Bytes(out) + " out of sync"
	if c.W >= 140 {
		return []string{first, strings.Join(lights, "     ")}
	}
	return append([]string{first}, lights...)
}

func (c Ctx) lights(l proto.Lights) string {
	words := []string{light(c, "in sync", l.InSync), light(c, "verified", l.Verified), light(c, "redundant", l.Redundant)}
	if layout.SizeOf(c.W, c.H) != layout.Small { // there each node's panel says it
		words = append(words, light(c, "safe to power off", l.SafePowerOff))
	}
	return strings.Join(words, "  ")
}

func light(c Ctx, name string, l proto.Light) string {
	if l.On {
		return name + " " + c.Theme.Good.Render("yes")
	}
	return name + " " + c.Theme.Warn.Render("NO")
}
