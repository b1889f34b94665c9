package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui"
	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/internal/shots/svg"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/muesli/termenv"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

const usage = "usage: [draw FOLDER] | play [FILE.ndjson | --still | --fail | --stale | --new] | record FILE.ndjson"

func run(args []string) (int, error) {
	switch {
	case len(args) == 0:
		return status(draw("screenshots"))
	case args[0] == "--help":
		fmt.Println(usage)
		return 0, nil
	case args[0] == "play":
		return play(args[1:])
	case len(args) == 2 && args[0] == "record":
		return status(record(args[1]))
	case len(args) == 2 && args[0] == "draw":
		return status(draw(args[1]))
	}
	return 2, errors.New(usage)
}

func status(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}

func record(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(source.WriteRecords(f, scene.Film(40, false)), f.Close())
}

// stills are scenes that play shows instead of a film.
var stills = map[string]func() []source.Record{
	"--still": func() []source.Record { return scene.Static(scene.InSync(), false) },
	"--fail":  func() []source.Record { return scene.Static(scene.InSync(), true) },
	"--stale": func() []source.Record { return scene.Static(scene.StalePrimary(), false) },
	"--new":   func() []source.Record { return scene.Static(scene.NewPair(), false) },
}

func play(args []string) (int, error) {
	records := scene.Film(40, false)
	if len(args) > 0 {
		if build, ok := stills[args[0]]; ok {
			records = build()
		} else {
			f, err := os.Open(args[0])
			if err != nil {
				return 2, err
			}
			records, err = source.ReadRecords(f)
			if err = errors.Join(err, f.Close()); err != nil {
				return 2, err
			}
		}
	}
	return tui.Run(context.Background(), source.NewReplay(records, 1), tui.Options{Pair: "store-1", Owner: "root@laptop", StateDir: os.TempDir()})
}

// shot is a screenshot: a state at a size in a scheme.
type shot struct {
	still string
	w, h  int
	theme theme.Name
	ascii bool
}

var shots = []shot{
	{"syncing", 80, 24, theme.Dark, false}, {"syncing", 160, 48, theme.Dark, false}, {"in-sync", 80, 24, theme.Light, false},
	{"stale-primary", 80, 24, theme.Dark, false}, {"wizard-1-check", 80, 24, theme.Dark, false}, {"wizard-1-blocked", 80, 24, theme.Dark, false},
	{"wizard-2-plan", 80, 24, theme.Dark, false}, {"wizard-3-confirm", 80, 24, theme.Dark, false}, {"wizard-4-run", 160, 48, theme.Dark, false},
	{"wizard-4-stopped", 80, 24, theme.Dark, false}, {"wizard-5-report", 80, 24, theme.Dark, false}, {"syncing", 60, 20, theme.Mono, true},
	{"verifying", 80, 24, theme.Dark, false}, {"split-brain", 80, 24, theme.Dark, false}, {"took-over", 80, 24, theme.Dark, false}, {"drill-2-plan", 80, 24, theme.Dark, false},
	{"takeover-1-too-early", 80, 24, theme.Dark, false}, {"takeover-3-confirm", 80, 24, theme.Dark, false}, {"takeover-5-report", 80, 24, theme.Dark, false},
	{"resolve-1-check", 80, 24, theme.Dark, false}, {"undo-2-plan", 80, 24, theme.Dark, false}, {"stale-primary", 160, 48, theme.Dark, false},
	{"doctor", 80, 24, theme.Dark, false}, {"setup-form", 80, 24, theme.Dark, false},
}

func (s shot) name() string {
	n := fmt.Sprintf("%s-%dx%d-%s", s.still, s.w, s.h, s.theme)
	if s.ascii {
		n += "-ascii"
	}
	return n + ".svg"
}

func draw(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range shots {
		screen, err := s.screen()
		if err != nil {
			return err
		}
		colours := svg.Dark
		if s.theme == theme.Light {
			colours = svg.Light
		}
		if err := os.WriteFile(filepath.Join(dir, s.name()), svg.Draw(screen, s.w, s.h, colours), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s shot) screen() (string, error) {
	all := scene.Stills()
	i := slices.IndexFunc(all, func(x scene.Still) bool { return x.Name == s.still })
	if i < 0 {
		return "", fmt.Errorf("no state is called %s", s.still)
	}
	st := all[i]
	var keys []tea.KeyMsg
	for _, k := range st.Keys {
		keys = append(keys, scene.Key(k))
	}
	return tui.Picture{W: s.w, H: s.h, Profile: termenv.ANSI256, Updates: st.Scene.Inputs, Keys: keys, Source: source.NewReplay(silent(st), 1e6),
		Options: tui.Options{Pair: "store-1", Owner: "root@laptop", Theme: s.theme, ASCII: s.ascii, Location: time.UTC,
			Now: func() time.Time { return scene.Now }}}.Draw(), nil
}

// silent is the recording of a state in which a running operation stands still: the picture is of one moment.
func silent(st scene.Still) []source.Record {
	out := slices.DeleteFunc(scene.Static(st.Scene, false, st.Extra...), func(r source.Record) bool {
		return r.Event && r.Method == proto.MethodOpWatch
	})
	return append(out, source.Record{Method: proto.MethodOpWatch, Event: true, After: 1e9})
}
