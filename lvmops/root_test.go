//go:build root

package lvmops

import (
	"context"
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

func TestMountAndUnmount(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "with space\nand \\newline")
	if out, err := o.Mkfs(ctx, "ext4", dev); err != nil || !out.Already {
		t.Errorf("mkfs again: %+v, %v", out, err)
	}
	if _, err := o.Mkfs(ctx, "xfs", dev); !errors.Is(err, &proto.Error{Code: proto.CodeState}) {
		t.Errorf("mkfs.xfs over ext4: %v", err)
	}
	out, err := o.Mount(ctx, proto.Mount{Source: dev, Target: target, FSType: "ext4"})
	if err != nil || !out.Already || !strings.Contains(out.Now, "noatime") {
		t.Errorf("mount again: %+v, %v", out, err)
	}
	if p := o.MountPoint(target); !p.Exists || !p.Dir || p.Mounted != dev {
		t.Errorf("mount point %+v", p)
	}
	st, err := o.Stack(ctx, "/dev/drbd77", dev)
	if err != nil || st.Err != "" || st.FS != "ext4" || len(st.Mounts) != 1 || len(st.Users) != 0 {
		t.Fatalf("stack %+v, %v", st, err)
	}
	m := st.Mounts[0]
	if m.Source != "/dev/drbd77" || m.Target != target || m.FSType != "ext4" || m.Size < 40<<20 || m.Used <= 0 || !strings.HasPrefix(m.Options, "rw,noatime") || m.Root != "" {
		t.Errorf("mount %+v", m)
	}
	out, err = o.Unmount(ctx, target)
	if err != nil || out.Already || len(out.Commands) != 1 {
		t.Fatalf("unmount: %+v, %v", out, err)
	}
	if out, err = o.Unmount(ctx, target); err != nil || !out.Already || len(out.Commands) != 0 {
		t.Errorf("unmount again: %+v, %v", out, err)
	}
	if p := o.MountPoint(target); !p.Exists || !p.Dir || !p.Empty || p.Mounted != "" {
		t.Errorf("mount point %+v", p)
	}
	m.Source = dev
	if out, err = o.Mount(ctx, m); err != nil || out.Already {
		t.Errorf("mount with the options of the table: %+v, %v", out, err)
	}
}

// TestUncleanMount mounts a copy of a file system that is in use elsewhere, as after a power cut, and one marked with errors.
func TestUncleanMount(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "live")
	sh(t, "touch", filepath.Join(target, "file"))
	sh(t, "sync", "-f", target)
	image, at := loopDevice(t, 64<<20), t.TempDir()
	sh(t, "dd", "if="+dev, "of="+image, "bs=1M", "conv=fsync", "status=none")
	out, err := o.Mount(ctx, proto.Mount{Source: image, Target: at, FSType: "ext4"})
	if err != nil || len(out.Findings) != 1 || !strings.Contains(out.Findings[0], image+" was not unmounted cleanly") {
		t.Errorf("after a power cut: %+v, %v", out, err)
	}
	sh(t, "umount", at)
	sh(t, "debugfs", "-w", "-R", "ssv state 3", image)
	out, err = o.Mount(ctx, proto.Mount{Source: image, Target: at, FSType: "ext4"})
	if err != nil || len(out.Findings) != 1 || !strings.Contains(out.Findings[0], "marked as having errors") {
		t.Errorf("marked with errors: %+v, %v", out, err)
	}
	sh(t, "umount", at)
}

// TestExternalJournal mounts an ext4 whose journal is on another disk: without that disk nobody can mount it.
func TestExternalJournal(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	journal, dev, target := loopDevice(t, 16<<20), loopDevice(t, 64<<20), t.TempDir()
	sh(t, "mke2fs", "-q", "-O", "journal_dev", "-b", "4096", journal)
	sh(t, "mkfs.ext4", "-q", "-b", "4096", "-J", "device="+journal, dev)
	sh(t, "mount", dev, target)
	t.Cleanup(func() { _ = exec.Command("umount", target).Run() })
	st, err := o.Stack(ctx, "/dev/drbd77", dev)
	if err != nil || len(st.Mounts) != 1 {
		t.Fatalf("stack %+v, %v", st, err)
	}
	no := sh(t, "cat", "/sys/class/block/"+filepath.Base(journal)+"/dev")
	if why := MountProblem(st.Mounts[0]); !strings.Contains(why, target+": its ext4 needs the journal on device "+no) {
		t.Errorf("problem %q", why)
	}
	whole, _ := mounted(t, o, "whole")
	if st, err = o.Stack(ctx, "/dev/drbd78", whole); err != nil || len(st.Mounts) != 1 || MountProblem(st.Mounts[0]) != "" {
		t.Errorf("an ext4 with its own journal: %+v, %v", st, err)
	}
}

func TestUnmountBusyNamesTheUser(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "busy")
	cwd := background(t, target, "sleep", "60")
	file := filepath.Join(target, "open file")
	fd := background(t, "/", "sh", "-c", "exec 7>'"+file+"'; exec sleep 60")
	eventually(t, "the file is open", func() bool { _, err := os.Stat(file); return err == nil })
	start := time.Now()
	_, err := o.Unmount(ctx, target)
	var pe *proto.Error
	if !errors.As(err, &pe) || pe.Code != proto.CodeBusy || len(pe.Checks) != 1 {
		t.Fatalf("err = %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	evidence := strings.Join(pe.Checks[0].Evidence, "\n")
	for _, want := range []string{fmt.Sprintf("sleep (pid %d, uid 0): cwd", cwd.Process.Pid), fmt.Sprintf("(pid %d, uid 0): fd %s", fd.Process.Pid, file)} {
		if !strings.Contains(evidence, want) {
			t.Errorf("evidence lacks %q:\n%s", want, evidence)
		}
	}
	st, err := o.Stack(ctx, dev, dev)
	if err != nil || len(st.Users) != 2 || len(st.Mounts) != 1 {
		t.Fatalf("stack %+v, %v", st, err)
	}
	end(cwd)
	end(fd)
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
}

func TestProcessesByExeAndMmap(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "exe")
	prog := filepath.Join(target, "mysleep")
	sh(t, "cp", "/bin/sleep", prog)
	c := background(t, "/", prog, "60")
	eventually(t, "it runs", func() bool { l, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.Process.Pid)); return l == prog })
	users, err := o.Busy(ctx, dev)
	if err != nil {
		t.Fatal(err)
	}
	u := find(users, "process")
	if u == nil || u.PID != c.Process.Pid || u.Name != "mysleep" || u.How != "exe,mmap" || u.Device != dev {
		t.Fatalf("users %+v", users)
	}
}

func TestOpenDevice(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := loopDevice(t, 1<<20)
	if users, err := o.Busy(ctx, dev); err != nil || len(users) != 0 {
		t.Fatalf("users %+v, %v", users, err)
	}
	c := background(t, "/", "sh", "-c", "exec 7<"+dev+"; exec sleep 60")
	eventually(t, "it is seen", func() bool {
		users, err := o.Busy(ctx, dev)
		return err == nil && len(users) == 1 && users[0].PID == c.Process.Pid && users[0].How == "open"
	})
}

// TestProbeIsNoUser: pvs, blkid and udev open every disk for a moment; that must not be a reason to refuse a move.
func TestProbeIsNoUser(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := loopDevice(t, 1<<20)
	c := background(t, "/", "sh", "-c", "exec 7<"+dev+"; sleep 0.4; exec 7<&-; exec sleep 60")
	eventually(t, "it is open", func() bool { return o.holds(c.Process.Pid, dev) })
	if users, err := o.Busy(ctx, dev); err != nil || len(users) != 0 {
		t.Errorf("users %+v, %v", users, err)
	}
}

func TestBindSubmountAndNestedLoop(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "base")
	for _, d := range []string{"sub", "tmp", "inner"} {
		if err := os.Mkdir(filepath.Join(target, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bind := t.TempDir()
	sh(t, "mount", "--bind", filepath.Join(target, "sub"), bind)
	t.Cleanup(func() { _ = exec.Command("umount", bind).Run() })
	sh(t, "mount", "-t", "tmpfs", "tmpfs", filepath.Join(target, "tmp"))
	image := filepath.Join(target, "image")
	sh(t, "truncate", "-s", "8M", image)
	sh(t, "mkfs.ext4", "-q", image)
	inner := sh(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", inner).Run() })
	sh(t, "mount", inner, filepath.Join(target, "inner"))

	st, err := o.Stack(ctx, "/dev/drbd0", dev)
	if err != nil || st.Err != "" {
		t.Fatalf("%+v, %v", st, err)
	}
	var got []string
	for _, m := range st.Mounts {
		got = append(got, m.Source+" "+m.Target+" "+m.Root)
	}
	want := []string{"/dev/drbd0 " + target + " ", filepath.Join(target, "sub") + " " + bind + " /sub", inner + " " + filepath.Join(target, "inner") + " "}
	if !slices.Equal(got, want) {
		t.Errorf("mounts\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if u := find(st.Users, "loop"); u == nil || u.Name != inner || u.Path != image {
		t.Errorf("no loop in %+v", st.Users)
	}
	if u := find(st.Users, "mount"); u == nil || u.Path != filepath.Join(target, "tmp") || u.How != "mounted on top" {
		t.Errorf("no submount in %+v", st.Users)
	}
	_, err = o.Unmount(ctx, target)
	if !errors.Is(err, &proto.Error{Code: proto.CodeBusy}) || !strings.Contains(err.Error(), "mounted on top") {
		t.Errorf("unmount under submounts: %v", err)
	}
	// A bind mount goes and comes back as it was.
	b := st.Mounts[1]
	if _, err := o.Unmount(ctx, b.Target); err != nil {
		t.Fatal(err)
	}
	if out, err := o.Mount(ctx, b); err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	if out, err := o.Mount(ctx, b); err != nil || !out.Already {
		t.Fatalf("again: %+v, %v", out, err)
	}
}

func TestOtherNamespaces(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	base := t.TempDir()
	sh(t, "mount", "-t", "tmpfs", "tmpfs", base)
	sh(t, "mount", "--make-shared", base)
	t.Cleanup(func() { _ = exec.Command("umount", "-R", base).Run() })
	target := filepath.Join(base, "data")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	dev := loopDevice(t, 16<<20)
	if _, err := o.Mkfs(ctx, "ext4", dev); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Mount(ctx, proto.Mount{Source: dev, Target: target, FSType: "ext4"}); err != nil {
		t.Fatal(err)
	}
	own := nsInode("/proc/self/ns/mnt")
	inside := func(c *exec.Cmd) func() bool {
		return func() bool { n := nsInode(fmt.Sprintf("/proc/%d/ns/mnt", c.Process.Pid)); return n != 0 && n != own }
	}
	// A namespace that receives our unmounts holds nobody up.
	slave := background(t, "/", "unshare", "--mount", "--propagation", "slave", "sleep", "60")
	eventually(t, "the namespace exists", inside(slave))
	eventually(t, "propagation is set", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", slave.Process.Pid))
		return strings.Contains(string(b), "master:")
	})
	st, err := o.Stack(ctx, dev, dev)
	if err != nil || len(st.Users) != 0 {
		t.Fatalf("slave: %+v, %v", st.Users, err)
	}
	private := background(t, "/", "unshare", "--mount", "--propagation", "private", "sleep", "60")
	eventually(t, "the private namespace is seen", func() bool {
		st, err = o.Stack(ctx, dev, dev)
		u := find(st.Users, "mount-namespace")
		return err == nil && u != nil && u.PID == private.Process.Pid && u.Path == target && u.Device == dev
	})
	// Unmounting works here, and leaves the device busy there.
	if _, err := o.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
	users, err := o.Busy(ctx, dev)
	if err != nil || find(users, "mount-namespace") == nil {
		t.Fatalf("after unmount: %+v, %v", users, err)
	}
	end(private)
	eventually(t, "the namespace is gone", func() bool { users, err := o.Busy(ctx, dev); return err == nil && len(users) == 0 })
}

func TestSwap(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := loopDevice(t, 8<<20)
	sh(t, "mkswap", dev)
	sh(t, "swapon", dev)
	t.Cleanup(func() { _ = exec.Command("swapoff", dev).Run() })
	st, err := o.Stack(ctx, dev, dev)
	if err != nil || st.FS != "swap" || find(st.Users, "swap") == nil {
		t.Fatalf("%+v, %v", st, err)
	}
}

func TestMountRefusals(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "m")
	other := loopDevice(t, 16<<20)
	if _, err := o.Mkfs(ctx, "ext4", other); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := loopDevice(t, 1<<20)
	for _, c := range []struct {
		m    proto.Mount
		code proto.ErrorCode
	}{
		{proto.Mount{Source: other, Target: target, FSType: "ext4"}, proto.CodeState},
		{proto.Mount{Source: other, Target: file, FSType: "ext4"}, proto.CodeState},
		{proto.Mount{Source: other, Target: file + "-not-there", FSType: "ext4"}, proto.CodeNotFound},
		{proto.Mount{Source: empty, Target: t.TempDir(), FSType: "ext4"}, proto.CodeState}, // its header shows no ext4
		{proto.Mount{Source: dev, Target: t.TempDir(), FSType: "ext4", Root: "/sub"}, proto.CodeUnsupported},
		{proto.Mount{Source: other, Target: "relative", FSType: "ext4"}, proto.CodeInvalid},
		{proto.Mount{Source: "-o", Target: "/mnt", FSType: "ext4"}, proto.CodeInvalid},
		{proto.Mount{Source: other, Target: "/mnt", FSType: "-x"}, proto.CodeInvalid},
		{proto.Mount{Source: other, Target: "/mnt", FSType: "ext4", Options: "rw\nro"}, proto.CodeInvalid},
	} {
		if _, err := o.Mount(ctx, c.m); !errors.Is(err, &proto.Error{Code: c.code}) {
			t.Errorf("%+v: %v, want %s", c.m, err, c.code)
		}
	}
	if _, err := o.Stack(ctx, "/dev/not-there", "/dev/not-there"); !errors.Is(err, &proto.Error{Code: proto.CodeNotFound}) {
		t.Errorf("stack of nothing: %v", err)
	}
}

// TestRealLVM goes as far as real lvm can without device-mapper: metadata, no activation.
func TestRealLVM(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev := loopDevice(t, 64<<20)
	vg := fmt.Sprintf("santui+test_%d", os.Getpid())
	if _, err := o.VGCreate(ctx, vg, dev); !errors.Is(err, &proto.Error{Code: proto.CodeState}) {
		t.Errorf("vgcreate without a PV: %v", err)
	}
	if out, err := o.PVCreate(ctx, dev); err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	st, err := o.Stack(ctx, dev, dev)
	if err != nil || st.Err != "" || st.FS != "" || len(st.VGs) != 0 {
		t.Errorf("orphan PV: %+v, %v", st, err)
	}
	if out, err := o.VGCreate(ctx, vg, dev); err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	for what, f := range map[string]func() (Outcome, error){
		"pvcreate":   func() (Outcome, error) { return o.PVCreate(ctx, dev) },
		"vgcreate":   func() (Outcome, error) { return o.VGCreate(ctx, vg, dev) },
		"deactivate": func() (Outcome, error) { return o.Deactivate(ctx, vg, dev) },
		"activate":   func() (Outcome, error) { return o.Activate(ctx, vg, dev) },
	} {
		if out, err := f(); err != nil || !out.Already || out.Now == "" {
			t.Errorf("%s again: %+v, %v", what, out, err)
		}
	}
	st, err = o.Stack(ctx, dev, dev)
	if err != nil || len(st.VGs) != 1 || st.VGs[0].Name != vg || st.VGs[0].Seqno != 1 || st.VGs[0].AutoActivation || st.VGs[0].Foreign || st.VGs[0].Partial {
		t.Fatalf("stack %+v, %v", st, err)
	}
	view, err := o.LVMView(ctx, dev, "")
	if err != nil || len(view.Backing) == 0 || view.Mechanism == "" || slices.Contains(view.Others, vg) {
		t.Errorf("lvm's own view %+v, %v", view, err)
	}
	if _, err := o.Deactivate(ctx, "nosuch", dev); !errors.Is(err, &proto.Error{Code: proto.CodeNotFound}) {
		t.Errorf("deactivate another: %v", err)
	}
	if _, err := o.Deactivate(ctx, "-f", dev); !errors.Is(err, &proto.Error{Code: proto.CodeInvalid}) {
		t.Errorf("deactivate -f: %v", err)
	}
	for name, path := range o.Tools() {
		if path == "" && name != "udevadm" {
			t.Errorf("%s not found", name)
		}
	}
}

func TestStackIsCheap(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, _ := mounted(t, o, "m")
	start := time.Now()
	for range 10 {
		if _, err := o.Stack(ctx, dev, dev); err != nil {
			t.Fatal(err)
		}
	}
	procs := 0
	for _, e := range entries("/proc") {
		if e[0] >= '1' && e[0] <= '9' {
			procs++
		}
	}
	t.Logf("%v per look with %d processes", time.Since(start)/10, procs)
}

// TestExecStuck: a program that not even SIGKILL ends (a writer to a frozen file system, state D) is left behind in time, is not
// started a second time beside itself, and can run again once the kernel has let go of it.
func TestExecStuck(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	_, target := mounted(t, o, "frozen")
	sh(t, "fsfreeze", "--freeze", target)
	thaw := func() { _ = exec.Command("fsfreeze", "--unfreeze", target).Run() } // a second time it fails
	t.Cleanup(thaw)
	e := &Exec{Grace: 200 * time.Millisecond}
	cmd := Cmd{Argv: []string{"touch", filepath.Join(target, "x")}, Limit: 200 * time.Millisecond}
	began := time.Now()
	res, err := e.Run(ctx, cmd)
	if took := time.Since(began); !errors.Is(err, ErrStuck) || res.Execution.Exit != -1 || !strings.Contains(err.Error(), "pid ") || took > 5*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	writers := func() string { return sh(t, "sh", "-c", "pgrep -fc \"^touch $1\" || true", "-", target) }
	if _, err := e.Run(ctx, cmd); !errors.Is(err, ErrStuck) || !strings.Contains(err.Error(), "still hangs") || writers() != "1" {
		t.Errorf("again, with %s programs that hang: %v", writers(), err)
	}
	thaw()
	cmd.Limit = 10 * time.Second
	eventually(t, "it runs again", func() bool {
		_, err := e.Run(ctx, cmd)
		return err == nil
	})
}
