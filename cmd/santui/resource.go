package main

import (
	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

// resourceCmds are drbdadm's verbs on one node: connect ends StandAlone, disconnect enters it; the others are for fencing.
// The roles are changed by failover and its kin, which know what sits on the device.
func (a *app) resourceCmds() []*cobra.Command {
	var out []*cobra.Command
	for action, short := range map[proto.ResourceAction]string{
		proto.ResourceConnect:    "Let NODE look for its peer again, after StandAlone",
		proto.ResourceDisconnect: "Let NODE leave its peer and stay StandAlone",
		proto.ResourceOutdate:    "Declare the copy of NODE, Secondary and not connected, to be Outdated (a fence-peer handler's work)",
		proto.ResourceSuspendIO:  "Let all I/O on NODE's device wait",
		proto.ResourceResumeIO:   "Let I/O on NODE go on, without the lost peer or copy it may wait for",
	} {
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
		out = append(out, cmd)
	}
	return out
}
