package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/santui/cmd/santui-lab/lab"
)

// stackScript builds the volume stack of the two-node guide on the Primary: a volume group on the replicated device, a
// logical volume, a file system with something in it.
const stackScript = `pvcreate -q /dev/drbd0
vgcreate -q storage /dev/drbd0
lvcreate -q -y -l 75%FREE -n test storage
mkfs.ext4 -q /dev/storage/test
mkdir -p /mnt/test
mount /dev/storage/test /mnt/test
for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/mnt/test/file-$i bs=1M count=4 status=none; done
sync
cd /mnt/test && sha256sum file-*`

// demo is a running demonstration.
type demo struct {
	app    *app
	lab    *lab.Lab
	santui string
	config string
}

func (a *app) demoCmd() *cobra.Command {
	var bin string
	cmd := &cobra.Command{
		Use: "demo", Short: "The cockpit over two lab nodes with LVM on the replicated device", Args: cobra.NoArgs,
		Long: "Boots a lab of its own, runs santui-agent on both nodes with the two-node guide's drbd.conf and the NBD front end,\n" +
			"starts the first full sync, builds the guide's LVM stack on otter and opens the cockpit. Without a terminal it moves\n" +
			"the service to weasel and back instead and compares the files. Everything it made is gone afterwards.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), bin) },
	}
	cmd.Flags().StringVar(&bin, "bin", "", "folder with santui and santui-agent (default: where santui-lab is)")
	return cmd
}

func (a *app) demo(ctx context.Context, bin string) (err error) {
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		bin = filepath.Dir(self)
	}
	santui, err := lab.FindBinary(bin, "santui")
	if err != nil {
		return err
	}
	agent, err := lab.FindBinary(bin, "santui-agent")
	if err != nil {
		return err
	}
	if err := lab.Install(ctx, a.stderr); err != nil {
		return err
	}
	a.say("booting otter and weasel ...")
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d := &demo{app: a, lab: l, santui: santui}
	if d.config, err = l.CockpitConfig(); err != nil {
		return err
	}
	if err := d.prepare(ctx, agent); err != nil {
		return err
	}
	if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
		return d.cockpit(ctx)
	}
	return d.drill(ctx)
}

func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.stdout, format+"\n", args...) }

// prepare brings the pair to the point where there is something to look at.
func (d *demo) prepare(ctx context.Context, agent string) error {
	d.app.say("starting the agents ...")
	if err := d.lab.InstallAgents(ctx, lab.AgentOptions{Binary: agent, CreateMD: true}); err != nil {
		return err
	}
	for _, n := range d.lab.Nodes() {
		if err := n.StartAgent(ctx); err != nil {
			return err
		}
	}
	if err := d.patiently(ctx, 30*time.Second, "sync", "start", "--from", "otter", "--confirm", lab.PairName); err != nil {
		return err
	}
	d.app.say("building the volume stack on otter ...")
	otter := d.lab.Node("otter")
	if _, err := d.lab.Node("weasel").Run(ctx, "mkdir", "-p", "/mnt/test"); err != nil {
		return err
	}
	if _, err := otter.Sh(ctx, "for i in $(seq 100); do blockdev --getsize64 /dev/drbd0 >/dev/null 2>&1 && exit; sleep 0.1; done; ls -l /dev/drbd0"); err != nil {
		return fmt.Errorf("the replicated device does not appear on otter: %w\n%s", err, otter.AgentLog(ctx))
	}
	_, err := otter.Sh(ctx, stackScript)
	return err
}

// command prepares a santui command line over this lab's pair.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, d.santui, append([]string{"--config", d.config}, args...)...)
}

// patiently repeats a command until it succeeds: agents take a moment to find each other.
func (d *demo) patiently(ctx context.Context, limit time.Duration, args ...string) error {
	deadline := time.Now().Add(limit)
	for {
		out, err := d.command(ctx, args...).CombinedOutput()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("santui %s: %w: %s\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)), d.logs(ctx))
		}
		time.Sleep(300 * time.Millisecond)
	}
}

func (d *demo) logs(ctx context.Context) string {
	var b strings.Builder
	for _, n := range d.lab.Nodes() {
		fmt.Fprintf(&b, "agent of %s:\n%s\n", n.Name(), n.AgentLog(ctx))
	}
	return b.String()
}

// cockpit gives the terminal to santui until it ends.
func (d *demo) cockpit(ctx context.Context) error {
	cmd := d.command(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// drill waits for the sync, then moves the service to weasel and back.
func (d *demo) drill(ctx context.Context) error {
	want, err := d.lab.Node("otter").Sh(ctx, "cd /mnt/test && sha256sum file-*")
	if err != nil {
		return err
	}
	for _, to := range []string{"weasel", "otter"} {
		d.app.say("moving the service to %s ...", to)
		began := time.Now()
		if err := d.patiently(ctx, 2*time.Minute, "failover", "--to", to, "--confirm", lab.PairName); err != nil {
			return err
		}
		got, err := d.lab.Node(to).Sh(ctx, "mountpoint -q /mnt/test && cd /mnt/test && sha256sum file-*")
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("the files on %s are not those written on otter:\n%s", to, got)
		}
		d.app.say("  %.1f s, every file as written", time.Since(began).Seconds())
	}
	return nil
}
