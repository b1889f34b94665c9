// Package datapath is santui's own replication engine: a Resource keeps a backing disk equal to the one of its peer,
// speaking DRBD 8.4's wire protocol (version 101) and keeping its metadata (v08), so that the peer may be santui or the
// kernel's DRBD.
//
// # Who owns what
//
// The owner goroutine of a Resource holds its state.State as a local variable. Commands, packets of the conversation,
// links and disks that come and go are messages in its mailbox; each is one state.Step, whose effects the owner carries
// out in order: what the disk must remember first, then what the peer and operators hear. It publishes a Status through
// an atomic pointer, and a gate for the I/O path.
//
// The I/O path (traffic) is one table under one short lock that is never held while waiting or doing I/O: the gate, the
// order of overlapping accesses (ranges), the transfer log with its epochs (tlog), and the handles under which the peer
// knows requests. Bitmap and activity log have their own locks, taken inside it.
//
// Under protocol C a write returns when both disks have it, under B when the peer has received it, under A when the
// network has it; while a resync runs, and on a node without disk, always as under C. Epochs end with a flush, when they
// are full or of an age (20 ms, more if the peer's disk is slow to flush), and when writes pause for as long; under A and B
// also with each write that returns, since the peer may not have it on its disk before the next one. Demote waits until the
// peer has confirmed all of them.
//
// A write passes the gate, waits for earlier overlapping ones, makes its activity-log extent durable, is queued for the
// peer or marked out of sync, is written locally by its caller's goroutine, and returns when both copies have it. It
// stays in the transfer log, and its extent active, until the peer has confirmed its epoch; when the link breaks before
// that it is marked out of sync first and forgotten then. A Primary that is alone from then on confirms nothing before the
// generation that it begins is on its disk, and nothing once that disk has failed. A peer whose disk failed with writes in its
// cache does not confirm their epoch but ends the link. A Primary without a good disk keeps what the peer alone has and has not
// confirmed, and writes it again when a copy is back, before applications go on (resend.go).
//
// A Primary that runs Ahead of a congested link sends no data: it marks what it writes and announces the marks, and the
// resync begins a second after the peer, which is Behind and Outdated, has confirmed what was sent before. A demotion
// begins it at once.
//
// While I/O is suspended nothing passes the gate, and a write under way that the peer does not have is not answered. A demotion
// ends what waits, with an error. With SuspendOnNoData what no copy could take waits for the owner's next gate and is done
// again from the start.
//
// # Two devices
//
// External metadata is on a device with a cache of its own. An extent is in the log there before the data is written, and
// the data is flushed before the log forgets the extent or cleared bits are written there. An error of either device ends
// the use of both.
//
// # Goroutines
//
// Owner: one, from New until Close. Looking for the peer (attempt): one, with one more that accepts, one that dials and
// one per connection that has not said yet what it is. Established link: receiver and sender of the data socket, receiver
// and sender of the meta socket, a watch for unanswered requests, 16 workers that do what the peer asks for on the
// local disk, and, if c-min-rate counts, one that holds the resync's reads back while applications are busy. The meta
// socket's two never wait for a disk, so pings are answered in time. SyncTarget: one that asks for blocks; VerifyS: one that
// asks for digests. Handlers of drbd.conf: one each, those that nothing waits for in the order of their causes; a packet that
// would begin a resync waits for the handler for that. Attach, detach and the end of a link run in goroutines of their own
// and report to the owner. Close returns when all have ended. A lone write, and the answer to one, is written to its socket
// by the goroutine that has it, in the sender's turn, without a switch to the sender; and while writes come one at a time the
// data socket's receiver does them itself (lone).
//
// What a peer can make this node hold is bounded, also when it reads nothing (budget, backlog). A packet that no correct
// peer sends ends the link as ProtocolError and is counted; the next link is made after a pause that grows.
//
// # Write-same
//
// A write-same (P_WSAME, DRBD 8.4.7 and later) is taken from a Primary and expanded at the disk, by each worker in one buffer of
// 1 MiB. None is sent. Linux 5.18 removed REQ_OP_WRITE_SAME ("drbd: drop REQ_OP_WRITE_SAME support", C. Hellwig, February
// 2022): the module of a newer kernel, Debian's 6.1 for one, still offers the feature flag, which has other meanings too, but
// says of its disk that it cannot, sends none and has no receiver for one. So a scripted peer is the test.
//
// # What is refused by name
//
// Two Primaries, rr-conflict violently: New, or the packet or option of the peer, is refused with a text that says so.
package datapath
