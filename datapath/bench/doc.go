// Command bench measures the engine: two nodes in this process, linked over loopback TCP, on O_DIRECT files of one disk
// or on disks of memory. Every figure stands beside a baseline taken on the same disk in the same run, round by round,
// since only ratios mean anything on a machine that is not known. It prints one table and judges nobody: a missed target
// is a line that says so, not a failure.
//
// The files lie in -dir, are made for the run and removed after it. Goroutines: those of the two resources, and as many
// writers as the queue is deep; the bare pair, which shows what sockets and disks alone would allow, and the writer of
// both disks, which shows what the disks alone would, have one more for each lane.
//
// # Where a 4k write's time goes
//
// On two cores that had other work too and one disk, with the activity log warm, a write at QD1 took 290 to 310 us where the
// bare pair took 250 to 270, two plain writes at once 235 to 340, and one plain write 80. Disk and sockets alone thus allow a
// third of raw, and the engine makes 0.8 to 0.9 of that; the rest is Go's scheduler (160 us of CPU time for both nodes, the bare
// pair 90 to 110). GOMAXPROCS from 1 to 8 changed nothing that could be told from noise.
//
// In user-mode Linux a write through nbd at QD1 enters the Primary's kernel 70 to 82 times, the Secondary's 48 to 53 times
// (counted from outside, by the stops of the traced process). 7 and 4 of these are what the write is made of: pwrite, and writes
// to sockets and reads from them. 36 to 43 and 26 to 28 are readings of the clock, a system call there, two thirds of them or
// more by Go's runtime; the others are its monitor's, its futexes and its polls. At QD32 it is 24 to 31 and 14 to 22 in all. The
// kernel's DRBD takes a fifth of the host's CPU time at QD1.
package main
