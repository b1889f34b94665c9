package main

import (
	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

// resourceCmds are drbdadm's verbs on one node: connect ends StandAlone, disconnect enters it, resize grows the device; the
// others are for fencing. The roles are changed by failover and its kin, which know what sits on the device.
func (a *app) resourceCmds() []*cobra.Command {
	resize, req := a.resourceCmd(proto.ResourceResize, "Grow the device after the disks of both nodes were enlarged; NODE looks first")
	resize.Use += " --confirm PAIR"
	resize.Flags().StringVar(&req.Confirm, "confirm", "", "the pair's name: the consent")
	resize.Flags().BoolVar(&req.AssumeClean, "assume-clean", false, "the new parts are known to be equal: no resync")
	resize.Long = "Enlarge the backing disks of both nodes (lvextend, a larger image), then ask on one of them. The metadata moves to the new\n" +
		"end of each disk and the device gets the size of the smaller one, while it is in use; the new part is resynced from the\n" +
		"Primary, or from NODE's peer if that decides. Then let what is on the device grow (pvresize, resize2fs, xfs_growfs).\n" +
		"--confirm PAIR is the consent. Exit code 3 when the other node's disk, or a resync, does not allow it yet.\n\n" + actedDoc
	connect, req := a.resourceCmd(proto.ResourceConnect, "Let NODE look for its peer again, after StandAlone")
	connect.Flags().BoolVar(&req.DiscardMyData, "discard-my-data", false, "after a split brain: give NODE's changes up (needs --confirm; santui resolve does it with checks)")
	connect.Flags().StringVar(&req.Confirm, "confirm", "", "the pair's name: the consent to --discard-my-data")
	simple := func(action proto.ResourceAction, short string) *cobra.Command {
		cmd, _ := a.resourceCmd(action, short)
		return cmd
	}
	disk := &cobra.Command{Use: "disk", Short: "The backing disk of one node: detach, attach"}
	disk.AddCommand(
		simple(proto.ResourceDetach, "Let go of NODE's backing disk; applications go on through the peer"),
		simple(proto.ResourceAttach, "Take NODE's backing disk into use again, after a detach or a repaired fault; what it missed is resynced"),
	)
	return []*cobra.Command{
		connect,
		simple(proto.ResourceDisconnect, "Let NODE leave its peer and stay StandAlone"),
		disk,
		simple(proto.ResourceOutdate, "Declare the copy of NODE, Secondary and not connected, to be Outdated (a fence-peer handler's work)"),
		simple(proto.ResourceSuspendIO, "Let all I/O on NODE's device wait"),
		simple(proto.ResourceResumeIO, "Let I/O on NODE go on, without the lost peer or copy it may wait for"),
		resize,
	}
}

// actedDoc describes what a command that acts on one node prints with --json.
const actedDoc = "--json prints {schema, action, node, resource} when it is done, resource only if it was named; a failure is {schema, error, exit}."

// resourceCmd is a command that sends one request; more flags may fill the request in.
func (a *app) resourceCmd(action proto.ResourceAction, short string) (*cobra.Command, *proto.ResourceRequest) {
	req := &proto.ResourceRequest{Action: action}
	var on string
	cmd := &cobra.Command{
		Use: string(action) + " --on NODE", Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if on == "" {
				return cli.Usagef("--on NODE is missing")
			}
			n, err := a.node(on)
			if err != nil {
				return err
			}
			req.By = owner()
			if _, err = call[proto.Empty](cmd.Context(), n, proto.MethodResource, *req); err != nil || !a.json {
				return err
			}
			return cli.PrintJSON(a.stdout, struct {
				Schema   string               `json:"schema"`
				Action   proto.ResourceAction `json:"action"`
				Node     string               `json:"node"`
				Resource string               `json:"resource,omitempty"`
			}{proto.Schema, req.Action, n.Name, req.Resource})
		},
	}
	cmd.Long = short + ".\n\n" + actedDoc
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&on, "on", "", "the node")
	cmd.Flags().StringVar(&req.Resource, "resource", "", "the resource (default: the only one)")
	return cmd, req
}
