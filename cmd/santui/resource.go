package main

import (
	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

// resourceCmds are drbdadm's verbs on one node: connect ends StandAlone, disconnect enters it, resize grows the device; the
// others are for fencing. The roles are changed by failover and its kin, which know what sits on the device.
func (a *app) resourceCmds() []*cobra.Command {
	resize := a.resourceCmd(proto.ResourceResize, "Grow the device after the disks of both nodes were enlarged; NODE looks first", true)
	resize.Long = "Enlarge the backing disks of both nodes (lvextend, a larger image), then ask on one of them. The metadata moves to the new\n" +
		"end of each disk and the device gets the size of the smaller one, while it is in use; the new part is resynced from the\n" +
		"Primary, or from NODE's peer if that decides. Then let what is on the device grow (pvresize, resize2fs, xfs_growfs).\n" +
		"--confirm PAIR is the consent. Exit code 3 when the other node's disk, or a resync, does not allow it yet."
	return []*cobra.Command{
		a.resourceCmd(proto.ResourceConnect, "Let NODE look for its peer again, after StandAlone", false),
		a.resourceCmd(proto.ResourceDisconnect, "Let NODE leave its peer and stay StandAlone", false),
		a.resourceCmd(proto.ResourceOutdate, "Declare the copy of NODE, Secondary and not connected, to be Outdated (a fence-peer handler's work)", false),
		a.resourceCmd(proto.ResourceSuspendIO, "Let all I/O on NODE's device wait", false),
		a.resourceCmd(proto.ResourceResumeIO, "Let I/O on NODE go on, without the lost peer or copy it may wait for", false),
		resize,
	}
}

func (a *app) resourceCmd(action proto.ResourceAction, short string, confirmed bool) *cobra.Command {
	req := proto.ResourceRequest{Action: action}
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
			_, err = call[proto.Empty](cmd.Context(), n, proto.MethodResource, req)
			return err
		},
	}
	cmd.Flags().StringVar(&on, "on", "", "the node")
	cmd.Flags().StringVar(&req.Resource, "resource", "", "the resource (default: the only one)")
	if confirmed {
		cmd.Use += " --confirm PAIR"
		cmd.Flags().StringVar(&req.Confirm, "confirm", "", "the pair's name: the consent")
		cmd.Flags().BoolVar(&req.AssumeClean, "assume-clean", false, "the new parts are known to be equal: no resync")
	}
	return cmd
}
