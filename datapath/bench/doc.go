// Command bench measures the engine: two nodes in this process, linked over loopback TCP, on O_DIRECT files of one disk
// or on disks of memory. Every figure stands beside a baseline taken on the same disk in the same run, round by round,
// since only ratios mean anything on a machine that is not known. It prints one table and judges nobody: a missed target
// is a line that says so, not a failure.
//
// The files lie in -dir, are made for the run and removed after it. Goroutines: those of the two resources, and as many
// writers as the queue is deep; the bare pair, which shows what sockets and disks alone would allow, and the writer of
// both disks, which shows what the disks alone would, have one more for each lane.
package main
