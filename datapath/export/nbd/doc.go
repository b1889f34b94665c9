// Package nbd serves a block device in the NBD protocol: the fixed newstyle
// handshake and simple replies, over any stream connection. Programs such as
// qemu-img, nbdcopy and fio use it through a Unix socket without root; the
// kernel's client uses it through a socket pair (Transmit, no handshake).
//
// Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md,
// called "proto.md" in comments here; constants carry the protocol's names.
//
// # Who owns what
//
// The listener belongs to Serve from the call on, a connection to ServeConn or
// Transmit: they close them. The Backend belongs to the caller.
//
// # Goroutines
//
// Every connection has up to Options.Workers goroutines. Exactly one of them,
// the one that holds the turn, reads from the connection; once it has a whole
// request it passes the turn on and works on the request itself, so that a
// lone request never waits for another goroutine to wake up. Whoever has a
// reply when nobody writes becomes the writer, and takes with it the replies
// that others finish meanwhile. All goroutines have ended when Serve,
// ServeConn or Transmit returns, which is not before the Backend has returned
// from every call in progress.
package nbd
