package report

import (
	"fmt"
	"io"
	"time"

	"example.com/santui/tui/view"
)

// Page is a report in no particular format: names with their values, then parts.
type Page struct {
	Title string
	Facts []Fact
	Parts []Part
}

// Fact is a name and its value.
type Fact struct{ Name, Text string }

// Part is a heading and, as far as they are not empty, a chart, a table and lines to be shown as they are.
type Part struct {
	Heading string
	Chart   *Chart // drawn in HTML only: the table says the same
	Columns []string
	Rows    [][]string
	Lines   []string
}

// Chart is bars over a common axis, in seconds.
type Chart struct {
	Rows  []ChartRow
	Bands []Bar // behind all rows
	End   float64
}

// ChartRow is a line of a chart.
type ChartRow struct {
	Label string
	Bars  []Bar
}

// Bar reaches from From to To, in seconds.
type Bar struct {
	From, To float64
	Class    string // one of the classes in page.html
	Title    string
}

// The formats.
const (
	Text     = "text"
	Markdown = "markdown"
	HTML     = "html"
)

// Write writes the page in one of the formats.
func (p Page) Write(w io.Writer, format string) error {
	switch format {
	case Text:
		return p.text(w)
	case Markdown:
		return p.markdown(w)
	case HTML:
		return p.html(w)
	default:
		return fmt.Errorf("there is no format %q", format)
	}
}

// writer remembers the first error.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.w, format, args...)
	}
}

const (
	stampFormat = "2006-01-02 15:04:05 MST"
	clockFormat = "15:04:05.00"
)

func stamp(t time.Time, zone *time.Location) string { return t.In(zone).Format(stampFormat) }

// span writes how long something took; outages are measured to some hundredths of a second.
func span(s float64) string {
	if s < 100 {
		return fmt.Sprintf("%.2f s", max(s, 0))
	}
	return view.Seconds(s)
}
