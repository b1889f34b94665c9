package lvmops_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/lvmops/lvmtest"
	"example.com/santui/proto"
)

func machine(t *testing.T) (*lvmtest.Machine, *lvmops.Ops) {
	t.Helper()
	m, err := lvmtest.NewMachine(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddDevice("nbd0", 43, 0, "/dev/drbd0"); err != nil {
		t.Fatal(err)
	}
	o, err := lvmops.New(m.Options("otter"))
	if err != nil {
		t.Fatal(err)
	}
	return m, o
}

// built is a machine with the guide's stack, mounted.
func built(t *testing.T) (*lvmtest.Machine, *lvmops.Ops, string) {
	t.Helper()
	m, o := machine(t)
	ctx := context.Background()
	target := t.TempDir()
	for i, f := range []func() (lvmops.Outcome, error){
		func() (lvmops.Outcome, error) { return o.PVCreate(ctx, "/dev/drbd0") },
		func() (lvmops.Outcome, error) { return o.VGCreate(ctx, "storage", "/dev/drbd0") },
		func() (lvmops.Outcome, error) { return o.LVCreate(ctx, "storage", "te-st", 64<<20, "/dev/drbd0") },
		func() (lvmops.Outcome, error) { return o.Mkfs(ctx, "ext4", "/dev/storage/te-st") },
		func() (lvmops.Outcome, error) {
			return o.Mount(ctx, proto.Mount{Source: "/dev/storage/te-st", Target: target, FSType: "ext4"})
		},
	} {
		for _, already := range []bool{false, true} {
			out, err := f()
			if err != nil || out.Already != already || out.Now == "" {
				t.Fatalf("step %d, already %v: %+v, %v", i, already, out, err)
			}
		}
	}
	return m, o, target
}

func TestRunbookOnTheFake(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	st, err := o.Stack(ctx, "/dev/drbd0", "/dev/nbd0")
	if err != nil || st.Err != "" || len(st.VGs) != 1 || len(st.Mounts) != 1 || len(st.Users) != 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if lv := st.VGs[0].LVs[0]; !lv.Active || !lv.Open || lv.FS != "ext4" || lv.Path != "/dev/storage/te-st" {
		t.Errorf("%+v", lv)
	}
	if x := st.Mounts[0]; x.Source != "/dev/storage/te-st" || x.Target != target || x.Options != "rw" && x.Options != "rw,relatime" {
		t.Errorf("%+v", x)
	}
	for _, f := range []func() (lvmops.Outcome, error){
		func() (lvmops.Outcome, error) { return o.Unmount(ctx, target) },
		func() (lvmops.Outcome, error) { return o.Deactivate(ctx, "storage", "/dev/drbd0") },
		func() (lvmops.Outcome, error) { return o.Activate(ctx, "storage", "/dev/drbd0") },
		func() (lvmops.Outcome, error) { return o.Mount(ctx, st.Mounts[0]) },
	} {
		for _, already := range []bool{false, true} {
			if out, err := f(); err != nil || out.Already != already {
				t.Fatalf("%+v, %v", out, err)
			}
		}
	}
	want := []string{"umount " + target, "vgchange -an --devices /dev/drbd0 storage", "vgchange -ay --devices /dev/drbd0 storage"}
	calls := m.Calls()
	if got := calls[len(calls)-4 : len(calls)-1]; !slices.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
}

func TestNoLVMWithoutALabel(t *testing.T) {
	t.Parallel()
	m, o := machine(t)
	ctx := context.Background()
	m.SetFailure("lvm", lvmtest.Failure{Times: -1, Cause: errors.New("lvm must not run")})
	st, err := o.Stack(ctx, "/dev/drbd0", "/dev/nbd0")
	if err != nil || st.Err != "" || st.FS != "" {
		t.Errorf("empty: %+v, %v", st, err)
	}
	if _, err := o.Mkfs(ctx, "xfs", "/dev/nbd0"); err != nil {
		t.Fatal(err)
	}
	if st, err = o.Stack(ctx, "/dev/drbd0", "/dev/nbd0"); err != nil || st.Err != "" || st.FS != "xfs" {
		t.Errorf("xfs: %+v, %v", st, err)
	}
	if _, err := o.PVCreate(ctx, "/dev/nbd0"); !errors.Is(err, &proto.Error{Code: proto.CodeState}) {
		t.Errorf("pvcreate over xfs: %v", err)
	}
	if _, err := o.Stack(ctx, "/dev/drbd1", "/dev/nbd1"); !errors.Is(err, &proto.Error{Code: proto.CodeNotFound}) {
		t.Errorf("no device: %v", err)
	}
	if _, err := o.Stack(ctx, "drbd1", "/dev/nbd0"); !errors.Is(err, &proto.Error{Code: proto.CodeInvalid}) {
		t.Errorf("bad name: %v", err)
	}
}

func TestBusyUnmountOnTheFake(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	if err := m.AddProcess(4711, "ba\x1bsh", target+"/sub"); err != nil {
		t.Fatal(err)
	}
	if err := m.AddProcess(4712, "pacemakerd (deleted)", "/"); err != nil { // its file was replaced by an update
		t.Fatal(err)
	}
	if got, err := o.Running([]string{"keepalived", "ba\x1bsh", "pacemakerd"}); err != nil || !slices.Equal(got, []string{"ba\x1bsh", "pacemakerd"}) {
		t.Errorf("running: %q, %v", got, err)
	}
	_, err := o.Unmount(ctx, target)
	var pe *proto.Error
	if !errors.As(err, &pe) || pe.Code != proto.CodeBusy || pe.Node != "otter" || len(pe.Checks) != 1 ||
		pe.Checks[0].Evidence[0] != "process ba?sh (pid 4711, uid 1000): cwd "+target+"/sub on /dev/storage/te-st" {
		t.Fatalf("%v %+v", err, pe)
	}
	if _, err := o.Deactivate(ctx, "storage", "/dev/drbd0"); !errors.Is(err, &proto.Error{Code: proto.CodeBusy}) {
		t.Errorf("deactivate: %v", err)
	}
	if err := m.RemoveProcess(4711); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Error(err)
	}
}

// TestReadBack: an exit code never decides; what the node shows does.
func TestReadBack(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	// umount is killed by its time limit after it did its work.
	m.SetFailure("umount", lvmtest.Failure{Times: 1, After: true, Exit: -1, Cause: lvmops.ErrTimeout})
	if out, err := o.Unmount(ctx, target); err != nil || out.Already {
		t.Errorf("%+v, %v", out, err)
	}
	m.SetFailure("vgchange", lvmtest.Failure{Times: 1, After: true, Exit: 5, Stderr: "  nonsense"})
	if out, err := o.Deactivate(ctx, "storage", "/dev/drbd0"); err != nil || out.Already {
		t.Errorf("%+v, %v", out, err)
	}
	// vgchange claims success and does nothing.
	m.SetFailure("vgchange", lvmtest.Failure{Times: 1, Cause: lvmops.ErrStuck, Exit: -1})
	_, err := o.Activate(ctx, "storage", "/dev/drbd0")
	if !errors.Is(err, &proto.Error{Code: proto.CodeTimeout}) || !errors.Is(err, lvmops.ErrStuck) {
		t.Errorf("stuck: %v", err)
	}
	if out, err := o.Activate(ctx, "storage", "/dev/drbd0"); err != nil || out.Already {
		t.Errorf("%+v, %v", out, err)
	}
	m.SetFailure("mount", lvmtest.Failure{Times: 1, Exit: 32, Stderr: "mount: wrong fs type\x1b[2J"})
	_, err = o.Mount(ctx, proto.Mount{Source: "/dev/storage/te-st", Target: target, FSType: "ext4"})
	if !errors.Is(err, &proto.Error{Code: proto.CodeFailed}) || !strings.Contains(err.Error(), "wrong fs type?[2J") {
		t.Errorf("%v", err)
	}
}

func TestTransientDeactivation(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	m.SetFailure("vgchange", lvmtest.Failure{Times: 2, Exit: 5, Stderr: "  Logical volume in use."})
	out, err := o.Deactivate(ctx, "storage", "/dev/drbd0")
	if err != nil || len(out.Commands) != 3 { // three tries; what lvm reported before still holds
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := o.Activate(ctx, "storage", "/dev/drbd0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	m.SetFailure("vgchange", lvmtest.Failure{Times: -1, Exit: 5})
	if _, err := o.Deactivate(ctx, "storage", "/dev/drbd0"); !errors.Is(err, &proto.Error{Code: proto.CodeTimeout}) || !strings.Contains(err.Error(), "still active: storage-te--st") {
		t.Errorf("%v", err)
	}
}

func TestBadReports(t *testing.T) {
	t.Parallel()
	for name, out := range map[string]string{
		"empty":      "",
		"cut":        `{"report":[{"vg":[{"vg_name":"sto`,
		"other":      `{"log":[]}`,
		"words":      "  Reporter im Streik\n",
		"vg name":    `{"report":[{"vg":[{"vg_name":"--force","vg_uuid":"B0i9OX-3Zkf-oHel-b6uG-pIXS-7Hzq-TYsMke","vg_seqno":"1"}]}]}`,
		"vg uuid":    `{"report":[{"vg":[{"vg_name":"storage","vg_uuid":"","vg_seqno":"1"}]}]}`,
		"vg seqno":   `{"report":[{"vg":[{"vg_name":"storage","vg_uuid":"B0i9OX-3Zkf-oHel-b6uG-pIXS-7Hzq-TYsMke","vg_seqno":"x"}]}]}`,
		"wrong type": `{"report":[{"vg":[{"vg_name":7}]}]}`,
	} {
		m, o := machine(t)
		ctx := context.Background()
		if _, err := o.PVCreate(ctx, "/dev/nbd0"); err != nil {
			t.Fatal(err)
		}
		opt := m.Options("otter")
		opt.Runner = answering{out}
		o, err := lvmops.New(opt)
		if err != nil {
			t.Fatal(err)
		}
		st, err := o.Stack(ctx, "/dev/drbd0", "/dev/nbd0")
		if err != nil || !strings.Contains(st.Err, "lvm's report") {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		if _, err := o.Deactivate(ctx, "storage", "/dev/nbd0"); !errors.Is(err, &proto.Error{Code: proto.CodeFailed}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// answering prints the same whatever is asked.
type answering struct{ out string }

func (a answering) Run(context.Context, lvmops.Cmd) (lvmops.Result, error) {
	return lvmops.Result{Stdout: []byte(a.out)}, nil
}

// TestFindings: what lvm warns of although it succeeds is kept.
func TestFindings(t *testing.T) {
	t.Parallel()
	m, o := machine(t)
	ctx := context.Background()
	if _, err := o.PVCreate(ctx, "/dev/nbd0"); err != nil {
		t.Fatal(err)
	}
	opt := m.Options("otter")
	argv := []string{"-"}
	probe := lvmops.WithObserver(m, func(e proto.Execution) { argv = e.Argv })
	opt.Runner = probe
	if o, err := lvmops.New(opt); err != nil {
		t.Fatal(err)
	} else if _, err := o.Stack(ctx, "/dev/nbd0", "/dev/nbd0"); err != nil {
		t.Fatal(err)
	}
	tr := lvmtest.NewTranscript(lvmtest.Run{Argv: argv, Stdout: `{"report":[]}`, Stderr: "  WARNING: PV xyz is duplicate.\n  WARNUNG: Gerät für PV xyz nicht gefunden.\n"})
	opt.Runner = tr
	o, err := lvmops.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := o.Stack(ctx, "/dev/nbd0", "/dev/nbd0"); err != nil || st.Err != "" {
		t.Fatalf("%+v, %v", st, err)
	}
	if f := o.Findings("/dev/nbd0"); len(f) != 2 || f[0] != "WARNING: PV xyz is duplicate." || f[1] != "WARNUNG: Gerät für PV xyz nicht gefunden." || len(tr.Left()) != 0 {
		t.Errorf("%q, left %v", f, tr.Left())
	}
}

func TestPlanArgv(t *testing.T) {
	t.Parallel()
	for want, argv := range map[string][]string{
		"umount /mnt":                               lvmops.UnmountArgv("/mnt"),
		"mount -t ext4 -o rw /dev/drbd0 /mnt":       lvmops.MountArgv(proto.Mount{Source: "/dev/drbd0", Target: "/mnt", FSType: "ext4", Options: "rw"}),
		"mount -o bind,ro /mnt/sub /srv":            lvmops.MountArgv(proto.Mount{Source: "/mnt/sub", Target: "/srv", FSType: "ext4", Options: "ro", Root: "/sub"}),
		"vgchange -an --devices /dev/drbd0 storage": lvmops.DeactivateArgv("storage", "/dev/drbd0"),
	} {
		if got := strings.Join(argv, " "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestStrays: volumes that an agent that died left on its own dead device are not taken for an activation on this one, and
// what removes them is named.
func TestStrays(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	st, err := o.Stack(ctx, "/dev/drbd0", "/dev/nbd0")
	if err != nil || len(st.VGs) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	holders := filepath.Join(m.Options("").Sys, "block/nbd0/holders")
	if err := os.RemoveAll(holders); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(holders, 0o755); err != nil {
		t.Fatal(err)
	}
	calls := len(m.Calls())
	out, err := o.Activate(ctx, "storage", "/dev/drbd0")
	var pe *proto.Error
	if !errors.As(err, &pe) || pe.Code != proto.CodeState || !strings.Contains(pe.Remedy, "dmsetup remove storage-te--st") {
		t.Errorf("%+v, %v", out, err)
	}
	if slices.ContainsFunc(m.Calls()[calls:], func(c string) bool { return strings.HasPrefix(c, "vgchange") }) {
		t.Errorf("something was changed: %q", m.Calls()[calls:])
	}
	if left := o.Leftovers([]string{"", st.VGs[0].UUID, "other"}); len(left) != 1 || !strings.Contains(left[0], "dmsetup remove storage-te--st") {
		t.Errorf("%q", left)
	}
	if left := o.Leftovers([]string{"other"}); left != nil {
		t.Errorf("%q", left)
	}
}

// TestRecall: lvm reports once for each state of the metadata, whichever node saw it.
func TestRecall(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	reports := func(o *lvmops.Ops, up bool) int {
		t.Helper()
		step := o.Deactivate
		if up {
			step = o.Activate
		}
		out, err := step(ctx, "storage", "/dev/drbd0")
		if err != nil || out.Already {
			t.Fatalf("%+v, %v", out, err)
		}
		return len(out.Commands) - 1
	}
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	if n := reports(o, false); n != 0 {
		t.Errorf("%d reports of metadata that lvcreate was answered with", n)
	}
	if _, err := m.Run(ctx, lvmops.Cmd{Argv: lvmops.LVCreateArgv("storage", "more", 64<<20, "/dev/drbd0")}); err != nil {
		t.Fatal(err)
	}
	if n := reports(o, false); n != 1 {
		t.Errorf("%d reports of changed metadata", n)
	}
	st, err := o.Stack(ctx, "/dev/drbd0", "/dev/nbd0")
	if err != nil || len(st.VGs) != 1 || st.VGs[0].Mark == "" || len(st.VGs[0].LVs) != 2 {
		t.Fatalf("%+v, %v", st, err)
	}
	bad := st.VGs[0]
	bad.LVs = []proto.LV{{Name: "../x", UUID: bad.LVs[0].UUID}}
	old := st.VGs[0]
	old.Mark, old.LVs = strings.Repeat("0", len(old.Mark)), nil
	for i, x := range []struct {
		learn proto.VG
		want  int
	}{{proto.VG{}, 1}, {bad, 1}, {old, 1}, {st.VGs[0], 0}} {
		other, err := lvmops.New(m.Options("weasel"))
		if err != nil {
			t.Fatal(err)
		}
		other.Learn(x.learn)
		if n := reports(other, true); n != x.want {
			t.Errorf("learnt %d: %d reports, want %d", i, n, x.want)
		}
		reports(other, false)
	}
}

// TestGlance: what needs no walk shows in a glance, what needs one does not.
func TestGlance(t *testing.T) {
	t.Parallel()
	m, o, target := built(t)
	ctx := context.Background()
	look := func() string {
		if st, err := o.Stack(ctx, "/dev/drbd0", "/dev/nbd0"); err != nil || st.Err != "" {
			t.Fatalf("%+v, %v", st, err)
		}
		return o.Glance(ctx, "/dev/nbd0")
	}
	last := look()
	if got := o.Glance(ctx, "/dev/nbd0"); got != last || got == "" {
		t.Errorf("%q, then %q", last, got)
	}
	if err := m.AddProcess(4711, "bash", "/"); err != nil {
		t.Fatal(err)
	}
	if got := o.Glance(ctx, "/dev/nbd0"); got != last {
		t.Errorf("a process shows: %q, %q", last, got)
	}
	other := t.TempDir()
	for i, f := range []func() (lvmops.Outcome, error){
		func() (lvmops.Outcome, error) {
			return o.Mount(ctx, proto.Mount{Source: "/dev/storage/te-st", Target: other, FSType: "ext4"})
		},
		func() (lvmops.Outcome, error) { return o.Unmount(ctx, other) },
		func() (lvmops.Outcome, error) { return o.LVCreate(ctx, "storage", "more", 64<<20, "/dev/drbd0") },
		func() (lvmops.Outcome, error) { return o.Unmount(ctx, target) },
		func() (lvmops.Outcome, error) { return o.Deactivate(ctx, "storage", "/dev/drbd0") },
	} {
		if _, err := f(); err != nil {
			t.Fatal(err)
		}
		if got := o.Glance(ctx, "/dev/nbd0"); got == last {
			t.Errorf("change %d does not show: %q", i, got)
		}
		last = look()
	}
}
