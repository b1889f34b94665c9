// Package export turns a replicated resource into a block device of the
// kernel, so that LVM, file systems and swap can sit on it.
//
// A front end is one of three kinds: fuse (a file in a private FUSE mount with
// a loop device on top), nbd (the kernel's network block device, attached by
// generic netlink to a socket pair) and ublk (not built; refused by name).
// Attach starts one, Export.Close takes it away again.
//
// # Who owns what
//
// The Backend belongs to the caller; an Export never closes it. The kernel's
// device, the mount, the directory below Options.RunDir and the symbolic link
// belong to the Export from Attach until Close has returned nil. One lock file
// per name in RunDir is held (flock) all that time: whoever can take the lock
// knows that the owner is dead and may sweep up what carries the same mark.
//
// # Goroutines
//
// fuse: the FUSE library's reader goroutines and one that waits for them. nbd:
// one goroutine that waits for the server, which runs up to Options.Queue
// workers. All of them have ended when Close returns nil.
//
// # What holds
//
// A device is never taken away while it is in use, and never lazily: Close
// refuses with ErrBusy instead. When Close has returned nil, no process can
// reach the Backend through the device any more. The link is made last and
// removed first.
package export
