package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"sync/atomic"
	"syscall"

	_ "example.com/santui/tui/quiet" // before anything that imports bubbletea: keeps it from asking the terminal questions

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// app is what all commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	config         string
	pair           string // of the --pair flag
	json           bool
}

// run executes one command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var sig atomic.Int32
	ctx, cancel := withSignals(&sig)
	defer cancel()
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.InitDefaultCompletionCmd()
	cli.UsageErrors(root)
	err := root.ExecuteContext(ctx)
	if s := syscall.Signal(sig.Load()); s != 0 && !spoken(err) {
		return 128 + int(s)
	}
	if err != nil {
		cli.PrintError(stdout, stderr, "santui", err, a.json || slices.Contains(args, "--json"))
	}
	return cli.CodeOf(err)
}

// spoken says whether a command has already told its outcome, which then counts more than the signal that came meanwhile.
func spoken(err error) bool {
	var exit *cli.ExitError
	return errors.As(err, &exit) && exit.Err == nil
}

// withSignals ends the context at HUP, INT or TERM and remembers which it was.
func withSignals(got *atomic.Int32) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case s := <-ch:
			if n, ok := s.(syscall.Signal); ok {
				got.Store(int32(n))
			}
			cancel()
		case <-ctx.Done():
		}
		signal.Stop(ch)
	}()
	return ctx, cancel
}

func (a *app) root() *cobra.Command {
	var opt cockpitFlags
	root := &cobra.Command{
		Use:   "santui [PAIR]",
		Short: "A cockpit over two nodes that replicate a block device",
		Long: "santui shows both nodes of a replicating pair side by side and moves the service from one to the other,\n" +
			"step by step, with the exact commands before, during and after. Without a subcommand it opens the cockpit.",
		Version:       cli.Version,
		Args:          cobra.MaximumNArgs(1),
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.pair = args[0]
			}
			return a.cockpit(cmd.Context(), opt)
		},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Exit(cli.ExitUsage, err) })
	pf := root.PersistentFlags()
	pf.StringVar(&a.config, "config", "", "the cockpit's configuration (default $XDG_CONFIG_HOME/santui/config.toml)")
	pf.StringVar(&a.pair, "pair", "", "the pair to work on (default: the first one configured)")
	opt.register(root)
	root.AddCommand(a.resourceCmds()...)
	root.AddCommand(a.statusCmd(), a.watchCmd(), a.checkCmd(), a.failoverCmd(), a.drillCmd(), a.takeoverCmd(), a.rejoinCmd(), a.resolveCmd(), a.undoCmd(),
		a.syncCmd(), a.verifyCmd(), a.opsCmd(), a.attachCmd(),
		a.reportCmd(), a.commandsCmd(), a.explainCmd(), a.configCmd(), a.doctorCmd(), a.setupCmd(), a.demoCmd())
	return root
}

func (a *app) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
}

// owner names whoever gives the commands, for locks, journals and reports.
func owner() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
