package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/santui/agent"
	"example.com/santui/cmd/internal/cli"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto/session"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	settings       string
	drbdConf       string
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use: "santui-agent", Short: "The daemon of one node of a replicating pair", Version: agent.Version,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return cli.Usagef("which command? see santui-agent --help") },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Exit(cli.ExitUsage, err) })
	root.PersistentFlags().StringVar(&a.settings, "config", agent.DefaultConfigPath, "the agent's own settings")
	root.PersistentFlags().StringVar(&a.drbdConf, "drbd-conf", "", "the resources (default: as in the settings, else /etc/drbd.conf)")
	root.AddCommand(a.runCmd(), a.connectCmd(), a.checkConfigCmd(), a.createMDCmd(), a.dumpMDCmd(), a.waitCmd(), a.bundleCmd(), a.versionCmd())
	cli.UsageErrors(root)
	err := root.Execute()
	if err != nil {
		cli.PrintError(stdout, stderr, "santui-agent", err, false)
	}
	return cli.CodeOf(err)
}

func (a *app) load() (agent.Config, error) {
	c, err := agent.LoadConfig(a.settings)
	if err != nil {
		return c, cli.Exit(cli.ExitUsage, err)
	}
	if a.drbdConf != "" {
		c.DRBDConf = a.drbdConf
	}
	return c, nil
}

func (a *app) runCmd() *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Bring the resources up and serve until TERM", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(a.stderr, nil))
			waitAside()
			ag, err := agent.New(cfg, log)
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer stop()
			if err := ag.Run(ctx); err != nil && ctx.Err() == nil {
				return cli.Exit(cli.ExitVeto, fmt.Errorf("%s: %w", cfg.Node, err)) // it could not begin to serve
			} else if err != nil {
				// Asked to stop, it had to leave a device in use.
				return cli.Exit(cli.ExitAttention, errors.Join(err, abandon(cfg.RunDir)))
			}
			return nil
		},
	}
}

// waitAside lets goroutines go on while others wait for a disk. Such a one keeps its share of GOMAXPROCS until Go's
// monitor takes it away, which on a machine with a coarse timer is after 10 ms; on one CPU everything would wait with it.
func waitAside() {
	const least = 4
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < least {
		runtime.GOMAXPROCS(least)
	}
}

func (a *app) connectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "connect", Short: "Join standard input and output to the agent's socket", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			conn, err := session.DialUnix(cmd.Context(), cfg.Socket)
			if err != nil {
				return cli.Exit(cli.ExitUnreachable, fmt.Errorf("is santui-agent running on this node? %w", err))
			}
			return join(conn, a.stdin, a.stdout)
		},
	}
}

// join copies both ways until either side ends.
func join(conn io.ReadWriteCloser, in io.Reader, out io.Writer) error {
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, in)
		done <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		done <- err
	}()
	err := <-done
	return errors.Join(err, conn.Close())
}

func (a *app) checkConfigCmd() *cobra.Command {
	return &cobra.Command{
		Use: "check-config", Short: "Read the settings and drbd.conf and say what they mean on this node", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			lines, err := agent.Describe(cfg)
			for _, l := range lines {
				_, _ = fmt.Fprintln(a.stdout, l)
			}
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			return nil
		},
	}
}

func (a *app) createMDCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "create-md RESOURCE", Short: "Write fresh metadata where drbd.conf says", Args: cobra.ExactArgs(1),
		Long: "Writes DRBD v08 metadata at the end of the resource's disk, or on the device that meta-disk names. A device that holds\n" +
			"DRBD metadata or anything recognisable where the metadata would go is refused without --force. The resource must be\n" +
			"down on this node, and so must all that have metadata on the same device.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBacking(args[0], func(b *agent.Backing) error {
				err := meta.Create(cmd.Context(), b.Disk, meta.CreateOptions{Force: force, MetaDisk: b.MetaDisk})
				switch {
				case errors.Is(err, meta.ErrMetadataExists), errors.Is(err, meta.ErrDataExists):
					return fmt.Errorf("create-md on %s: %w (--force, which destroys it)", b.Where, err)
				case err != nil:
					return fmt.Errorf("create-md on %s: %w", b.Where, err)
				}
				_, err = fmt.Fprintf(a.stdout, "metadata written to %s\n", b.Where)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "overwrite what is there")
	return cmd
}

func (a *app) dumpMDCmd() *cobra.Command {
	return &cobra.Command{
		Use: "dump-md RESOURCE", Short: "Show the metadata of the resource's disk", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withBacking(args[0], func(b *agent.Backing) error {
				text, err := describeMD(b)
				if err != nil {
					return fmt.Errorf("dump-md of %s: %w", b.Where, err)
				}
				_, err = fmt.Fprint(a.stdout, text)
				return err
			})
		},
	}
}

// withBacking opens the devices of a resource for itself alone: a resource that is up is refused.
func (a *app) withBacking(name string, f func(b *agent.Backing) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	b, err := agent.BackingOf(cfg, name)
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err = b.Open(); err == nil {
		err = errors.Join(f(b), b.Close())
	}
	if err != nil {
		return cli.Exit(cli.ExitVeto, fmt.Errorf("%s on %s: %w", name, cfg.Node, err))
	}
	return nil
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "This build, and the fingerprint that the peer must pin", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			id, err := agent.EnsureIdentity(cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "santui-agent %s\nkey %s\n", agent.Version, id.Fingerprint)
			return err
		},
	}
}

func (a *app) bundleCmd() *cobra.Command {
	return &cobra.Command{
		Use: "support-bundle", Short: "What a report of a problem needs, without secrets, on standard output", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			lines, err := agent.Describe(cfg)
			_, _ = fmt.Fprintf(a.stdout, "santui-agent %s\n\n%s\n", agent.Version, strings.Join(lines, "\n"))
			if err != nil {
				_, _ = fmt.Fprintln(a.stdout, err)
			}
			return bundle(cmd.Context(), cfg, a.stdout)
		},
	}
}
