// Package proto is santui's vocabulary: the words that agents, cockpit and command line share, and the control
// messages made of them. It holds data only. It does no I/O, starts no goroutine, defines no interface and imports
// nothing of ours, so every other package may import it.
//
// States are DRBD's, with DRBD's numbers (linux/drbd.h, enums drbd_role, drbd_disk_state, drbd_conns) and DRBD's
// spelling; they travel as strings. Sizes are bytes, times RFC 3339, durations seconds as numbers.
//
// proto/drbd is the replication wire, proto/session the transport of the messages defined here.
package proto
