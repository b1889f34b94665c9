// Package lvmops does the volume work of one node: it sees what sits on a replicated device (physical volume, volume
// group, logical volumes, file systems, mounts, swap, loop devices, device-mapper holders, processes) and it does the
// steps of a move (unmount, deactivate, activate, mount) and of a set-up (pvcreate, vgcreate, lvcreate, mkfs).
//
// Rules that hold everywhere in it:
//
//   - Every external program goes through one Runner: no shell, a fixed PATH, LC_ALL=C, file descriptors 0 to 2 only,
//     its own process group, a deadline, bounded output. The observer sees every argv.
//   - A step is idempotent, and its success is read back (mountinfo, device-mapper's uuids, device nodes), never
//     derived from an exit code alone.
//   - A program that hangs may have its effect later: no step counts as done, or is begun, while one that does the opposite
//     runs (inverse.go). What is mounted must show the file system that it is mounted as.
//   - Nothing is forced: no umount -l or -f, no kill, no dmsetup remove, no vgchange --force.
//   - Every step runs lvm on the replicated device only (--devices). What is about the other devices does not: LVMView,
//     which looks for what the node's own LVM can see beside it, BackingLV and Snapshot. No look at a stack runs lvm
//     unless the device carries a physical volume's label, which the package reads itself.
//   - A look at processes reads no more of each than can decide (proc.go). Whoever looks again and again glances first (Glance),
//     and asks for what may have changed only (Watch, Around): processes that have run since (rest.go), lvm where something
//     has changed that it goes by (recall.go). What an operation begins with leaves nothing out (Stack, LVMView, BackingLV).
//   - Looking at processes and mounts uses /proc and /sys only; a path inside a mount is never opened, so that a
//     file system that hangs can not hang the agent. The one call that can, statfs, runs aside with a time limit.
//
// State: an Ops holds its Options and, under a short lock, the looks that have not come back yet, the last look at each device
// and what a glance compares with, the processes that held nothing then, and what lvm said for as long as nothing changes that
// it goes by (see recall.go). Exec holds the command lines that hang in the kernel, so that none is started again beside itself. Goroutines:
// Exec.Run starts two readers and one waiter per program and normally outlives them, Exec.Hold one per program that is held;
// a program that can not be killed (state D) leaves its waiter behind, which reaps it when the kernel lets go. A look that may
// hang runs in a goroutine of its own (aside, mapsReader); at most one per thing looked at can be stuck.
//
// Package lvmtest holds the runners for tests: recorded transcripts and a small stateful fake.
package lvmops
