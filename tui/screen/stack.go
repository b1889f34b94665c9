package screen

import (
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/layout"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
)

// Part is one panel of a Stack.
type Part struct {
	Panel widget.Panel
	H     int  // lines of text wanted; the part with Fill gets what is left
	Keep  int  // the line that stays visible where a part without Fill gets fewer
	Fill  bool // exactly one part
	Top   int  // of the Fill part: first line shown; negative follows the end
	Side  bool // wide windows show the nodes beside it
}

// Stack is a page of several panels, one above the other.
type Stack struct {
	Screen      keymap.Screen
	Left, Right string // of the header
	Parts       []Part
	Foot        []string
}

// DrawStack returns the screen and the offset of the Fill part after clamping.
func (c Ctx) DrawStack(s Stack) (string, int) {
	if layout.SizeOf(c.W, c.H) == layout.Tiny {
		return c.Tiny(s.Left + " "), 0
	}
	s.Foot = s.Foot[:min(len(s.Foot), c.H/2)]
	left := c.H - 2 - len(s.Foot)
	heights := make([]int, len(s.Parts))
	fill := 0
	for i, p := range s.Parts {
		if p.Fill {
			fill = i
			continue
		}
		rest := 5 + 3*(len(s.Parts)-i-2) // what the parts after it need at least
		heights[i] = max(min(p.H+2, left-rest), 0)
		left -= heights[i]
	}
	heights[fill] = left
	out := []string{widget.Fit(c.Theme, widget.Ends(c.Theme, s.Left, s.Right, c.W), c.W)}
	top, keys := 0, "up/down"
	if s.Screen == keymap.RunPage && len(c.Choices) > 1 {
		keys = "pgup/pgdn" // the others choose
	}
	for i, p := range s.Parts {
		w, side := c.W, p.Side && layout.SizeOf(c.W, c.H) == layout.Wide
		if side {
			w = c.W * 3 / 5
		}
		if p.Fill {
			top = c.scroll(&p, heights[i]-2, keys)
		} else if room := heights[i] - 2; room < len(p.Panel.Lines) {
			p.Top = max(p.Keep-room/2, 0)
			c.scroll(&p, room, "")
		}
		lines := p.Panel.Draw(c.Theme, w, heights[i])
		if side {
			lines = widget.Beside(lines, c.side(layout.Rect{W: c.W - w, H: heights[i]}))
		}
		out = append(out, lines...)
	}
	out = append(out, widget.Block(c.Theme, s.Foot, c.W, len(s.Foot))...)
	return join(append(out, c.Keys(s.Screen))), top
}

// scroll cuts the panel to the lines shown, says in its foot so and with what keys the others are reached, and returns the
// first line shown.
func (c Ctx) scroll(p *Part, room int, keys string) int {
	n := len(p.Panel.Lines)
	if p.Top < 0 {
		p.Top = n
	}
	shown, top := widget.Window(p.Panel.Lines, p.Top, room)
	if n > len(shown) {
		at := shownOf(top, len(shown), n, keys)
		if p.Panel.Foot != "" {
			at += "  " + p.Panel.Foot
		}
		p.Panel.Foot = at
	}
	p.Panel.Lines = shown
	return top
}

// Say is a line for the foot of a page.
func (c Ctx) Say(l view.Line) string {
	if l.Text == "" {
		return ""
	}
	mark := ""
	if l.Level >= view.Warn {
		mark = "! "
	}
	return c.Ink(l.Level).Render(widget.Fit(c.Theme, mark+l.Text, c.W))
}
