package tui

import (
	"context"
	"time"

	"example.com/santui/tui/safe"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/muesli/termenv"
)

// Picture is a state of the cockpit to be drawn without a terminal: for documentation, so that it shows what the program
// shows.
type Picture struct {
	W, H    int
	Options Options // Theme must name a scheme other than theme.Auto
	Profile termenv.Profile
	Source  source.Source // answers what the keys ask for
	Updates []source.Update
	Keys    []tea.KeyMsg
}

// pictureLimit is how long an answer may take before the picture is drawn without it.
const pictureLimit = 10 * time.Second

// Draw returns the screen after the updates and keys, as lines with colours.
func (p Picture) Draw() string {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	name := p.Options.Theme
	if name == "" || name == theme.Auto {
		name = theme.Dark
	}
	m := newModel(ctx, p.Source, p.Options.withDefaults(), name, p.Options.ASCII, p.Profile)
	m.frozen()
	m.Update(tea.WindowSizeMsg{Width: p.W, Height: p.H})
	m.takeUpdates(p.Updates)
	for _, k := range p.Keys {
		_, cmd := m.Update(k)
		m.follow(ctx, cmd, pictureLimit)
	}
	return m.View()
}

// frozen makes the model one whose commands all end soon: nothing comes of time, and what follows an operation only reads.
func (m *Model) frozen() {
	m.after = func(time.Duration, tea.Msg) tea.Cmd { return nil }
	m.streams = func(cmds []tea.Cmd) []tea.Cmd {
		for _, c := range cmds {
			safe.Go(m.ctx, func() { c() })
		}
		return nil
	}
}

// follow runs a command and all that comes of it, without waiting for what takes longer than limit.
func (m *Model) follow(ctx context.Context, cmd tea.Cmd, limit time.Duration) {
	if cmd == nil {
		return
	}
	got := make(chan tea.Msg, 1)
	safe.Go(ctx, func() { got <- cmd() })
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case msg := <-got:
		switch msg := msg.(type) {
		case nil, tea.QuitMsg:
		case tea.BatchMsg:
			for _, c := range msg {
				m.follow(ctx, c, limit)
			}
		default:
			_, next := m.Update(msg)
			m.follow(ctx, next, limit)
		}
	case <-t.C:
	}
}
