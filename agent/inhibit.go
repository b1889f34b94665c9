package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// inhibitRetry is how long after a failure the inhibitor is asked for again.
const inhibitRetry = time.Minute

// inhibitor keeps systemd from shutting this node down while it is not safe to power it off. It holds a systemd-inhibit
// whose child reads from us, so the inhibitor goes with the agent, however that ends. Owned by the goroutine that runs it.
type inhibitor struct {
	exec   *lvmops.Exec
	booted string // exists if systemd runs this machine, sd_booted(3)
	tell   func(level proto.Level, text string)

	held *lvmops.Held
	why  string // what it is held for
	said string // the newest failure, which is told once
}

func (a *Agent) newInhibitor() *inhibitor {
	return &inhibitor{exec: lvmops.NewExec(), booted: "/run/systemd/system", tell: func(level proto.Level, text string) { a.hub.event(level, "", "", text) }}
}

// unsafe says why this node must not be powered off, "" if it may: the reason of the first light that is off.
func unsafe(s proto.Snapshot) string {
	for _, r := range s.Resources {
		if l := r.Lights.SafePowerOff; !l.On && l.Why != "" {
			return r.Name + ": " + l.Why
		}
	}
	return ""
}

// run follows the light until ctx ends.
func (i *inhibitor) run(ctx context.Context, h *hub) {
	defer i.follow("")
	for {
		ch := *h.changed.Load()
		i.follow(unsafe(*h.cur.Load()))
		var gone <-chan struct{}
		var again <-chan time.Time
		switch {
		case i.held != nil:
			gone = i.held.Gone()
		case i.why != "":
			again = time.After(inhibitRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-ch:
		case <-again:
			i.why = ""
		case <-gone:
			i.held, i.why = nil, ""
			i.tell(proto.LevelWarn, "the systemd inhibitor against shutting down was taken away; asking for it again")
		}
	}
}

// follow takes, replaces or releases the inhibitor. The new one is there before the old one goes.
func (i *inhibitor) follow(why string) {
	if why == i.why {
		return
	}
	old := i.held
	i.held, i.why = nil, why
	if why != "" {
		i.take()
	}
	if old != nil {
		old.Release()
	}
}

func (i *inhibitor) take() {
	err := lvmops.ErrNotFound
	if _, serr := os.Stat(i.booted); serr == nil {
		i.held, err = i.exec.Hold("systemd-inhibit", "--what=shutdown", "--mode=block", "--who=santui", "--why="+i.why, "cat")
	}
	level, text := proto.LevelInfo, ""
	switch {
	case err == nil:
	case errors.Is(err, lvmops.ErrNotFound):
		text = "there is no systemd here: nothing but the light \"safe to power off\" keeps people from shutting this node down too early"
	default:
		level, text = proto.LevelWarn, "shutting this node down is not inhibited: "+err.Error()
	}
	if text != "" && text != i.said {
		i.tell(level, text)
	}
	i.said = text
}
