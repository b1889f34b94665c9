package report

import (
	_ "embed"
	"html/template"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

func (p Page) html(w io.Writer) error {
	type part struct {
		Part
		Drawing *drawing
	}
	parts := make([]part, len(p.Parts))
	for i, x := range p.Parts {
		parts[i].Part = x
		if x.Chart != nil {
			parts[i].Drawing = draw(*x.Chart)
		}
	}
	return pageTemplate.Execute(w, struct {
		Page
		Parts []part
	}{p, parts})
}

// drawing is a chart in the units of its SVG.
type drawing struct {
	W, H, Left, Axis float64 // Axis is where the seconds are written
	Bands            []rect
	Rows             []label
	Bars             []rect
	Ticks            []label
}

type rect struct {
	X, Y, W, H   float64
	Class, Title string
}

type label struct {
	X, Y float64
	Text string
}

// Sizes of a drawing, in pixels at its natural size.
const (
	drawWidth  = 960
	drawLeft   = 250
	drawRow    = 20
	drawBar    = 12
	drawMargin = 40 // right of the last second, for the tick's text
	drawLabel  = 34 // runes of a label
)

func draw(c Chart) *drawing {
	d := &drawing{W: drawWidth, Left: drawLeft, Axis: float64(len(c.Rows)) * drawRow}
	d.H = d.Axis + drawRow
	end := max(c.End, 0.001)
	at := func(s float64) float64 {
		return round(drawLeft + (drawWidth-drawLeft-drawMargin)*min(max(s/end, 0), 1))
	}
	for _, b := range c.Bands {
		d.Bands = append(d.Bands, rect{X: at(b.From), W: round(at(b.To) - at(b.From)), H: d.Axis, Class: b.Class, Title: b.Title})
	}
	for i, row := range c.Rows {
		y := float64(i) * drawRow
		d.Rows = append(d.Rows, label{Y: y + drawRow*0.7, Text: short(row.Label)})
		for _, b := range row.Bars {
			w := max(round(at(b.To)-at(b.From)), 2) // what took no time shows too
			d.Bars = append(d.Bars, rect{X: at(b.From), Y: y + (drawRow-drawBar)/2, W: w, H: drawBar, Class: b.Class, Title: b.Title})
		}
	}
	step := tick(end)
	for i := 0; float64(i)*step <= end; i++ {
		s := float64(i) * step
		d.Ticks = append(d.Ticks, label{X: at(s), Y: d.Axis + drawRow*0.7, Text: strconv.FormatFloat(s, 'g', 6, 64) + " s"})
	}
	return d
}

// tick is the distance of the marks on an axis that ends at end: 1, 2 or 5 times a power of ten, for 4 to 10 marks.
func tick(end float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(end)))
	for _, part := range []float64{0.1, 0.2, 0.5} {
		if end/(step*part) <= 10 {
			return round(step*part*1e6) / 1e6
		}
	}
	return step
}

func round(x float64) float64 { return math.Round(x*100) / 100 }

func short(s string) string {
	if utf8.RuneCountInString(s) <= drawLabel {
		return s
	}
	return string([]rune(s)[:drawLabel-1]) + "…"
}
