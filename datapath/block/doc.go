// Package block opens the disks that a replicated resource lives on.
//
// Open gives a Device for a block device or a regular file and holds it for
// this process alone: O_EXCL on a block device, which keeps mount, LVM and any
// other exclusive opener away, and an exclusive flock on a regular file, which
// keeps only other openers of this package away. I/O goes past the page cache
// (O_DIRECT) wherever the file system allows it, so that what the peers compare
// is what the disk holds.
//
// A Device owns one file descriptor and nothing else: no goroutines, no cache,
// no state besides the open file. The buffer pool of GetBuffer and PutBuffer is
// shared by the whole process.
//
// The doubles for tests (memory disks that lose power, injected faults) and the
// conformance suite every Device passes are in package blocktest.
package block
