package service

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// StopUnitArgv is the command line of StopUnit.
func StopUnitArgv(unit string) []string { return []string{"systemctl", "stop", unit} }

// StartUnitArgv is the command line of StartUnit.
func StartUnitArgv(unit string) []string { return []string{"systemctl", "start", unit} }

// units asks systemd about units.
func (o *Ops) units(ctx context.Context, names []string) ([]proto.UnitState, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if fi, err := os.Stat(o.opt.Booted); err != nil || !fi.IsDir() {
		return nil, o.refuse(proto.CodeUnsupported, "systemd does not run on this node (there is no %s): its units cannot be moved", o.opt.Booted)
	}
	argv := append([]string{"systemctl", "show", "--property=LoadState,ActiveState,UnitFileState"}, names...)
	res, err := o.run(ctx, nil, lvmops.Cmd{Argv: argv, Limit: limitLook})
	if err != nil {
		return nil, o.failed(err, "asking systemd about %s", strings.Join(names, ", "))
	}
	// One block a unit, in the order asked for, with empty lines between.
	blocks := strings.Split(strings.TrimSpace(string(res.Stdout)), "\n\n")
	if len(blocks) != len(names) {
		return nil, o.refuse(proto.CodeFailed, "systemctl show answered for %d units, not %d", len(blocks), len(names))
	}
	list := make([]proto.UnitState, len(names))
	for i, b := range blocks {
		u := proto.UnitState{Name: names[i]}
		for line := range strings.Lines(b) {
			switch k, v, _ := strings.Cut(strings.TrimSpace(line), "="); k {
			case "LoadState":
				u.Load = lvmops.Printable(v)
			case "ActiveState":
				u.Active = lvmops.Printable(v)
			case "UnitFileState":
				u.File = lvmops.Printable(v)
			}
		}
		if u.Load == "" || u.Active == "" {
			return nil, o.refuse(proto.CodeFailed, "systemctl show did not say what %s is", names[i])
		}
		list[i] = u
	}
	return list, nil
}

func (o *Ops) unit(ctx context.Context, name string) (proto.UnitState, error) {
	list, err := o.units(ctx, []string{name})
	if err != nil {
		return proto.UnitState{}, err
	}
	return list[0], nil
}

// stopped and started are the states that prove that a unit is what it should be. A failed unit has no process left.
func stopped(active string) bool { return active == "inactive" || active == "failed" }

func started(active string) bool { return active == "active" || active == "reloading" }

// StopUnit stops a unit and proves by its ActiveState that it is stopped.
func (o *Ops) StopUnit(ctx context.Context, name string) (lvmops.Outcome, error) {
	return o.setUnit(ctx, name, StopUnitArgv(name), stopped)
}

// StartUnit starts a unit and proves by its ActiveState that it is active.
func (o *Ops) StartUnit(ctx context.Context, name string) (lvmops.Outcome, error) {
	return o.setUnit(ctx, name, StartUnitArgv(name), started)
}

// unitPoll is how often a unit on its way is looked at.
const unitPoll = 250 * time.Millisecond

func (o *Ops) setUnit(ctx context.Context, name string, argv []string, want func(string) bool) (out lvmops.Outcome, err error) {
	begin := time.Now()
	defer out.Since(begin)
	ctx, cancel := context.WithTimeout(ctx, LimitUnit)
	defer cancel()
	doing := argv[1] + "ing " + name
	if argv[1] == "stop" {
		doing = "stopping " + name
	}
	u, err := o.unit(ctx, name)
	if err != nil {
		return out, err
	}
	if want(u.Active) {
		out.Already, out.Now = true, fmt.Sprintf("%s is %s", name, u.Active)
		return out, nil
	}
	_, runErr := o.run(ctx, &out, lvmops.Cmd{Argv: argv, Limit: LimitUnit})
	for {
		// The context may be what ended the program: the state is read all the same.
		look, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitLook)
		u, err = o.unit(look, name)
		cancel()
		if err != nil {
			return out, err
		}
		onItsWay := u.Active == "activating" || u.Active == "deactivating"
		switch {
		case want(u.Active):
			out.Now = fmt.Sprintf("%s is %s", name, u.Active)
			if runErr != nil {
				out.Findings = append(out.Findings, runErr.Error())
			}
			return out, nil
		case !onItsWay || runErr != nil || lvmops.Pause(ctx, unitPoll) != nil:
			if runErr == nil {
				runErr = ctx.Err()
			}
			return out, o.failed(runErr, "%s: systemd says that it is %s (%s)", doing, u.Active, u.Load).WithRemedy("journalctl -u %s on %s says why", name, o.opt.Node)
		}
	}
}
