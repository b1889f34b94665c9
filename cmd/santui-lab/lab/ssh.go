package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// sshUnreachable is ssh's own exit code when it could not run the command at all.
const sshUnreachable = 255

// ErrUnreachable: the node does not answer (off, booting, or its sshd is gone).
var ErrUnreachable = errors.New("lab: the node does not answer")

// ExitError is a command that ran in a node and failed.
type ExitError struct {
	Node   string
	Argv   []string
	Code   int
	Stderr string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("lab: %s: %s: exit code %d: %s", e.Node, strings.Join(e.Argv, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// Result is what a command left behind.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// sshConfig is the client configuration with which plain `ssh -F FILE otter` works from anywhere on the host: the
// proxy command steps into the lab's namespace.
func sshConfig(s *state) string {
	var b strings.Builder
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, "Host %s\n  HostName %s\n  HostKeyAlias %s\n", n.Name, n.Mgmt, n.Name)
	}
	fmt.Fprintf(&b, `Host *
  User root
  IdentityFile %[1]s/key
  IdentitiesOnly yes
  UserKnownHostsFile %[1]s/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  PreferredAuthentications publickey
  BatchMode yes
  LogLevel ERROR
  ConnectTimeout 5
  ServerAliveInterval 5
  ControlPath %[1]s/cm-%%n
  ProxyCommand ip netns exec %[2]s %[3]s nc %%h %%p
`, s.RunDir, s.Namespace, busybox)
	return b.String()
}

// makeKeys makes the lab's own key pair and the nodes' host key, and the files that trust them.
func makeKeys(ctx context.Context, s *state) error {
	private := filepath.Join(s.Dir, shareName, privateName)
	for file, comment := range map[string]string{
		filepath.Join(s.RunDir, "key"): "lab", filepath.Join(private, "host_key"): "node",
	} {
		if err := hostRun(ctx, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file); err != nil {
			return err
		}
	}
	public, err := os.ReadFile(filepath.Join(s.RunDir, "key.pub"))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	host, err := os.ReadFile(filepath.Join(private, "host_key.pub"))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	var known strings.Builder
	for _, n := range s.Nodes {
		fmt.Fprintf(&known, "%s %s\n", n.Name, bytes.TrimSpace(host))
	}
	return writeFiles(map[string]string{
		filepath.Join(private, "authorized_keys"): string(public),
		filepath.Join(s.RunDir, "known_hosts"):    known.String(),
		filepath.Join(s.RunDir, "ssh_config"):     sshConfig(s),
	})
}

// startMaster opens the connection that later commands share; without it they would pay 0.2 s each.
func startMaster(ctx context.Context, runDir, node string) error {
	cmd := exec.CommandContext(ctx, "ssh", "-F", filepath.Join(runDir, "ssh_config"), "-M", "-N", "-f", node)
	errFile, err := os.CreateTemp(runDir, "master-")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = os.Remove(errFile.Name()) }()
	defer func() { _ = errFile.Close() }()
	// A file, not a pipe: the master keeps its standard error open for life and a pipe would never end.
	cmd.Stderr = errFile
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(errFile.Name())
		return fmt.Errorf("%w: %s: ssh: %w: %s", ErrUnreachable, node, err, bytes.TrimSpace(text))
	}
	return nil
}

// stopMaster ends the shared connection, whether the node still lives or not.
func stopMaster(runDir, node string) {
	socket := filepath.Join(runDir, "cm-"+node)
	if _, err := os.Lstat(socket); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// Fails when the master is gone already, which is the aim.
	_ = exec.CommandContext(ctx, "ssh", "-F", filepath.Join(runDir, "ssh_config"), "-O", "exit", node).Run()
	_ = os.Remove(socket)
}

// shellQuote makes one word of the node's shell out of s.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,@%+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func shellWords(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = shellQuote(a)
	}
	return strings.Join(words, " ")
}

// sshArgs is the host's command line that runs argv in the node.
func sshArgs(runDir, node string, argv []string) []string {
	return []string{"ssh", "-F", filepath.Join(runDir, "ssh_config"), node, "--", shellWords(argv)}
}

// Command prepares argv to run in the node, for callers that want the pipes. ssh joins arguments with blanks and the
// node's shell splits them again, so each is quoted here.
func (n *Node) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := sshArgs(n.lab.state.RunDir, n.name, argv)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs argv in the node and waits for its end. The error is an *ExitError when it ran and failed, ErrUnreachable
// when the node does not answer. When ctx ends first, only the connection ends: the command may go on in the node.
func (n *Node) Run(ctx context.Context, argv ...string) (Result, error) {
	return n.RunInput(ctx, nil, argv...)
}

// RunInput is Run with something on the command's standard input.
func (n *Node) RunInput(ctx context.Context, stdin io.Reader, argv ...string) (Result, error) {
	cmd := n.Command(ctx, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	res := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return res, nil
	case ctx.Err() != nil:
		return res, fmt.Errorf("lab: %s: %s: %w", n.name, strings.Join(argv, " "), ctx.Err())
	case !errors.As(err, &exit):
		return res, fmt.Errorf("lab: %s: %s: %w", n.name, strings.Join(argv, " "), err)
	}
	res.Code = exit.ExitCode()
	if res.Code == sshUnreachable {
		return res, fmt.Errorf("%w: %s: %s", ErrUnreachable, n.name, strings.TrimSpace(res.Stderr))
	}
	return res, &ExitError{Node: n.name, Argv: argv, Code: res.Code, Stderr: res.Stderr + lastLines(res.Stdout, 5)}
}

// Sh runs a shell script in the node (sh -ec) and returns its standard output without the final line break.
func (n *Node) Sh(ctx context.Context, script string) (string, error) {
	res, err := n.Run(ctx, "sh", "-ec", script)
	return strings.TrimRight(res.Stdout, "\n"), err
}

// SSHConfig is the ssh client configuration file with which `ssh -F FILE NODE` works from the host.
func (l *Lab) SSHConfig() string { return filepath.Join(l.state.RunDir, "ssh_config") }

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func writeFiles(files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// SSH is the host's command line for a shell in the node, or for argv if there is one; tty asks for a terminal.
func (n *Node) SSH(tty bool, argv ...string) []string {
	args := []string{"ssh", "-F", n.lab.SSHConfig()}
	if tty {
		args = append(args, "-t")
	}
	args = append(args, n.name)
	if len(argv) > 0 {
		args = append(args, "--", shellWords(argv))
	}
	return args
}
