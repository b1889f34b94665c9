package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/tui/clean"
)

func (a *app) statusCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Both nodes, once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.loadPair()
			if err != nil {
				return err
			}
			st := ask(cmd.Context(), p)
			if a.json {
				if err := cli.PrintJSON(a.stdout, st); err != nil {
					return err
				}
				if st.silent() != nil {
					return cli.Exit(cli.ExitUnreachable, nil)
				}
				return nil
			}
			printStatus(a.stdout, st)
			if st.silent() != nil {
				return cli.Exit(cli.ExitUnreachable, nil)
			}
			return nil
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

// printStatus writes both nodes for people, in the words of /proc/drbd where it has words.
func printStatus(w io.Writer, st pairStatus) {
	_, _ = fmt.Fprintf(w, "pair %s  %s\n", st.Pair, st.AsOf.Format(time.DateTime))
	for _, n := range st.Nodes {
		if !n.Reachable {
			_, _ = fmt.Fprintf(w, "\n%s\n", n.Error)
			continue
		}
		s := n.Snapshot
		_, _ = fmt.Fprintf(w, "\n%s: agent %s, kernel %s", n.Node, s.Agent.Version, s.Agent.Kernel)
		if !s.PeerLink.Up {
			_, _ = fmt.Fprintf(w, ", no control link to %s: %s", s.Peer, s.PeerLink.Err)
		}
		_, _ = fmt.Fprintln(w)
		for _, r := range s.Resources {
			printResource(w, r)
		}
		for _, l := range s.Readiness {
			printReadiness(w, l)
		}
	}
}

func printResource(w io.Writer, r proto.Resource) {
	r = clean.Value(r) // names of mounts and volume groups are somebody else's text
	_, _ = fmt.Fprintf(w, "  %s cs:%s ro:%s/%s ds:%s/%s %s  %s on %s\n", r.Name, r.Conn, r.Role, r.PeerRole, r.DiskState, r.PeerDisk, r.Protocol, r.Device, r.Disk)
	if r.Suspended {
		_, _ = fmt.Fprintf(w, "    I/O is suspended: %s\n", r.Problem)
	}
	if r.Sync != nil {
		_, _ = fmt.Fprintf(w, "    %s\n", syncLine(*r.Sync))
	}
	for _, vg := range r.Stack.VGs {
		_, _ = fmt.Fprintf(w, "    vg %s, %d LV\n", vg.Name, len(vg.LVs))
	}
	for _, m := range r.Stack.Mounts {
		_, _ = fmt.Fprintf(w, "    %s on %s (%s)\n", m.Source, m.Target, m.FSType)
	}
	l := r.Lights
	_, _ = fmt.Fprintf(w, "    in sync: %s; verified: %s; redundant: %s\n    safe to power off: %s\n", light(l.InSync), light(l.Verified), light(l.Redundant), light(l.SafePowerOff))
	if k := r.Counters.ProtocolErrors; k > 0 {
		_, _ = fmt.Fprintf(w, "    protocol errors: %d, each ended a connection; the agent's log names the packets\n", k)
	}
	if r.Problem != "" {
		_, _ = fmt.Fprintf(w, "    PROBLEM: %s\n", r.Problem)
	}
}

// light is a statement about a copy, with its reason where it is no.
func light(l proto.Light) string {
	if l.On {
		return "yes"
	}
	return "NO, " + l.Why
}

// syncLine words a resync as /proc/drbd does: bar, percentage, finish time, speed.
func syncLine(s proto.Sync) string {
	done := 1.0
	if s.Total > 0 {
		done = float64(s.Total-s.Left) / float64(s.Total)
	}
	cells := int(done * 20)
	bar := strings.Repeat("=", cells)
	if cells < 20 {
		bar += ">" + strings.Repeat(".", 19-cells)
	}
	finish := "-:--:--"
	if s.Finish >= 0 {
		f := int(s.Finish)
		finish = fmt.Sprintf("%d:%02d:%02d", f/3600, f/60%60, f%60)
	}
	line := fmt.Sprintf("[%s] %s: %.1f%% (%d/%d)M finish: %s speed: %d (%d) K/sec", bar, s.Kind, 100*done, s.Left>>20, s.Total>>20, finish, s.Rate>>10, s.Mean>>10)
	if s.Paused {
		line += " paused"
	}
	return line
}

func printReadiness(w io.Writer, l proto.CheckList) {
	l = clean.Value(l) // names of mounts and volume groups are somebody else's text
	if l.Ready() {
		_, _ = fmt.Fprintf(w, "  failover of %s to %s: ready\n", l.Resource, l.To)
		return
	}
	_, _ = fmt.Fprintf(w, "  failover of %s to %s: not possible now\n", l.Resource, l.To)
	for _, c := range l.Blocking() {
		_, _ = fmt.Fprintf(w, "    %s: %s\n", c.Code, strings.Join(c.Evidence, "; "))
	}
}

func (a *app) watchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch", Short: "Both nodes, a line for every change", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.loadPair()
			if err != nil {
				return err
			}
			return a.watch(cmd.Context(), p)
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

// watch prints what either node reports until the command is ended. A node that goes away is reported and tried again.
func (a *app) watch(ctx context.Context, p cli.Pair) error {
	var mu sync.Mutex // one line at a time
	out := func(n nodeStatus) error {
		mu.Lock()
		defer mu.Unlock()
		if a.json {
			b, err := json.Marshal(struct {
				Schema string `json:"schema"`
				nodeStatus
			}{proto.Schema, n})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s\n", b)
			return err
		}
		if !n.Reachable {
			_, err := fmt.Fprintf(a.stdout, "%s %s\n", time.Now().Format(time.TimeOnly), n.Error)
			return err
		}
		for _, r := range n.Snapshot.Resources {
			line := fmt.Sprintf("%s cs:%s ro:%s/%s ds:%s/%s", r.Name, r.Conn, r.Role, r.PeerRole, r.DiskState, r.PeerDisk)
			if r.Sync != nil {
				line += " " + syncLine(*r.Sync)
			}
			if _, err := fmt.Fprintf(a.stdout, "%s %s: %s\n", time.Now().Format(time.TimeOnly), n.Node, line); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make(chan error, len(p.Node))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, n := range p.Node {
		go func() { errs <- follow(ctx, n, out) }()
	}
	err := <-errs
	cancel()
	_ = <-errs // cancelled
	return err
}

// follow watches one node until ctx ends or out fails.
func follow(ctx context.Context, n cli.Node, out func(nodeStatus) error) error {
	said := "" // a node that stays away is reported once
	heard := func(st nodeStatus) error {
		said = ""
		return out(st)
	}
	for ctx.Err() == nil {
		err := followOnce(ctx, n, heard)
		var stop *stopError
		if errors.As(err, &stop) {
			return stop.err
		}
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != said {
			said = text
			if err := out(nodeStatus{Node: n.Name, Error: text}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

// stopError wraps an error of our own side, as opposed to one of the node's.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func followOnce(ctx context.Context, n cli.Node, out func(nodeStatus) error) error {
	s, err := connect(ctx, n)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	var snap proto.Snapshot
	err = s.Stream(ctx, proto.MethodWatch, nil, func(raw json.RawMessage) error {
		var err error
		if snap, err = merge(snap, raw); err != nil {
			return err
		}
		if err := out(nodeStatus{Node: n.Name, Reachable: true, Snapshot: &snap}); err != nil {
			return &stopError{err}
		}
		return nil
	})
	if err == nil {
		err = errors.New("it ended the watch")
	}
	var stop *stopError
	if errors.As(err, &stop) {
		return err
	}
	return unreachable(n, err)
}
