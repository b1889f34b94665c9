package tui

import (
	"fmt"
	"os"
	"testing"

	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	"github.com/charmbracelet/x/exp/golden"
	"github.com/muesli/termenv"
	"go.uber.org/goleak"
)

// leftover is a folder to remove at the end.
var leftover string

func TestMain(m *testing.M) {
	code := m.Run()
	if leftover != "" {
		_ = os.RemoveAll(leftover)
	}
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("github.com/charmbracelet/x/exp/teatest.NewTestModel.func2")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func stillPilot(t *testing.T, s scene.Still, w, h int, ascii bool) *pilot {
	t.Helper()
	src := newRecorder()
	src.replay = source.NewReplay(scene.Static(s.Scene, false, s.Extra...), 1e6)
	p := newPilot(t, w, h, s.Scene, ascii, src)
	p.keys(s.Keys...)
	return p
}

func TestScreens(t *testing.T) {
	for _, s := range scene.Stills() {
		for _, size := range [][2]int{{80, 24}, {60, 20}, {160, 48}} {
			for _, ascii := range []bool{false, true} {
				glyphs := map[bool]string{false: "unicode", true: "ascii"}[ascii]
				t.Run(fmt.Sprintf("%s/%dx%d-%s", s.Name, size[0], size[1], glyphs), func(t *testing.T) {
					golden.RequireEqual(t, []byte(stillPilot(t, s, size[0], size[1], ascii).View()+"\n"))
				})
			}
		}
	}
}

// TestColours keeps one coloured picture of the screens that use the most of them.
func TestColours(t *testing.T) {
	for _, s := range scene.Stills() {
		switch s.Name {
		case "syncing", "stale-primary", "wizard-4-stopped":
			t.Run(s.Name, func(t *testing.T) {
				p := stillPilot(t, s, 80, 24, false)
				p.theme = theme.New(theme.Dark, false, termenv.ANSI256)
				golden.RequireEqual(t, []byte(p.View()+"\n"))
			})
		}
	}
}

func TestTinyWindow(t *testing.T) {
	p := newPilot(t, 20, 5, scene.InSync(), false, newRecorder())
	golden.RequireEqual(t, []byte(p.View()+"\n"))
}
