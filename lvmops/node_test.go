//go:build node

package lvmops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// These tests run on a kernel with device-mapper, as root, with nothing else of LVM on it: a node of the lab. The test
// of cmd/santui-lab/lab builds and runs them there.

// recorded is one program's run, as lvmtest replays it.
type recorded struct {
	Argv   []string `json:"argv"`
	Exit   int      `json:"exit"`
	Stdout string   `json:"stdout,omitempty"`
	Stderr string   `json:"stderr,omitempty"`
}

// recorder passes on and takes notes.
type recorder struct {
	next Runner
	runs []recorded
}

func (r *recorder) Run(ctx context.Context, cmd Cmd) (Result, error) {
	res, err := r.next.Run(ctx, cmd)
	r.runs = append(r.runs, recorded{cmd.Argv, res.Execution.Exit, string(res.Stdout), string(res.Stderr)})
	return res, err
}

// save writes the notes where the test that runs this one asked for them.
func (r *recorder) save(t *testing.T, name string) {
	dir := os.Getenv("LVMOPS_RECORD")
	if dir == "" {
		return
	}
	b, err := json.MarshalIndent(r.runs, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// lvmStack makes the guide's stack on a loop device: VG storage, LVs test (ext4) and data (xfs).
func lvmStack(t *testing.T, o *Ops) (dev string) {
	t.Helper()
	ctx := context.Background()
	dev = loopDevice(t, 512<<20)
	for _, f := range []func() (Outcome, error){
		func() (Outcome, error) { return o.PVCreate(ctx, dev) },
		func() (Outcome, error) { return o.VGCreate(ctx, "storage", dev) },
		func() (Outcome, error) { return o.LVCreate(ctx, "storage", "test", 24<<20, dev) },
		func() (Outcome, error) { return o.Mkfs(ctx, "ext4", "/dev/storage/test") },
		func() (Outcome, error) { return o.LVCreate(ctx, "storage", "da-ta", 320<<20, dev) },
		func() (Outcome, error) { return o.Mkfs(ctx, "xfs", "/dev/storage/da-ta") },
	} {
		out, err := f()
		if err != nil || out.Already {
			t.Fatalf("%+v, %v", out, err)
		}
		if again, err := f(); err != nil || !again.Already {
			t.Fatalf("again: %+v, %v", again, err)
		}
	}
	t.Cleanup(func() { _ = exec.Command("vgchange", "-an", "--devices", dev, "storage").Run() })
	return dev
}

func mountAt(t *testing.T, o *Ops, source, fstype string) string {
	t.Helper()
	target := t.TempDir()
	if _, err := o.Mount(context.Background(), proto.Mount{Source: source, Target: target, FSType: fstype}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("umount", target).Run() })
	return target
}

func lvNamed(vg proto.VG, name string) proto.LV {
	for _, lv := range vg.LVs {
		if lv.Name == name {
			return lv
		}
	}
	return proto.LV{}
}

func TestGuideStack(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	rec := &recorder{next: o.opt.Runner}
	o.opt.Runner = rec
	dev := lvmStack(t, o)
	ext4 := mountAt(t, o, "/dev/storage/test", "ext4")
	xfs := mountAt(t, o, "/dev/storage/da-ta", "xfs")
	st, err := o.Stack(ctx, "/dev/drbd0", dev)
	if err != nil || st.Err != "" || st.FS != "" || len(st.VGs) != 1 || len(st.Users) != 0 || len(st.Mounts) != 2 {
		t.Fatalf("%+v, %v", st, err)
	}
	vg := st.VGs[0]
	if vg.Name != "storage" || vg.Foreign || vg.Partial || vg.Exported || vg.AutoActivation || len(vg.LVs) != 2 {
		t.Errorf("%+v", vg)
	}
	if lv := lvNamed(vg, "test"); !lv.Active || !lv.Open || lv.FS != "ext4" || lv.Size != 24<<20 || lv.Path != "/dev/storage/test" {
		t.Errorf("%+v", lv)
	}
	if lv := lvNamed(vg, "da-ta"); !lv.Active || !lv.Open || lv.FS != "xfs" || lv.Path != "/dev/storage/da-ta" {
		t.Errorf("%+v", lv)
	}
	for i, m := range st.Mounts {
		want := []proto.Mount{{Source: "/dev/storage/test", Target: ext4, FSType: "ext4"}, {Source: "/dev/storage/da-ta", Target: xfs, FSType: "xfs"}}[i]
		if m.Source != want.Source || m.Target != want.Target || m.FSType != want.FSType || m.Size == 0 {
			t.Errorf("%+v, want %+v", m, want)
		}
	}
	start := time.Now()
	_, err = o.Deactivate(ctx, "storage", dev)
	var pe *proto.Error
	if !errors.As(err, &pe) || pe.Code != proto.CodeBusy || len(pe.Checks[0].Evidence) != 2 || !strings.Contains(err.Error(), ext4) {
		t.Errorf("deactivate while mounted: %v", err)
	}
	t.Logf("refused after %v: %v\n%s", time.Since(start), err, strings.Join(pe.Checks[0].Evidence, "\n"))
	for _, m := range st.Mounts {
		if _, err := o.Unmount(ctx, m.Target); err != nil {
			t.Fatal(err)
		}
	}
	for _, already := range []bool{false, true} {
		if out, err := o.Deactivate(ctx, "storage", dev); err != nil || out.Already != already {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	if users, err := o.Busy(ctx, dev); err != nil || len(users) != 0 {
		t.Errorf("after deactivation: %+v, %v", users, err)
	}
	if st, err = o.Stack(ctx, dev, dev); err != nil || lvNamed(st.VGs[0], "test").Active || lvNamed(st.VGs[0], "test").FS != "" {
		t.Errorf("%+v, %v", st, err)
	}
	for _, already := range []bool{false, true} {
		if out, err := o.Activate(ctx, "storage", dev); err != nil || out.Already != already {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	for _, m := range []proto.Mount{st1(st, "/dev/storage/test", ext4, "ext4"), st1(st, "/dev/storage/da-ta", xfs, "xfs")} {
		if _, err := o.Mount(ctx, m); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Unmount(ctx, m.Target); err != nil {
			t.Fatal(err)
		}
	}
	rec.save(t, "guide")
}

func st1(_ proto.Stack, source, target, fstype string) proto.Mount {
	return proto.Mount{Source: source, Target: target, FSType: fstype, Options: "rw,relatime"}
}

// TestThinSnapshotsAndSkipped: hidden LVs, pools without nodes, snapshots, the activation skip flag.
func TestThinSnapshotsAndSkipped(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	rec := &recorder{next: o.opt.Runner}
	o.opt.Runner = rec
	dev := lvmStack(t, o)
	sh(t, "lvcreate", "--devices", dev, "-y", "-s", "-n", "snap", "-L", "8M", "storage/test")
	sh(t, "lvcreate", "--devices", dev, "-y", "--type", "thin-pool", "-L", "32M", "-n", "pool", "storage")
	sh(t, "lvcreate", "--devices", dev, "-y", "-V", "64M", "--thinpool", "pool", "-n", "thin", "storage")
	sh(t, "lvcreate", "--devices", dev, "-y", "-s", "-n", "thinsnap", "storage/thin") // activation skip is the default here
	st, err := o.Stack(ctx, dev, dev)
	if err != nil || st.Err != "" || len(st.Users) != 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	hidden := 0
	for _, lv := range st.VGs[0].LVs {
		t.Logf("%+v", lv)
		if lv.Path == "" {
			hidden++
		}
	}
	if hidden != 4 { // pool, pool_tdata, pool_tmeta, lvol0_pmspare
		t.Errorf("%d LVs without a node", hidden)
	}
	for name, want := range map[string]bool{"pool": true, "[pool_tdata]": true, "[lvol0_pmspare]": false, "snap": true, "thin": true, "thinsnap": false} {
		if lv := lvNamed(st.VGs[0], name); lv.Name == "" || lv.Active != want {
			t.Errorf("%s: active %v, want %v", name, lv.Active, want)
		}
	}
	if out, err := o.Deactivate(ctx, "storage", dev); err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	out, err := o.Activate(ctx, "storage", dev)
	if err != nil || out.Already || !strings.Contains(strings.Join(out.Findings, "\n"), "thinsnap has the activation skip flag") {
		t.Fatalf("%+v, %v", out, err)
	}
	if out, err = o.Activate(ctx, "storage", dev); err != nil || !out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	rec.save(t, "thin")
}

// TestDeactivateWaitsForAProbe: what opens an LV for a moment is waited for; what keeps it open is named.
func TestDeactivateWaitsForAProbe(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := lvmStack(t, o)
	background(t, "/", "sh", "-c", "exec 7</dev/storage/test; exec sleep 7")
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	out, err := o.Deactivate(ctx, "storage", dev)
	if err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	t.Logf("done after %v with %d commands", time.Since(start), len(out.Commands))
	if _, err := o.Activate(ctx, "storage", dev); err != nil {
		t.Fatal(err)
	}
	c := background(t, "/", "sh", "-c", "exec 7</dev/storage/test; exec sleep 60")
	time.Sleep(200 * time.Millisecond)
	start = time.Now()
	_, err = o.Deactivate(ctx, "storage", dev)
	var pe *proto.Error
	if !errors.As(err, &pe) || pe.Code != proto.CodeBusy || !strings.Contains(pe.Checks[0].Evidence[0], fmt.Sprintf("sleep (pid %d, uid 0): open", c.Process.Pid)) {
		t.Fatalf("%v", err)
	}
	t.Logf("refused after %v: %v", time.Since(start), err)
}

// TestForeignNamespaceHoldsAnLV: the mount is gone here and still there elsewhere.
func TestForeignNamespaceHoldsAnLV(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := lvmStack(t, o)
	target := mountAt(t, o, "/dev/storage/test", "ext4")
	c := background(t, "/", "unshare", "--mount", "--propagation", "private", "sleep", "60")
	eventually(t, "the namespace is seen", func() bool {
		st, err := o.Stack(ctx, dev, dev)
		return err == nil && find(st.Users, "mount-namespace") != nil
	})
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	_, err := o.Deactivate(ctx, "storage", dev)
	if !errors.Is(err, &proto.Error{Code: proto.CodeBusy}) || !strings.Contains(err.Error(), "mount namespace") {
		t.Fatalf("%v", err)
	}
	end(c)
	if _, err := o.Deactivate(ctx, "storage", dev); err != nil {
		t.Fatal(err)
	}
}

// TestFrozen: nothing in /proc or /sys tells a frozen file system from another one. Its unmount works, its volume stays open, and the
// refusal that follows says what it may be; it can be mounted again as it was.
func TestFrozen(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := lvmStack(t, o)
	target := mountAt(t, o, "/dev/storage/test", "ext4")
	thaw := func() { _ = exec.Command("fsfreeze", "-u", target).Run() } // fails where it is not frozen
	t.Cleanup(thaw)
	if out, err := exec.Command("fsfreeze", "-f", target).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Deactivate(ctx, "storage", dev); err == nil || !strings.Contains(err.Error(), "fsfreeze -u") {
		t.Errorf("frozen: %v", err)
	}
	if _, err := o.Activate(ctx, "storage", dev); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Mount(ctx, proto.Mount{Source: "/dev/storage/test", Target: target, FSType: "ext4"}); err != nil {
		t.Fatal(err)
	}
	thaw()
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Deactivate(ctx, "storage", dev); err != nil {
		t.Errorf("thawed: %v", err)
	}
}

// TestKernelHolders: a device-mapper device and swap on LVs.
func TestKernelHolders(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := lvmStack(t, o)
	sh(t, "dmsetup", "create", "onTop", "--table", "0 2048 linear /dev/storage/test 0")
	t.Cleanup(func() { _ = exec.Command("dmsetup", "remove", "onTop").Run() })
	st, err := o.Stack(ctx, dev, dev)
	u := find(st.Users, "dm")
	if err != nil || u == nil || u.Name != "/dev/mapper/onTop" {
		t.Fatalf("%+v, %v", st.Users, err)
	}
	if _, err := o.Deactivate(ctx, "storage", dev); !errors.Is(err, &proto.Error{Code: proto.CodeBusy}) || !strings.Contains(err.Error(), "onTop") {
		t.Errorf("%v", err)
	}
	sh(t, "dmsetup", "remove", "onTop")
	sh(t, "lvcreate", "--devices", dev, "-y", "-L", "8M", "-n", "swp", "storage")
	sh(t, "mkswap", "/dev/storage/swp")
	sh(t, "swapon", "/dev/storage/swp")
	t.Cleanup(func() { _ = exec.Command("swapoff", "/dev/storage/swp").Run() })
	if st, err = o.Stack(ctx, dev, dev); err != nil || find(st.Users, "swap") == nil || !lvNamed(st.VGs[0], "swp").Open {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := o.Deactivate(ctx, "storage", dev); !errors.Is(err, &proto.Error{Code: proto.CodeBusy}) || !strings.Contains(err.Error(), "swap") {
		t.Errorf("%v", err)
	}
	sh(t, "swapoff", "/dev/storage/swp")
}

// TestBlockedDevice: a suspended device blocks whoever reads it, in a state that SIGKILL does not end. Nothing of ours
// may block with it.
func TestBlockedDevice(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := lvmStack(t, o)
	sh(t, "dmsetup", "suspend", "--noflush", "--nolockfs", "storage-test")
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			sh(t, "dmsetup", "resume", "storage-test")
		}
	}
	defer resume()
	start := time.Now()
	res, err := (&Exec{Grace: 300 * time.Millisecond}).Run(ctx, Cmd{Argv: []string{"dd", "if=/dev/storage/test", "iflag=direct", "count=1", "of=/dev/null"}, Limit: 300 * time.Millisecond})
	if !errors.Is(err, ErrStuck) || res.Execution.Exit != -1 || time.Since(start) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	t.Log(err)
	o.Forget()
	start = time.Now()
	st, err := o.Stack(ctx, dev, dev)
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("a look took %v", d)
	}
	t.Logf("%v, %v, %v", time.Since(start), st.Err, err)
	if !strings.Contains(st.Err, "/dev/storage/test could not be read") {
		t.Errorf("the stack does not say that a volume hangs: %q", st.Err)
	}
	resume()
	eventually(t, "the device reads again", func() bool {
		o.Forget()
		st, err := o.Stack(ctx, dev, dev)
		return err == nil && len(st.VGs) == 1 && lvNamed(st.VGs[0], "test").FS == "ext4"
	})
}

// TestSelection: a filter hides the backing disk from lvm as such, and does not hide the replicated device from us.
func TestSelection(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	rec := &recorder{next: o.opt.Runner}
	o.opt.Runner = rec
	dev := lvmStack(t, o)
	view, err := o.LVMView(ctx, dev, "")
	if err != nil || len(view.Backing) == 0 {
		t.Errorf("%+v %v", view, err)
	}
	conf, err := os.ReadFile("/etc/lvm/lvm.conf")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile("/etc/lvm/lvm.conf", conf, 0o644); err != nil {
			t.Error(err)
		}
	}()
	for _, key := range []string{"filter", "global_filter"} {
		text := fmt.Sprintf("devices {\n%s = [ \"r|%s|\" ]\n}\nactivation { udev_sync = 0 udev_rules = 0 }\n", key, dev)
		if err := os.WriteFile("/etc/lvm/lvm.conf", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if view, err = o.LVMView(ctx, dev, ""); err != nil || len(view.Backing) > 0 || slices.Contains(view.Others, "storage") || view.Mechanism != "filter" {
			t.Errorf("%s: %+v %v", key, view, err)
		}
		if st, err := o.Stack(ctx, dev, dev); err != nil || st.Err != "" || len(st.VGs) != 1 {
			t.Errorf("%s: --devices does not win: %+v, %v", key, st, err)
		}
		o.Forget()
		if out, err := o.Deactivate(ctx, "storage", dev); err != nil {
			t.Errorf("%s: %+v, %v", key, out, err)
		}
		if out, err := o.Activate(ctx, "storage", dev); err != nil {
			t.Errorf("%s: %+v, %v", key, out, err)
		}
	}
	rec.save(t, "selection")
}

// TestForeignGroup: a group of another system ID is seen, with its owner, although lvm does nothing with it.
func TestForeignGroup(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := lvmStack(t, o)
	if _, err := o.Deactivate(ctx, "storage", dev); err != nil {
		t.Fatal(err)
	}
	here := []string{"--devices", dev, "--config", `local{system_id="here"} global{system_id_source="lvmlocal"}`}
	sh(t, append([]string{"vgchange", "-qy", "--systemid", "elsewhere"}, append(here, "storage")...)...)
	st, err := o.Stack(ctx, "/dev/drbd0", dev)
	if err != nil || st.Err != "" || len(st.VGs) != 1 || st.VGs[0].SystemID != "elsewhere" || len(st.VGs[0].LVs) != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := o.Activate(ctx, "storage", dev); err == nil {
		t.Error("lvm activated a foreign group")
	} else {
		t.Log(err)
	}
}

// TestSnapshotBelow makes a snapshot of a logical volume that is in use as a backing disk, and reads it.
func TestSnapshotBelow(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	lvmStack(t, o)
	disk := "/dev/storage/test"
	if err := os.WriteFile(disk, []byte("what was here"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(disk, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	lv, err := o.BackingLV(ctx, disk)
	if err != nil || lv == nil || lv.VG != "storage" || lv.LV != "test" || lv.Type != "linear" || lv.Size != 24<<20 || lv.Free <= 0 || lv.Extent != 4<<20 {
		t.Fatalf("%+v, %v", lv, err)
	}
	s := proto.LVSnapshot{VG: lv.VG, Origin: lv.LV, Name: "santui-r0-0123456789abcdee", Size: 28 << 20}
	if out, err := o.Snapshot(ctx, disk, s); err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	t.Cleanup(func() { sh(t, "lvremove", "-qy", s.VG+"/"+s.Name) })
	if out, err := o.Snapshot(ctx, disk, s); err != nil || !out.Already {
		t.Errorf("again: %+v, %v", out, err)
	}
	if _, err := held.WriteAt([]byte("overwritten    "), 0); err != nil {
		t.Fatal(err)
	}
	if err := held.Sync(); err != nil {
		t.Fatal(err)
	}
	if b := sh(t, "head", "-c", "13", "/dev/"+s.VG+"/"+s.Name); b != "what was here" {
		t.Errorf("the snapshot reads %q", b)
	}
	if users, err := o.BackingUsers(disk); err != nil || len(users) != 0 {
		t.Errorf("the snapshot counts as a user: %+v, %v", users, err)
	}
}
