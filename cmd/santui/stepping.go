package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"example.com/santui/proto"
	"example.com/santui/tui/clean"
	"example.com/santui/tui/view"
)

// terminal is standard input if somebody sits there to be asked.
func (a *app) terminal() (io.Reader, bool) {
	in, ok := a.stdin.(*os.File)
	return in, ok && !a.json && term.IsTerminal(int(in.Fd()))
}

// errNobody says that the terminal's input has ended.
var errNobody = errors.New("nobody is there to decide")

// asker asks the operator what an operation that waits shall do.
type asker struct {
	out   io.Writer
	lines chan string // closed at the end of the input
}

// newAsker starts the reader of the terminal, which lives as long as the program: a read cannot be called back.
func newAsker(in io.Reader, out io.Writer) *asker {
	q := &asker{out: out, lines: make(chan string)}
	go func() {
		defer close(q.lines)
		for sc := bufio.NewScanner(in); sc.Scan(); {
			q.lines <- sc.Text()
		}
	}()
	return q
}

// choose asks until one of the choices is taken. A first letter is enough; return alone goes on where that is offered.
func (q *asker) choose(ctx context.Context, o proto.Op) (proto.Choice, error) {
	words := make([]string, len(o.Choices))
	for i, c := range o.Choices {
		words[i] = string(c)
	}
	question := clean.Value(o).Outcome
	if o.State == proto.OpPaused {
		question = "nothing is left to do"
		if i := slices.IndexFunc(o.Steps, view.NotRun); i >= 0 {
			s := clean.Value(o.Steps[i].Step)
			question = fmt.Sprintf("next: step %d on %s: %s", s.Index, s.Node, shown(s))
		}
		words[0] += " (return)"
	}
	for {
		_, _ = fmt.Fprintf(q.out, "%s\n  %s? ", question, strings.Join(words, ", "))
		var typed string
		var ok bool
		select {
		case typed, ok = <-q.lines:
		case <-ctx.Done():
			return "", fmt.Errorf("the question was left open: %w", ctx.Err())
		}
		if !ok {
			return "", errNobody
		}
		typed = strings.TrimSpace(typed)
		if typed == "" && o.State == proto.OpPaused {
			return o.Choices[0], nil
		}
		for _, c := range o.Choices {
			if typed == string(c) || typed == string(c[:1]) && typed != "" {
				return c, nil
			}
		}
	}
}

// shown is a step's command line. What santui does itself is marked: the drbdadm command is only what an operator would
// type for it.
func shown(s proto.Step) string {
	text := view.Command(s.Argv)
	if s.Internal {
		text += "  (inside the agent)"
	}
	return text
}
