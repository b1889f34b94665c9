// Package block opens the disks that a replicated resource lives on.
//
// Open gives a Device for a block device or a regular file and holds it for
// this process alone: O_EXCL on a block device, which keeps mount, LVM and any
// other exclusive opener away, and an exclusive flock on a regular file, which
// keeps only other openers of this package away. I/O goes past the page cache
// (O_DIRECT) wherever the file system allows it, so that what the peers compare
// is what the disk holds.
//
// Each read and write is one pread or pwrite of the goroutine that wants it. io_uring, with what many goroutines want
// submitted together, made 0.4 to 0.6 of the 4k writes a second that this makes at queue depth 32 on a file in ext4, and
// 0.7 on a block device in user-mode Linux (0.4 and 0.5 at depth 1): the worker threads cost more than the calls saved.
//
// A Device owns one file descriptor and nothing else: no goroutines, no cache,
// no state besides the open file. The buffer pool of GetBuffer and PutBuffer is
// shared by the whole process.
//
// The doubles for tests (memory disks that lose power, injected faults) and the
// conformance suite every Device passes are in package blocktest.
package block
