package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// namespacePrefix begins the name of every network namespace a lab makes.
const namespacePrefix = "santui-lab-"

// bridgeAddr is the host's end of the data link, seen from inside the namespace only.
const bridgeAddr = "10.0.0.254"

func dataTap(node string) string { return "d-" + node }
func mgmtTap(node string) string { return "m-" + node }

// mgmtNet numbers the management links: node i has 10.99.i.2, the host's end 10.99.i.1. They are not bridged and the
// namespace does not forward, so no node reaches another through them.
func mgmtNet(i int) (host, node string) {
	return fmt.Sprintf("10.99.%d.1", i+1), fmt.Sprintf("10.99.%d.2", i+1)
}

// networkScript is the `ip -batch` text that builds a lab's network inside its namespace.
func networkScript(nodes []nodeState) string {
	var b strings.Builder
	b.WriteString("link set lo up\n")
	b.WriteString("link add br0 type bridge forward_delay 0 mcast_snooping 0\n")
	fmt.Fprintf(&b, "addr add %s/24 dev br0\nlink set br0 up\n", bridgeAddr)
	for i, n := range nodes {
		host, _ := mgmtNet(i)
		fmt.Fprintf(&b, "tuntap add dev %s mode tap\n", dataTap(n.Name))
		fmt.Fprintf(&b, "link set %s master br0 up\n", dataTap(n.Name))
		fmt.Fprintf(&b, "tuntap add dev %s mode tap\n", mgmtTap(n.Name))
		fmt.Fprintf(&b, "addr add %s/24 dev %s\nlink set %s up\n", host, mgmtTap(n.Name), mgmtTap(n.Name))
	}
	return b.String()
}

// hostRun runs a program of the host to its end; the error carries what it wrote.
func hostRun(ctx context.Context, stdin string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab: %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// labs counts the labs of this process, for their names.
var labs atomic.Int32

// newNamespace finds a name for a lab's namespace that nobody uses, also not a lab that waits to be swept.
func newNamespace() (string, error) {
	for range 1000 {
		name := fmt.Sprintf("%s%d-%d", namespacePrefix, os.Getpid(), labs.Add(1))
		_, used := os.Lstat(namespaceFile(name))
		_, recorded := os.Lstat(filepath.Join(registryDir, name+".json"))
		if errors.Is(used, fs.ErrNotExist) && errors.Is(recorded, fs.ErrNotExist) {
			return name, nil
		}
	}
	return "", fmt.Errorf("lab: all names %s%d-N are in use in /run/netns or %s", namespacePrefix, os.Getpid(), registryDir)
}

func namespaceFile(name string) string { return filepath.Join("/run/netns", name) }

// makeNetwork makes the namespace and all in it.
func makeNetwork(ctx context.Context, namespace string, nodes []nodeState) error {
	if err := hostRun(ctx, "", "ip", "netns", "add", namespace); err != nil {
		return err
	}
	return hostRun(ctx, networkScript(nodes), "ip", "-n", namespace, "-batch", "-")
}

// removeNamespace removes the namespace; bridge and taps go with it once no process is left inside.
func removeNamespace(name string) error {
	if _, err := os.Lstat(namespaceFile(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return hostRun(ctx, "", "ip", "netns", "delete", name)
}

// Ways to set the data tap of a node: out of the bridge, or in it. Not down and up: the kernel in the node stops using
// a tap that once returned an error, and the link would stay dead after Heal.
var (
	unplug = []string{"nomaster"}
	plug   = []string{"master", "br0"}
)

// setLink pulls or plugs the data cable of one node.
func (l *Lab) setLink(ctx context.Context, node string, way []string) error {
	return hostRun(ctx, "", append([]string{"ip", "-n", l.state.Namespace, "link", "set", dataTap(node)}, way...)...)
}

// Cut pulls the data cable of every node: nothing passes between them any more, not even an error. Management (Run,
// Put, Get) has its own link and goes on.
func (l *Lab) Cut(ctx context.Context) error { return l.setLinks(ctx, unplug) }

// Heal plugs what Cut pulled.
func (l *Lab) Heal(ctx context.Context) error { return l.setLinks(ctx, plug) }

func (l *Lab) setLinks(ctx context.Context, way []string) error {
	var errs []error
	for _, n := range l.nodes {
		errs = append(errs, l.setLink(ctx, n.name, way))
	}
	return errors.Join(errs...)
}
