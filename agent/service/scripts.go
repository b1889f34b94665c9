package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// trusted says why a program must not be run as root, nil if it may.
func trusted(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%s cannot be run: %w", path, err)
	}
	fi, err := os.Stat(real)
	if err != nil {
		return fmt.Errorf("%s cannot be run: %w", path, err)
	}
	if !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is no program: it has the mode %s", path, fi.Mode())
	}
	for p := real; ; p = filepath.Dir(p) {
		if fi, err = os.Lstat(p); err != nil {
			return fmt.Errorf("%s cannot be run: %w", path, err)
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			return fmt.Errorf("%s is not run: %s does not belong to root", path, p)
		}
		// In a sticky directory nobody can replace what is not his own (unlink(2)).
		if fi.Mode()&0o022 != 0 && (!fi.IsDir() || fi.Mode()&os.ModeSticky == 0) {
			return fmt.Errorf("%s is not run: others than root may write to %s (%s)", path, p, fi.Mode())
		}
		if p == "/" {
			return nil
		}
	}
}

// Occasion is what a script is told in its environment.
type Occasion struct{ Resource, Device, Operation string }

// Script runs one of the two programs of a script.
func (o *Ops) Script(ctx context.Context, s proto.Script, start bool, when Occasion) (out lvmops.Outcome, err error) {
	begin := time.Now()
	defer out.Since(begin)
	argv, action := s.Stop, "stop"
	if start {
		argv, action = s.Start, "start"
	}
	if err := trusted(argv[0]); err != nil {
		return out, o.refuse(proto.CodeInvalid, "script %s: %v", s.Name, err).WithRemedy("chown root, chmod go-w, on the script and the directories above it")
	}
	res, err := o.run(ctx, &out, lvmops.Cmd{Argv: argv, Limit: time.Duration(s.Limit * float64(time.Second)), Env: []string{
		"SANTUI_ACTION=" + action, "SANTUI_NODE=" + o.opt.Node, "SANTUI_RESOURCE=" + when.Resource, "SANTUI_DEVICE=" + when.Device,
		"SANTUI_OPERATION=" + when.Operation}})
	if err != nil {
		return out, o.failed(err, "script %s, %s", s.Name, action).WithRemedy("its output is in the report; it must also succeed when there is nothing to %s", action)
	}
	out.Now = fmt.Sprintf("script %s: %s ended with exit code %d", s.Name, action, res.Execution.Exit)
	return out, nil
}
