package report

import (
	"io"
	"strings"
	"unicode/utf8"
)

func (p Page) text(out io.Writer) error {
	w := &writer{w: out}
	w.printf("%s\n", p.Title)
	facts := make([][]string, len(p.Facts))
	for i, f := range p.Facts {
		facts[i] = []string{f.Name, f.Text}
	}
	columns(w, facts)
	for _, part := range p.Parts {
		w.printf("\n%s\n", part.Heading)
		if len(part.Rows) > 0 {
			columns(w, append([][]string{part.Columns}, part.Rows...))
		}
		for _, l := range part.Lines {
			w.printf("  %s\n", l)
		}
	}
	return w.err
}

// columns writes rows below each other, each column as wide as its widest cell.
func columns(w *writer, rows [][]string) {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += "  " + cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
		}
		w.printf("%s\n", strings.TrimRight(line, " "))
	}
}
