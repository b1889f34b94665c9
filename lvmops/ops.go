package lvmops

import (
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
	Etc            string // where lvm.conf and fstab are: /etc unless a test says otherwise
	Etab           string // where exportfs keeps its table: /var/lib/nfs/etab unless a test says otherwise
	// DeviceNumber tells the number of the block device at a path (in terms of /dev, whatever Dev is); stat(2) unless a
	// test says otherwise.
	DeviceNumber func(path string) (major, minor uint32, err error)
}

// Ops does the volume work of this node. Its methods may be called concurrently; ordering steps is the caller's job.
type Ops struct {
	opt Options

	mu    sync.Mutex
	stuck map[string]chan struct{}  // looks (statfs, reads) that have not come back, closed when they do, see aside
	cache map[string]*cached        // by kernel node, see lookLVM
	known map[string]lvmVG          // by proto.VG.Mark, see recall
	rest  map[string]*resting       // by kernel node: what the last walk need not repeat; the values do not change
	shown map[string]map[devno]bool // by kernel node: numbers of the last look's devices and file systems, see Glance

	around     map[string]*around // by backing disk and kernel node, see Around
	fs         []string           // see Filesystems
	fsAt       string             // what they were found in
	settings   map[string]string  // lvm's section devices
	settingsAt string             // what settingsKey was then
	versions   map[string]version // by program
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
	if opt.Etc == "" {
		opt.Etc = "/etc"
	}
	if opt.Etab == "" {
		opt.Etab = "/var/lib/nfs/etab"
	}
	if opt.DeviceNumber == nil {
		opt.DeviceNumber = func(path string) (uint32, uint32, error) { return statDevice(inDev(opt.Dev, path)) }
	}
	if opt.Dev == "" {
		opt.Dev = "/dev"
	}
	return &Ops{opt: opt, stuck: map[string]chan struct{}{}, cache: map[string]*cached{}, known: map[string]lvmVG{}, rest: map[string]*resting{}, around: map[string]*around{},
		shown: map[string]map[devno]bool{}, versions: map[string]version{}}, nil
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

// DeactivateArgv is the command line of Deactivate. node is the kernel's name of the replicated device.
func DeactivateArgv(vg, node string) []string {
	return []string{"vgchange", "-an", "--devices", node, vg}
}

// ActivateArgv is the command line of Activate. node is the kernel's name of the replicated device.
func ActivateArgv(vg, node string) []string {
	return []string{"vgchange", "-ay", "--devices", node, vg}
}
