package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	agentPath   = "/usr/local/bin/santui-agent"
	agentConfig = "/etc/santui/agent.toml"
	agentDaemon = "santui-agent"
	agentPort   = 7789

	// PairName is the name of the pair that InstallAgents makes; typing it confirms operations.
	PairName = "lab"
)

// ErrNoBinary: a program that the lab shall run has not been built.
var ErrNoBinary = errors.New("lab: a program is missing")

// FindBinary returns the path of one of santui's programs in a folder.
func FindBinary(dir, name string) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: %s: run make build first", ErrNoBinary, path)
	}
	return path, nil
}

// GuideConf is the resource r0 of the two-node guide in DRBD 0.7's dialect: a mirror of /dev/md3 on otter and weasel,
// synced at 30 MiB/s.
const GuideConf = `resource r0 {
  protocol C;
  startup { wfc-timeout 0; }
  disk { on-io-error detach; }
  net { on-disconnect reconnect; }
  syncer { rate 30M; }
  on otter {
    device /dev/drbd0;
    disk /dev/md3;
    address 10.0.0.1:7788;
    meta-disk internal;
  }
  on weasel {
    device /dev/drbd0;
    disk /dev/md3;
    address 10.0.0.2:7788;
    meta-disk internal;
  }
}
`

// AgentOptions says what InstallAgents puts on the nodes.
type AgentOptions struct {
	Binary   string   // santui-agent on the host
	DRBDConf string   // text of /etc/drbd.conf; empty: GuideConf
	FrontEnd string   // "nbd", "fuse", "ublk"; empty: nbd
	Nodes    []string // names of the nodes that get an agent; empty: all
	CreateMD bool     // write fresh metadata to the disks
	Settings string   // more of agent.toml, the same on all nodes
}

// InstallAgents installs santui-agent on the nodes, with settings, keys pinned both ways if two nodes get one, and
// drbd.conf, and makes metadata if asked. It starts nothing: see StartAgent.
func (l *Lab) InstallAgents(ctx context.Context, o AgentOptions) error {
	nodes, err := l.pick(o.Nodes)
	if err != nil {
		return err
	}
	if o.DRBDConf == "" {
		o.DRBDConf = GuideConf
	}
	if o.FrontEnd == "" {
		o.FrontEnd = "nbd"
	}
	keys := make([]string, len(nodes))
	for i, n := range nodes {
		if err := n.Put(ctx, o.Binary, agentPath); err != nil {
			return err
		}
		if err := n.WriteFile(ctx, "/etc/drbd.conf", []byte(o.DRBDConf), 0o600); err != nil {
			return err
		}
		if err := n.WriteFile(ctx, agentConfig, []byte(agentTOML(o.FrontEnd, n, nil, "")), 0o600); err != nil {
			return err
		}
		if keys[i], err = n.agentKey(ctx); err != nil {
			return err
		}
	}
	for i, n := range nodes {
		if len(nodes) == 2 {
			text := agentTOML(o.FrontEnd, n, nodes[1-i], keys[1-i]) + o.Settings
			if err := n.WriteFile(ctx, agentConfig, []byte(text), 0o600); err != nil {
				return err
			}
		}
		if o.CreateMD {
			if _, err := n.Run(ctx, "santui-agent", "create-md", "--force", "r0"); err != nil {
				return err
			}
		}
		if _, err := n.Run(ctx, "sync"); err != nil { // so that a power cut takes none of it back
			return err
		}
	}
	return nil
}

func (l *Lab) pick(names []string) ([]*Node, error) {
	if len(names) == 0 {
		return l.nodes, nil
	}
	var nodes []*Node
	for _, name := range names {
		n := l.Node(name)
		if n == nil {
			return nil, fmt.Errorf("lab: there is no node %q", name)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// agentTOML is an agent's settings file; without a peer it has no control port.
func agentTOML(frontEnd string, n, peer *Node, pin string) string {
	text := fmt.Sprintf("node = %q\npair = %q\nfront_end = %q\n", n.name, PairName, frontEnd)
	if peer != nil {
		text += fmt.Sprintf("[peer]\nlisten = \"%s:%d\"\naddress = \"%s:%d\"\npin = %q\n", n.Addr(), agentPort, peer.Addr(), agentPort, pin)
	}
	return text
}

// agentKey makes the agent's key if there is none, and returns the fingerprint that the peer pins.
func (n *Node) agentKey(ctx context.Context) (string, error) {
	res, err := n.Run(ctx, "santui-agent", "version")
	if err != nil {
		return "", err
	}
	_, key, ok := strings.Cut(res.Stdout, "\nkey ")
	if !ok {
		return "", fmt.Errorf("lab: %s: santui-agent version printed no key: %q", n.name, res.Stdout)
	}
	key, _, _ = strings.Cut(key, "\n")
	return strings.TrimSpace(key), nil
}

// StartAgent starts the node's agent in the background; its log is in /var/log/santui-agent.log.
func (n *Node) StartAgent(ctx context.Context) error {
	return n.Daemon(ctx, agentDaemon, "santui-agent", "run")
}

// StopAgent ends it with SIGTERM and waits until it is gone.
func (n *Node) StopAgent(ctx context.Context) error { return n.StopDaemon(ctx, agentDaemon) }

// AgentLog returns the end of the agent's log.
func (n *Node) AgentLog(ctx context.Context) string {
	text, err := n.Sh(ctx, "tail -n 40 /var/log/santui-agent.log")
	if err != nil {
		return err.Error()
	}
	return text
}

// CockpitConfig writes a configuration for santui (its --config) that reaches the agents of the first two nodes over
// ssh, and returns its path. It is removed with the lab.
func (l *Lab) CockpitConfig() (string, error) {
	if len(l.nodes) < 2 {
		return "", errors.New("lab: a pair needs two nodes")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[[pair]]\nname = %q\n", PairName)
	for _, n := range l.nodes[:2] {
		fmt.Fprintf(&b, "  [[pair.node]]\n  name = %q\n  ssh = %q\n  ssh_options = [\"-F\", %q]\n", n.name, n.name, l.SSHConfig())
	}
	path := filepath.Join(l.state.RunDir, "cockpit.toml")
	return path, writeFiles(map[string]string{path: b.String()})
}
