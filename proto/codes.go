package proto

// Code describes one check code: what it stands for, whether it is a hard veto, and what to do about it. This table is
// the only place where codes are defined; cockpit, CLI, JSON and `santui explain` read it.
type Code struct {
	Name   string
	Title  string // what holds when the check is ok
	Hard   bool   // a failing check is a veto that no planned move overrides
	Why    string // what could go wrong
	Remedy string
}

// The check codes of a planned move.
const (
	CheckAgents     = "AGENTS"
	CheckVersions   = "VERSIONS"
	CheckLocked     = "LOCKED"
	CheckUnfinished = "UNFINISHED"
	CheckRoles      = "ROLES"
	CheckDisagree   = "DISAGREE"
	CheckLink       = "LINK"
	CheckSync       = "SYNC"
	CheckDisk       = "DISK"
	CheckStack      = "STACK"
	CheckBusyProc   = "BUSY-PROC"
	CheckBusyNS     = "BUSY-NS"
	CheckBusyDevice = "BUSY-DEVICE"
	CheckVG         = "VG"
	CheckVGAuto     = "VG-AUTO"
	CheckVGClash    = "VG-CLASH"
	CheckMountPoint = "MOUNTPOINT"
	CheckTools      = "TOOLS"
	CheckManager    = "OTHER-MANAGER"
	CheckClock      = "CLOCK"
)

// Codes is the table of the check codes of a planned move, in the order in which they are shown.
var Codes = []Code{
	{CheckAgents, "both agents answer", true,
		"With one agent silent nobody can say whether the other node still writes.",
		"start the agent on the silent node or repair the control link; if the node is gone, that is a takeover, not a failover"},
	{CheckVersions, "both agents run the same version", false,
		"Agents of different versions may understand a step differently.",
		"upgrade the older agent"},
	{CheckLocked, "no other operation runs", true,
		"Two operations on one pair would undo each other.",
		"wait for it, or attach to it with `santui attach`"},
	{CheckUnfinished, "no earlier operation was left half way", false,
		"The stack may stand between the two nodes.",
		"look at `santui report` of that operation; a failover to the same node carries on from where it stopped"},
	{CheckRoles, "one node is Primary, the target is Secondary", true,
		"Only the copy of a Primary is current; promoting beside another Primary forks the data.",
		"name the Secondary as target"},
	{CheckDisagree, "both nodes tell the same story", true,
		"When the nodes' views differ, one of them is old.",
		"wait a moment and check again; if it stays, look at both nodes' events"},
	{CheckLink, "replication is connected", true,
		"Without the link the target's copy is older than the source's.",
		"repair the replication link; it reconnects by itself"},
	{CheckSync, "nothing is out of sync", true,
		"A half-finished resync leaves a mixture of old and new blocks on its target.",
		"wait until the resync is finished"},
	{CheckDisk, "the target's disk is UpToDate", true,
		"Anything less than UpToDate is not a usable copy.",
		"attach the disk and let it resync"},
	{CheckStack, "what sits on the device is known", true,
		"A stack that cannot be read cannot be taken down in the right order.",
		"fix what the evidence names, then check again"},
	{CheckBusyProc, "no process uses the mounts", false,
		"A process that holds a file keeps the unmount from succeeding.",
		"stop the listed processes"},
	{CheckBusyNS, "nothing is mounted in another mount namespace", true,
		"A mount that another namespace still has keeps writing after the unmount here.",
		"stop the container or unit that holds it"},
	{CheckBusyDevice, "no swap, loop or other device is stacked on it", true,
		"What is stacked on the device keeps it open.",
		"take down what the evidence names"},
	{CheckVG, "the volume group can be moved as a whole", true,
		"A group with missing or foreign physical volumes cannot follow the device.",
		"repair the group with LVM's own tools first"},
	{CheckVGAuto, "LVM does not activate the group by itself", false,
		"Auto-activation may open the backing disk at boot, behind replication's back.",
		"vgchange --setautoactivation n"},
	{CheckVGClash, "the group's name is free on the target", true,
		"Two groups of one name cannot both be activated.",
		"rename the other group with vgrename"},
	{CheckMountPoint, "the mount points are ready on the target", true,
		"Mounting over something hides it; a missing directory stops the move half way.",
		"create the directory, or unmount what is there"},
	{CheckTools, "the target has the programs it needs", true,
		"A missing program would stop the move half way.",
		"install the package that carries it"},
	{CheckManager, "no other cluster manager is in charge", true,
		"Two managers fight over who is Primary.",
		"put the other manager in maintenance mode or stop it"},
	{CheckClock, "the clocks agree", false,
		"Logs of the two nodes cannot be put side by side.",
		"set up NTP on both nodes"},
}

// CodeOf finds a code by name.
func CodeOf(name string) (Code, bool) {
	for _, c := range AllCodes() {
		if c.Name == name {
			return c, true
		}
	}
	return Code{}, false
}
