package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/cmd/internal/demo"
)

// demoFlags are the options of `santui demo`.
type demoFlags struct {
	script bool
	size   string
	rate   string
}

func (a *app) demoCmd() *cobra.Command {
	var f demoFlags
	var opt cockpitFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "An embedded pair on this machine, with real agents and real data", Args: cobra.NoArgs,
		Long: "Starts two agents on this machine, each with its own mount namespace and disk file, lets them replicate, makes an\n" +
			"ext4 file system on the replicated device, fills it, and opens the cockpit. With --script, or without a terminal,\n" +
			"it runs a whole drill instead: full sync, fill, failover, verify, write more, failback, verify, and compares the\n" +
			"two disks. Everything it made is gone afterwards. It needs root.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			size := f.size
			if size == "" {
				size = "1G"
				if a.scripted(f) {
					size = "256M"
				}
			}
			bytes, err := parseSize(size)
			if err != nil {
				return err
			}
			if bytes < 16<<20 {
				return cli.Usagef("--size %s is too small: an ext4 file system and the metadata need 16M", size)
			}
			patient()
			if _, err := parseSize(f.rate); err != nil {
				return cli.Usagef("--rate: %w", err)
			}
			if err := opt.check(); err != nil {
				return err
			}
			if a.scripted(f) {
				return a.drill(cmd.Context(), demo.Options{Size: bytes, Rate: f.rate})
			}
			return a.demoCockpit(cmd.Context(), demo.Options{Size: bytes, Rate: f.rate}, opt)
		},
	}
	a.jsonFlag(cmd)
	cmd.Flags().BoolVar(&f.script, "script", false, "run a whole drill without a terminal")
	cmd.Flags().StringVar(&f.size, "size", "", "size of each node's disk (default 1G, with --script 256M)")
	cmd.Flags().StringVar(&f.rate, "rate", "30M", "rate of the first full sync, as in drbd.conf")
	opt.register(cmd)
	return cmd
}

// patient makes the demo live until it has taken itself down: a second ctrl-c does not kill it, nor does a reader of its
// output that has gone.
func patient() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE)
}

func (a *app) scripted(f demoFlags) bool {
	out, ok := a.stdout.(*os.File)
	in, okIn := a.stdin.(*os.File)
	return f.script || a.json || !ok || !okIn || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(in.Fd()))
}

// drill runs the script and prints the report. Progress goes to stderr when the report is JSON.
func (a *app) drill(ctx context.Context, o demo.Options) error {
	progress := a.stdout
	if a.json {
		progress = a.stderr
	}
	o.Say = demo.SayTo(progress)
	p, err := demo.Start(ctx, o)
	if err != nil {
		return err
	}
	rep, err := p.Drill(ctx, o.Size)
	if gone := p.Close(); gone != nil && err == nil {
		err, rep.OK, rep.Err = gone, false, gone.Error()
	}
	if a.json {
		if perr := cli.PrintJSON(a.stdout, rep); perr != nil {
			return perr
		}
	} else {
		printDrill(a.stdout, rep)
	}
	return err
}

func printDrill(w io.Writer, r demo.Report) {
	_, _ = fmt.Fprintf(w, "\nDrill of a pair of %d MiB disks, %.1f s\n", r.Size>>20, r.Seconds)
	for _, p := range r.Phases {
		_, _ = fmt.Fprintf(w, "  %7.2f s  %-30s %s\n", p.Seconds, p.Name, p.Detail)
	}
	for _, o := range r.Ops {
		_, _ = fmt.Fprintf(w, "\n%s of %s to %s: %s, service away %.2f s\n", o.Plan.Verb, o.Plan.Resource, o.Plan.To, o.State, o.Outage)
		for _, s := range o.Steps {
			_, _ = fmt.Fprintf(w, "  %7.2f s  %-8s %-10s %s\n", s.Result.Seconds, s.Step.Node, s.Step.Kind, s.Result.State)
		}
	}
	if r.OK {
		_, _ = fmt.Fprintf(w, "\nAll data verified on both sides: %d MiB read back, %d MiB of disk compared and identical.\n", r.Verified>>20, r.Compared>>20)
	} else {
		_, _ = fmt.Fprintf(w, "\nFAILED: %s\n", r.Err)
	}
}

// demoCockpit opens the cockpit on a fresh pair, while a filler gives it something to replicate.
func (a *app) demoCockpit(ctx context.Context, o demo.Options, opt cockpitFlags) error {
	o.Say = demo.SayTo(a.stdout)
	p, err := demo.Start(ctx, o)
	if err != nil {
		return err
	}
	goodbye := sync.OnceFunc(func() { _, _ = fmt.Fprintln(a.stdout, "taking the demo down ...") })
	defer func() {
		goodbye()
		if err := p.Close(); err != nil {
			_, _ = fmt.Fprintf(a.stderr, "santui: %v\n", err)
		}
	}()
	if err := p.StartSync(ctx); err != nil {
		return err
	}
	if err := p.MakeFS(ctx); err != nil {
		return err
	}
	fill, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Fill(fill, o.Size/4, filepath.Join(p.Dir, "fill.log"))
	}()
	err = a.runCockpit(ctx, p.CLI(), opt)
	goodbye() // before the filler's last write, which may take a while
	stop()
	<-done
	return err
}
