package scene

import (
	"slices"

	"example.com/santui/proto"
	tea "github.com/charmbracelet/bubbletea"
)

// Still is a named state of the whole cockpit: a scene, and the keys that were pressed in it.
type Still struct {
	Name  string
	Scene Scene
	Keys  []string
	Extra []proto.Check // replace passes among the checks
}

// setupKeys fill the form of a set-up in and lead to its checks.
var setupKeys = []string{"V", "storage", "tab", "data", "tab", "10G", "tab", "tab", "/srv/store", "tab", "tab", "enter"}

// Stills are the states that golden files and screenshots show.
func Stills() []Still {
	var out []Still
	for _, s := range append(Overviews(), Running(), Moved()) {
		out = append(out, Still{Name: s.Name, Scene: s})
	}
	soft := Failed(proto.CheckBusyProc, "otter", "pid 4127 smbd  cwd /srv/store/share")
	return append(out,
		Still{Name: "node", Scene: InSync(), Keys: []string{"enter"}},
		Still{Name: "sync", Scene: Syncing(0.452), Keys: []string{"s"}},
		Still{Name: "verify-ask", Scene: InSync(), Keys: []string{"v"}},
		Still{Name: "verified", Scene: Verified(), Keys: []string{"s"}},
		Still{Name: "sync-start", Scene: NewPair(), Keys: []string{"s", "S"}},
		Still{Name: "events", Scene: InSync(), Keys: []string{"l"}},
		Still{Name: "commands", Scene: Moved(), Keys: []string{"c"}},
		Still{Name: "doctor", Scene: InSync(), Keys: []string{"H"}},
		Still{Name: "doctor-fix", Scene: InSync(), Keys: []string{"H", "W", "store-1"}},
		Still{Name: "setup-form", Scene: Empty(), Keys: []string{"V", "storage", "tab", "data", "tab", "10G", "tab", "tab", "srv"}},
		Still{Name: "setup-2-plan", Scene: Empty(), Keys: append(slices.Clone(setupKeys), "enter")},
		Still{Name: "setup-3-confirm", Scene: Empty(), Keys: append(slices.Clone(setupKeys), "enter", "enter")},
		Still{Name: "help", Scene: StalePrimary(), Keys: []string{"?"}},
		Still{Name: "wizard-1-check", Scene: InSync(), Keys: []string{"f"}},
		Still{Name: "wizard-1-blocked", Scene: Syncing(0.452), Keys: []string{"f"}, Extra: []proto.Check{
			Failed(proto.CheckSync, "weasel", "1.10 TiB out of sync"), Failed(proto.CheckDisk, "weasel", "Inconsistent")}},
		Still{Name: "wizard-1-accept", Scene: InSync(), Keys: []string{"f"}, Extra: []proto.Check{soft}},
		Still{Name: "wizard-2-plan", Scene: InSync(), Keys: []string{"f", "enter"}},
		Still{Name: "wizard-3-confirm", Scene: InSync(), Keys: []string{"f", "enter", "enter", "store-"}, Extra: []proto.Check{soft}},
		Still{Name: "wizard-4-run", Scene: with(Running(), Done(Op(), 4)), Keys: []string{"a"}},
		Still{Name: "wizard-4-stopped", Scene: with(Running(), Stopped()), Keys: []string{"a"}},
		Still{Name: "wizard-5-report", Scene: with(Moved(), Finished()), Keys: []string{"a"}},
		Still{Name: "drill-2-plan", Scene: InSync(), Keys: []string{"d", "enter"}},
		Still{Name: "takeover-1-check", Scene: StalePrimary(), Keys: []string{"F"}},
		Still{Name: "takeover-1-too-early", Scene: StalePrimary(), Keys: []string{"F"}, Extra: []proto.Check{
			Failed(proto.CheckPeerGone, "otter", "the control link to otter has been down for 12 s only; 30 s are needed")}},
		Still{Name: "takeover-2-plan", Scene: StalePrimary(), Keys: []string{"F", "enter"}},
		Still{Name: "takeover-3-confirm", Scene: StalePrimary(), Keys: []string{"F", "enter", "enter", "cable pulled at the rack by me", "enter", "store-1 FO"}},
		Still{Name: "takeover-5-report", Scene: TookOver(), Keys: []string{"a"}},
		Still{Name: "resolve-1-check", Scene: SplitBrain(), Keys: []string{"D"}},
		Still{Name: "resolve-3-confirm", Scene: SplitBrain(), Keys: []string{"D", "enter", "enter"}},
		Still{Name: "rejoin-2-plan", Scene: TookOver(), Keys: []string{"J", "enter"}},
		Still{Name: "undo-2-plan", Scene: Orphan(), Keys: []string{"u", "enter"}},
	)
}

// with is the scene with weasel showing an operation.
func with(s Scene, op proto.Op) Scene {
	s.Inputs = slices.Clone(s.Inputs)
	snap := *s.Inputs[1].Snapshot
	snap.Op = &op
	s.Inputs[1].Snapshot = &snap
	return s
}

var named = map[string]tea.KeyType{"enter": tea.KeyEnter, "tab": tea.KeyTab, "esc": tea.KeyEsc, "up": tea.KeyUp, "down": tea.KeyDown, "f1": tea.KeyF1, "ctrl+c": tea.KeyCtrlC,
	"pgdown": tea.KeyPgDown, "end": tea.KeyEnd, "backspace": tea.KeyBackspace, "shift+tab": tea.KeyShiftTab}

// Key is the key of a name; what is not a name is typed text.
func Key(name string) tea.KeyMsg {
	if t, ok := named[name]; ok {
		return tea.KeyMsg{Type: t}
	}
	if name == " " {
		return tea.KeyMsg{Type: tea.KeySpace, Runes: []rune(name)}
	}
	return tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(name)}
}
