package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	homedir "github.com/mitchellh/go-homedir"

	"example.com/santui/proto/session"
)

// Pairs is the cockpit's configuration.
type Pairs struct {
	Pair []Pair `toml:"pair"`
	path string
}

// Pair names two nodes and how to reach their agents.
type Pair struct {
	Name string `toml:"name"`
	Node []Node `toml:"node"`
}

// Node says how to reach one agent: by ssh to a destination (the default, the node's own name), through a Unix socket on
// this machine, or by a program whose standard streams are the connection.
type Node struct {
	Name       string   `toml:"name"`
	SSH        string   `toml:"ssh"`
	SSHOptions []string `toml:"ssh_options"`
	Socket     string   `toml:"socket"`
	Command    []string `toml:"command"`
}

// ConfigPath is where the cockpit's configuration is: flag, SANTUI_CONFIG, XDG_CONFIG_HOME, ~/.config, in this order.
func ConfigPath(flag string) (string, error) {
	for _, p := range []string{flag, os.Getenv("SANTUI_CONFIG")} {
		if p != "" {
			return homedir.Expand(p)
		}
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = "~/.config"
	}
	dir, err := homedir.Expand(dir)
	if err != nil {
		return "", fmt.Errorf("find the home directory: %w", err)
	}
	return filepath.Join(dir, "santui", "config.toml"), nil
}

// LoadPairs reads the configuration at path.
func LoadPairs(path string) (Pairs, error) {
	c := Pairs{path: path}
	meta, err := toml.DecodeFile(path, &c)
	var pe toml.ParseError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, Usagef("there is no %s: it names the pairs, for example\n\n%s", path, Example)
	case errors.As(err, &pe):
		return c, Usagef("%s: %s", path, pe.ErrorWithPosition())
	case err != nil:
		return c, Usagef("read %s: %w", path, err)
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return c, Usagef("%s: unknown setting %q", path, extra[0])
	}
	return c, c.check()
}

// Example is a configuration that works once the names are right.
const Example = `[[pair]]
name = "store-1"
  [[pair.node]]
  name = "otter"
  ssh  = "root@otter"
  [[pair.node]]
  name = "weasel"
  ssh  = "root@weasel"
`

func (c Pairs) check() error {
	seen := map[string]bool{}
	for _, p := range c.Pair {
		switch {
		case p.Name == "":
			return Usagef("%s: a pair has no name", c.path)
		case seen[p.Name]:
			return Usagef("%s: pair %s is there twice", c.path, p.Name)
		case len(p.Node) != 2:
			return Usagef("%s: pair %s has %d nodes; a pair has two", c.path, p.Name, len(p.Node))
		case p.Node[0].Name == "" || p.Node[0].Name == p.Node[1].Name:
			return Usagef("%s: the nodes of pair %s need two different names", c.path, p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// Find returns the pair by name; "" means the only one, or the first.
func (c Pairs) Find(name string) (Pair, error) {
	var names []string
	for _, p := range c.Pair {
		if p.Name == name || name == "" {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return Pair{}, Usagef("%s names no pair, for example\n\n%s", c.path, Example)
	}
	return Pair{}, Usagef("pair %q is not in %s (there is %s)", name, c.path, strings.Join(names, ", "))
}

// Find returns a node of the pair by name.
func (p Pair) Find(name string) (Node, error) {
	for _, n := range p.Node {
		if n.Name == name {
			return n, nil
		}
	}
	return Node{}, Usagef("%q is not a node of pair %s (there are %s and %s)", name, p.Name, p.Node[0].Name, p.Node[1].Name)
}

// ByProgram says whether the way to the agent is another program, such as ssh.
func (n Node) ByProgram() bool { return n.Socket == "" }

// Dial opens a connection to the node's agent.
func (n Node) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	switch {
	case n.Socket != "":
		path, err := homedir.Expand(n.Socket)
		if err != nil {
			return nil, Usagef("socket of %s: %w", n.Name, err)
		}
		return session.DialUnix(ctx, path)
	case len(n.Command) > 0:
		return session.DialCommand(ctx, n.Command)
	case n.SSH != "":
		return session.DialSSH(ctx, n.SSH, n.SSHOptions...)
	default:
		return session.DialSSH(ctx, n.Name, n.SSHOptions...)
	}
}
