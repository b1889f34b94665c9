package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/lvmops"
)

func TestHandlers(t *testing.T) {
	h := &Handlers{
		Commands: map[string]string{
			"split-brain":          `echo "$DRBD_RESOURCE on $DRBD_PEER at $TERM"; pwd`,
			"before-resync-target": "echo no room >&2; exit 7",
			"out-of-sync":          "yes",
			"after-resync-target":  "sleep 60 & sleep 60",
			"local-io-error":       "kill -9 $$",
			"pri-on-incon-degr":    "echo '!DRBD! pri on incon-degr' | wall ; sleep 60 ; halt -f",
			"pri-lost":             "/usr/lib/drbd/notify-emergency-reboot.sh; echo b > /proc/sysrq-trigger ; reboot -f",
			"fence-peer":           "true # asphalt, rebooted",
		},
		Env:    []string{"TERM=linux", "DRBD_RESOURCE=r0", "DRBD_PEER=weasel"},
		Runner: &lvmops.Exec{Grace: 100 * time.Millisecond},
	}
	for _, c := range []struct {
		name string
		exit int
		said string
		fail string
	}{
		{"split-brain", 0, "r0 on weasel at linux; /", ""},
		{"before-resync-target", 7, "no room", ""},
		{"local-io-error", -1, "", "signal: killed"},
		{"pri-on-incon-degr", -1, "", "handlers_may_halt"},
		{"pri-lost", -1, "", "handlers_may_halt"},
		{"fence-peer", 0, "", ""},
	} {
		exit, said, err := h.Run(t.Context(), c.name)
		if exit != c.exit || said != c.said || c.fail == "" && err != nil || c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)) {
			t.Errorf("%s: %d, %q, %v", c.name, exit, said, err)
		}
	}
	for _, name := range []string{"out-of-sync", "after-resync-target"} { // endless output, and children
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		exit, said, err := h.Run(ctx, name)
		cancel()
		if exit >= 0 || !errors.Is(err, context.DeadlineExceeded) || len(said) > 1<<10 {
			t.Errorf("%s: %d, %d bytes, %v", name, exit, len(said), err)
		}
	}
	if w := h.Withheld(); !slices.Equal(w, []string{"pri-lost", "pri-on-incon-degr"}) {
		t.Errorf("withheld: %v", w)
	}
	h.MayHalt = true
	if w := h.Withheld(); len(w) > 0 {
		t.Errorf("withheld, though it is allowed: %v", w)
	}
	if h.Has("quorum-lost") || !h.Has("split-brain") {
		t.Error("Has does not know its commands")
	}
}
