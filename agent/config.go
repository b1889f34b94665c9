package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"example.com/santui/datapath/export"
	"example.com/santui/proto"
)

// DefaultConfigPath is where the agent's own settings are.
const DefaultConfigPath = "/etc/santui/agent.toml"

// Config holds the agent's own settings; the resources are in drbd.conf.
type Config struct {
	Node     string `toml:"node"`      // this node's name in drbd.conf; default: the host name up to the first dot
	Pair     string `toml:"pair"`      // the pair's name, which an operator types to confirm; the same on both nodes
	DRBDConf string `toml:"drbd_conf"` // default /etc/drbd.conf
	StateDir string `toml:"state_dir"` // journal and identity; default /var/lib/santui
	RunDir   string `toml:"run_dir"`   // front ends; default /run/santui
	Socket   string `toml:"socket"`    // for cockpits on this node; default RunDir/agent.sock
	FrontEnd string `toml:"front_end"` // nbd or fuse; default: what the kernel offers
	Peer     Peer   `toml:"peer"`
	// HandlersMayHalt lets handlers of drbd.conf run that halt or reboot this node, as `halt -f` in 0.7's incon-degr-cmd.
	HandlersMayHalt bool `toml:"handlers_may_halt"`
	// InhibitShutdown holds a systemd inhibitor while this node is not safe to power off; default true.
	InhibitShutdown bool `toml:"inhibit_shutdown"`

	// Limits say how long steps of an operation to this node may take, seconds: unmount, deactivate, activate, mount.
	Limits map[proto.StepKind]float64 `toml:"limits"`

	// Resource says, by a resource's name in drbd.conf, what moves with it beyond its stack.
	Resource map[string]proto.Service `toml:"resource"`

	path, text string // of the file, for errors about what is only known to be wrong later
}

// Peer says how the two agents find and know each other.
type Peer struct {
	Listen  string `toml:"listen"`  // address of this agent's control port, "10.0.0.1:7789"
	Address string `toml:"address"` // the other agent's
	Pin     string `toml:"pin"`     // fingerprint of the other agent's key, as `santui-agent version` prints it there
}

// LoadConfig reads the settings and fills in defaults. An unknown key is an error. A missing file at the default place
// is not: the defaults then stand.
func LoadConfig(path string) (Config, error) {
	c := Config{InhibitShutdown: true, path: path}
	b, err := readSettings(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path == DefaultConfigPath:
	case err != nil:
		return c, fmt.Errorf("read the agent's settings: %w", err)
	}
	c.text = string(b)
	meta, err := toml.Decode(c.text, &c)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return c, fmt.Errorf("%s: %s", path, pe.ErrorWithPosition())
		}
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return c, c.unknown(extra[0])
	}
	if err := c.checkLimits(); err != nil {
		return c, err
	}
	for name, s := range c.Resource {
		if err := checkService(&s); err != nil {
			return c, c.serviceError(name, err)
		}
		c.Resource[name] = s
	}
	return c.withDefaults(path)
}

// minStepLimit and maxStepLimit bound what [limits] may say, seconds.
const (
	minStepLimit = 5
	maxStepLimit = 3600
)

func (c Config) checkLimits() error {
	for kind, l := range c.Limits {
		switch kind {
		case proto.StepUnmount, proto.StepDeactivate, proto.StepActivate, proto.StepMount:
		default:
			return fmt.Errorf("%s: [limits] %s: only unmount, deactivate, activate and mount have a limit to set", c.path, kind)
		}
		if !(l >= minStepLimit && l <= maxStepLimit) { // false for NaN too
			return fmt.Errorf("%s: [limits] %s = %v: %d to %d seconds are possible", c.path, kind, l, minStepLimit, maxStepLimit)
		}
	}
	return nil
}

// maxSettings bounds the settings file, bytes.
const maxSettings = 1 << 20

func readSettings(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the path
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err == nil && len(b) > maxSettings {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxSettings)
	}
	return b, err
}

func (c Config) unknown(key toml.Key) error {
	if len(key) < 3 || key[0] != sectionPrefix {
		return fmt.Errorf("%s: unknown setting %q (known: node, pair, drbd_conf, state_dir, run_dir, socket, front_end, handlers_may_halt, inhibit_shutdown, "+
			"[peer] listen, address, pin, [limits] unmount, deactivate, activate, mount, [resource.NAME])", c.path, key)
	}
	table := ""
	if len(key) > 3 {
		table = key[2]
	}
	at := c.path
	// The decoder does not say in which of several tables it is: the first that sets the key is named.
	for i := range maxEntries {
		if line := lineOf(c.text, key[1], table, i, key[len(key)-1]); line > 0 && setsKey(c.text, line, key[len(key)-1]) {
			at = fmt.Sprintf("%s:%d", c.path, line)
			break
		}
	}
	return fmt.Errorf("%s: unknown setting %q (a resource has units, scripts with name, stop, start, limit; address with address, interface; exports with path, client, options; keep)", at, key)
}

// serviceError says where in the file a resource's section is wrong.
func (c Config) serviceError(resource string, err error) error {
	at := c.path
	var se *settingError
	if errors.As(err, &se) {
		if line := lineOf(c.text, resource, se.table, se.index, se.key); line > 0 {
			at = fmt.Sprintf("%s:%d", c.path, line)
		}
	} else if line := lineOf(c.text, resource, "", 0, ""); line > 0 {
		at = fmt.Sprintf("%s:%d", c.path, line)
	}
	return fmt.Errorf("%s: %s.%s.%w", at, sectionPrefix, resource, err)
}

func (c Config) withDefaults(path string) (Config, error) {
	if c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("find this node's name: %w", err)
		}
		c.Node, _, _ = strings.Cut(host, ".")
	}
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.DRBDConf, "/etc/drbd.conf")
	def(&c.StateDir, "/var/lib/santui")
	def(&c.RunDir, "/run/santui")
	def(&c.Socket, filepath.Join(c.RunDir, "agent.sock"))
	switch export.Kind(c.FrontEnd) {
	case "", export.NBD, export.FUSE, export.Ublk:
	default:
		return c, fmt.Errorf("%s: front_end %q is not one of nbd, fuse", path, c.FrontEnd)
	}
	for name, p := range map[string]string{"state_dir": c.StateDir, "run_dir": c.RunDir, "socket": c.Socket} {
		if !filepath.IsAbs(p) {
			return c, fmt.Errorf("%s: %s %q is not an absolute path", path, name, p)
		}
	}
	if (c.Peer.Address == "") != (c.Peer.Listen == "") || (c.Peer.Address == "") != (c.Peer.Pin == "") {
		return c, fmt.Errorf("%s: [peer] needs listen, address and pin together", path)
	}
	return c, nil
}

// pairName is the name that confirms operations: as configured, or made of the two nodes' names, the same on both.
func (c Config) pairName(peer string) string {
	if c.Pair != "" {
		return c.Pair
	}
	return min(c.Node, peer) + "-" + max(c.Node, peer)
}

// Version is the agent's version, set by the linker.
var Version = "0.1-dev"

func (c Config) errorf(code proto.ErrorCode, format string, args ...any) *proto.Error {
	return proto.Errorf(code, format, args...).On(c.Node)
}
