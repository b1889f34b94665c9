package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/lvmops"
)

// Handlers runs the handlers section of one resource's drbd.conf, each through a shell of its own.
type Handlers struct {
	Commands map[string]string // handler -> command line
	Env      []string          // DRBD_RESOURCE=... (adm_khelper, user/v84/drbdadm_main.c of drbd-utils)
	MayHalt  bool              // commands that stop the machine run too
	Runner   lvmops.Runner
}

var _ datapath.Helper = (*Handlers)(nil)

// handlerLimit is how long a handler may run; drbdadm gives its own 121 s (cmd-timeout-long).
const handlerLimit = 2 * time.Minute

// halts finds what stops the machine. A script that does so inside is its author's affair.
var halts = regexp.MustCompile(`\b(halt|reboot|poweroff|shutdown|sysrq(-trigger)?|kexec|(tel)?init\s+[06])\b`)

// Has implements datapath.Helper. A command that is withheld counts, so that its time is told.
func (h *Handlers) Has(handler string) bool { return h.Commands[handler] != "" }

// Run implements datapath.Helper.
func (h *Handlers) Run(ctx context.Context, handler string) (exit int, said string, err error) {
	if h.withholds(handler) {
		return -1, "", fmt.Errorf("%q is not run: it would stop this node, and agent.toml does not say handlers_may_halt = true", h.Commands[handler])
	}
	res, err := h.Runner.Run(ctx, lvmops.Cmd{Argv: []string{"/bin/sh", "-c", h.Commands[handler]}, Limit: handlerLimit, Env: h.Env})
	if n := len(res.Execution.Output); n > 0 {
		said = strings.Join(res.Execution.Output[max(0, n-saidLines):], "; ")
	}
	if errors.Is(err, lvmops.ErrExit) && res.Execution.Exit >= 0 {
		err = nil
	}
	return res.Execution.Exit, said, err
}

// saidLines is how much of a handler's output goes into the event list.
const saidLines = 3

func (h *Handlers) withholds(handler string) bool {
	return !h.MayHalt && halts.MatchString(h.Commands[handler])
}

// Withheld names the handlers that do not run because they would stop the machine.
func (h *Handlers) Withheld() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.Commands)), func(name string) bool { return !h.withholds(name) })
}
