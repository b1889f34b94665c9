package proto

import "slices"

// The check codes that only other verbs than a failover have, or a failover while no node is Primary.
const (
	CheckPeerGone  = "PEER-GONE"
	CheckDataRisk  = "DATA-AT-RISK"
	CheckLastStack = "LAST-STACK"
	CheckLastRole  = "LAST-PRIMARY"
	CheckSplit     = "SPLIT"
	CheckForked    = "FORKED"
	CheckDiscard   = "DISCARD"
	CheckSentinel  = "SENTINEL"
	CheckLeftovers = "LEFTOVERS"
)

// VerbCodes continues the table of check codes with those of drill, takeover, rejoin and resolve.
var VerbCodes = []Code{
	{CheckPeerGone, "the other node is silent on both links", true,
		"A node that answers is not gone: taking over beside it forks the data.",
		"while anything of the other node answers, use failover; if it has just gone, wait until both links were down for 30 s"},
	{CheckDataRisk, "what a takeover may lose is known", false,
		"Writes that the other node made after the link broke exist only there.",
		"if the other node can be brought back, do that instead; its newer writes are lost once it rejoins"},
	{CheckLastStack, "what the last Primary had mounted is known", false,
		"Without it this node is only made Primary: nothing is activated or mounted by guess.",
		"activate and mount by hand afterwards"},
	{CheckLastRole, "the target was the last Primary", false,
		"No node is Primary. Where the service ran last, clients, addresses and people's habits expect it; the data may be as good on both.",
		"name the node that was Primary last, unless there is a reason not to"},
	{CheckSplit, "the histories of the two copies belong together", true,
		"Both nodes have changed the data on their own: one side's changes must be given up before they can replicate again.",
		"santui resolve --discard NODE"},
	{CheckForked, "there is a split brain to resolve", true,
		"Discarding a node's changes makes sense only where both nodes have changes of their own.",
		"santui rejoin, or nothing: the copies find together by themselves"},
	{CheckDiscard, "what discarding loses is known", false,
		"What only the discarded node has is overwritten by the resync.",
		"copy what is needed from that node first"},
	{CheckLeftovers, "nothing of the service is left on the node that returns", false,
		"A mount or volume that outlived its agent shows old data, and is in the way when this node shall be Primary again.",
		"unmount and remove what the evidence names; nothing on it is needed any more"},
	{CheckSentinel, "there is a writable file system for the drill's files", true,
		"A drill proves that data arrives by writing files before and verifying them after the move.",
		"mount a file system read-write, with a few MiB free"},
}

// AllCodes is the whole table of check codes, in the order in which they are shown. It is not to be changed.
func AllCodes() []Code { return allCodes }

var allCodes = slices.Concat(Codes, VerbCodes, ServiceCodes)
