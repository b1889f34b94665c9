package drbdconf

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Pos is a place in a configuration file. Line and Col count from 1; Col counts bytes.
type Pos struct {
	File string
	Line int
	Col  int
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Error is one mistake in a configuration file.
type Error struct {
	Pos
	Text string
	Hint string // what to do, may be empty
	// Source is the line, with a shared secret masked; "" if it is not known.
	Source string
}

// Error is several lines: the place and the mistake, the line, a caret under the place, the hint.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Pos, e.Text)
	if e.Source != "" {
		// The caret's indent repeats the line's tabs, so that it stands right whatever a tab is worth.
		indent := strings.Map(func(r rune) rune {
			if r == '\t' {
				return r
			}
			return ' '
		}, e.Source[:min(max(e.Col-1, 0), len(e.Source))])
		fmt.Fprintf(&b, "\n    %s\n    %s^", e.Source, indent)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n    %s", e.Hint)
	}
	return b.String()
}

// ErrorList is every mistake that was found, in the order of their places.
type ErrorList []*Error

func (l ErrorList) Error() string {
	s := make([]string, len(l))
	for i, e := range l {
		s[i] = e.Error()
	}
	return strings.Join(s, "\n")
}

// Unwrap lists the mistakes.
func (l ErrorList) Unwrap() []error {
	s := make([]error, len(l))
	for i, e := range l {
		s[i] = e
	}
	return s
}

// Finding is something in a configuration that is right but that this version does not do.
type Finding struct {
	Pos
	Resource string
	Option   string // as in "net on-congestion", or a statement like "volume 1"
	Why      string
	// Refused says that the resource cannot be used like this; otherwise the option has no effect.
	Refused bool
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: resource %s: %s: %s", f.Pos, f.Resource, f.Option, f.Why)
}

// maxErrors is how many mistakes are reported.
const maxErrors = 20

// errSyntax ends the parsing; the mistake is in parser.errs.
var errSyntax = errors.New("syntax error")

func (p *parser) errorf(at Pos, hint, format string, args ...any) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, &Error{Pos: at, Text: fmt.Sprintf(format, args...), Hint: hint, Source: p.sourceLine(at)})
	}
}

// fail reports a mistake behind which nothing can be read reliably.
func (p *parser) fail(at Pos, hint, format string, args ...any) error {
	p.errorf(at, hint, format, args...)
	return errSyntax
}

func (p *parser) sortedErrors() ErrorList {
	order := map[string]int{}
	for i, f := range p.files {
		order[f] = i
	}
	slices.SortStableFunc(p.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return p.errs
}

// secretInLine finds what may name a secret, misspelt or in a comment too, and what stands behind it.
var secretInLine = regexp.MustCompile(`(?i)((?:shared|secret|secert|passw)[-_a-z]*).*`)

// sourceLine is the line of a place, fit for a terminal and a log.
func (p *parser) sourceLine(at Pos) string {
	src := p.sources[at.File]
	if src == nil || at.Line < 1 || at.Line > len(src.lines) {
		return ""
	}
	line := src.lines[at.Line-1]
	for _, m := range src.secrets { // a secret may stand on another line than its option's name
		if at.Line > m.from && at.Line <= m.to {
			return ""
		}
	}
	line = secretInLine.ReplaceAllString(line, "$1 ***")
	if len(line) > 160 {
		line = line[:160]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.TrimRight(line, "\r\n"))
}

// closest is the candidate nearest to word, "" if none is near.
func closest(word string, candidates []string) string {
	best, dist := "", len(word)/3+1
	if len(word) > 3 {
		dist++
	}
	for _, c := range candidates {
		if d := editDistance(word, c); d < dist || d == dist && best != "" && c < best {
			best, dist = c, d
		}
	}
	return best
}

// editDistance is Levenshtein's, with neighbours swapped counting as one; words are at most maxWord bytes long.
func editDistance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			sub := 1
			if a[i-1] == b[j-1] {
				sub = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+sub)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// oneOf lists words for a message.
func oneOf(words []string) string {
	switch len(words) {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
