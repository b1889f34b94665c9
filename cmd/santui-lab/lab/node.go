package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed init.sh
var initScript string

// readyMark is what init.sh writes to the console when sshd listens.
const readyMark = "santui-lab: ready after "

// Node is one machine of the lab.
type Node struct {
	lab   *Lab
	name  string
	index int
}

// Name is the node's host name.
func (n *Node) Name() string { return n.name }

// Addr is the node's IPv4 address on the data link, without a prefix length.
func (n *Node) Addr() string { return n.lab.state.Nodes[n.index].Addr }

// DiskImage is the host's file behind the node's /dev/ubdb. It holds what the node has written to the device at any
// moment, and survives Kill as a disk without a volatile cache would.
func (n *Node) DiskImage() string { return n.file("disk.img") }

func (n *Node) file(name string) string { return filepath.Join(n.lab.state.Dir, n.name, name) }

// makeDisks makes the node's two disks, sparse: /dev/ubdb, the one to play with, all zeroes, and /dev/ubdc, which keeps
// the node's own files over a power cut.
func (n *Node) makeDisks(ctx context.Context) error {
	if err := os.MkdirAll(n.file(""), 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for name, size := range map[string]int64{"disk.img": n.lab.state.DiskSize, "system.img": systemDiskSize} {
		f, err := os.OpenFile(n.file(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return hostRun(ctx, "", "mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", n.file("system.img"))
}

// environment is the text init.sh reads with `.`: LAB_ words, each quoted for a shell.
func (n *Node) environment(modules *moduleTree, dir, sshd string) string {
	s := n.lab.state.Nodes[n.index]
	drbd := "no"
	if s.DRBD {
		drbd = "yes"
	}
	var b strings.Builder
	for _, kv := range [][2]string{
		{"NODE", n.name}, {"ADDR", s.Addr + "/24"}, {"MGMT", s.Mgmt + "/24"}, {"DRBD", drbd},
		{"SHARE", n.lab.ShareDir()}, {"MODULES", dir}, {"MODLIST", n.file("modules")}, {"SSHD", sshd},
		{"OVERLAY", filepath.Join(dir, modules.path["overlay"])}, {"DRBD_KO", modules.path["drbd"]},
	} {
		fmt.Fprintf(&b, "LAB_%s=%s\n", kv[0], shellQuote(kv[1]))
	}
	return b.String()
}

// kernelArgs is the UML kernel's command line. Without gro=1 the tap driver drops large TCP segments and a bulk
// transfer crawls at 100 KiB/s.
func (n *Node) kernelArgs() []string {
	s := n.lab.state
	return []string{
		umlBinary, "mem=" + s.Nodes[n.index].Memory, "rootfstype=hostfs", "ro", "root=/dev/root", "hostfs=/",
		"init=" + n.file("init"), "lab_env=" + n.file("env"),
		"ubdb=" + n.file("disk.img"), "ubdc=" + n.file("system.img"),
		"vec0:transport=tap,ifname=" + dataTap(n.name) + ",gro=1,mac=" + macAddr(0, n.index),
		"vec1:transport=tap,ifname=" + mgmtTap(n.name) + ",gro=1,mac=" + macAddr(1, n.index),
		"uml_dir=" + s.RunDir, "umid=" + n.name, "con=null", "con0=null,fd:3", "quiet",
	}
}

func macAddr(link, node int) string { return fmt.Sprintf("52:54:00:5a:%02x:%02x", link, node+1) }

// prepare writes what init.sh reads; it is done anew at every start.
func (n *Node) prepare() error {
	dir, err := findModuleDir(moduleRoot)
	if err != nil {
		return err
	}
	tree, err := loadModules(dir)
	if err != nil {
		return err
	}
	wanted := append(append([]string{}, defaultModules...), n.lab.state.Modules...)
	if n.lab.state.Nodes[n.index].DRBD {
		wanted = append(wanted, "drbd")
	}
	files, err := tree.order(wanted...)
	if err != nil {
		return err
	}
	sshd, err := findSSHD()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(n.lab.state.RunDir, n.name)); err != nil { // a killed kernel's own directory
		return fmt.Errorf("lab: %w", err)
	}
	if err := writeFiles(map[string]string{
		n.file("env"): n.environment(tree, dir, sshd), n.file("modules"): insmodList(files),
		n.file("init"): initScript, n.file("console.log"): "",
	}); err != nil {
		return err
	}
	if err := os.Chmod(n.file("init"), 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// Start boots a node that is off, and returns when it answers. A node that does not answer in time is switched off
// again; its console stays readable.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("lab: %s runs already", n.name)
	}
	ctx, cancel := context.WithTimeout(ctx, BootLimit)
	defer cancel()
	if err := n.prepare(); err != nil {
		return err
	}
	began := time.Now()
	dead, err := n.spawn()
	if err != nil {
		return err
	}
	if err := n.waitReady(ctx); err != nil {
		return errors.Join(err, n.Kill())
	}
	go n.keepTime(dead)
	n.lab.log.Info("node is up", "node", n.name, "seconds", time.Since(began).Seconds())
	return nil
}

// keepTime sends the kernel a timer signal every second until it is dead. UML now and then loses the one that it waits
// for; its timers then stand still for ever, with every sleep and every ping in the node, until another one comes. An
// extra one does no harm. Before the kernel has booted it would kill it.
func (n *Node) keepTime(dead <-chan struct{}) {
	p := n.proc()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-dead:
			return
		case <-tick.C:
			p.tick()
		}
	}
}

// spawn starts the kernel in a session of its own, with the console in a file. The channel is closed when it is dead.
func (n *Node) spawn() (<-chan struct{}, error) {
	console, err := os.OpenFile(n.file("console.log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = console.Close() }()
	cmd := exec.Command("ip", append([]string{"netns", "exec", n.lab.state.Namespace}, n.kernelArgs()...)...)
	// The guest's memory is a deleted file: on a disk its pages would be written back all the time.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/dev/shm", "HOME=" + n.lab.state.RunDir}
	cmd.Dir = "/"
	cmd.Stderr, cmd.ExtraFiles = console, []*os.File{console}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: start %s: %w", n.name, err)
	}
	dead := make(chan struct{})
	go func() {
		_ = cmd.Wait() // reaps it when it dies; ends no later than this process
		close(dead)
	}()
	p, err := findProc(cmd.Process.Pid)
	if err != nil {
		return nil, fmt.Errorf("lab: %s ended at once: %w: %s", n.name, err, n.Console())
	}
	return dead, n.setProc(p)
}

// waitReady waits for the mark on the console, then opens the connection that commands share. sshd goes into the
// background a moment before it listens, so a refusal is no failure yet.
func (n *Node) waitReady(ctx context.Context) error {
	ready := false
	var refused error
	for {
		ready = ready || strings.Contains(n.Console(), readyMark)
		if ready {
			if refused = startMaster(ctx, n.lab.state.RunDir, n.name); refused == nil {
				return nil
			}
		}
		if !n.Running() {
			return fmt.Errorf("lab: %s died while it booted", n.name)
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("lab: %s did not finish booting: %w", n.name, ctx.Err()), refused)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (n *Node) setProc(p proc) error {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	n.lab.state.Nodes[n.index].Proc = p
	return n.lab.state.save()
}

func (n *Node) proc() proc {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	return n.lab.state.Nodes[n.index].Proc
}

// Running reports whether the node's kernel runs; it may still be booting.
func (n *Node) Running() bool { return n.proc().alive() }

// Kill is a power cut: the whole machine stops between two instructions. What it had not yet written to its disks is
// lost; what it had written is kept (by the host), so a volatile write cache is not modelled.
func (n *Node) Kill() error {
	if err := n.proc().killSession(10 * time.Second); err != nil {
		return fmt.Errorf("lab: power cut of %s: %w", n.name, err)
	}
	stopMaster(n.lab.state.RunDir, n.name)
	return n.setProc(proc{})
}

// Stop shuts the node down: sync, then power off. It unmounts nothing and stops no service.
func (n *Node) Stop(ctx context.Context) error {
	if _, err := n.Run(ctx, "sh", "-c", "sync; (sleep 0.2; exec "+busybox+" poweroff -f) >/dev/null 2>&1 </dev/null &"); err != nil {
		return err
	}
	for n.Running() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab: %s did not power off: %w", n.name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return n.Kill() // what is left of its session
}

// CutLink pulls this node's data cable only.
func (n *Node) CutLink(ctx context.Context) error { return n.lab.setLink(ctx, n.name, unplug) }

// HealLink plugs it again.
func (n *Node) HealLink(ctx context.Context) error { return n.lab.setLink(ctx, n.name, plug) }

// Console returns what the node's kernel and init wrote since its last start.
func (n *Node) Console() string {
	text, err := os.ReadFile(n.file("console.log"))
	if err != nil {
		return ""
	}
	return string(text)
}

// BootSeconds is the guest's own clock when sshd listened; 0 before that.
func (n *Node) BootSeconds() float64 {
	_, rest, ok := strings.Cut(n.Console(), readyMark)
	if !ok {
		return 0
	}
	var s float64
	if _, err := fmt.Sscanf(rest, "%f", &s); err != nil {
		return 0
	}
	return s
}

// WriteFile writes a file in the node, making its folder; permissions as given.
func (n *Node) WriteFile(ctx context.Context, name string, data []byte, mode fs.FileMode) error {
	script := fmt.Sprintf("mkdir -p %s && cat >%s && chmod %o %s", shellQuote(filepath.Dir(name)), shellQuote(name), mode.Perm(), shellQuote(name))
	_, err := n.RunInput(ctx, strings.NewReader(string(data)), "sh", "-c", script)
	return err
}

// ReadFile reads a file of the node.
func (n *Node) ReadFile(ctx context.Context, name string) ([]byte, error) {
	res, err := n.Run(ctx, "cat", "--", name)
	return []byte(res.Stdout), err
}

// Put copies a file of the host into the node, keeping its permissions. A running program may be replaced this way.
func (n *Node) Put(ctx context.Context, hostFile, nodeFile string) error {
	info, err := os.Stat(hostFile)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	temp, err := n.copyToShare(hostFile)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }()
	_, err = n.Run(ctx, "install", "-D", "-m", fmt.Sprintf("%o", info.Mode().Perm()), "/srv/"+privateName+"/"+filepath.Base(temp), nodeFile)
	return err
}

func (n *Node) copyToShare(hostFile string) (string, error) {
	in, err := os.Open(hostFile)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.CreateTemp(filepath.Join(n.lab.ShareDir(), privateName), "put-")
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		_ = os.Remove(out.Name())
		return "", fmt.Errorf("lab: copy %s: %w", hostFile, err)
	}
	return out.Name(), nil
}

// Get copies a file of the node to the host.
func (n *Node) Get(ctx context.Context, nodeFile, hostFile string) error {
	out, err := os.Create(hostFile)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	cmd := n.Command(ctx, "cat", "--", nodeFile)
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	err = cmd.Run()
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("lab: get %s from %s: %w: %s", nodeFile, n.name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// Daemon starts argv in the background of the node, detached from the connection: output goes to /var/log/NAME.log, its
// process number to /run/NAME.pid.
func (n *Node) Daemon(ctx context.Context, name string, argv ...string) error {
	if !nodeName.MatchString(name) {
		return fmt.Errorf("lab: daemon name %q", name)
	}
	script := fmt.Sprintf("setsid %s </dev/null >>/var/log/%s.log 2>&1 & echo $! >/run/%s.pid", shellWords(argv), name, name)
	_, err := n.Run(ctx, "sh", "-c", script)
	return err
}

// StopDaemon sends SIGTERM to what Daemon started and waits until it is gone.
func (n *Node) StopDaemon(ctx context.Context, name string) error {
	_, err := n.Sh(ctx, fmt.Sprintf("p=$(cat /run/%[1]s.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.05; done; rm /run/%[1]s.pid", name))
	return err
}
