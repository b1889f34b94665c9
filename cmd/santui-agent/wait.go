package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/santui/agent"
	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

func (a *app) waitCmd() *cobra.Command {
	return &cobra.Command{
		Use: "wait-connect [RESOURCE]", Short: "Wait until the peer is connected, as long as section startup of drbd.conf says", Args: cobra.MaximumNArgs(1),
		Long: "For boot: what needs the pair is ordered after it. Waits for wfc-timeout seconds; on a node that went down as Primary\n" +
			"without its peer for degr-wfc-timeout, on an outdated copy for outdated-wfc-timeout; 0 is for ever. StandAlone is not\n" +
			"waited for. Without RESOURCE it waits for all. Nothing is promoted. Exit code 3: a peer is not connected, 5: no agent.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			p, err := agent.LoadPatience(cfg)
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if len(args) > 0 {
				s, ok := p[args[0]]
				if !ok {
					return cli.Usagef("%s: resource %q is not in %s", cfg.Node, args[0], cfg.DRBDConf)
				}
				p = agent.Patience{args[0]: s}
			}
			return waitConnect(cmd.Context(), cfg, p)
		},
	}
}

// agentStart is how long the agent may take to answer at all.
const agentStart = 30 * time.Second

// waitConnect asks the agent each second.
func waitConnect(ctx context.Context, cfg agent.Config, p agent.Patience) error {
	start := time.Now()
	heard := start
	for ; ; time.Sleep(time.Second) {
		snap, err := look(ctx, cfg)
		switch {
		case err != nil && time.Since(heard) > agentStart:
			return cli.Exit(cli.ExitUnreachable, fmt.Errorf("%s: the agent does not answer: %w", cfg.Node, err))
		case err != nil:
			continue
		}
		heard = time.Now()
		waits, given := 0, error(nil)
		for _, r := range snap.Resources {
			if _, ok := p[r.Name]; !ok || r.Conn >= proto.Connected {
				continue
			}
			limit, option := p.Limit(r)
			switch {
			case r.Conn == proto.StandAlone:
				given = errors.Join(given, fmt.Errorf("%s on %s: StandAlone, it does not look for %s. santui connect --on %s", r.Name, cfg.Node, snap.Peer, cfg.Node))
			case limit > 0 && time.Since(start) >= limit:
				given = errors.Join(given, fmt.Errorf("%s on %s: %s after %v (%s): %s is not there", r.Name, cfg.Node, r.Conn, limit, option, snap.Peer))
			default:
				waits++
			}
		}
		if waits == 0 {
			if given != nil {
				return cli.Exit(cli.ExitVeto, given)
			}
			return nil
		}
	}
}

// look asks for a snapshot, in a session of its own: the agent may be starting.
func look(ctx context.Context, cfg agent.Config) (proto.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var snap proto.Snapshot
	conn, err := session.DialUnix(ctx, cfg.Socket)
	if err != nil {
		return snap, err
	}
	s, err := session.Client(ctx, conn, session.Options{Node: cfg.Node, Version: agent.Version, Kind: session.KindCockpit})
	if err != nil {
		return snap, err
	}
	defer func() { _ = s.Close() }()
	return snap, s.Call(ctx, proto.MethodSnapshot, nil, &snap)
}
