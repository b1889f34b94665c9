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
	CheckKernels    = "KERNELS"
	CheckLocked     = "LOCKED"
	CheckUnfinished = "UNFINISHED"
	CheckJournal    = "JOURNAL"
	CheckRoles      = "ROLES"
	CheckDisagree   = "DISAGREE"
	CheckLink       = "LINK"
	CheckLinkPoor   = "LINK-POOR"
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

	CheckBackingActive  = "BACKING-ACTIVE"
	CheckBackingVisible = "BACKING-VISIBLE"
	CheckDupPV          = "DUP-PV"
	CheckBusyMount      = "BUSY-MOUNT"
	CheckBusyNFS        = "BUSY-NFS"
	CheckBusyTarget     = "BUSY-ISCSI"
	CheckVGMixed        = "VG-MIXED"
	CheckVGOwner        = "VG-OWNER"
	CheckLVOpen         = "LV-OPEN"
	CheckLVHealth       = "LV-HEALTH"
	CheckThinFull       = "THIN-FULL"
	CheckThinTools      = "THIN-TOOLS"
	CheckFSHealth       = "FS-HEALTH"
	CheckFSKernel       = "FS-KERNEL"
	CheckUnwind         = "UNWIND"
	CheckFstab          = "FSTAB"
	CheckSize           = "SIZE"
	CheckIOErrors       = "IO-ERR"
	CheckFacts          = "FACTS"
)

// Codes is the table of the check codes of a planned move, in the order in which they are shown.
var Codes = []Code{
	{CheckAgents, "both agents answer", true,
		"With one agent silent nobody can say whether the other node still writes.",
		"start the agent on the silent node or repair the control link; if the node is gone, that is a takeover, not a failover"},
	{CheckVersions, "both agents run the same version", false,
		"Agents of different versions may understand a step differently.",
		"upgrade the older agent"},
	{CheckKernels, "the target's kernel is not the older one", false,
		"File systems and thin pools made or changed under a newer kernel may have features that an older one refuses to mount.",
		"bring the target to the same kernel; if you know the features in use are old ones, go on"},
	{CheckLocked, "no other operation runs", true,
		"Two operations on one pair would undo each other.",
		"wait for it, or attach to it with `santui attach`"},
	{CheckUnfinished, "no earlier operation was left half way", false,
		"The stack may stand between the two nodes.",
		"look at `santui report` of that operation; a failover to the same node carries on from where it stopped"},
	{CheckJournal, "both nodes can write their journal", true,
		"An operation that is not journalled on both nodes leaves nobody who knows how far it came, should an agent die in the middle.",
		"make room in the agent's state directory (/var/lib/santui), or mount it read-write again"},
	{CheckRoles, "one node is Primary, the target is Secondary", true,
		"Only the copy of a Primary is current; promoting beside another Primary forks the data.",
		"name the Secondary as target"},
	{CheckDisagree, "both nodes tell the same story", true,
		"When the nodes' views differ, one of them is old.",
		"wait a moment and check again; if it stays, look at both nodes' events"},
	{CheckLink, "replication is connected", true,
		"Without the link the target's copy is older than the source's.",
		"repair the replication link; it reconnects by itself"},
	{CheckLinkPoor, "the replication link is a good one", false,
		"Each write waits for a link that loses packets, breaks or is slow; a move waits for it too, and a break in the middle of one stops it half way.",
		"look at cable, switch port and interface statistics (ip -s link, ethtool -S) of both nodes, make the MTU the same on both nodes and the switch, and see what else uses the link"},
	{CheckSync, "nothing is out of sync", true,
		"A half-finished resync leaves a mixture of old and new blocks on its target.",
		"wait until the resync is finished"},
	{CheckDisk, "the target's disk is UpToDate", true,
		"Anything less than UpToDate is not a usable copy.",
		"let its resync come to an end; a Diskless one has to be attached first (santui disk attach)"},
	{CheckStack, "what sits on the device is known", true,
		"A stack that cannot be read cannot be taken down in the right order.",
		"fix what the evidence names, then check again"},
	{CheckBackingActive, "nothing uses the backing disks beside replication", true,
		"A logical volume, loop device or mount on the backing disk reads and writes behind replication's back: the copies diverge unseen.",
		"unmount it and deactivate it (vgchange -an, losetup -d) on that node at once, run `santui doctor`, then resync or verify that copy"},
	{CheckDupPV, "the physical volume exists once on each node", true,
		"With two devices that carry one physical volume LVM may activate the wrong one.",
		"detach the other device, or reject it with global_filter"},
	{CheckBackingVisible, "LVM does not look at the backing disks", false,
		"What LVM sees it may activate at boot or by a careless command, instead of the replicated device.",
		"`santui doctor --fix` shows and writes the filter that hides it"},
	{CheckBusyProc, "no process uses the mounts", false,
		"A process that holds a file keeps the unmount from succeeding.",
		"stop the listed processes, or name their units in agent.toml of both nodes: then a move stops and starts them"},
	{CheckBusyNS, "nothing is mounted in another mount namespace", true,
		"A mount that another namespace still has keeps writing after the unmount here.",
		"stop the container or unit that holds it"},
	{CheckBusyDevice, "no swap, loop or other device is stacked on it", true,
		"What is stacked on the device keeps it open.",
		"take down what the evidence names"},
	{CheckBusyMount, "no other file system is mounted on top", true,
		"The mounts below cannot be unmounted, and this version does not bring back what it did not take down.",
		"unmount what the evidence names"},
	{CheckBusyNFS, "no NFS export is in the way", true,
		"The NFS server holds the file system; only exports that agent.toml names are moved.",
		"name the export in agent.toml of both nodes, or stop it here (exportfs -u) and make it on the other node after the move"},
	{CheckBusyTarget, "no iSCSI or NVMe target serves it", true,
		"A target writes below the file systems and holds the device; its sessions and reservations do not move.",
		"remove the backstore or namespace, and make it on the other node after the move"},
	{CheckUnwind, "all that is mounted can be brought back as it is", true,
		"What a plan could not mount again it must not take down.",
		"change what the evidence names, or unmount it by hand if it is not needed"},
	{CheckVG, "the volume group can be moved as a whole", true,
		"A group with missing or foreign physical volumes cannot follow the device.",
		"repair the group with LVM's own tools first"},
	{CheckVGMixed, "each volume group is active as a whole", true,
		"On the target all volumes of a group become active: that is not what is here now.",
		"activate the rest (vgchange -ay VG), or keep volumes out with lvchange --setactivationskip y"},
	{CheckVGOwner, "no system ID or lock manager guards the group", true,
		"LVM on the target would refuse the group.",
		"vgchange --systemid \"\" VG, or vgchange --lock-type none VG"},
	{CheckLVOpen, "it is known who has each logical volume open", true,
		"A volume that something in the kernel keeps open cannot be deactivated.",
		"look with dmsetup info -c and ls /sys/kernel/config for what holds it"},
	{CheckLVHealth, "every logical volume is healthy", true,
		"A pool that needs a check, or a volume with missing parts, may not come up on the other side.",
		"look at lvs -a -o+lv_health_status,lv_check_needed and repair it where it is active; never during a move"},
	{CheckThinFull, "thin pools and snapshots have room", false,
		"A full pool stops writes; a full snapshot is lost. A move writes metadata.",
		"lvextend the pool or its metadata, or remove snapshots"},
	{CheckVGAuto, "LVM does not activate the group by itself", false,
		"Auto-activation may open the backing disk at boot, behind replication's back.",
		"vgchange --setautoactivation n"},
	{CheckVGClash, "the group's name is free on the target", true,
		"Two groups of one name cannot both be activated.",
		"rename the other group with vgrename; remove with dmsetup what an agent left that died"},
	{CheckMountPoint, "the mount points are ready on the target", true,
		"Mounting over something hides it; a missing directory stops the move half way.",
		"create the directory, or unmount what is there"},
	{CheckFSHealth, "the file systems are writable and without errors", false,
		"A file system that has met errors takes them along, and may refuse to be mounted.",
		"unmount it and run fsck on the source, then move"},
	{CheckFSKernel, "the target's kernel knows the file systems", true,
		"The mount would fail after everything was taken down here.",
		"install the kernel module for it on the target"},
	{CheckFstab, "fstab agrees and mounts nothing by itself", false,
		"An entry without noauto is tried at boot, on a node that may be Secondary, and an automounter mounts again what a move has just unmounted; entries that differ surprise people.",
		"give the entries the option noauto and no x-systemd.automount (mount units: systemctl disable), and make them the same on both nodes"},
	{CheckSize, "the target's disk is large and fine enough", true,
		"A file system made for small sectors cannot be mounted on a disk with larger ones.",
		"use a disk with the same logical sector size and at least the same size"},
	{CheckIOErrors, "no disk has reported errors", false,
		"A failing disk tends to fail more while it is read from end to end.",
		"look at dmesg and the disk's SMART data; replace the disk"},
	{CheckThinTools, "both nodes have the same thin tools", false,
		"thin_check of another version may refuse a pool that the other accepts.",
		"install the same version of thin-provisioning-tools on both nodes"},
	{CheckTools, "the target has the programs it needs", true,
		"A missing program would stop the move half way.",
		"install the package that carries it"},
	{CheckManager, "no other cluster manager is in charge", true,
		"Two managers fight over who is Primary.",
		"put it in maintenance mode, so that it leaves its resources alone, and then stop it on both nodes"},
	{CheckFacts, "both nodes could be looked at completely", false,
		"A condition that could not be looked at may hold.",
		"fix what the evidence names, then check again"},
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
