package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	shareName   = "share" // the folder every node sees as /srv
	privateName = ".lab"  // the lab's own part of it
	lockName    = "lock"
	busybox     = "/bin/busybox"
	umlBinary   = "linux.uml"
	moduleRoot  = "/usr/lib/uml/modules"

	// DefaultDiskSize is the size of a node's disk in bytes; the file behind it is sparse.
	DefaultDiskSize = 256 << 20
	systemDiskSize  = 512 << 20
	// BootLimit is how long a node may take until its sshd answers.
	BootLimit = 60 * time.Second
)

// NodeOptions describes one machine of the lab.
type NodeOptions struct {
	Name string // host name, at most 12 letters, digits or '-'
	Addr string // IPv4 address on the data link, in 10.0.0.0/24
	DRBD bool   // load the kernel's DRBD at boot; without it drbd.ko cannot be loaded at all
}

// Options describes a lab; the zero value is two nodes, otter and weasel, without the kernel's DRBD.
type Options struct {
	Dir        string            // for disks, logs and the shared folder; empty: a new one below $TMPDIR or /var/tmp
	Nodes      []NodeOptions     // empty: otter 10.0.0.1 and weasel 10.0.0.2
	DRBD       []string          // with empty Nodes: the names of the nodes that run the kernel's DRBD
	DiskSize   int64             // bytes of each node's disk /dev/ubdb, DefaultDiskSize if 0
	Memory     string            // of each node, "512M" if empty
	Modules    []string          // kernel modules to load besides the usual ones
	ExtraFiles map[string]string // path in every node -> contents, written once after the first boot
	Persistent bool              // the lab outlives this process: nobody sweeps it, see Open
	Log        *slog.Logger      // what the lab does; nil: silence
}

// Lab is a running lab. Its methods may be called from several goroutines, as long as each node is started, stopped
// and killed by one at a time.
type Lab struct {
	state *state
	nodes []*Node
	lock  *os.File
	log   *slog.Logger
	mu    sync.Mutex // guards state's nodeState.Proc and closed
	done  bool
}

var nodeName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,11}$`)
var nodeAddr = regexp.MustCompile(`^10\.0\.0\.([1-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-3])$`)
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9_./+@-]*$`)

// complete fills in what was left empty and refuses what cannot work.
func (o *Options) complete() error {
	if len(o.Nodes) == 0 {
		o.Nodes = []NodeOptions{{Name: "otter", Addr: "10.0.0.1"}, {Name: "weasel", Addr: "10.0.0.2"}}
		for _, name := range o.DRBD {
			i := slices.IndexFunc(o.Nodes, func(n NodeOptions) bool { return n.Name == name })
			if i < 0 {
				return fmt.Errorf("lab: DRBD wanted on %q: the nodes are otter and weasel", name)
			}
			o.Nodes[i].DRBD = true
		}
	}
	if len(o.Nodes) > 9 {
		return fmt.Errorf("lab: %d nodes: at most 9", len(o.Nodes))
	}
	seen := map[string]bool{}
	for _, n := range o.Nodes {
		if !nodeName.MatchString(n.Name) || !nodeAddr.MatchString(n.Addr) || seen[n.Name] || seen[n.Addr] ||
			n.Name == shareName || n.Name == lockName {
			return fmt.Errorf("lab: node %q with address %q: a short lower-case name and an address from 10.0.0.1 to 10.0.0.253, each once", n.Name, n.Addr)
		}
		seen[n.Name], seen[n.Addr] = true, true
	}
	if o.DiskSize == 0 {
		o.DiskSize = DefaultDiskSize
	}
	if o.DiskSize < 1<<20 || o.DiskSize%4096 != 0 {
		return fmt.Errorf("lab: disk of %d bytes: at least 1 MiB, a multiple of 4096", o.DiskSize)
	}
	if o.Memory == "" {
		o.Memory = "512M"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// makeDir makes the lab's directory. The kernel's command line has no quoting, hence the plain characters.
func (o *Options) makeDir() error {
	if o.Dir == "" {
		base := os.Getenv("TMPDIR")
		if base == "" {
			base = "/var/tmp"
		}
		dir, err := os.MkdirTemp(base, "santui-lab-")
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		o.Dir = dir
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if !plainPath.MatchString(dir) {
		return fmt.Errorf("lab: directory %q: only letters, digits and _ . / + @ - can be passed to a kernel", dir)
	}
	o.Dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// Start builds the lab and boots its nodes; it returns when all of them answer. When it fails or ctx ends, nothing is
// left behind. Labs abandoned by processes that died are removed first.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := Check(); err != nil {
		return nil, err
	}
	swept, err := Sweep()
	for _, name := range swept {
		o.Log.Info("removed an abandoned lab", "namespace", name)
	}
	if err != nil { // somebody else's lab, and no reason not to have one's own
		o.Log.Warn("an abandoned lab could not be removed", "err", err)
	}
	if err := o.makeDir(); err != nil {
		return nil, err
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(o.Dir, stateFile)); err == nil {
		_ = lock.Close()
		return nil, fmt.Errorf("%w in %s: close it first (santui-lab down)", ErrExists, o.Dir)
	}
	l := &Lab{lock: lock, log: o.Log, state: &state{Dir: o.Dir, Persistent: o.Persistent, DiskSize: o.DiskSize, Modules: o.Modules}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.consoles(), l.Close())
		}
	}()
	if err := l.build(ctx, o); err != nil {
		return nil, err
	}
	if err := l.boot(ctx); err != nil {
		return nil, err
	}
	return l, l.writeExtra(ctx, o.ExtraFiles)
}

// build makes all that the nodes need: record, namespace, network, keys, disks.
func (l *Lab) build(ctx context.Context, o Options) error {
	s := l.state
	var err error
	if s.Owner, err = findProc(os.Getpid()); err != nil {
		return err
	}
	// Sockets have paths of at most 107 bytes, so they lie apart from the disks.
	if s.RunDir, err = os.MkdirTemp("/tmp", "slab-"); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if s.Namespace, err = newNamespace(); err != nil {
		return err
	}
	for i, n := range o.Nodes {
		_, mgmt := mgmtNet(i)
		s.Nodes = append(s.Nodes, nodeState{Name: n.Name, Addr: n.Addr, Mgmt: mgmt, DRBD: n.DRBD, Memory: o.Memory})
	}
	if err := s.save(); err != nil {
		return err
	}
	l.attachNodes()
	if err := makeNetwork(ctx, s.Namespace, s.Nodes); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.Dir, shareName, privateName), 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := makeKeys(ctx, s); err != nil {
		return err
	}
	if err := writeFiles(map[string]string{
		filepath.Join(l.ShareDir(), privateName, "hosts"):    hostsFile(s.Nodes),
		filepath.Join(l.ShareDir(), privateName, "lvm.conf"): lvmConf,
	}); err != nil {
		return err
	}
	for _, n := range l.nodes {
		if err := n.makeDisks(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) attachNodes() {
	for i := range l.state.Nodes {
		l.nodes = append(l.nodes, &Node{lab: l, name: l.state.Nodes[i].Name, index: i})
	}
}

// boot starts all nodes and waits for them side by side.
func (l *Lab) boot(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(l.nodes))
	for i, n := range l.nodes {
		wg.Go(func() { errs[i] = n.Start(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Lab) writeExtra(ctx context.Context, files map[string]string) error {
	for _, n := range l.nodes {
		for name, text := range files {
			if err := n.WriteFile(ctx, name, []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// Open takes over a lab that another process started with Options.Persistent.
func Open(dir string, log *slog.Logger) (*Lab, error) {
	l, err := Peek(dir)
	if err != nil {
		return nil, err
	}
	if log != nil {
		l.log = log
	}
	l.lock, err = lockDir(l.state.Dir)
	return l, err
}

// Peek reads the record of a lab without taking its lock: enough to run commands in its nodes, not to start or stop
// any.
func Peek(dir string) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	s, err := readState(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoLab, dir)
	}
	if err != nil {
		return nil, err
	}
	l := &Lab{state: s, log: slog.New(slog.DiscardHandler)}
	l.attachNodes()
	for _, n := range l.nodes {
		if strings.Contains(n.Console(), readyMark) {
			n.proc().tick() // nobody else keeps the time of a persistent lab's nodes
		}
	}
	return l, nil
}

// ErrNoLab: no lab was started in this directory.
var ErrNoLab = errors.New("lab: there is no lab")

// ErrExists: a lab was started in this directory and not closed.
var ErrExists = errors.New("lab: there is a lab already")

// Release lets go of a persistent lab without stopping it.
func (l *Lab) Release() error {
	if l.lock == nil {
		return nil
	}
	return l.lock.Close()
}

// Close kills the nodes and removes the namespace with bridge and taps, the sockets, and all files the lab made. It may
// be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return nil
	}
	l.done = true
	return errors.Join(l.state.remove(), l.Release())
}

// Node returns a node by name; nil if there is none.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Nodes returns all nodes in the order of Options.Nodes.
func (l *Lab) Nodes() []*Node { return slices.Clone(l.nodes) }

// Namespace is the name of the lab's network namespace (for ip netns exec).
func (l *Lab) Namespace() string { return l.state.Namespace }

// Dir is where the lab keeps its disks and logs.
func (l *Lab) Dir() string { return l.state.Dir }

// ShareDir is the host's side of the folder that every node sees, writable, as /srv.
func (l *Lab) ShareDir() string { return filepath.Join(l.state.Dir, shareName) }

// consoles returns the end of every node's console as an error text, for a boot that failed.
func (l *Lab) consoles() error {
	var errs []error
	for _, n := range l.nodes {
		if text := strings.TrimSpace(n.Console()); text != "" {
			errs = append(errs, fmt.Errorf("console of %s:\n%s", n.name, lastLines(text, 15)))
		}
	}
	return errors.Join(errs...)
}

func hostsFile(nodes []nodeState) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s %s\n", n.Addr, n.Name)
	}
	return b.String()
}

// lvmConf: no udevd runs in a node, so LVM must make its device nodes itself; and the replicated device's own disk must
// stay hidden, or LVM finds each PV twice and refuses to work with it.
const lvmConf = `devices {
	filter = [ "r|/dev/ubdb|", "r|/dev/ubdc|", "r|/dev/md3|" ]
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	use_devicesfile = 0
}
activation {
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}
`
