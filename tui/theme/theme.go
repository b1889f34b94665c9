package theme

import (
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"
)

// Name names a colour scheme.
type Name string

// The colour schemes. Auto is Dark or Light by COLORFGBG, and Mono where NO_COLOR is set or TERM says dumb.
const (
	Auto     Name = "auto"
	Dark     Name = "dark"
	Light    Name = "light"
	Contrast Name = "high-contrast"
	Mono     Name = "mono"
)

// Names lists what an operator can choose from.
var Names = []Name{Auto, Dark, Light, Contrast, Mono}

// Next returns the scheme that follows n in the circle of those that are not Auto.
func (n Name) Next() Name {
	circle := Names[1:]
	return circle[(slices.Index(circle, n)+1)%len(circle)]
}

// Glyphs are the signs that depend on what the terminal can draw. Bars and boxes are one cell per sign.
type Glyphs struct {
	TopLeft, TopRight, BottomLeft, BottomRight, Horizontal, Vertical string
	Full, Empty                                                      string
	Primary, Secondary, Unknown, Busy                                string // role marks
	Ellipsis                                                         string
}

// Unicode needs a UTF-8 terminal and no special font.
var Unicode = Glyphs{"┌", "┐", "└", "┘", "─", "│", "█", "░", "●", "○", "?", "…", "…"}

// ASCII works everywhere.
var ASCII = Glyphs{"+", "+", "+", "+", "-", "|", "#", ".", "[P]", "[s]", "[?]", "[~]", "~"}

// Theme is a scheme applied to a terminal's abilities.
type Theme struct {
	Name   Name
	Glyphs Glyphs
	// Text is for what is said plainly, Dim for the less important and the old, Good, Warn and Alert for judgements,
	// Accent for what has the focus, Strong for titles.
	Text, Dim, Good, Warn, Alert, Accent, Strong, Border lipgloss.Style
}

type palette struct{ dim, good, warn, alert, accent, border string }

var palettes = map[Name]palette{
	Dark:     {dim: "245", good: "75", warn: "214", alert: "203", accent: "117", border: "240"},
	Light:    {dim: "242", good: "25", warn: "130", alert: "124", accent: "24", border: "247"},
	Contrast: {dim: "7", good: "14", warn: "11", alert: "9", accent: "15", border: "15"},
}

// New builds a theme. Name must not be Auto: see Choose. Profile is what the terminal can show.
func New(name Name, ascii bool, profile termenv.Profile) Theme {
	p, coloured := palettes[name]
	if !coloured {
		name, profile = Mono, termenv.Ascii
	}
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(profile)
	r.SetHasDarkBackground(name != Light)
	ink := func(c string) lipgloss.Style { return r.NewStyle().Foreground(lipgloss.Color(c)) }
	t := Theme{
		Name: name, Glyphs: Unicode,
		Text: r.NewStyle(), Dim: ink(p.dim), Good: ink(p.good), Warn: ink(p.warn), Alert: ink(p.alert).Bold(true),
		Accent: ink(p.accent).Bold(true), Strong: r.NewStyle().Bold(true), Border: ink(p.border),
	}
	if ascii {
		t.Glyphs = ASCII
	}
	return t
}

// Choose turns what was asked for and the environment into a scheme, a glyph set and a colour profile. It asks the
// terminal nothing.
func Choose(name Name, ascii bool, env func(string) string) (Name, bool, termenv.Profile) {
	term := env("TERM")
	if !ascii {
		ascii = term == "linux" || term == "dumb" || !utf8Locale(env)
	}
	if env("NO_COLOR") != "" || term == "dumb" {
		return Mono, ascii, termenv.Ascii
	}
	if name == Auto || name == "" {
		name = Dark
		if light(env("COLORFGBG")) {
			name = Light
		}
	}
	profile := termenv.ANSI
	if strings.Contains(term, "256color") || env("COLORTERM") != "" || env("WT_SESSION") != "" {
		profile = termenv.ANSI256
	}
	return name, ascii, profile
}

// light reads COLORFGBG ("15;0", "0;default;15"): the last field is the background's colour number.
func light(fgbg string) bool {
	i := strings.LastIndexByte(fgbg, ';')
	return i >= 0 && (fgbg[i+1:] == "7" || fgbg[i+1:] == "15")
}

func utf8Locale(env func(string) string) bool {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := env(k); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	// Windows terminals set none of these and draw UTF-8; elsewhere no locale means the C locale.
	return env("WT_SESSION") != "" || env("TERM_PROGRAM") != ""
}
