package report

import (
	"io"
	"strings"
)

func (p Page) markdown(out io.Writer) error {
	w := &writer{w: out}
	w.printf("# %s\n", escape(p.Title))
	if len(p.Facts) > 0 {
		w.printf("\n")
	}
	for _, f := range p.Facts {
		w.printf("- **%s:** %s\n", escape(f.Name), escape(f.Text))
	}
	for _, part := range p.Parts {
		w.printf("\n## %s\n", escape(part.Heading))
		if len(part.Rows) > 0 {
			w.printf("\n%s|%s\n", cells(part.Columns), strings.Repeat(" --- |", len(part.Columns)))
			for _, row := range part.Rows {
				w.printf("%s", cells(row))
			}
		}
		if len(part.Lines) > 0 {
			bars := fence(part.Lines)
			w.printf("\n%s\n%s\n%s\n", bars, strings.Join(part.Lines, "\n"), bars)
		}
	}
	return w.err
}

func cells(row []string) string {
	line := "|"
	for _, cell := range row {
		line += " " + escape(cell) + " |"
	}
	return line + "\n"
}

// escape keeps text from being markup. Any ASCII punctuation may stand behind a backslash (CommonMark 0.31, 2.4); < and &
// are written as entities so that no renderer, however lax, sees HTML.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_{}[]()#!|~@", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return strings.ReplaceAll(b.String(), "://", `\://`) // no link out of a bare address
}

// fence is a row of backticks longer than any in the lines, which cannot end the block then.
func fence(lines []string) string {
	longest := 2
	for _, l := range lines {
		run := 0
		for _, r := range l {
			if r != '`' {
				run = 0
				continue
			}
			run++
			longest = max(longest, run)
		}
	}
	return strings.Repeat("`", longest+1)
}
