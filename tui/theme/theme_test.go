package theme

import (
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		what  string
		name  Name
		env   map[string]string
		want  Name
		ascii bool
		prof  termenv.Profile
	}{
		{"usual", Auto, map[string]string{"TERM": "xterm-256color", "LANG": "en_GB.UTF-8"}, Dark, false, termenv.ANSI256},
		{"NO_COLOR", Light, map[string]string{"TERM": "xterm-256color", "LANG": "C.UTF-8", "NO_COLOR": "1"}, Mono, false, termenv.Ascii},
		{"light", Auto, map[string]string{"TERM": "xterm", "LANG": "C.utf8", "COLORFGBG": "0;default;15"}, Light, false, termenv.ANSI},
		{"console", Auto, map[string]string{"TERM": "linux", "LANG": "en_GB.UTF-8"}, Dark, true, termenv.ANSI},
		{"C locale wins", Auto, map[string]string{"TERM": "xterm", "LC_ALL": "C", "LANG": "en_GB.UTF-8"}, Dark, true, termenv.ANSI},
		{"dumb", Dark, map[string]string{"TERM": "dumb", "LANG": "C.UTF-8"}, Mono, true, termenv.Ascii},
	} {
		n, a, p := Choose(c.name, false, func(k string) string { return c.env[k] })
		if n != c.want || a != c.ascii || p != c.prof {
			t.Errorf("%s: %s %v %v", c.what, n, a, p)
		}
	}
}

func TestNextGoesRound(t *testing.T) {
	n, seen := Dark, map[Name]bool{}
	for range 4 {
		seen[n] = true
		n = n.Next()
	}
	if n != Dark || len(seen) != 4 || seen[Auto] {
		t.Errorf("back at %s after %v", n, seen)
	}
}

func TestGlyphsAreOneCell(t *testing.T) {
	for _, g := range []Glyphs{Unicode, ASCII} {
		for _, s := range []string{g.TopLeft, g.TopRight, g.BottomLeft, g.BottomRight, g.Horizontal, g.Vertical, g.Full, g.Empty, g.Ellipsis} {
			if ansi.StringWidth(s) != 1 {
				t.Errorf("%q is %d cells wide", s, ansi.StringWidth(s))
			}
		}
	}
}

func TestMonoWritesNoEscapes(t *testing.T) {
	th := New(Mono, true, termenv.TrueColor)
	if s := th.Alert.Render("x") + th.Strong.Render("y"); s != "xy" {
		t.Errorf("%q", s)
	}
	if s := New(Dark, false, termenv.ANSI256).Warn.Render("x"); s == "x" {
		t.Error("no colour at all")
	}
}
