package widget

import (
	"math"
	"strings"

	"example.com/santui/tui/theme"
	"github.com/charmbracelet/x/ansi"
)

// Fit cuts or fills s to exactly w cells. What is cut ends in an ellipsis.
func Fit(th theme.Theme, s string, w int) string {
	if w <= 0 {
		return ""
	}
	n := ansi.StringWidth(s)
	if n > w {
		s = ansi.Truncate(s, w, th.Glyphs.Ellipsis)
		n = ansi.StringWidth(s) // a wide character may not fit the last cell
	}
	return s + Spaces(w-n)
}

// Words shortens every path in s that has more than w cells from the left, so that its last elements stay.
func Words(th theme.Theme, s string, w int) string {
	words := strings.Split(s, " ")
	for i, x := range words {
		words[i] = shorten(th, x, w)
	}
	return strings.Join(words, " ")
}

// shorten drops the first elements of a path until it has at most w cells, but never the last one. What is no path stays.
func shorten(th theme.Theme, path string, w int) string {
	if ansi.StringWidth(path) <= w {
		return path
	}
	first, _, _ := strings.Cut(path, "/")
	if option, _, ok := strings.Cut(first, "="); ok { // of=/srv/file: what it is for stays
		return option + "=" + shorten(th, path[len(option)+1:], max(w-len(option)-1, 1))
	}
	elements := strings.Split(strings.TrimSuffix(path, "/"), "/")
	short := path
	for n := 1; n < len(elements) && ansi.StringWidth(short) > w; n++ {
		if s := th.Glyphs.Ellipsis + "/" + strings.Join(elements[n:], "/"); ansi.StringWidth(s) < ansi.StringWidth(short) {
			short = s
		}
	}
	return short
}

// FitPaths is Fit for plain text with paths in it: where there is too little room, the longest paths give way first, from
// their left ends.
func FitPaths(th theme.Theme, s string, w int) string {
	words := strings.Split(s, " ")
	for over := ansi.StringWidth(s) - w; over > 0 && w > 0; over = ansi.StringWidth(strings.Join(words, " ")) - w {
		at, gain := -1, 0
		for i, x := range words {
			if g := ansi.StringWidth(x) - ansi.StringWidth(shorten(th, x, 1)); g > gain {
				at, gain = i, g
			}
		}
		if at < 0 {
			break
		}
		words[at] = shorten(th, words[at], ansi.StringWidth(words[at])-min(over, gain))
	}
	return Fit(th, strings.Join(words, " "), w)
}

// Spaces returns n spaces, none if n is negative.
func Spaces(n int) string { return strings.Repeat(" ", max(n, 0)) }

// Ends puts left at the left end of w cells and right at the right end; right gives way.
func Ends(th theme.Theme, left, right string, w int) string {
	gap := w - ansi.StringWidth(left) - ansi.StringWidth(right)
	if gap < 1 {
		return Fit(th, left, w)
	}
	return left + Spaces(gap) + right
}

// Wrap breaks s at spaces into lines of at most w cells; a longer word is broken. A date keeps its hyphens in one line.
func Wrap(s string, w int) []string {
	if w <= 0 {
		return nil
	}
	const hyphen, whole = "-", "\u2011"
	return strings.Split(strings.ReplaceAll(ansi.Wrap(strings.ReplaceAll(s, hyphen, whole), w, ""), whole, hyphen), "\n")
}

// WrapCommand breaks a command line at its spaces only, so that words stay whole where they fit.
func WrapCommand(s string, w int) []string {
	if w <= 0 {
		return nil
	}
	var out []string
	line := ""
	for _, word := range strings.Split(s, " ") {
		if line != "" && ansi.StringWidth(line)+1+ansi.StringWidth(word) > w {
			out, line = append(out, line), ""
		}
		if line != "" {
			word = line + " " + word
		}
		parts := strings.Split(ansi.Hardwrap(word, w, true), "\n")
		out, line = append(out, parts[:len(parts)-1]...), parts[len(parts)-1]
	}
	return append(out, line)
}

// Block makes of lines exactly h lines of w cells: what is missing is blank, what is too much is dropped at the end.
func Block(th theme.Theme, lines []string, w, h int) []string {
	out := make([]string, 0, max(h, 0))
	for i := range max(h, 0) {
		l := ""
		if i < len(lines) {
			l = lines[i]
		}
		out = append(out, Fit(th, l, w))
	}
	return out
}

// Beside puts two blocks of the same height next to each other.
func Beside(left, right []string) []string {
	out := make([]string, 0, len(left))
	for i, l := range left {
		if i < len(right) {
			l += right[i]
		}
		out = append(out, l)
	}
	return out
}

// Panel is a framed box.
type Panel struct {
	Title, Foot string // drawn into the frame; may be styled
	Lines       []string
	Focus       bool // has the focus: said by a mark in the frame, not by colour alone
	Dim         bool // shows something old
}

// Draw returns h lines of w cells. Below 4 cells or 2 lines there is no room for a frame and it returns blanks.
func (p Panel) Draw(th theme.Theme, w, h int) []string {
	if w < 4 || h < 2 {
		return Block(th, p.Lines, w, h)
	}
	g, border := th.Glyphs, th.Border
	switch {
	case p.Focus:
		border = th.Accent
	case p.Dim:
		border = th.Dim
	}
	out := make([]string, 0, h)
	out = append(out, p.edge(th, border.Render, g.TopLeft, g.TopRight, p.Title, w, true))
	side := border.Render(g.Vertical)
	for _, l := range Block(th, p.Lines, w-4, h-2) {
		out = append(out, side+" "+l+" "+side)
	}
	return append(out, p.edge(th, border.Render, g.BottomLeft, g.BottomRight, p.Foot, w, false))
}

func (p Panel) edge(th theme.Theme, ink func(...string) string, from, to, text string, w int, top bool) string {
	line := th.Glyphs.Horizontal
	room := w - 6 // corner, one line, two spaces, one line, corner
	if text == "" || room < 1 {
		return ink(from + strings.Repeat(line, w-2) + to)
	}
	if ansi.StringWidth(text) > room {
		text = ansi.Truncate(text, room, th.Glyphs.Ellipsis)
	}
	rest := strings.Repeat(line, max(room-ansi.StringWidth(text), 0))
	if !top {
		return ink(from+line+rest) + " " + text + " " + ink(line+to)
	}
	mark := line
	if p.Focus {
		mark = ">"
	}
	return ink(from+mark) + " " + text + " " + ink(rest+line+to)
}

// Bar draws a meter of w cells, done in [0,1] of it filled. It is full only when done is 1.
func Bar(th theme.Theme, done float64, w int) string {
	if w <= 0 {
		return ""
	}
	if math.IsNaN(done) {
		done = 0
	}
	full := min(int(min(max(done, 0), 1)*float64(w)), w)
	return th.Good.Render(strings.Repeat(th.Glyphs.Full, full)) + th.Dim.Render(strings.Repeat(th.Glyphs.Empty, w-full))
}

// Button draws a button; the one with the focus has a mark.
func Button(th theme.Theme, text string, focus bool) string {
	if focus {
		return th.Accent.Render("> [ " + text + " ]")
	}
	return "  [ " + text + " ]"
}

// Window returns the part of lines that shows n of them from offset top on, with top clamped to what makes sense.
func Window(lines []string, top, n int) ([]string, int) {
	n = max(n, 0)
	top = max(min(top, len(lines)-n), 0)
	return lines[top:min(top+n, len(lines))], top
}
