// Package lab runs a small network of real Linux kernels as processes of this machine: Debian's user-mode-linux, a 6.1
// kernel with device-mapper, NBD, loop, FUSE, DRBD 8.4 and the usual file systems as modules. No KVM, no disk image, no
// service of the host's: root, /dev/net/tun and packages are all it takes (Check, Install).
//
// # What a node is
//
// Its root is the host's own file system, read only, under a writable layer on the node's system disk (/dev/ubdc,
// ext4). So every program of the host runs in the node, and what the node changes outlives a power cut as far as it was
// synced. The host's /root, /home, /var/log, /etc/lvm and the like are hidden. /dev/ubdb is the disk to replicate, all
// zeroes at first; /dev/md3 leads there too. /srv is a folder of the host, writable, the same on all nodes.
// LVM's filter hides /dev/ubdb and /dev/ubdc. eth0 is the data link (bridge, Cut, Heal), eth1 the management link that
// Run, Put and Get use and that no cut touches. The data link's end in the lab's namespace has the address 10.0.0.254.
//
// Either the kernel's DRBD is loaded when a node boots (Options.DRBD), or it cannot be loaded there at all.
//
// # Who owns what
//
// The record of a lab (state) names everything it made: namespace, folders, and the leader of each node's process
// session, with its start time. It lies in the lab's directory and in /run/santui-lab. Close removes all of it; Sweep,
// which Start calls, removes labs whose maker died, unless they were started as Persistent. A lab's directory carries a
// lock, so two processes cannot work on one; labs in different directories run side by side, with the same addresses.
//
// Two goroutines for each node end with its kernel's process: one reaps it, one keeps its clock going (Node.keepTime). ForTest adds one that waits for signals.
//
// # Measured (two busy cores shared by all)
//
// Both nodes answer 2.7 to 4.9 s after Start, 12 s with both cores taken by others; 1.8 s of that is the kernel. A
// command over the shared ssh connection takes 65 ms on a quiet machine, 90 to 140 ms on a busy one, nearly all of it
// processes starting in the node (a bash is 40 ms, an lvm 60 ms). The kernel's DRBD syncs 64 MiB in 2.1 s. A whole test
// with boot, sync and a stack takes 12 to 16 s.
//
// # Traps
//
//   - Before /proc is mounted in a node, its /proc is the host's (hostfs shows all), and busybox runs an applet by
//     executing /proc/self/exe: it runs the UML kernel again instead. init.sh uses full paths until then.
//   - The kernel mounts devtmpfs by itself; a second mount on /dev fails as busy.
//   - A tap that was set down once stays dead for the node: UML stops using a tap that returned an error. A bridge port set
//     to state disabled still lets frames pass. Taking the tap out of the bridge works both ways.
//   - gro=1 is not optional: without it large segments are dropped and a sync crawls.
//   - sshd goes to the background before it listens: the first connection may be refused.
//   - The shared connection's master keeps its standard error for life: never give it a pipe that somebody reads to
//     the end.
//   - Sockets have short paths, so RunDir lies in /tmp, apart from the disks.
//   - The guest's memory is a file in $TMPDIR; on a disk it would be written back all the time, hence /dev/shm.
//   - A kernel puts its control socket below uml_dir, by default ~/.uml of the host's user.
//   - sshd needs a user sshd and an unlocked root; both are made in the node's layer, never on the host.
//   - A host's file that was read through the root may stay cached in the node when it changes on the host. Put copies
//     through /srv, which is never cached over a close; programs under development go that way.
//   - `Failed to initialize ubd device 0` on the console is no failure: the first disk is ubdb on purpose.
//   - A node's timers can stop for ever while everything that needs none goes on: seen twice in some hundred boots on a
//     busy machine (sleep 1 never ends, the peer's pings stay unanswered, one CPU of the host spins). UML lost its timer
//     signal; one SIGALRM from the host revives it, and keepTime sends one a second. A persistent lab gets one with
//     each command that opens it.
//   - A power cut keeps what the host's page cache holds: a disk with a volatile cache is not modelled.
package lab
