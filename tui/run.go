package tui

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/santui/tui/clean"
	_ "example.com/santui/tui/quiet" // before Bubble Tea asks the terminal anything
	"example.com/santui/tui/safe"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// Options of the cockpit. The zero value works.
type Options struct {
	Pair     string // as configured; "" takes the agents' word
	Resource string // shown first; "" the most endangered
	Owner    string // user@host, kept with every operation and decision
	ReadOnly bool
	ASCII    bool       // no line drawing; chosen by itself where the terminal has none
	Theme    theme.Name // "" is theme.Auto
	// Refresh is the shortest time between two redraws that no key asked for; 0 is DefaultRefresh.
	Refresh  time.Duration
	StateDir string         // where plans and reports are written on request; "" refuses
	Location *time.Location // of clock times; nil is local
	In       *os.File       // nil is standard input, Out standard output
	Out      io.Writer
	Env      func(string) string // nil is os.Getenv
	Now      func() time.Time    // nil is time.Now
}

// DefaultRefresh keeps a running sync below 700 bytes a second in a window of 80x24.
const DefaultRefresh = time.Second

// Exit codes of Run, as in the command line's table.
const (
	codeDone     = 0
	codeBug      = 1
	codeUsage    = 2
	codeDetached = 9
	codeHUP      = 129
	codeINT      = 130
	codeTERM     = 143
)

func (o Options) now() time.Time { return o.Now() }

func (o Options) newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return hex.EncodeToString(b[:])
}

func (o Options) withDefaults() Options {
	if o.Refresh <= 0 {
		o.Refresh = DefaultRefresh
	}
	if o.Location == nil {
		o.Location = time.Local
	}
	if o.In == nil {
		o.In = os.Stdin
	}
	if o.Out == nil {
		o.Out = os.Stdout
	}
	if o.Env == nil {
		o.Env = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// ErrNoTerminal is what Run returns, with exit code 2, where there is nothing to draw on.
var ErrNoTerminal = errors.New("the cockpit needs a terminal; without one, use santui status, watch, check or failover")

func terminal(o Options) error {
	out, ok := o.Out.(*os.File)
	switch {
	case !ok || !term.IsTerminal(int(out.Fd())):
		return fmt.Errorf("standard output is not a terminal: %w", ErrNoTerminal)
	case !term.IsTerminal(int(o.In.Fd())):
		return fmt.Errorf("standard input is not a terminal: %w", ErrNoTerminal)
	case o.Env("TERM") == "dumb":
		return fmt.Errorf("TERM is dumb: %w", ErrNoTerminal)
	}
	return nil
}

// Run shows the cockpit until the operator leaves or a signal ends it, and returns the exit code. The terminal is as it
// was before, also after a panic, which comes back as an error with code 1. Operations on the agents go on regardless:
// code 9 says that one does. ctx ends the cockpit early.
func Run(ctx context.Context, src source.Source, o Options) (int, error) {
	o = o.withDefaults()
	if err := terminal(o); err != nil {
		return codeUsage, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var caught panics
	ctx = safe.With(ctx, caught.add)
	name, ascii, profile := theme.Choose(o.Theme, o.ASCII, o.Env)
	m := newModel(ctx, src, o, name, ascii, profile)
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out), tea.WithAltScreen(),
		tea.WithFPS(20), tea.WithoutSignalHandler(), tea.WithFilter(holdQuit))
	caught.then(p.Kill)
	stop := signals(ctx, p)
	defer stop()
	_, err := p.Run()
	cancel()
	return m.result(err, &caught)
}

// holdQuit keeps a quit that nobody decided from ending the program while an operation of ours runs.
func holdQuit(tm tea.Model, msg tea.Msg) tea.Msg {
	if _, ok := msg.(tea.QuitMsg); !ok {
		return msg
	}
	if m, ok := tm.(*Model); ok && !m.leaving && m.busy() {
		return askQuitMsg{}
	}
	return msg
}

func (m *Model) result(err error, caught *panics) (int, error) {
	if p := caught.first(); p != nil {
		return codeBug, *p
	}
	switch {
	case m.fatal != nil:
		return codeBug, *m.fatal
	case errors.Is(err, tea.ErrProgramPanic):
		return codeBug, err
	case errors.Is(err, tea.ErrInterrupted):
		return codeINT, nil
	case err != nil && m.code == codeDone && m.ctx.Err() == nil:
		return codeBug, fmt.Errorf("the terminal failed: %w", err)
	}
	return m.code, nil
}

// signals turns what the system sends into messages and tells the exit code to return.
func signals(ctx context.Context, p *tea.Program) (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	done := make(chan struct{})
	safe.Go(ctx, func() {
		defer close(done)
		for {
			select {
			case s := <-ch:
				p.Send(signalMsg(map[os.Signal]int{syscall.SIGHUP: codeHUP, syscall.SIGTERM: codeTERM, os.Interrupt: codeINT}[s]))
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		signal.Stop(ch)
		<-done
	}
}

// panics collects what goroutines of ours died of.
type panics struct {
	mu   sync.Mutex // protects what follows
	list []safe.PanicError
	kill func()
}

func (p *panics) add(c safe.PanicError) {
	p.mu.Lock()
	p.list = append(p.list, c)
	kill := p.kill
	p.mu.Unlock()
	if kill != nil {
		kill()
	}
}

func (p *panics) then(kill func()) {
	p.mu.Lock()
	p.kill = kill
	early := len(p.list) > 0
	p.mu.Unlock()
	if early {
		kill()
	}
}

func (p *panics) first() *safe.PanicError {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 {
		return nil
	}
	return &p.list[0]
}

func plainText(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(ansi.Strip(l), " ") + "\n")
	}
	return b.String()
}

// cleanErr makes an error's text safe to draw and keeps what it is.
func cleanErr(err error) error {
	if err == nil || clean.String(err.Error()) == err.Error() {
		return err
	}
	return cleanedError{err}
}

type cleanedError struct{ err error }

func (e cleanedError) Error() string { return clean.String(e.err.Error()) }
func (e cleanedError) Unwrap() error { return e.err }
