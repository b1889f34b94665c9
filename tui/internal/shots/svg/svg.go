package svg

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Scheme is the terminal's own colours.
type Scheme struct{ Background, Foreground string }

// The two schemes.
var (
	Dark  = Scheme{"#15181c", "#d8dee5"}
	Light = Scheme{"#ffffff", "#20262d"}
)

// The size of a cell and of the text in it, and the margin, in pixels.
const (
	cellW, cellH, fontSize, margin = 9.0, 19.0, 15, 12.0
	baseline                       = 14.5
)

// style is what escape sequences have set.
type style struct {
	colour string // "" is the scheme's foreground
	bold   bool
}

// Draw renders lines of at most w cells, at most h of them. It knows what the cockpit writes: colours of 16 and 256,
// bold, and reset.
func Draw(screen string, w, h int, s Scheme) []byte {
	var b bytes.Buffer
	width, height := float64(w)*cellW+2*margin, float64(h)*cellH+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %g %g">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="6" fill="%s"/>`+"\n", s.Background)
	fmt.Fprintf(&b, `<g font-family="DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace" font-size="%d" fill="%s">`+"\n", fontSize, s.Foreground)
	for y, l := range strings.Split(screen, "\n") {
		if y < h {
			drawLine(&b, l, y, s)
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.Bytes()
}

func drawLine(b *bytes.Buffer, line string, y int, s Scheme) {
	x := 0
	var run strings.Builder
	runX := 0
	var st style
	flush := func() {
		text := run.String()
		run.Reset()
		if strings.TrimSpace(text) != "" {
			drawText(b, text, runX, y, st)
		}
	}
	var state byte
	for len(line) > 0 {
		seq, width, n, next := ansi.DecodeSequence(line, state, nil)
		state, line = next, line[n:]
		switch {
		case width == 0:
			flush()
			runX = x
			st.apply(seq)
		case strings.Contains(shapes, seq):
			flush()
			n := 1
			for wide := "─█░"; strings.Contains(wide, seq) && strings.HasPrefix(line, seq); n++ {
				line = line[len(seq):]
			}
			shape(b, seq, n, x, y, st, s)
			x += n
			runX = x
		default:
			if run.Len() == 0 {
				runX = x
			}
			run.WriteString(seq)
			x += width
			if seq == " " && strings.HasSuffix(run.String(), "  ") { // a gap: what follows stands on its own
				flush()
			}
		}
	}
	flush()
}

func drawText(b *bytes.Buffer, text string, x, y int, st style) {
	trimmed := strings.TrimLeft(text, " ")
	x += len(text) - len(trimmed)
	trimmed = strings.TrimRight(trimmed, " ")
	var esc bytes.Buffer
	_ = xml.EscapeText(&esc, []byte(trimmed)) // a Buffer takes everything
	fmt.Fprintf(b, `<text x="%g" y="%g" textLength="%g" lengthAdjust="spacingAndGlyphs" xml:space="preserve"%s>%s</text>`+"\n",
		margin+float64(x)*cellW, margin+float64(y)*cellH+baseline, float64(ansi.StringWidth(trimmed))*cellW, st.attributes(), esc.String())
}

func (st style) attributes() string {
	var out string
	if st.colour != "" {
		out += ` fill="` + st.colour + `"`
	}
	if st.bold {
		out += ` font-weight="bold"`
	}
	return out
}

// shapes are the characters that are drawn as such.
const shapes = "─│┌┐└┘█░"

// shape draws n cells of a box or block character.
func shape(b *bytes.Buffer, seq string, n, x, y int, st style, s Scheme) {
	colour := st.colour
	if colour == "" {
		colour = s.Foreground
	}
	left, top := margin+float64(x)*cellW, margin+float64(y)*cellH
	right, midX, midY, bottom := left+float64(n)*cellW, left+cellW/2, top+cellH/2, top+cellH
	switch seq {
	case "█", "░":
		opacity := "1"
		if seq == "░" {
			opacity = "0.35"
		}
		fmt.Fprintf(b, `<rect x="%g" y="%g" width="%g" height="%g" fill="%s" opacity="%s"/>`+"\n", left, top+2, right-left, cellH-4, colour, opacity)
		return
	}
	path := map[string]string{
		"─": fmt.Sprintf("M%g %gH%g", left, midY, right),
		"│": fmt.Sprintf("M%g %gV%g", midX, top, bottom),
		"┌": fmt.Sprintf("M%g %gH%gV%g", right, midY, midX, bottom),
		"┐": fmt.Sprintf("M%g %gH%gV%g", left, midY, midX, bottom),
		"└": fmt.Sprintf("M%g %gH%gV%g", right, midY, midX, top),
		"┘": fmt.Sprintf("M%g %gH%gV%g", left, midY, midX, top),
	}[seq]
	fmt.Fprintf(b, `<path d="%s" stroke="%s" fill="none"/>`+"\n", path, colour)
}

// apply takes in one escape sequence.
func (st *style) apply(seq string) {
	body, ok := strings.CutPrefix(seq, "\x1b[")
	body, end := strings.CutSuffix(body, "m")
	if !ok || !end {
		return
	}
	p := strings.Split(body, ";")
	for i := 0; i < len(p); i++ {
		n, _ := strconv.Atoi(p[i]) // an empty parameter is 0
		switch {
		case n == 0:
			*st = style{}
		case n == 1:
			st.bold = true
		case n == 22:
			st.bold = false
		case n == 39:
			st.colour = ""
		case n >= 30 && n <= 37:
			st.colour = colour(n - 30)
		case n >= 90 && n <= 97:
			st.colour = colour(n - 90 + 8)
		case n == 38 && i+2 < len(p) && p[i+1] == "5":
			c, _ := strconv.Atoi(p[i+2])
			st.colour = colour(c)
			i += 2
		}
	}
}

var base = []string{"#000000", "#cd3131", "#0dbc79", "#c5a000", "#2472c8", "#bc3fbc", "#11a8cd", "#c8c8c8",
	"#666666", "#f14c4c", "#23d18b", "#f5f543", "#3b8eea", "#d670d6", "#29b8db", "#ffffff"}

// colour is an entry of xterm's table of 256: 16 named ones, a cube of 6x6x6, 24 greys.
func colour(n int) string {
	switch {
	case n < 0 || n > 255:
		return base[7]
	case n < 16:
		return base[n]
	case n >= 232:
		g := 8 + 10*(n-232)
		return fmt.Sprintf("#%02x%02x%02x", g, g, g)
	}
	level := func(k int) int {
		if k == 0 {
			return 0
		}
		return 55 + 40*k
	}
	n -= 16
	return fmt.Sprintf("#%02x%02x%02x", level(n/36), level(n/6%6), level(n%6))
}
