package lvmops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/santui/proto"
)

// maxDev bounds the walk over /dev.
const maxDev = 20000

// Holds says what a device shows: "" for nothing that is recognised, else blkid's word for it.
func (o *Ops) Holds(ctx context.Context, path string) (string, error) { return o.content(ctx, path) }

// Aliases lists the names in /dev that lead to a block device, links included: LVM's filters match any of them.
func (o *Ops) Aliases(disk string) []string {
	ma, mi, err := o.opt.DeviceNumber(disk)
	if err != nil {
		return nil
	}
	names := []string{disk}
	seen := 0
	_ = filepath.WalkDir(o.opt.Dev, func(path string, e fs.DirEntry, err error) error { // what cannot be read has no alias
		if seen++; err != nil || seen > maxDev {
			return fs.SkipDir
		}
		if e.IsDir() {
			if slices.Contains([]string{"shm", "pts", "mqueue", "hugepages", "input", "bus"}, e.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&(fs.ModeSymlink|fs.ModeDevice) == 0 {
			return nil
		}
		name := "/dev/" + strings.TrimPrefix(strings.TrimPrefix(path, o.opt.Dev), "/")
		if a, b, err := o.opt.DeviceNumber(name); err == nil && a == ma && b == mi && !slices.Contains(names, name) {
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names[:min(len(names), proto.MaxFacts)]
}

// OnLV says whether a disk is a logical volume itself: replication above LVM.
func (o *Ops) OnLV(disk string) bool {
	ma, mi, err := o.opt.DeviceNumber(disk)
	return err == nil && strings.HasPrefix(readLine(filepath.Join(o.opt.Sys, "dev/block", devno{ma, mi}.String(), "dm/uuid")), "LVM-")
}

// HideBacking makes LVM stop looking at a backing disk: by lvmdevices where a devices file is in force, else by
// global_filter in lvm's configuration. With dry set it only says what it would do. The old file is kept; the result is
// read back from lvm, and if lvm still sees the disk, or refuses the file, the old one is put back.
func (o *Ops) HideBacking(ctx context.Context, disk string, dry bool) (proto.LVMFix, error) {
	v, err := o.LVMView(ctx, disk, "")
	if err != nil || !v.Installed {
		return proto.LVMFix{}, err
	}
	if v.Mechanism == proto.SelectDevicesFile {
		return o.dropDevice(ctx, disk, v, dry)
	}
	fix := proto.LVMFix{File: filepath.Join(o.opt.Etc, "lvm/lvm.conf")}
	local := filepath.Join(o.opt.Etc, "lvm/lvmlocal.conf") // overrides lvm.conf, setting by setting
	if text, err := os.ReadFile(local); err == nil {
		if _, found, err := confScan(string(text), "global_filter"); err == nil && found != nil {
			fix.File = local
		}
	}
	old, err := os.ReadFile(fix.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fix, o.failed(err, "reading %s", fix.File)
	}
	var patterns []string
	for _, name := range o.Aliases(disk) {
		patterns = append(patterns, rejectPattern(name))
	}
	text, err := confReject(string(old), patterns)
	if err != nil {
		return fix, o.refuse(proto.CodeState, "%s cannot be understood, and is left alone: %v", fix.File, err).
			WithRemedy("put %s into devices/global_filter by hand", strings.Join(patterns, ", "))
	}
	fix.Diff = diffLines(string(old), text)
	if dry || text == string(old) {
		return fix, nil
	}
	return o.writeConf(ctx, disk, fix, old, text)
}

// writeConf replaces a configuration file and proves the effect, or puts the old one back.
func (o *Ops) writeConf(ctx context.Context, disk string, fix proto.LVMFix, old []byte, text string) (proto.LVMFix, error) {
	if real, err := filepath.EvalSymlinks(fix.File); err == nil {
		fix.File = real
	}
	if old != nil {
		fix.Backup = fix.File + ".santui-" + time.Now().Format("20060102-150405")
		if err := replaceFile(fix.Backup, fix.File, old); err != nil {
			return fix, o.failed(err, "keeping a copy of %s", fix.File)
		}
	}
	if err := replaceFile(fix.File, fix.File, []byte(text)); err != nil {
		return fix, o.failed(err, "writing %s", fix.File)
	}
	fix.Done = true
	v, err := o.LVMView(ctx, disk, "")
	if err == nil && len(v.Backing) == 0 {
		return fix, nil
	}
	if err == nil {
		err = fmt.Errorf("lvm still sees %s", strings.Join(v.Backing, ", "))
	}
	back := os.Remove(fix.File)
	if old != nil {
		back = replaceFile(fix.File, fix.Backup, old)
	}
	fix.Done = false
	return fix, o.failed(errors.Join(err, back), "hiding %s from lvm with %s, which was put back as it was", disk, fix.File)
}

// replaceFile writes a file with the mode and owner of another one, in one step: either the old or the new content is
// there, also after a power cut.
func replaceFile(path, like string, data []byte) error {
	mode, uid, gid := fs.FileMode(0o644), 0, 0
	if fi, err := os.Stat(like); err == nil {
		mode = fi.Mode().Perm()
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".santui-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if os.Geteuid() == 0 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// dropDevice takes the backing disk out of the devices file, with lvm's own program.
func (o *Ops) dropDevice(ctx context.Context, disk string, v proto.LVMFacts, dry bool) (proto.LVMFix, error) {
	fix := proto.LVMFix{File: v.DevicesFile}
	if len(v.Backing) == 0 {
		return fix, nil
	}
	argv := []string{"lvmdevices", "--yes", "--deldev", v.Backing[0]}
	fix.Diff = []string{strings.Join(argv, " ")}
	if dry {
		return fix, nil
	}
	var out Outcome
	_, err := o.run(ctx, &out, Cmd{Argv: argv, Limit: LimitSetup})
	fix.Commands = out.Commands
	if err != nil {
		return fix, o.failed(err, "taking %s out of %s", disk, v.DevicesFile)
	}
	after, err := o.LVMView(ctx, disk, "")
	if err == nil && len(after.Backing) > 0 {
		err = fmt.Errorf("lvm still sees %s", strings.Join(after.Backing, ", "))
	}
	if err != nil {
		return fix, o.failed(err, "taking %s out of %s", disk, v.DevicesFile)
	}
	fix.Done = true
	return fix, nil
}

// InitramfsHint is the command that carries a changed lvm.conf into the initramfs, which has a copy of its own; "" where
// none of the known builders is installed.
func (o *Ops) InitramfsHint() string {
	for _, argv := range [][]string{{"update-initramfs", "-u"}, {"dracut", "--force"}, {"mkinitcpio", "-P"}} {
		if _, err := (&Exec{}).Look(argv[0]); err == nil {
			return strings.Join(argv, " ")
		}
	}
	return ""
}
