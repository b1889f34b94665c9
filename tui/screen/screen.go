package screen

import (
	"fmt"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/layout"
	"example.com/santui/tui/theme"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
)

// Ctx is all that a screen is drawn from.
type Ctx struct {
	Theme    theme.Theme
	W, H     int
	Pair     view.Pair
	Loc      *time.Location // of the clock times shown
	ReadOnly bool
	Note     view.Line      // what just happened; takes the place of the next line
	Last     *proto.Op      // the newest operation in the agents' journals, shown while no agent shows one
	NoFix    string         // why the doctor has nothing to write, "" if it has
	Verb     proto.Verb     // of the wizard, "" outside
	Choices  []proto.Choice // what the wizard's operation offers now
}

// State is what the reasons of disabled keys are computed from.
func (c Ctx) State() keymap.State {
	return keymap.State{Pair: c.Pair, ReadOnly: c.ReadOnly, NoFix: c.NoFix, Choices: c.Choices, Verb: c.Verb}
}

// Ink is the style for a level.
func (c Ctx) Ink(l view.Level) lipgloss.Style {
	switch l {
	case view.Good:
		return c.Theme.Good
	case view.Warn:
		return c.Theme.Warn
	case view.Alert:
		return c.Theme.Alert
	default:
		return c.Theme.Text
	}
}

// Header is the first line: what this is on the left, the state of the link on the right.
func (c Ctx) Header(left string) string {
	right := c.Ink(c.Pair.ConnLevel).Render(c.Pair.Conn)
	if c.W >= 80 {
		right = "replication " + right
	}
	if c.ReadOnly {
		right += "  read-only"
	}
	return widget.Fit(c.Theme, widget.Ends(c.Theme, left, right, c.W), c.W)
}

func (c Ctx) name() string {
	s := c.Theme.Strong.Render("santui") + "  " + c.Pair.Name
	if c.Pair.Resource != "" {
		s += "  " + c.Pair.Resource
	}
	if n := len(c.Pair.Resources); n > 1 {
		s += fmt.Sprintf(" (1 of %d resources, n shows the next)", n)
	}
	return s
}

// Keys is the last line: the keys of this screen, the ones that do not work now in parentheses. The way back, help and quit
// have their places first.
func (c Ctx) Keys(s keymap.Screen) string {
	var right []string
	var left strings.Builder
	room, used := c.W, 0
	stays := func(a keymap.Action) bool {
		return a == keymap.Back || a == keymap.PageBack || a == keymap.Help || a == keymap.Quit
	}
	for _, b := range keymap.For(s) {
		if stays(b.Action) && b.Line(true) {
			text := b.Help().Key + " " + b.Desc(c.State())
			right = append(right, text)
			room -= ansi.StringWidth(text) + 2
		}
	}
	for _, b := range keymap.For(s) {
		off := b.Why(c.State()) != ""
		if stays(b.Action) || !b.Line(!off) {
			continue
		}
		text := b.Help().Key + " " + b.Desc(c.State())
		if off {
			text = "(" + text + ")"
		}
		if used += ansi.StringWidth(text) + 2; used > room+2 {
			continue
		}
		if off {
			text = c.Theme.Dim.Render(text)
		}
		left.WriteString(text + "  ")
	}
	l := strings.TrimSuffix(left.String(), "  ")
	return widget.Fit(c.Theme, widget.Ends(c.Theme, l, strings.Join(right, "  "), c.W), c.W)
}

// NextLines say what to do next, or what just happened, in as many rows as there are: one or two.
func (c Ctx) NextLines(rows int) []string {
	l := c.Pair.Next
	if c.Note.Text != "" {
		l = c.Note
	}
	mark := "  "
	if l.Level >= view.Warn {
		mark = "! "
	}
	text := []string{l.Text}
	if rows > 1 {
		text = widget.Wrap(l.Text, c.W-2)
	}
	if len(text) > rows {
		text = append(text[:rows-1], strings.Join(text[rows-1:], " "))
	}
	for i, t := range text {
		text[i] = c.Ink(l.Level).Render(widget.Fit(c.Theme, mark+t, c.W))
		mark = "  "
	}
	return text
}

// Tiny is what a window too small for panels shows.
func (c Ctx) Tiny(extra string) string {
	var parts []string
	parts = append(parts, c.Pair.Name)
	for _, n := range c.Pair.Nodes {
		parts = append(parts, n.Title())
	}
	if s := c.Pair.Sync; s != nil {
		parts = append(parts, s.Title+" "+view.Percent(s.Done))
	}
	lines := append(widget.Wrap(extra+strings.Join(parts, "  "), c.W), widget.Wrap(c.Pair.Next.Text, c.W)...)
	return join(widget.Block(c.Theme, append(widget.Wrap("window too small (need 60x16), q quits", c.W), lines...), c.W, c.H))
}

// join makes the lines of a screen one string; the trailing spaces of the last line are kept, so every line is whole.
func join(lines []string) string { return strings.Join(lines, "\n") }

// Page draws a screen with one panel: header, the panel with its scroll position, further lines under it, keys.
type Page struct {
	Screen keymap.Screen
	Title  string // of the header
	Panel  widget.Panel
	Top    int // first line shown of the panel
	Foot   []string
	Wide   bool // leave the nodes out even where there is room for them
}

// Draw returns the screen and the panel's offset after clamping.
func (c Ctx) Draw(p Page) (string, int) {
	l := layout.ForPage(c.W, c.H, len(p.Foot))
	if l.Size == layout.Tiny {
		return c.Tiny(""), p.Top
	}
	if p.Wide {
		l.Main.W, l.Side = c.W, layout.Rect{}
	}
	shown, top := widget.Window(p.Panel.Lines, p.Top, l.Main.H-2)
	if n := len(p.Panel.Lines); n > len(shown) {
		at := shownOf(top, len(shown), n, "up/down")
		if p.Panel.Foot != "" {
			at += "  " + p.Panel.Foot
		}
		p.Panel.Foot = at
	}
	p.Panel.Lines = shown
	main := p.Panel.Draw(c.Theme, l.Main.W, l.Main.H)
	if l.Side.W > 0 {
		main = widget.Beside(main, c.side(l.Side))
	}
	lines := append([]string{c.Header(p.Title)}, main...)
	lines = append(lines, widget.Block(c.Theme, p.Foot, c.W, l.Foot.H)...)
	return join(append(lines, c.Keys(p.Screen))), top
}

// shownOf says which lines of a panel are shown and, as not everyone knows, with what keys the others are reached.
func shownOf(top, shown, n int, keys string) string {
	text := fmt.Sprintf("%d-%d of %d", top+1, top+shown, n)
	if keys != "" {
		text += ", " + keys + " scroll"
	}
	return text
}

// Inner is the width and height that a Page leaves for the panel's lines.
func (c Ctx) Inner(foot int, wide bool) (w, h int) {
	l := layout.ForPage(c.W, c.H, foot)
	if wide {
		l.Main.W = c.W
	}
	return max(l.Main.W-4, 0), max(l.Main.H-2, 0)
}

// side stacks both nodes in the right part of a wide window.
func (c Ctx) side(r layout.Rect) []string {
	var out []string
	left := r.H
	for i, n := range c.Pair.Nodes {
		h := left / (len(c.Pair.Nodes) - i)
		out = append(out, c.panelFor(n, false, r.W, h).Draw(c.Theme, r.W, h)...)
		left -= h
	}
	return widget.Block(c.Theme, out, r.W, r.H)
}

// Dialog is a question drawn over a page.
type Dialog struct {
	Header  string // the first line of the screen; "" shows the pair
	Title   string
	Lines   []string
	Buttons []string
	Focus   int // which button
}

// DrawDialog shows a dialog in the middle of the window.
func (c Ctx) DrawDialog(d Dialog, keys string) string {
	if layout.SizeOf(c.W, c.H) == layout.Tiny {
		return c.Tiny(d.Title + " ")
	}
	w := min(c.W, 76)
	lines := append([]string{""}, d.Lines...)
	if len(d.Buttons) > 0 {
		var row strings.Builder
		for i, b := range d.Buttons {
			row.WriteString(widget.Button(c.Theme, b, i == d.Focus) + "   ")
		}
		lines = append(lines, "", row.String())
	}
	h := min(len(lines)+3, c.H-2)
	box := widget.Panel{Title: d.Title, Lines: lines}.Draw(c.Theme, w, h)
	top := (c.H - 2 - h) / 3
	if d.Header == "" {
		d.Header = c.Header(c.name())
	}
	out := []string{widget.Fit(c.Theme, d.Header, c.W)}
	for range top {
		out = append(out, widget.Spaces(c.W))
	}
	for _, l := range box {
		out = append(out, widget.Fit(c.Theme, widget.Spaces((c.W-w)/2)+l, c.W))
	}
	out = widget.Block(c.Theme, out, c.W, c.H-1)
	return join(append(out, widget.Fit(c.Theme, keys, c.W)))
}

func (c Ctx) clock(t time.Time) string {
	if t.IsZero() {
		return "--:--:--"
	}
	return t.In(c.Loc).Format(time.TimeOnly)
}
