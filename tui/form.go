package tui

import (
	"fmt"
	"regexp"
	"strings"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/screen"
	"example.com/santui/tui/widget"
	"example.com/santui/tui/wizard"
	tea "github.com/charmbracelet/bubbletea"
)

// form asks what a set-up shall make. It starts nothing: its Next leads to the wizard's checks and plan. The agent judges
// again what is typed here.
type form struct {
	fields []field
	focus  int // index into fields, then Cancel, then Next
}

type field struct {
	label, hint, text string
	bad               func(string) string // what is wrong with the text, "" if it can be used
}

var lvmName = regexp.MustCompile(`^[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,125}$`)

func badName(s string) string {
	switch {
	case s == "":
		return "is missing"
	case !lvmName.MatchString(s):
		return "is no name for LVM: letters, digits and + _ . - only, no - in front"
	}
	return ""
}

func badSize(s string) string {
	if s == "" {
		return ""
	}
	if n, err := parseBytes(s); err != nil || n%512 != 0 {
		return "is no size: 500M, 10G, or nothing for all there is"
	}
	return ""
}

func badFS(s string) string {
	if s != "ext4" && s != "xfs" {
		return "is ext4 or xfs"
	}
	return ""
}

func badMount(s string) string {
	if s != "" && (!strings.HasPrefix(s, "/") || s == "/") {
		return "begins with /, for a directory that is there on both nodes; or is empty"
	}
	return ""
}

func newForm(last proto.SetupRequest) *form {
	f := &form{fields: []field{
		{"volume group", "a name that no other group has on either node", last.VG, badName},
		{"volume", "", last.LV, badName},
		{"size", "500M, 10G; nothing takes all there is", "", badSize},
		{"file system", "ext4 or xfs", last.FSType, badFS},
		{"mount point", "a directory that is there on both nodes; nothing leaves it unmounted", last.Mount, badMount},
	}}
	if last.Size > 0 {
		f.fields[2].text = fmt.Sprint(last.Size)
	}
	if last.FSType == "" {
		f.fields[3].text = "ext4"
	}
	return f
}

func (f *form) cancel() int { return len(f.fields) }
func (f *form) next() int   { return f.cancel() + 1 }

// blocked tells what keeps Next from leading on.
func (f *form) blocked() string {
	for _, x := range f.fields {
		if why := x.bad(x.text); why != "" {
			return x.label + " " + why
		}
	}
	return ""
}

func (f *form) request(resource, owner string) proto.SetupRequest {
	r := proto.SetupRequest{Resource: resource, VG: f.fields[0].text, LV: f.fields[1].text, FSType: f.fields[3].text, Mount: f.fields[4].text, Owner: owner}
	if n, err := parseBytes(f.fields[2].text); err == nil {
		r.Size = n
	}
	return r
}

// key takes a key; the keys are those of the wizard's third page.
func (f *form) key(m *Model, msg tea.KeyMsg) tea.Cmd {
	if (msg.Type == tea.KeyRunes || msg.Type == tea.KeySpace) && !msg.Alt {
		if f.focus < f.cancel() {
			f.fields[f.focus].text = typed(f.fields[f.focus].text, msg.Runes)
		}
		return nil
	}
	b, _ := keymap.Match(keymap.ConfirmPage, msg)
	stops := f.next() + 1
	switch b.Action {
	case keymap.Back:
		m.form = nil
	case keymap.Panel:
		f.focus = (f.focus + 1) % stops
	case keymap.PanelBack:
		f.focus = (f.focus + stops - 1) % stops
	case keymap.Erase, keymap.Clear:
		if f.focus < f.cancel() {
			r := []rune(f.fields[f.focus].text)
			if b.Action == keymap.Clear {
				r = nil
			}
			f.fields[f.focus].text = string(r[:max(len(r)-1, 0)])
		}
	case keymap.Enter:
		return f.enter(m)
	default:
	}
	return nil
}

func (f *form) enter(m *Model) tea.Cmd {
	switch {
	case f.focus < f.cancel():
		f.focus++
	case f.focus == f.cancel():
		m.form = nil
	case f.blocked() == "":
		m.form, m.setup = nil, f.request(m.pair.Resource, m.o.Owner)
		w, reqs := wizard.NewSetup(m.wizardOptions(), m.pair.Setup.From, m.pair.Setup.To, m.setup)
		return m.openWizard(w, reqs)
	}
	return nil
}

func (f *form) draw(c screen.Ctx, resource, node string) string {
	w := min(c.W, 76) - 4
	lines := widget.Wrap(fmt.Sprintf("LVM and a file system on %s, made on %s, the Primary; the other node gets the same blocks. "+
		"Nothing is written before the plan was shown and the pair's name typed.", resource, node), w)
	lines = append(lines, "")
	for i, x := range f.fields {
		cursor, end := "  ", ""
		if i == f.focus {
			cursor, end = "> ", "_"
		}
		r := []rune(x.text)
		shown := string(r[max(len(r)-max(w-18, 1), 0):]) // its end, where typing goes on
		lines = append(lines, cursor+widget.Fit(c.Theme, x.label, 13)+"> "+shown+end)
	}
	hint := ""
	if f.focus < f.cancel() {
		hint = f.fields[f.focus].hint
	}
	lines = append(append(lines, ""), widget.Wrap(hint, w)...)
	next := "Next"
	if why := f.blocked(); why != "" {
		next += " (not yet)"
		for _, l := range widget.Wrap("not yet: "+why, w) {
			lines = append(lines, c.Theme.Warn.Render(l))
		}
	}
	return c.DrawDialog(screen.Dialog{Title: "set up " + resource, Lines: lines, Buttons: []string{"Cancel", next}, Focus: max(f.focus-f.cancel(), -1)},
		"tab and enter lead on   esc cancel")
}
