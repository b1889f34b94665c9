package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/tui/clean"
)

func (a *app) doctorCmd() *cobra.Command {
	var fix bool
	var confirm, resource string
	cmd := &cobra.Command{
		Use: "doctor", Short: "How LVM selects its devices on both nodes, and the filter that hides the backing disks", Args: cobra.NoArgs,
		Long: "Finds which of LVM's device selections is in force on each node (a devices file makes LVM ignore the filters), whether\n" +
			"LVM looks at the disk behind the replicated device, and how LVM and replication are stacked. What it would change is\n" +
			"shown; --fix with --confirm PAIR writes it. The old file is kept, and put back if LVM does not accept the new one.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.doctor(cmd.Context(), proto.DoctorRequest{Resource: resource, Fix: fix, Confirm: confirm, By: owner()})
		},
	}
	a.jsonFlag(cmd)
	cmd.Flags().BoolVar(&fix, "fix", false, "write what is proposed")
	cmd.Flags().StringVar(&confirm, "confirm", "", "the pair's name: the consent to --fix")
	cmd.Flags().StringVar(&resource, "resource", "", "the resource (default: the only one)")
	return cmd
}

// doctor asks both nodes; one that fails does not keep the other from being looked at.
func (a *app) doctor(ctx context.Context, req proto.DoctorRequest) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	if req.Fix && req.Confirm == "" {
		return proto.Errorf(proto.CodeNotConfirmed, "writing LVM's configuration is not confirmed").
			WithRemedy("look at what santui doctor proposes; --confirm %s is the consent", p.Name)
	}
	var replies []proto.DoctorReply
	var errs []error
	healthy := true
	for _, n := range p.Node {
		d, err := call[proto.DoctorReply](ctx, n, proto.MethodDoctor, req)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		healthy = healthy && d.Healthy
		replies = append(replies, d)
	}
	if a.json {
		err = cli.PrintJSON(a.stdout, map[string]any{"schema": proto.Schema, "nodes": replies})
	} else {
		for _, d := range replies {
			printDoctor(a.stdout, d)
		}
	}
	switch err = errors.Join(append(errs, err)...); {
	case err != nil:
		return err
	case !healthy:
		return cli.Exit(cli.ExitVeto, nil)
	default:
		return nil
	}
}

func printDoctor(w io.Writer, d proto.DoctorReply) {
	d = clean.Value(d) // names of mounts and volume groups are somebody else's text
	word := "healthy"
	if !d.Healthy {
		word = "NOT SAFE"
	}
	_, _ = fmt.Fprintf(w, "%s: %s: %s on %s, %s\n", d.Node, word, d.Device, d.Disk, d.Layout)
	for _, f := range d.Findings {
		_, _ = fmt.Fprintf(w, "  %s\n", f)
	}
	if d.Fix != nil && len(d.Fix.Diff) > 0 {
		verb := "would change"
		if d.Fix.Done {
			verb = "changed"
		}
		_, _ = fmt.Fprintf(w, "  %s %s:\n", verb, d.Fix.File)
		for _, l := range d.Fix.Diff {
			_, _ = fmt.Fprintf(w, "    %s\n", l)
		}
		if d.Fix.Backup != "" {
			_, _ = fmt.Fprintf(w, "  the old one is %s\n", d.Fix.Backup)
		}
	}
	if d.Hint != "" {
		_, _ = fmt.Fprintf(w, "  to do: %s\n", d.Hint)
	}
}

func (a *app) setupCmd() *cobra.Command {
	var req proto.SetupRequest
	var size string
	cmd := &cobra.Command{
		Use: "setup --vg VG --lv LV [--size SIZE] [--fs TYPE] [--mount DIR]", Short: "Make a volume group, a volume and a file system on the replicated device",
		Args: cobra.NoArgs,
		Long: "Runs pvcreate, vgcreate (autoactivation off), lvcreate, mkfs and mount on the Primary. It refuses a device that holds\n" +
			"anything else, a node whose LVM sees the backing disk (santui doctor), and names or directories that are taken. A set-up\n" +
			"that stopped is carried on by the same command. Without --confirm PAIR it shows the plan and asks for the pair's name.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.VG == "" || req.LV == "" {
				return cli.Usagef("--vg and --lv are needed")
			}
			if size != "" {
				if req.Size, err = parseSize(size); err != nil {
					return err
				}
			}
			req.Owner = owner()
			return a.setup(cmd.Context(), req)
		},
	}
	a.jsonFlag(cmd)
	fl := cmd.Flags()
	fl.StringVar(&req.VG, "vg", "", "name of the volume group")
	fl.StringVar(&req.LV, "lv", "", "name of the logical volume")
	fl.StringVar(&size, "size", "", "its size, for example 10G (default: all there is)")
	fl.StringVar(&req.FSType, "fs", "ext4", "file system: ext4 or xfs")
	fl.StringVar(&req.Mount, "mount", "", "where to mount it; the directory must be there on both nodes")
	fl.StringVar(&req.Resource, "resource", "", "the resource (default: the only one)")
	fl.StringVar(&req.Confirm, "confirm", "", "the pair's name: the consent")
	fl.BoolVar(&req.DryRun, "dry-run", false, "check and show the plan; nothing is changed")
	return cmd
}

func (a *app) setup(ctx context.Context, req proto.SetupRequest) error {
	n, err := a.primary(ctx, req.Resource)
	if err != nil {
		return err
	}
	if req.Confirm == "" && !req.DryRun {
		if req.Confirm, err = a.confirmSetup(ctx, n, req); err != nil {
			return err
		}
	}
	o, err := a.streamSetup(ctx, n, req, !a.json && !req.DryRun)
	if err != nil {
		return err
	}
	if req.DryRun && !a.json {
		printPlan(a.stdout, o.Plan)
	}
	return a.opEnd(o)
}

func (a *app) streamSetup(ctx context.Context, n cli.Node, req proto.SetupRequest, show bool) (proto.Op, error) {
	s, err := connect(ctx, n)
	if err != nil {
		return proto.Op{}, err
	}
	defer func() { _ = s.Close() }()
	var last proto.Op
	printed := map[string]bool{}
	err = s.Stream(ctx, proto.MethodSetup, req, func(raw json.RawMessage) error {
		last = proto.Op{}
		if err := json.Unmarshal(raw, &last); err != nil {
			return fmt.Errorf("an operation from %s cannot be read: %w", n.Name, err)
		}
		if show {
			a.printSteps(last, printed)
		}
		return nil
	})
	if err != nil && ctx.Err() != nil && last.ID != "" {
		_, _ = fmt.Fprintf(a.stderr, "santui: detached; the set-up goes on: santui attach %s\n", last.ID)
		return last, cli.Exit(cli.ExitDetached, nil)
	}
	return last, err
}

// confirmSetup shows the plan and asks for the pair's name.
func (a *app) confirmSetup(ctx context.Context, n cli.Node, req proto.SetupRequest) (string, error) {
	in, ok := a.stdin.(*os.File)
	if a.json || !ok || !term.IsTerminal(int(in.Fd())) {
		return "", proto.Errorf(proto.CodeNotConfirmed, "the set-up is not confirmed").
			WithRemedy("--confirm with the pair's name is the consent; --dry-run changes nothing")
	}
	req.DryRun = true
	o, err := a.streamSetup(ctx, n, req, false)
	if err != nil {
		return "", err
	}
	printPlan(a.stdout, o.Plan)
	_, _ = fmt.Fprintf(a.stdout, "\nType the pair's name, %s, to start: ", o.Plan.Pair)
	var typed string
	if _, err := fmt.Fscanln(in, &typed); err != nil {
		return "", proto.Errorf(proto.CodeNotConfirmed, "nothing was typed; nothing was done")
	}
	return typed, nil
}

// primary finds the node on which a resource is Primary.
func (a *app) primary(ctx context.Context, resource string) (cli.Node, error) {
	p, err := a.loadPair()
	if err != nil {
		return cli.Node{}, err
	}
	st := ask(ctx, p)
	for i, n := range st.Nodes {
		if n.Snapshot == nil {
			continue
		}
		for _, r := range n.Snapshot.Resources {
			if r.Role == proto.Primary && (resource == "" || r.Name == resource) {
				return p.Node[i], nil
			}
		}
	}
	if err := st.silent(); err != nil {
		return cli.Node{}, err
	}
	return cli.Node{}, proto.Errorf(proto.CodeState, "neither node is Primary").WithRemedy("santui sync start --from NODE makes a fresh pair's first copy")
}
