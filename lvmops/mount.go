package lvmops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"example.com/santui/proto"
)

// MountArgv is the command line of Mount. A bind mount's Source is a path in the file system's main mount.
func MountArgv(m proto.Mount) []string {
	argv := []string{"mount"}
	opts := m.Options
	if m.Root != "" {
		opts = strings.TrimSuffix("bind,"+opts, ",")
	} else if m.FSType != "" {
		argv = append(argv, "-t", m.FSType)
	}
	if opts != "" {
		argv = append(argv, "-o", opts)
	}
	return append(argv, m.Source, m.Target)
}

// UnmountArgv is the command line of Unmount.
func UnmountArgv(target string) []string { return []string{"umount", target} }

var fstypePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,31}$`)

// checkMount refuses what must not reach a command line.
func (o *Ops) checkMount(m proto.Mount) error {
	for _, p := range []string{m.Source, m.Target} {
		if err := validPath(p); err != nil {
			return o.refuse(proto.CodeInvalid, "mount of %q at %q: %v", m.Source, m.Target, err)
		}
	}
	if m.FSType != "" && !fstypePattern.MatchString(m.FSType) {
		return o.refuse(proto.CodeInvalid, "mount of %s at %s: %q is no file system type", m.Source, m.Target, m.FSType)
	}
	if strings.ContainsAny(m.Options, "\x00\n\r\t ") || len(m.Options) > 4000 {
		return o.refuse(proto.CodeInvalid, "mount of %s at %s: options %q", m.Source, m.Target, m.Options)
	}
	if m.Root != "" && strings.HasPrefix(m.Source, "/dev/") {
		return o.refuse(proto.CodeUnsupported, "%s shows only %s of the file system on %s, which is mounted nowhere as a whole; this version can not mount that",
			m.Target, m.Root, m.Source)
	}
	return nil
}

// Mount mounts m.Source at m.Target with m's type and options, and proves it by the mount table. The target must be an
// existing directory; nothing is created. A target that shows the same file system already counts as done.
func (o *Ops) Mount(ctx context.Context, m proto.Mount) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	if err := o.checkMount(m); err != nil {
		return out, err
	}
	if err := o.underWay(ctx, fmt.Sprintf("mounting %s at %s", m.Source, m.Target), "umount", m.Target); err != nil {
		return out, err
	}
	target, err := o.resolve(ctx, m.Target)
	if err != nil {
		return out, o.failed(err, "mounting %s at %s", m.Source, m.Target)
	}
	before, there, err := o.shows(target, m)
	if err != nil {
		return out, o.failed(err, "mounting %s at %s", m.Source, m.Target)
	}
	if there {
		out.Already, out.Now = true, fmt.Sprintf("%s is mounted at %s (%s)", m.Source, m.Target, before.options())
		return out, nil
	}
	if before != nil {
		return out, o.refuse(proto.CodeState, "mounting %s at %s: %s (%s) is mounted there", m.Source, m.Target, before.source, before.fstype).
			WithRemedy("unmount it first")
	}
	if fi, err := os.Lstat(target); err != nil {
		return out, &failure{o.refuse(proto.CodeNotFound, "mounting %s at %s: %v", m.Source, m.Target, err).WithRemedy("create the directory"), err}
	} else if !fi.IsDir() {
		return out, o.refuse(proto.CodeState, "mounting %s at %s: that is no directory", m.Source, m.Target)
	}
	if err := o.fits(ctx, m, &out); err != nil {
		return out, err
	}
	_, runErr := o.run(ctx, &out, Cmd{Argv: MountArgv(m), Limit: shorter(limitOf(ctx, LimitMount))})
	after, there, err := o.shows(target, m)
	if err != nil {
		return out, o.failed(err, "mounting %s at %s: reading the mounts afterwards", m.Source, m.Target)
	}
	if !there {
		if runErr == nil {
			runErr = errors.New("mount reported success, but the mount table does not show it")
		}
		return out, o.failed(runErr, "mounting %s at %s", m.Source, m.Target)
	}
	if runErr != nil {
		out.Findings = append(out.Findings, "mounted all the same: "+runErr.Error())
	}
	out.Now = fmt.Sprintf("%s is mounted at %s (%s)", m.Source, m.Target, after.options())
	return out, nil
}

// fits looks at the header of what is to be mounted. A device that holds something else than the plan says, of the file systems
// that the package knows, is not mounted by guess; what else the header tells is a finding.
func (o *Ops) fits(ctx context.Context, m proto.Mount, out *Outcome) error {
	family := strings.TrimRight(m.FSType, "234")
	known := family == "ext" || family == "xfs" || family == "btrfs"
	if m.Root != "" {
		return nil
	}
	head, err := o.readHead(ctx, m.Source)
	switch {
	case errors.Is(err, errHangs):
		return o.failed(err, "mounting %s at %s: reading its header", m.Source, m.Target)
	case err != nil:
		return nil //nolint:nilerr // what is wrong with the device mount(8) says
	}
	if kind := sniff(head); known && strings.TrimRight(kind, "234") != family {
		return o.refuse(proto.CodeState, "mounting %s at %s: its header shows no %s (%s)", m.Source, m.Target, m.FSType, orNothing(kind)).
			WithRemedy("look at it with blkid -p and fsck -n before anything is written to it")
	}
	out.Findings = unclean(head, m.Source)
	return nil
}

// unclean says what the header of an ext file system tells of its past, before it is mounted: after a planned move it was
// unmounted cleanly, after a takeover it was not. s_state and s_feature_incompat are in linux fs/ext4/ext4.h.
func unclean(head []byte, source string) (found []string) {
	const sb, hasErrors, recovers = 1024, 0x0002, 0x0004
	if !strings.HasPrefix(sniff(head), "ext") {
		return nil
	}
	if head[sb+0x60]&recovers != 0 {
		found = append(found, fmt.Sprintf("the file system on %s was not unmounted cleanly: mounting it replays its journal", source))
	}
	if head[sb+0x3a]&hasErrors != 0 {
		found = append(found, fmt.Sprintf("the file system on %s is marked as having errors: run e2fsck on it when the service can do without it", source))
	}
	return found
}

// resolve follows links in a path, as the mount table shows them followed. It may have to enter other mounts, so it
// runs aside.
func (o *Ops) resolve(ctx context.Context, path string) (string, error) {
	real, err := aside(ctx, o, "resolve "+path, func() (string, error) { return filepath.EvalSymlinks(path) })
	if errors.Is(err, os.ErrNotExist) {
		return path, nil // reported with better words by whoever needs it to exist
	}
	return real, err
}

// shows returns what is mounted at a target, and whether that is what m wants there.
func (o *Ops) shows(target string, m proto.Mount) (*mount, bool, error) {
	table, err := o.mountTable()
	if err != nil {
		return nil, false, err
	}
	at := topmost(table, target)
	if at == nil {
		return nil, false, nil
	}
	if m.Root != "" {
		base := covering(table, m.Source)
		return at, base != nil && base.no == at.no && at.root == m.Root, nil
	}
	ma, mi, err := o.opt.DeviceNumber(m.Source)
	if err != nil {
		return at, false, nil //nolint:nilerr // a source that is not there is not what is mounted; mount(8) will say so
	}
	no := devno{ma, mi}
	f := o.familyOf(no, m.Source, m.Source)
	return at, f.owns(at) && at.no == no, nil
}

// Unmount unmounts what is mounted at target, and proves it by the mount table. Nothing mounted there counts as done.
// If it is busy, the error is a *proto.Error with CodeBusy whose Checks hold one check with the users as evidence.
func (o *Ops) Unmount(ctx context.Context, target string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	if err := validPath(target); err != nil {
		return out, o.refuse(proto.CodeInvalid, "unmount: %v", err)
	}
	if err := o.underWay(ctx, "unmounting "+target, "mount", target); err != nil {
		return out, err
	}
	table, err := o.mountTable()
	if err != nil {
		return out, o.failed(err, "unmounting %s", target)
	}
	at := topmost(table, target)
	if at == nil {
		out.Already, out.Now = true, "nothing is mounted at "+target
		return out, nil
	}
	if target == "/" {
		return out, o.refuse(proto.CodeInvalid, "unmounting / is not what a move does")
	}
	count := countAt(table, target)
	ctx, cancel := context.WithTimeout(ctx, limitOf(ctx, LimitUnmount))
	defer cancel()
	for wait, tries := 250*time.Millisecond, 0; ; wait, tries = wait*2, tries+1 {
		_, runErr := o.run(ctx, &out, Cmd{Argv: UnmountArgv(target), Limit: shorter(limitOf(ctx, LimitUnmount))})
		if table, err = o.mountTable(); err != nil {
			return out, o.failed(err, "unmounting %s: reading the mounts afterwards", target)
		}
		if left := countAt(table, target); left < count {
			out.Now = fmt.Sprintf("%s is unmounted from %s", at.source, target)
			if left > 0 {
				out.Now += fmt.Sprintf("; %d older mounts remain there", left)
			}
			return out, nil
		}
		users, err := o.mountUsers(ctx, table, target)
		switch {
		case err != nil:
			return out, o.failed(errors.Join(runErr, err), "unmounting %s", target)
		case len(users) > 0 && errors.Is(runErr, ErrExit):
			return out, o.busy(users, runErr, "unmounting %s (%s): it is in use: %s", target, at.source, summary(users))
		case runErr == nil:
			runErr = errors.New("umount reported success, but the mount table still shows it")
			return out, o.failed(runErr, "unmounting %s (%s)", target, at.source)
		case tries == 3 || !errors.Is(runErr, ErrExit):
			return out, o.failed(runErr, "unmounting %s (%s): no user was found", target, at.source)
		}
		if err := Pause(ctx, wait); err != nil {
			return out, o.failed(err, "unmounting %s (%s)", target, at.source)
		}
	}
}

// mountUsers lists what holds the mount at a target.
func (o *Ops) mountUsers(ctx context.Context, table []mount, target string) ([]proto.User, error) {
	at := topmost(table, target)
	if at == nil {
		return nil, nil
	}
	f := o.familyOf(at.no, "", "")
	if at.no.major == 0 && strings.HasPrefix(at.source, "/dev/") {
		if ma, mi, err := o.opt.DeviceNumber(at.source); err == nil {
			f = o.familyOf(devno{ma, mi}, at.source, at.source)
		}
	}
	f.devices[f.root].shown = at.source
	f.grow(table)
	users, _, err := o.usersOf(ctx, f, table, at, nil)
	return users, err
}

// MountPoint says what is at a path. A directory on which something is mounted is not read.
func (o *Ops) MountPoint(path string) proto.MountPoint { return o.MountPoints([]string{path})[0] }

// MountPoints is MountPoint for several paths, with one look at the mount table.
func (o *Ops) MountPoints(paths []string) []proto.MountPoint {
	if len(paths) == 0 {
		return nil
	}
	table, err := o.mountTable()
	if err != nil {
		table = nil // what is mounted then looks like a directory that is not empty
	}
	out := make([]proto.MountPoint, len(paths))
	for i, path := range paths {
		out[i] = o.mountPoint(table, path)
	}
	return out
}

func (o *Ops) mountPoint(table []mount, path string) proto.MountPoint {
	p := proto.MountPoint{Path: path}
	if validPath(path) != nil {
		return p
	}
	if at := topmost(table, path); at != nil {
		p.Exists, p.Dir, p.Mounted = true, true, at.source
		return p
	}
	got, err := aside(context.Background(), o, "mount point "+path, func() (proto.MountPoint, error) {
		fi, err := os.Stat(path)
		if err != nil {
			return p, err
		}
		q := p
		q.Exists, q.Dir = true, fi.IsDir()
		if q.Dir {
			q.Empty = isEmptyDir(path)
		}
		return q, nil
	})
	if err != nil {
		return p
	}
	return got
}

func isEmptyDir(path string) bool {
	d, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(1)
	return len(names) == 0 && err != nil
}
