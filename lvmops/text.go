package lvmops

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/santui/proto"
)

// Printable makes a string fit to be shown: escape sequences' ESC and all other control bytes, invalid UTF-8 and
// invisible format characters become '?'; a tab becomes a space.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return '?'
		default:
			return r
		}
	}, s)
}

// Lines cuts a program's output into printable lines of bounded number and length. Of too many lines the last ones
// are kept: that is where programs say why they failed.
func Lines(out []byte) []string {
	s := strings.TrimRight(string(out), "\r\n\t ")
	if s == "" {
		return nil
	}
	all := strings.Split(s, "\n")
	if n := len(all); n > proto.MaxOutputLines {
		all = all[n-proto.MaxOutputLines:]
	}
	lines := make([]string, 0, len(all))
	for _, l := range all {
		l = strings.TrimSpace(Printable(strings.TrimRight(cut(l, proto.MaxOutputLine), "\r")))
		if l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// cut shortens a string to at most n bytes, not within a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func lastLine(out []byte) string {
	lines := Lines(out)
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}
