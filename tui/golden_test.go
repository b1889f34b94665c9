package tui

import (
	"fmt"
	"os"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/tui/internal/scene"
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
		if err := goleak.Find(goleak.IgnoreTopFunction("example.com/santui/tui.(*recorder).Call")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// still is a named state of the whole program.
type still struct {
	name  string
	scene scene.Scene
	keys  []string
	extra []proto.Check
	op    *proto.Op // shown on the wizard's fourth or fifth page
}

func stills() []still {
	var out []still
	for _, s := range append(scene.Overviews(), scene.Running(), scene.Moved()) {
		out = append(out, still{name: s.Name, scene: s})
	}
	running, stopped, finished := scene.Done(scene.Op(), 4), scene.Stopped(), scene.Finished()
	soft := scene.Failed(proto.CheckBusyProc, "otter", "pid 4127 smbd  cwd /srv/store/share")
	return append(out,
		still{name: "node", scene: scene.InSync(), keys: []string{"enter"}},
		still{name: "sync", scene: scene.Syncing(0.452), keys: []string{"s"}},
		still{name: "sync-start", scene: scene.NewPair(), keys: []string{"s", "S"}},
		still{name: "events", scene: scene.InSync(), keys: []string{"l"}},
		still{name: "commands", scene: scene.Moved(), keys: []string{"c"}},
		still{name: "help", scene: scene.StalePrimary(), keys: []string{"?"}},
		still{name: "wizard-1-check", scene: scene.InSync(), keys: []string{"f"}},
		still{name: "wizard-1-blocked", scene: scene.Syncing(0.452), keys: []string{"f"}, extra: []proto.Check{
			scene.Failed(proto.CheckSync, "weasel", "1.10 TiB out of sync"), scene.Failed(proto.CheckDisk, "weasel", "Inconsistent")}},
		still{name: "wizard-2-plan", scene: scene.InSync(), keys: []string{"f", "enter"}},
		still{name: "wizard-3-confirm", scene: scene.InSync(), keys: []string{"f", "enter", "enter", "store-"}, extra: []proto.Check{soft}},
		still{name: "wizard-4-run", scene: scene.InSync(), op: &running},
		still{name: "wizard-4-stopped", scene: scene.InSync(), op: &stopped},
		still{name: "wizard-5-report", scene: scene.InSync(), op: &finished},
	)
}

func (s still) pilot(t *testing.T, w, h int, ascii bool) *pilot {
	t.Helper()
	if s.op != nil {
		sc := s.scene
		snap := *sc.Inputs[1].Snapshot
		snap.Op = s.op
		sc.Inputs[1].Snapshot = &snap
		p := newPilot(t, w, h, sc, ascii, newRecorder())
		p.keys("a")
		return p
	}
	p := newPilot(t, w, h, s.scene, ascii, newRecorder(s.extra...))
	p.keys(s.keys...)
	return p
}

func TestScreens(t *testing.T) {
	for _, s := range stills() {
		for _, size := range [][2]int{{80, 24}, {60, 20}, {160, 48}} {
			for _, ascii := range []bool{false, true} {
				glyphs := map[bool]string{false: "unicode", true: "ascii"}[ascii]
				t.Run(fmt.Sprintf("%s/%dx%d-%s", s.name, size[0], size[1], glyphs), func(t *testing.T) {
					golden.RequireEqual(t, []byte(s.pilot(t, size[0], size[1], ascii).View()+"\n"))
				})
			}
		}
	}
}

// TestColours keeps one coloured picture of the screens that use the most of them.
func TestColours(t *testing.T) {
	for _, s := range stills() {
		switch s.name {
		case "syncing", "stale-primary", "wizard-4-stopped":
			t.Run(s.name, func(t *testing.T) {
				p := s.pilot(t, 80, 24, false)
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
