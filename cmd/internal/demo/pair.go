package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// Name is the pair's name, which confirms its operations.
const Name = "demo"

// Nodes are the two nodes, the first Primary first.
var Nodes = [2]string{"otter", "weasel"}

// Options say what pair to make.
type Options struct {
	Size  int64 // of each disk file, bytes
	Rate  string
	Agent string // path of santui-agent; default: beside this program, else in PATH
	Say   func(format string, args ...any)
}

// Pair is a running pair.
type Pair struct {
	Dir   string
	Mount string // where the file system goes, on both nodes
	nodes [2]*node
	owner *os.File // locked while the demo lives
	say   func(format string, args ...any)
}

type node struct {
	name, dir string
	disk      string
	device    string
	socket    string
	settings  string
	cmd       *exec.Cmd
	ns        *os.File // the agent's mount namespace, see start
	log       *os.File
	done      chan struct{} // closed when the agent has ended
}

// Needs says what this machine lacks to run a pair, or nil.
func Needs() error {
	if runtime.GOOS != "linux" {
		return cli.Usagef("the demo runs two real agents on this machine and needs Linux: this is %s. The cockpit itself works here, over ssh to two Linux nodes", runtime.GOOS)
	}
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root: the agents mount file systems and make block devices")
	}
	for path, why := range map[string]string{"/dev/fuse": "the front end of the replicated device", "/dev/loop-control": "the block device on it"} {
		if _, err := os.Stat(path); err != nil {
			missing = append(missing, path+": "+why)
		}
	}
	for tool, pkg := range map[string]string{"mkfs.ext4": "e2fsprogs", "mount": "mount", "umount": "mount", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool+": Debian package "+pkg)
		}
	}
	if len(missing) > 0 {
		return cli.Usagef("the demo runs two real agents on this machine and needs\n  %s", strings.Join(missing, "\n  "))
	}
	return nil
}

// Start makes the pair and waits until both nodes are connected, Secondary and Inconsistent. When it fails, nothing is
// left behind.
func Start(ctx context.Context, o Options) (*Pair, error) {
	if err := Needs(); err != nil {
		return nil, err
	}
	if o.Agent == "" {
		var err error
		if o.Agent, err = findAgent(); err != nil {
			return nil, err
		}
	}
	if err := Sweep(o.Say); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base(), prefix)
	if err != nil {
		return nil, fmt.Errorf("make the demo's directory: %w", err)
	}
	p := &Pair{Dir: dir, Mount: filepath.Join(dir, "mnt"), say: o.Say}
	if err := os.WriteFile(filepath.Join(dir, "owner"), nil, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if p.owner, err = claim(filepath.Join(dir, "owner")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.start(ctx, o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// prefix begins the name of every demo's directory.
const prefix = "santui-demo-"

// Sweep takes away what a demo left that was killed without a chance to do it itself: files, loop devices, links in /dev.
// A directory that its demo or one of its agents still holds is left alone.
func Sweep(say func(string, ...any)) error {
	dirs, err := filepath.Glob(filepath.Join(base(), prefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "owner")); err != nil {
			continue // it is being made or taken down right now
		}
		errs = append(errs, sweep(dir, say))
	}
	return errors.Join(errs...)
}

func sweep(dir string, say func(string, ...any)) error {
	for _, name := range []string{"owner", filepath.Join(Nodes[0], diskName), filepath.Join(Nodes[1], diskName)} {
		f, err := claim(filepath.Join(dir, name))
		switch {
		case errors.Is(err, errHeld):
			return nil
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			defer func() { _ = f.Close() }()
		}
	}
	say("taking away %s, which a killed demo left", dir)
	return removeAll(dir)
}

// errHeld says that the demo or an agent of it is alive.
var errHeld = errors.New("it is held by a running demo")

// diskName is the backing disk in a node's directory. Its agent holds a lock on it.
const diskName = "disk.img"

// removeAll deletes a demo's directory and what outside of it belongs to it.
func removeAll(dir string) error {
	var errs []error
	dead := map[string]bool{}
	for _, name := range Nodes {
		link := deviceOf(dir, name)
		if to, err := os.Readlink(link); err == nil {
			dead[to] = true
			errs = append(errs, os.Remove(link))
		}
	}
	errs = append(errs, freeLoops(dir, dead))
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// deviceOf is the path of a node's replicated device. Both nodes share this machine's /dev, so each has a name of its
// own there, and so has each demo.
func deviceOf(dir, node string) string {
	return "/dev/drbd_" + node + "_" + strings.TrimPrefix(filepath.Base(dir), prefix)
}

// base is a directory on a real disk: replication writes with O_DIRECT.
func base() string {
	if d := os.Getenv("SANTUI_DEMO_DIR"); d != "" {
		return d
	}
	return "/var/tmp"
}

func findAgent() (string, error) {
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), "santui-agent")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("santui-agent")
	if err != nil {
		return "", cli.Usagef("santui-agent is neither beside santui nor in PATH: build both with `make build`")
	}
	return path, nil
}

func (p *Pair) start(ctx context.Context, o Options) error {
	if err := os.Mkdir(p.Mount, 0o755); err != nil {
		return err
	}
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	for i, name := range Nodes {
		dir := filepath.Join(p.Dir, name)
		n := &node{name: name, dir: dir, disk: filepath.Join(dir, diskName), device: deviceOf(p.Dir, name),
			socket: filepath.Join(dir, "run", "agent.sock"), settings: filepath.Join(dir, "agent.toml")}
		p.nodes[i] = n
		if err := n.makeDisk(o.Size); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(p.Dir, "drbd.conf"), []byte(p.drbdConf(o.Rate, ports)), 0o600); err != nil {
		return err
	}
	if err := p.settle(ctx, o.Agent, ports); err != nil {
		return err
	}
	for _, n := range p.nodes {
		p.say("%s: write metadata to %s", n.name, n.disk)
		if out, err := exec.CommandContext(ctx, o.Agent, "--config", n.settings, "create-md", "r0").CombinedOutput(); err != nil {
			return fmt.Errorf("create-md on %s: %w: %s", n.name, err, bytes.TrimSpace(out))
		}
	}
	for _, n := range p.nodes {
		p.say("%s: start the agent", n.name)
		if err := n.start(o.Agent); err != nil {
			return err
		}
	}
	return p.Wait(ctx, 30*time.Second, "both nodes are connected", func(a, b proto.Snapshot) bool {
		return len(a.Resources) == 1 && len(b.Resources) == 1 && a.PeerLink.Up && b.PeerLink.Up &&
			a.Resources[0].Conn == proto.Connected && b.Resources[0].Conn == proto.Connected
	})
}

// settle writes each agent's settings; the keys are made first, for each pins the other's.
func (p *Pair) settle(ctx context.Context, agent string, ports []int) error {
	write := func(i int, pin string) error {
		n := p.nodes[i]
		text := fmt.Sprintf("node = %q\npair = %q\ndrbd_conf = %q\nstate_dir = %q\nrun_dir = %q\nsocket = %q\nfront_end = \"fuse\"\ninhibit_shutdown = false\n",
			n.name, Name, filepath.Join(p.Dir, "drbd.conf"), filepath.Join(n.dir, "state"), filepath.Join(n.dir, "run"), n.socket)
		if pin != "" {
			text += fmt.Sprintf("[peer]\nlisten = \"127.0.0.1:%d\"\naddress = \"127.0.0.1:%d\"\npin = %q\n", ports[2+i], ports[3-i], pin)
		}
		return os.WriteFile(n.settings, []byte(text), 0o600)
	}
	var keys [2]string
	for i, n := range p.nodes {
		if err := write(i, ""); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, agent, "--config", n.settings, "version").Output()
		if err != nil {
			return fmt.Errorf("make the key of %s: %w", n.name, err)
		}
		_, key, ok := strings.Cut(string(out), "\nkey ")
		if !ok {
			return fmt.Errorf("santui-agent version printed no key: %q", out)
		}
		keys[i] = strings.TrimSpace(key)
	}
	return errors.Join(write(0, keys[1]), write(1, keys[0]))
}

func (p *Pair) drbdConf(rate string, ports []int) string {
	text := fmt.Sprintf(`resource r0 {
  protocol C;
  startup { wfc-timeout 0; }
  disk    { on-io-error detach; }
  net     { cram-hmac-alg sha1; shared-secret "only-a-demo"; connect-int 1; verify-alg sha1; }
  syncer  { rate %s; }
`, rate)
	for i, n := range p.nodes {
		text += fmt.Sprintf("  on %s {\n    device    %s minor 0;\n    disk      %s;\n    address   127.0.0.1:%d;\n    meta-disk internal;\n  }\n",
			n.name, n.device, n.disk, ports[i])
	}
	return text + "}\n"
}

// freePorts asks the kernel for n ports of the loopback interface that nobody listens on.
func freePorts(n int) ([]int, error) {
	out := make([]int, n)
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = l.Close() }()
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("address %v is not TCP", l.Addr())
		}
		out[i] = addr.Port
	}
	return out, nil
}

func (n *node) makeDisk(size int64) error {
	if err := os.MkdirAll(filepath.Join(n.dir, "run"), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(n.disk, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	// Some garbage, another on each node, so that a sync has something to prove.
	block := make([]byte, 4096)
	for off := int64(0); err == nil && off < size/2; off += 512 << 10 {
		_, _ = rand.Read(block) // never fails
		_, err = f.WriteAt(block, off)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// start runs the agent in a mount namespace of its own. The thread that forks must live as long as the child, because
// the child's death signal is tied to it: the goroutine that waits keeps it.
func (n *node) start(agent string) error {
	var err error
	if n.log, err = os.OpenFile(filepath.Join(n.dir, "agent.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	n.cmd = exec.Command(agent, "--config", n.settings, "run")
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = ownNamespace()
	n.done = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.cmd.Start()
		started <- err
		if err == nil {
			_ = n.cmd.Wait() // its end is what matters; the log says why
		}
		close(n.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start the agent of %s: %w", n.name, err)
	}
	// An agent that is killed must not be the last one in its namespace: the kernel would then unmount, in the dying
	// process, a file system whose disk that very process serves, and wait for ever. We keep the namespace until Close.
	if n.ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", n.cmd.Process.Pid)); err != nil {
		return fmt.Errorf("hold the mount namespace of %s: %w", n.name, err)
	}
	return nil
}

func (n *node) alive() bool {
	if n == nil || n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// CLI describes the pair for cockpit and command line.
func (p *Pair) CLI() cli.Pair {
	c := cli.Pair{Name: Name}
	for _, n := range p.nodes {
		c.Node = append(c.Node, cli.Node{Name: n.name, Socket: n.socket})
	}
	return c
}

// Session opens a session to a node's agent.
func (p *Pair) Session(ctx context.Context, name string) (*session.Session, error) {
	n := p.node(name)
	conn, err := session.DialUnix(ctx, n.socket)
	if err != nil {
		return nil, err
	}
	return session.Client(ctx, conn, session.Options{Node: "demo", Version: "demo", Kind: session.KindCockpit})
}

func (p *Pair) node(name string) *node {
	if p.nodes[0].name == name {
		return p.nodes[0]
	}
	return p.nodes[1]
}

// Snapshot asks a node's agent.
func (p *Pair) Snapshot(ctx context.Context, name string) (proto.Snapshot, error) {
	var s proto.Snapshot
	c, err := p.Session(ctx, name)
	if err != nil {
		return s, err
	}
	defer func() { _ = c.Close() }()
	return s, c.Call(ctx, proto.MethodSnapshot, nil, &s)
}

// Wait polls both nodes until the condition holds.
func (p *Pair) Wait(ctx context.Context, limit time.Duration, what string, ok func(a, b proto.Snapshot) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := "no agent answered"
	for {
		a, errA := p.Snapshot(ctx, Nodes[0])
		b, errB := p.Snapshot(ctx, Nodes[1])
		if errA == nil && errB == nil {
			if ok(a, b) {
				return nil
			}
			last = words(a) + "; " + words(b)
		}
		for _, n := range p.nodes {
			if !n.alive() {
				return fmt.Errorf("the agent of %s ended: %s", n.name, n.lastWords())
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w (%s)", what, ctx.Err(), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func words(s proto.Snapshot) string {
	if len(s.Resources) != 1 {
		return s.Node + " has no resource"
	}
	r := s.Resources[0]
	return fmt.Sprintf("%s is cs:%s ro:%s/%s ds:%s/%s %s", s.Node, r.Conn, r.Role, r.PeerRole, r.DiskState, r.PeerDisk, r.Problem)
}

// lastWords is the end of the agent's log.
func (n *node) lastWords() string {
	b, err := os.ReadFile(filepath.Join(n.dir, "agent.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// run executes a program inside a node's mount namespace.
func (p *Pair) run(ctx context.Context, name string, argv ...string) error {
	n := p.node(name)
	full := append([]string{"-m", "-t", fmt.Sprint(n.cmd.Process.Pid), "--"}, argv...)
	out, err := exec.CommandContext(ctx, "nsenter", full...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s on %s: %w: %s", strings.Join(argv, " "), name, err, bytes.TrimSpace(out))
	}
	return nil
}

// root is where a node's mount namespace can be reached from here.
func (p *Pair) root(name string) string {
	return fmt.Sprintf("/proc/%d/root", p.node(name).cmd.Process.Pid)
}

// Stop unmounts, demotes and ends both agents in order; the disk files stay.
func (p *Pair) Stop(ctx context.Context) error {
	var errs []error
	for _, n := range p.nodes {
		if n.alive() {
			errs = append(errs, p.unmount(ctx, n))
		}
	}
	for _, n := range p.nodes {
		if n.alive() {
			errs = append(errs, n.end())
		}
	}
	return errors.Join(errs...)
}

// sitting is how long a process that uses the file system keeps the demo from going.
const sitting = 30 * time.Second

// unmount takes the file system off a node. While something uses it, it says once what, and goes on trying.
func (p *Pair) unmount(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, sitting)
	defer cancel()
	said := false
	for mounted(p.root(n.name), p.Mount) {
		err := p.run(ctx, n.name, "umount", p.Mount)
		if err == nil {
			continue
		}
		if !said {
			said = true
			p.say("%s: %s is in use by %s; the demo waits for its end, for %v at most", n.name, p.Mount, p.users(ctx, n, err), sitting)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// users is who works in a node's file system, by the checks of a move away from it; if they name nobody, what umount said.
func (p *Pair) users(ctx context.Context, n *node, refused error) string {
	to := Nodes[0]
	if to == n.name {
		to = Nodes[1]
	}
	s, err := p.Session(ctx, to)
	if err != nil {
		return refused.Error()
	}
	defer func() { _ = s.Close() }()
	var l proto.CheckList
	if err := s.Call(ctx, proto.MethodCheck, proto.CheckRequest{Verb: proto.VerbFailover, To: to}, &l); err != nil {
		return refused.Error()
	}
	for _, c := range l.Checks {
		if c.Code == proto.CheckBusyProc && len(c.Evidence) > 0 {
			return strings.Join(c.Evidence, ", ")
		}
	}
	return refused.Error()
}

func mounted(root, path string) bool {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(root), "mountinfo"))
	return err == nil && strings.Contains(string(b), " "+path+" ")
}

// end asks the agent to stop, and kills it when it does not.
func (n *node) end() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the agent of %s: %w", n.name, err)
	}
	select {
	case <-n.done:
		return nil
	case <-time.After(40 * time.Second):
	}
	_ = n.cmd.Process.Kill() // it may have ended at this very moment
	<-n.done
	return fmt.Errorf("the agent of %s did not stop and was killed", n.name)
}

// Kill ends a node's agent at once, as a power cut does: with it goes the device that it served.
func (p *Pair) Kill(name string) error {
	n := p.node(name)
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the agent of %s: %w", name, err)
	}
	<-n.done
	return nil
}

// Boot starts a killed node's agent again as after a boot: with a mount namespace and a loop device of its own, nothing
// mounted.
func (p *Pair) Boot(name string) error {
	n := p.node(name)
	if n.alive() {
		return fmt.Errorf("the agent of %s runs", name)
	}
	linked := map[string]bool{}
	if dev, err := os.Readlink(n.device); err == nil {
		linked[dev] = true
	}
	err := errors.Join(n.ns.Close(), n.log.Close(), freeLoops(n.dir, linked)) // the mounts of the dead go with their namespace
	if err != nil {
		return fmt.Errorf("clear what the dead agent of %s left: %w", name, err)
	}
	return n.start(n.cmd.Path)
}

// Close takes everything away: mounts, agents, loop devices, files.
func (p *Pair) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	linked := map[string]bool{}
	for _, n := range p.nodes {
		if n == nil {
			continue
		}
		if dev, err := os.Readlink(n.device); err == nil {
			linked[dev] = true
		}
	}
	err := errors.Join(p.Stop(ctx), freeLoops(p.Dir, linked))
	for _, n := range p.nodes {
		if n != nil && n.log != nil {
			err = errors.Join(err, n.log.Close())
		}
		if n != nil && n.ns != nil {
			err = errors.Join(err, n.ns.Close()) // what a killed agent left mounted goes with it
		}
	}
	return errors.Join(err, removeAll(p.Dir), p.owner.Close())
}

// freeLoops detaches loop devices that a killed agent left: those on files below dir, and of the devices in linked those
// whose file went away with the agent's mount namespace, which leaves only its name in there.
func freeLoops(dir string, linked map[string]bool) error {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		b, err := os.ReadFile(name)
		dev := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(name)))
		file := strings.TrimSpace(string(b))
		if err != nil || !strings.HasPrefix(file, dir+"/") && !(linked[dev] && filepath.Dir(file) == "/") {
			continue
		}
		if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("losetup -d %s: %w: %s", dev, err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}

// Discard is an Options.Say that says nothing.
func Discard(string, ...any) {}

// SayTo returns an Options.Say that prints lines.
func SayTo(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
}
