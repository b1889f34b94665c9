package drbdconf

import (
	"fmt"
	"strings"
)

// Limits of the scanner: maxWord and maxQuoted are drbdadm's, in bytes; the others are ours.
const (
	maxWord    = 128
	maxQuoted  = 255
	maxFile    = 1 << 20 // bytes of one file
	maxFiles   = 256
	maxInclude = 10 // nested includes, as in drbdadm
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokWord
	tokQuoted
	tokPunct // one of { } ; [ ] :
)

type token struct {
	kind tokenKind
	text string // without quotes
	pos  Pos
	size int // in the file, quotes included
}

func (t token) is(punct string) bool { return t.kind == tokPunct && t.text == punct }

// describe names a token in a message.
func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "the end of the file"
	case tokPunct:
		return "\"" + t.text + "\""
	default:
		return fmt.Sprintf("%q", t.text)
	}
}

// source is one file that was read.
type source struct {
	name    string
	text    string
	lines   []string
	secrets []lineRange // statements that hold a shared secret
}

type lineRange struct{ from, to int }

func newSource(name, text string) *source {
	return &source{name: name, text: text, lines: strings.Split(text, "\n")}
}

// lexer cuts one file into tokens.
type lexer struct {
	p    *parser
	src  *source
	off  int
	line int
	bol  int // offset of the line's first byte
	peek *token
	end  Pos // behind the last token taken
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/._-%", c) >= 0
}

func (l *lexer) pos() Pos { return Pos{l.src.name, l.line, l.off - l.bol + 1} }

// next returns the next token.
func (l *lexer) next() (token, error) {
	t, err := l.look()
	l.peek = nil
	l.end = Pos{t.pos.File, t.pos.Line, t.pos.Col + t.size}
	return t, err
}

// look returns the next token without taking it.
func (l *lexer) look() (token, error) {
	if l.peek == nil {
		t, err := l.scan()
		if err != nil {
			return t, err
		}
		l.peek = &t
	}
	return *l.peek, nil
}

func (l *lexer) skipSpace() {
	s := l.src.text
	for l.off < len(s) {
		switch s[l.off] {
		case '\n':
			l.off++
			l.line++
			l.bol = l.off
		case ' ', '\t', '\r':
			l.off++
		case '#':
			if i := strings.IndexByte(s[l.off:], '\n'); i >= 0 {
				l.off += i
			} else {
				l.off = len(s)
			}
		default:
			return
		}
	}
}

func (l *lexer) scan() (token, error) {
	l.skipSpace()
	s, at := l.src.text, l.pos()
	if l.off >= len(s) {
		return token{kind: tokEOF, pos: at}, nil
	}
	c := s[l.off]
	switch {
	case strings.IndexByte("{};[]:", c) >= 0:
		l.off++
		return token{tokPunct, string(c), at, 1}, nil
	case c == '"':
		return l.quoted(at)
	case isWordByte(c):
		start := l.off
		for l.off < len(s) && isWordByte(s[l.off]) {
			l.off++
		}
		if l.off-start > maxWord {
			return token{}, l.p.fail(at, "", "a word of %d characters; the limit is %d", l.off-start, maxWord)
		}
		return token{tokWord, s[start:l.off], at, l.off - start}, nil
	case c == '=':
		return token{}, l.p.fail(at, `DRBD separates an option from its value by a space: "timeout 60;"`, `"=" is not part of this syntax`)
	default:
		return token{}, l.p.fail(at, "put the value in double quotes", "the character %q cannot stand here", rune(c))
	}
}

// quoted reads a string in double quotes; a backslash takes the next character as it is.
func (l *lexer) quoted(at Pos) (token, error) {
	s := l.src.text
	var b strings.Builder
	for i := l.off + 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			size := i + 1 - l.off
			l.off = i + 1
			if b.Len() > maxQuoted {
				return token{}, l.p.fail(at, "", "a string of %d characters; the limit is %d", b.Len(), maxQuoted)
			}
			return token{tokQuoted, b.String(), at, size}, nil
		case '\n':
			return token{}, l.p.fail(at, `close it with " on the same line`, "this string is not closed")
		case '\\':
			if i+1 < len(s) && s[i+1] != '\n' {
				i++
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return token{}, l.p.fail(at, `close it with "`, "this string is not closed")
}
