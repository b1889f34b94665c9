package lvmops

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"example.com/santui/proto"
)

// Options configure an Ops.
type Options struct {
	Runner Runner // required
	Node   string // this node's name, for errors
	Log    *slog.Logger
	// Proc, Sys and Dev are where the kernel's trees are: /proc, /sys, /dev unless a test says otherwise.
	Proc, Sys, Dev string
}

// Ops does the volume work of this node. Its methods may be called concurrently; ordering steps is the caller's job.
type Ops struct {
	opt Options

	mu    sync.Mutex
	stuck map[string]bool // mount points whose statfs has not come back
}

// New checks the options.
func New(opt Options) (*Ops, error) {
	if opt.Runner == nil {
		return nil, errors.New("lvmops: Options.Runner is missing")
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Proc == "" {
		opt.Proc = "/proc"
	}
	if opt.Sys == "" {
		opt.Sys = "/sys"
	}
	if opt.Dev == "" {
		opt.Dev = "/dev"
	}
	return &Ops{opt: opt, stuck: map[string]bool{}}, nil
}

// Outcome is what a step led to, read back from the system.
type Outcome struct {
	Already  bool              // it was so before; nothing was changed
	Now      string            // the state afterwards, in words
	Findings []string          // what the programs warned about, one line each
	Commands []proto.Execution // what was run, in order
	Seconds  float64
}

// The time limits of the steps, for plans.
const (
	LimitUnmount    = 60 * time.Second
	LimitDeactivate = 60 * time.Second
	LimitActivate   = 120 * time.Second
	LimitMount      = 300 * time.Second // a journal replay takes its time
	LimitMkfs       = 600 * time.Second
	LimitLook       = 10 * time.Second
)

// UnmountArgv is the command line of Unmount.
func UnmountArgv(target string) []string { return []string{"umount", target} }

// MountArgv is the command line of Mount.
func MountArgv(m proto.Mount) []string {
	argv := []string{"mount"}
	if m.FSType != "" {
		argv = append(argv, "-t", m.FSType)
	}
	if m.Options != "" {
		argv = append(argv, "-o", m.Options)
	}
	return append(argv, m.Source, m.Target)
}

// DeactivateArgv is the command line of Deactivate. node is the kernel's name of the replicated device.
func DeactivateArgv(vg, node string) []string {
	return []string{"vgchange", "-an", "--devices", node, vg}
}

// ActivateArgv is the command line of Activate. node is the kernel's name of the replicated device.
func ActivateArgv(vg, node string) []string {
	return []string{"vgchange", "-ay", "--devices", node, vg}
}

// errSoon marks what the next commits of this package fill in.
var errSoon = proto.Errorf(proto.CodeUnsupported, "lvmops: not built yet")

// Stack reads what sits on a replicated device. dev is the name the operator knows (/dev/drbd0), node the kernel's
// device behind it (/dev/nbd0); they may be equal. If it could not be read completely, the stack that was found comes
// back with Stack.Err set; the error is for calls that make no sense (node is no block device).
func (o *Ops) Stack(ctx context.Context, dev, node string) (proto.Stack, error) {
	return proto.Stack{}, errSoon
}

// Busy lists what keeps a device, or anything on it, in use: mounts (all namespaces), swap, holders, processes.
func (o *Ops) Busy(ctx context.Context, node string) ([]proto.User, error) { return nil, errSoon }

// Deactivate deactivates every LV of the VG and proves that no device-mapper node of it is left.
func (o *Ops) Deactivate(ctx context.Context, vg, node string) (Outcome, error) {
	return Outcome{}, errSoon
}

// Activate activates every LV of the VG and proves that each has its node.
func (o *Ops) Activate(ctx context.Context, vg, node string) (Outcome, error) {
	return Outcome{}, errSoon
}

// Mount mounts m.Source at m.Target with m's type and options. The target must exist; nothing is created.
func (o *Ops) Mount(ctx context.Context, m proto.Mount) (Outcome, error) { return Outcome{}, errSoon }

// Unmount unmounts what is mounted at target. If it is busy, the error is a *proto.Error with CodeBusy whose Checks
// hold one check with the users as evidence.
func (o *Ops) Unmount(ctx context.Context, target string) (Outcome, error) {
	return Outcome{}, errSoon
}

// MountPoint says what is at a path, without entering what is mounted there.
func (o *Ops) MountPoint(path string) proto.MountPoint { return proto.MountPoint{Path: path} }

// VGNames lists the volume groups that this node sees on devices other than except (kernel nodes), for the check that
// no other VG has the name of one that is to arrive.
func (o *Ops) VGNames(ctx context.Context, except ...string) ([]string, error) { return nil, errSoon }

// Tools tells where the programs that this package runs are: name to path, "" if missing.
func (o *Ops) Tools() map[string]string { return nil }

// BackingVisible says whether LVM sees a physical volume on a backing disk, that is, whether nothing keeps it from
// using the disk behind the replication's back. The evidence names the device selection in force.
func (o *Ops) BackingVisible(ctx context.Context, disk string) (bool, []string, error) {
	return false, nil, errSoon
}

// PVCreate makes the device a physical volume. A device that holds anything recognisable is refused.
func (o *Ops) PVCreate(ctx context.Context, node string) (Outcome, error) { return Outcome{}, errSoon }

// VGCreate makes a volume group of one physical volume, with autoactivation off.
func (o *Ops) VGCreate(ctx context.Context, vg, node string) (Outcome, error) {
	return Outcome{}, errSoon
}

// LVCreate makes a linear logical volume of size bytes, or of all that is free if size is 0.
func (o *Ops) LVCreate(ctx context.Context, vg, lv string, size int64, node string) (Outcome, error) {
	return Outcome{}, errSoon
}

// Mkfs makes an ext4 or xfs file system on an empty block device.
func (o *Ops) Mkfs(ctx context.Context, fstype, path string) (Outcome, error) {
	return Outcome{}, errSoon
}
