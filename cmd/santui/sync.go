package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

func (a *app) syncCmd() *cobra.Command {
	sync := &cobra.Command{Use: "sync", Short: "The resynchronisation: status, pause, resume, rate, start, skip"}
	var resource, from, confirm string
	sync.PersistentFlags().StringVar(&resource, "resource", "", "the resource (default: the only one)")

	status := &cobra.Command{
		Use: "status", Short: "Progress as each node sees it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.syncStatus(cmd) },
	}
	a.jsonFlag(status)
	sync.AddCommand(status)

	for _, action := range []proto.SyncAction{proto.SyncPause, proto.SyncResume} {
		sync.AddCommand(&cobra.Command{
			Use: string(action), Short: string(action) + " the resync", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.syncTarget(cmd, proto.SyncRequest{Resource: resource, Action: action, By: owner()})
			},
		})
	}
	sync.AddCommand(&cobra.Command{
		Use: "rate RATE", Short: "Change the resync's rate: bytes a second, with K, M or G", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := parseSize(args[0])
			if err != nil {
				return err
			}
			return a.syncTarget(cmd, proto.SyncRequest{Resource: resource, Action: proto.SyncRate, Rate: rate, By: owner()})
		},
	})
	skip := &cobra.Command{
		Use: "skip --confirm PAIR", Short: "Declare two fresh disks to be the same: no initial sync, nothing is copied", Args: cobra.NoArgs,
		Long: "Only for two disks whose metadata was just created and that are known to hold the same bytes, as two new ones that read\n" +
			"as zeroes. Nothing is compared: blocks that differ stay different, and a failover serves the other content, until\n" +
			"`santui verify` finds them. --confirm PAIR is the consent.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.oneNode(cmd.Context())
			if err != nil {
				return err
			}
			_, err = call[proto.Empty](cmd.Context(), n, proto.MethodSync,
				proto.SyncRequest{Resource: resource, Action: proto.SyncSkip, Confirm: confirm, By: owner()})
			return err
		},
	}
	skip.Flags().StringVar(&confirm, "confirm", "", "the pair's name: the consent")
	sync.AddCommand(skip)

	start := &cobra.Command{
		Use: "start --from NODE --confirm PAIR", Short: "A full sync: NODE's copy is the good one, all of the other is overwritten", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.goodCopy(from)
			if err != nil {
				return err
			}
			_, err = call[proto.Empty](cmd.Context(), n, proto.MethodSync,
				proto.SyncRequest{Resource: resource, Action: proto.SyncStart, Confirm: confirm, By: owner()})
			return err
		},
	}
	start.Flags().StringVar(&from, "from", "", "the node whose copy is the good one")
	start.Flags().StringVar(&confirm, "confirm", "", "the pair's name: the consent")
	sync.AddCommand(start)
	return sync
}

// goodCopy finds the node whose copy overwrites the other's.
func (a *app) goodCopy(from string) (cli.Node, error) {
	if from == "" {
		return cli.Node{}, cli.Usagef("--from NODE is missing: whose copy is the good one?")
	}
	return a.node(from)
}

// oneNode is a node that answers; either will do.
func (a *app) oneNode(ctx context.Context) (cli.Node, error) {
	p, err := a.loadPair()
	if err != nil {
		return cli.Node{}, err
	}
	st := ask(ctx, p)
	for i, n := range st.Nodes {
		if n.Reachable {
			return p.Node[i], nil
		}
	}
	return cli.Node{}, st.silent()
}

// syncTarget sends the request to the node that asks for the blocks, for it is the one that paces them; without a
// resync, to both.
func (a *app) syncTarget(cmd *cobra.Command, req proto.SyncRequest) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	st := ask(cmd.Context(), p)
	if err := st.silent(); err != nil {
		return err
	}
	var to []cli.Node
	for i, n := range st.Nodes {
		for _, r := range n.Snapshot.Resources {
			if r.Conn == proto.SyncTarget || r.Conn == proto.PausedSyncT {
				to = append(to, p.Node[i])
			}
		}
	}
	if len(to) == 0 {
		if req.Action != proto.SyncRate {
			return cli.Exit(cli.ExitVeto, fmt.Errorf("no resync is running in pair %s", p.Name))
		}
		to = p.Node
	}
	for _, n := range to {
		if _, err := call[proto.Empty](cmd.Context(), n, proto.MethodSync, req); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) syncStatus(cmd *cobra.Command) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	st := ask(cmd.Context(), p)
	type line struct {
		Node     string          `json:"node"`
		Resource string          `json:"resource"`
		Conn     proto.ConnState `json:"conn"`
		Left     int64           `json:"out_of_sync"`
		Sync     *proto.Sync     `json:"sync,omitempty"`
	}
	var lines []line
	for _, n := range st.Nodes {
		if !n.Reachable {
			continue
		}
		for _, r := range n.Snapshot.Resources {
			lines = append(lines, line{n.Node, r.Name, r.Conn, r.OutOfSync, r.Sync})
		}
	}
	if a.json {
		err = cli.PrintJSON(a.stdout, map[string]any{"schema": proto.Schema, "pair": p.Name, "sync": lines})
	} else {
		for _, l := range lines {
			text := fmt.Sprintf("%d KiB out of sync", l.Left>>10)
			if l.Sync != nil {
				text = syncLine(*l.Sync)
			}
			_, _ = fmt.Fprintf(a.stdout, "%s %s %s %s\n", l.Node, l.Resource, l.Conn, text)
		}
	}
	if err == nil {
		err = st.silent()
	}
	return err
}

// parseSize reads a number of bytes with K, M, G or T, binary.
func parseSize(s string) (int64, error) {
	num, shift := strings.TrimSuffix(strings.ToUpper(s), "B"), 0
	if i := strings.IndexAny(num, "KMGT"); i >= 0 && i == len(num)-1 {
		shift = 10 * (strings.IndexByte("KMGT", num[i]) + 1)
		num = num[:i]
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return 0, cli.Usagef("%q is not a size: a positive number with K, M, G or T", s)
	}
	return n << shift, nil
}
