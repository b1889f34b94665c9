package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

func (a *app) verifyCmd() *cobra.Command {
	verify := &cobra.Command{Use: "verify", Short: "Compare both copies while applications go on: start, stop, status, repair"}
	var resource, on, offset, from, confirm string
	var wait bool
	verify.PersistentFlags().StringVar(&resource, "resource", "", "the resource (default: the only one)")

	start := &cobra.Command{
		Use: "start", Short: "Read and compare both copies", Args: cobra.NoArgs,
		Long: "Both copies are read, block by block, at the resync rate, and compared by digests (verify-alg in drbd.conf). What differs is\n" +
			"marked out of sync; nothing is repaired. With --wait, exit code 3 says that something differs.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := proto.VerifyRequest{Resource: resource, Action: proto.VerifyStart, By: owner()}
			if offset != "" && offset != "0" {
				var err error
				if req.From, err = parseSize(offset); err != nil {
					return err
				}
			}
			return a.verifyStart(cmd.Context(), req, on, wait)
		},
	}
	start.Flags().StringVar(&on, "on", "", "the node that compares (default: the first that answers)")
	start.Flags().StringVar(&offset, "offset", "", "where to begin: bytes, with K, M or G")
	start.Flags().BoolVar(&wait, "wait", false, "wait for the outcome")

	stop := &cobra.Command{
		Use: "stop", Short: "End a running verify", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.verifyStop(cmd.Context(), proto.VerifyRequest{Resource: resource, Action: proto.VerifyStop, By: owner()})
		},
	}
	status := &cobra.Command{
		Use: "status", Short: "Progress and the last outcome, as each node knows them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verifyStatus(cmd.Context()) },
	}
	a.jsonFlag(status)
	repair := &cobra.Command{
		Use: "repair --from NODE --confirm PAIR", Short: "Copy what is marked out of sync from NODE over the other copy", Args: cobra.NoArgs,
		Long: "The blocks that a verify found to differ are resynchronised from NODE; what the other node has there is lost. The link is\n" +
			"down for a moment. The other node must not be Primary.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.goodCopy(from)
			if err != nil {
				return err
			}
			_, err = call[proto.Empty](cmd.Context(), n, proto.MethodVerify,
				proto.VerifyRequest{Resource: resource, Action: proto.VerifyRepair, Confirm: confirm, By: owner()})
			return err
		},
	}
	repair.Flags().StringVar(&from, "from", "", "the node whose copy is the good one")
	repair.Flags().StringVar(&confirm, "confirm", "", "the pair's name: the consent")
	verify.AddCommand(start, stop, status, repair)
	return verify
}

// verifyStart starts a verify on a node, and with wait follows it to its end.
func (a *app) verifyStart(ctx context.Context, req proto.VerifyRequest, on string, wait bool) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	node := cli.Node{}
	if on != "" {
		node, err = p.Find(on)
	} else {
		node, err = a.firstReachable(ctx, p)
	}
	if err != nil {
		return err
	}
	before, err := lookAt(ctx, node, req.Resource)
	if err != nil {
		return err
	}
	if _, err := call[proto.Empty](ctx, node, proto.MethodVerify, req); err != nil || !wait {
		return err
	}
	for {
		r, err := lookAt(ctx, node, req.Resource)
		if err != nil {
			return err
		}
		if v := r.Verify; v != nil && !r.Conn.Verifying() && (before.Verify == nil || !before.Verify.Started.Equal(v.Started)) {
			printVerify(a.stdout, node.Name, r)
			if v.Differ > 0 {
				return cli.Exit(cli.ExitVeto, nil)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// lookAt is one resource as a node sees it now.
func lookAt(ctx context.Context, n cli.Node, resource string) (proto.Resource, error) {
	snap, err := call[proto.Snapshot](ctx, n, proto.MethodSnapshot, proto.Empty{})
	if err != nil {
		return proto.Resource{}, err
	}
	for _, r := range snap.Resources {
		if resource == "" || r.Name == resource {
			return r, nil
		}
	}
	return proto.Resource{}, cli.Usagef("%s has no resource %q", n.Name, resource)
}

func (a *app) firstReachable(ctx context.Context, p cli.Pair) (cli.Node, error) {
	st := ask(ctx, p)
	for i, n := range st.Nodes {
		if n.Reachable {
			return p.Node[i], nil
		}
	}
	return cli.Node{}, st.silent()
}

// verifyStop goes to the node that compares.
func (a *app) verifyStop(ctx context.Context, req proto.VerifyRequest) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	st := ask(ctx, p)
	for i, n := range st.Nodes {
		if !n.Reachable {
			continue
		}
		for _, r := range n.Snapshot.Resources {
			if r.Conn == proto.VerifyS && (req.Resource == "" || r.Name == req.Resource) {
				_, err := call[proto.Empty](ctx, p.Node[i], proto.MethodVerify, req)
				return err
			}
		}
	}
	if err := st.silent(); err != nil {
		return err
	}
	return cli.Exit(cli.ExitVeto, fmt.Errorf("no verify is running in pair %s", p.Name))
}

func (a *app) verifyStatus(ctx context.Context) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	st := ask(ctx, p)
	type line struct {
		Node     string          `json:"node"`
		Resource string          `json:"resource"`
		Conn     proto.ConnState `json:"conn"`
		Left     int64           `json:"out_of_sync"`
		Running  *proto.Sync     `json:"running,omitempty"`
		Last     *proto.Verify   `json:"last,omitempty"`
	}
	lines := []line{}
	for _, n := range st.Nodes {
		if !n.Reachable {
			continue
		}
		for _, r := range n.Snapshot.Resources {
			l := line{Node: n.Node, Resource: r.Name, Conn: r.Conn, Left: r.OutOfSync, Last: r.Verify}
			if r.Conn.Verifying() {
				l.Running = r.Sync
			}
			lines = append(lines, l)
			if !a.json {
				printVerify(a.stdout, n.Node, r)
			}
		}
	}
	if a.json {
		err = cli.PrintJSON(a.stdout, map[string]any{"schema": proto.Schema, "pair": p.Name, "verify": lines})
	}
	if err == nil {
		err = st.silent()
	}
	return err
}

// printVerify words progress or outcome of one node.
func printVerify(w io.Writer, node string, r proto.Resource) {
	if y := r.Sync; r.Conn.Verifying() && y != nil {
		done := 0.0
		if y.Total > 0 {
			done = 100 * float64(y.Total-y.Left) / float64(y.Total)
		}
		_, _ = fmt.Fprintf(w, "%s %s %s %.1f%% at %d KiB/s, %d KiB differ so far\n", node, r.Name, r.Conn, done, y.Rate>>10, y.Differ>>10)
		return
	}
	_, _ = fmt.Fprintf(w, "%s %s %s\n", node, r.Name, r.Lights.Verified.Why)
	if v := r.Verify; v != nil {
		for _, e := range v.Ranges {
			_, _ = fmt.Fprintf(w, "  %d bytes at %d differ (sector %d)\n", e.Length, e.Offset, e.Offset/512)
		}
	}
}
