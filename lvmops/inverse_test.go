package lvmops_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/lvmops/lvmtest"
	"example.com/santui/proto"
)

// process makes a process in the machine's /proc and returns how it ends.
func process(t *testing.T, m *lvmtest.Machine, pid int, comm string, argv ...string) (end func()) {
	t.Helper()
	dir := filepath.Join(m.Options("otter").Proc, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"comm": comm + "\n", "cmdline": strings.Join(argv, "\x00") + "\x00"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOppositeUnderWay: a step does not call done what a program of an earlier attempt is about to undo.
func TestOppositeUnderWay(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	for i, tt := range []struct {
		comm string
		argv []string
		do   func() (lvmops.Outcome, error)
	}{
		{"umount", []string{"umount", target}, func() (lvmops.Outcome, error) {
			return o.Mount(ctx, proto.Mount{Source: "/dev/storage/te-st", Target: target, FSType: "ext4"})
		}},
		{"vgchange", []string{"vgchange", "-an", "--devices", "/dev/drbd0", "storage"}, func() (lvmops.Outcome, error) { return o.Activate(ctx, "storage", "/dev/drbd0") }},
		{"mount", []string{"/bin/sh", "/usr/sbin/mount", "/dev/storage/te-st", target}, func() (lvmops.Outcome, error) { return o.Unmount(ctx, target) }},
		{"vgchange", []string{"vgchange", "-ay", "--devices", "/dev/drbd0", "storage"}, func() (lvmops.Outcome, error) { return o.Deactivate(ctx, "storage", "/dev/drbd0") }},
	} {
		end := process(t, m, 4000+i, tt.comm, tt.argv...)
		var pe *proto.Error
		if out, err := tt.do(); !errors.As(err, &pe) || pe.Code != proto.CodeBusy || !strings.Contains(pe.Text, "may take effect") {
			t.Errorf("beside %q: %+v, %v", tt.argv, out, err)
		}
		end()
		end = process(t, m, 4000+i, tt.comm, append(tt.argv[:len(tt.argv)-1:len(tt.argv)-1], "/elsewhere")...)
		if _, err := tt.do(); err != nil {
			t.Errorf("beside one for something else: %v", err)
		}
		end()
	}
}

// TestMountLooksAtHeader: what does not hold the file system of the plan is not mounted.
func TestMountLooksAtHeader(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	mount := func(fstype string) error {
		_, err := o.Mount(ctx, proto.Mount{Source: "/dev/storage/te-st", Target: target, FSType: fstype})
		return err
	}
	calls := len(m.Calls())
	if err := mount("xfs"); !errors.Is(err, &proto.Error{Code: proto.CodeState}) || !strings.Contains(err.Error(), "it holds ext4") {
		t.Errorf("an ext4 as xfs: %v", err)
	}
	if ran := m.Calls()[calls:]; len(ran) > 0 {
		t.Errorf("ran %q", ran)
	}
	if err := mount("ext3"); err != nil { // the same driver
		t.Error(err)
	}
}

// TestLimitOfContext: a step may take as long as its context says, longer or shorter than usual.
func TestLimitOfContext(t *testing.T) {
	t.Parallel()
	m, _, target := built(t)
	opt := m.Options("otter")
	var limit time.Duration
	opt.Runner = spy{opt.Runner, func(c lvmops.Cmd) { limit = c.Limit }}
	o, err := lvmops.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{20 * time.Second, 30 * time.Minute} {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		if _, err := o.Unmount(ctx, target); err != nil {
			t.Fatal(err)
		}
		if limit > d || limit < d-3*time.Second {
			t.Errorf("umount with %v: limit %v", d, limit)
		}
		if _, err := o.Mount(ctx, proto.Mount{Source: "/dev/storage/te-st", Target: target, FSType: "ext4"}); err != nil {
			t.Fatal(err)
		}
		if limit > d || limit < d-3*time.Second {
			t.Errorf("mount with %v: limit %v", d, limit)
		}
		cancel()
	}
}

// spy tells what a runner is asked to run.
type spy struct {
	lvmops.Runner
	tell func(lvmops.Cmd)
}

func (s spy) Run(ctx context.Context, c lvmops.Cmd) (lvmops.Result, error) {
	s.tell(c)
	return s.Runner.Run(ctx, c)
}
