package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	homedir "github.com/mitchellh/go-homedir"
	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/tui"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
)

// cockpitFlags are the options of the cockpit.
type cockpitFlags struct {
	ascii, readOnly bool
	theme           string
	refresh         time.Duration
	replay          string
}

func (f *cockpitFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.ascii, "ascii", false, "no line drawing characters")
	fl.BoolVar(&f.readOnly, "read-only", false, "look, do not touch")
	fl.StringVar(&f.theme, "theme", "", "auto, dark, light, high-contrast or mono")
	fl.DurationVar(&f.refresh, "refresh", 0, "shortest time between two redraws that no key asked for")
	fl.StringVar(&f.replay, "replay", "", "show a recording (NDJSON) instead of a live pair")
}

// check refuses values that no cockpit could use.
func (f *cockpitFlags) check() error {
	if f.theme != "" && !slices.Contains(theme.Names, theme.Name(f.theme)) {
		return cli.Usagef("--theme %q is not one of %v", f.theme, theme.Names)
	}
	return nil
}

func (a *app) cockpit(ctx context.Context, f cockpitFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.replay != "" {
		src, err := openReplay(f.replay)
		if err != nil {
			return cli.Exit(cli.ExitUsage, err)
		}
		return a.show(ctx, src, "", f)
	}
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	return a.runCockpit(ctx, p, f)
}

// openReplay reads a recording, to be shown at the speed at which it was made.
func openReplay(path string) (*source.Replay, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	records, err := source.ReadRecords(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return source.NewReplay(records, 1), nil
}

// runCockpit shows the cockpit over a live pair.
func (a *app) runCockpit(ctx context.Context, p cli.Pair, f cockpitFlags) error {
	ends := make([]source.Endpoint, len(p.Node))
	for i, n := range p.Node {
		ends[i] = source.Endpoint{Node: n.Name, Dial: n.Dial}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	src := source.NewLive(ctx, ends, sessionOptions(p.Node...))
	return errors.Join(a.show(ctx, src, p.Name, f), src.Close())
}

func (a *app) show(ctx context.Context, src source.Source, pair string, f cockpitFlags) error {
	in, ok := a.stdin.(*os.File)
	if !ok {
		return cli.Exit(cli.ExitUsage, tui.ErrNoTerminal)
	}
	dir, err := stateDir()
	if err != nil {
		return err
	}
	code, err := tui.Run(ctx, src, tui.Options{
		Pair: pair, Owner: owner(), ReadOnly: f.readOnly, ASCII: f.ascii, Theme: theme.Name(f.theme), Refresh: f.refresh,
		StateDir: dir, In: in, Out: a.stdout,
	})
	if err != nil || code != cli.ExitDone {
		return cli.Exit(code, err)
	}
	return nil
}

// stateDir is where the cockpit writes plans and reports when asked.
func stateDir() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		dir = "~/.local/state"
	}
	dir, err := homedir.Expand(dir)
	return filepath.Join(dir, "santui"), err
}
