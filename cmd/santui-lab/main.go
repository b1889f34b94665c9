package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/cmd/santui-lab/lab"
)

const defaultDir = "/var/tmp/santui-lab"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// app is what the verbs share.
type app struct {
	stdout, stderr io.Writer
	dir            string
	drbd           []string
	diskSize       int64
	memory         string
	json           bool
}

// run executes one command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	var got atomic.Int32
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok {
				got.Store(int32(n))
			}
			cancel()
		case <-ctx.Done():
		}
	}()
	a := &app{stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if s := int(got.Load()); s != 0 && err != nil {
		return 128 + s
	}
	if err != nil {
		cli.PrintError(stdout, stderr, "santui-lab", err, false)
	}
	return codeOf(err)
}

func codeOf(err error) int {
	switch {
	case errors.Is(err, lab.ErrPrerequisite), errors.Is(err, lab.ErrNoLab), errors.Is(err, lab.ErrExists), errors.Is(err, lab.ErrNoBinary):
		return cli.ExitUsage
	case errors.Is(err, lab.ErrUnreachable):
		return cli.ExitUnreachable
	case errors.Is(err, lab.ErrBusy):
		return cli.ExitLocked
	default:
		return cli.CodeOf(err)
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "santui-lab", Short: "Two nodes with real kernels on this machine, for development and trying out",
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return cli.Usagef("which command? see santui-lab --help") },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Exit(cli.ExitUsage, err) })
	root.PersistentFlags().StringVar(&a.dir, "dir", defaultDir, "the lab's directory: disks, logs, the shared folder")
	root.AddCommand(a.installCmd(), a.upCmd(), a.statusCmd(), a.shCmd(), a.downCmd(), a.demoCmd())
	root.AddCommand(
		a.labCmd("cut", "Pull the cable between the nodes", (*lab.Lab).Cut),
		a.labCmd("heal", "Plug it in again", (*lab.Lab).Heal),
		a.nodeCmd("kill NODE", "Power cut", func(_ context.Context, n *lab.Node) error { return n.Kill() }),
		a.nodeCmd("stop NODE", "Sync and power off", func(ctx context.Context, n *lab.Node) error { return n.Stop(ctx) }),
		a.nodeCmd("start NODE", "Boot a node that is off", func(ctx context.Context, n *lab.Node) error { return n.Start(ctx) }),
	)
	return root
}

func (a *app) logger() *slog.Logger { return slog.New(slog.NewTextHandler(a.stderr, nil)) }

func (a *app) installCmd() *cobra.Command {
	return &cobra.Command{
		Use: "install", Short: "Get the Debian packages the lab needs; no service is started or enabled", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lab.Install(cmd.Context(), a.stderr) },
	}
}

func (a *app) buildFlags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&a.drbd, "drbd", nil, "nodes that run the kernel's DRBD, for example otter,weasel")
	cmd.Flags().Int64Var(&a.diskSize, "disk", lab.DefaultDiskSize, "bytes of each node's disk")
	cmd.Flags().StringVar(&a.memory, "memory", "512M", "memory of each node")
}

func (a *app) upCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", Short: "Boot both nodes in the background", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Install(cmd.Context(), a.stderr); err != nil {
				return err
			}
			l, err := lab.Start(cmd.Context(), lab.Options{
				Dir: a.dir, DRBD: a.drbd, DiskSize: a.diskSize, Memory: a.memory, Persistent: true, Log: a.logger(),
			})
			if err != nil {
				return err
			}
			return errors.Join(a.show(l), l.Release())
		},
	}
	a.buildFlags(cmd)
	return cmd
}

// nodeInfo and labInfo are the document of `status --json`.
type nodeInfo struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Running bool   `json:"running"`
	Disk    string `json:"disk"`
}

type labInfo struct {
	Namespace string     `json:"namespace"`
	Dir       string     `json:"dir"`
	Share     string     `json:"share"`
	SSHConfig string     `json:"ssh_config"`
	Nodes     []nodeInfo `json:"nodes"`
}

func (a *app) show(l *lab.Lab) error {
	info := labInfo{Namespace: l.Namespace(), Dir: l.Dir(), Share: l.ShareDir(), SSHConfig: l.SSHConfig()}
	for _, n := range l.Nodes() {
		info.Nodes = append(info.Nodes, nodeInfo{Name: n.Name(), Addr: n.Addr(), Running: n.Running(), Disk: n.DiskImage()})
	}
	if a.json {
		return cli.PrintJSON(a.stdout, info)
	}
	for _, n := range info.Nodes {
		word := "off"
		if n.Running {
			word = "running"
		}
		if _, err := fmt.Fprintf(a.stdout, "%-12s %-11s %-8s disk %s\n", n.Name, n.Addr, word, n.Disk); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.stdout, "network namespace %s, shared folder /srv = %s\nshell: santui-lab sh NODE, or ssh -F %s NODE\n",
		info.Namespace, info.Share, info.SSHConfig)
	return err
}

func (a *app) statusCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "The nodes, and how to reach them", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := lab.Peek(a.dir)
			if err != nil {
				return err
			}
			return a.show(l)
		},
	}
	cmd.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
	return cmd
}

// shCmd becomes ssh, so that terminal, signals and exit code are the command's own.
func (a *app) shCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sh NODE [CMD [ARG]...]", Short: "A shell in a node, or one command", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Peek(a.dir)
			if err != nil {
				return err
			}
			n, err := findNode(l, args[0])
			if err != nil {
				return err
			}
			argv := n.SSH(term.IsTerminal(int(os.Stdin.Fd())), args[1:]...)
			ssh, err := exec.LookPath(argv[0])
			if err != nil {
				return err
			}
			return fmt.Errorf("run %s: %w", ssh, syscall.Exec(ssh, argv, os.Environ()))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func findNode(l *lab.Lab, name string) (*lab.Node, error) {
	if n := l.Node(name); n != nil {
		return n, nil
	}
	var names []string
	for _, n := range l.Nodes() {
		names = append(names, n.Name())
	}
	return nil, cli.Usagef("there is no node %q in this lab (there are %v)", name, names)
}

func (a *app) withLab(f func(*lab.Lab) error) error {
	l, err := lab.Open(a.dir, a.logger())
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Release())
}

func (a *app) labCmd(use, short string, do func(*lab.Lab, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withLab(func(l *lab.Lab) error { return do(l, cmd.Context()) })
		},
	}
}

func (a *app) nodeCmd(use, short string, do func(context.Context, *lab.Node) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withLab(func(l *lab.Lab) error {
				n, err := findNode(l, args[0])
				if err != nil {
					return err
				}
				return do(cmd.Context(), n)
			})
		},
	}
}

func (a *app) downCmd() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Kill the nodes and remove all that the lab made, disks included", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := lab.Open(a.dir, a.logger())
			if err != nil {
				return err
			}
			return l.Close()
		},
	}
}
