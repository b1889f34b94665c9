// Package torture proves the order that saves data. It runs two engines (datapath.Resource) against a simulated network
// and simulated disks in a testing/synctest bubble, lets everything fail that can fail, at moments drawn from a seed, and
// compares what is left with what applications were promised. Time is that of the bubble: a ping timeout costs nothing.
//
//	go test ./datapath/torture                          a fixed set of seeds
//	go test ./datapath/torture -seeds 1000 -from 5000   as many as asked
//	go test ./datapath/torture -seed 5017 -trace        one again, with all that happens
//	go test ./datapath/torture -run TestSweep -stride 1 a short life, with a loss of power after each single call
//
// # What is simulated
//
// Disks are blocktest.Mem: what was not flushed is kept, lost or torn by sectors when the power goes. They take time, some
// long for a flush, stand still for up to 20 s, and fail when told to; a write that fails may be done in part. Connections have
// latency, some of them much more than others, a bounded buffer and order; both directions or one can be silent for a while and
// deliver afterwards, connections can be reset at once or after so many bytes, several new ones in turn in the middle of the
// handshake, and those of a node without power are half open until it is back.
//
// The power of a node goes at any time, or after its k-th next call of disk or network, so also in the middle of an attach, a
// transaction of the activity log, a write of the bitmap, a handshake or a resync. From then on nothing the old engine does
// has an effect, and its goroutines must end. A node without power may get a disk back that was taken out of it earlier, if
// its peer has that one's generation in its history. A Primary is lost for good when its flush has just returned, and with it
// the cache of its peer, whose disk is then all that is left.
//
// Applications write, zero, discard, flush and read in some windows of the device, overlapping, from several goroutines.
// The operator attaches, detaches, connects, disconnects, pauses, and moves the application from node to node, with
// discipline: a node that is not connected becomes Primary only if no other copy is better. Handlers are called, and those
// before a resync allow it. Of writes of one block over and over the network makes P_WSAME, as if a kernel had sent them.
//
// # The promise
//
// A copy is current if it has every write that was acknowledged, flushed if it was current and then lost power, behind
// otherwise. A sector may hold what was last acknowledged there, or what is or was written there since without an
// acknowledgement: what a failed write left.
//
//   - An acknowledged write is on both copies while the nodes are connected and both are UpToDate. If the Primary is alone,
//     its copy has it, and the other one is behind from then on.
//   - A Primary reads what was acknowledged, whatever happened to the other node.
//   - A flush makes all that was acknowledged before it safe on each copy that is current: it survives the loss of power of both
//     nodes, and also if one of them never comes back.
//   - Acknowledged and not flushed is lost only with the caches of all current copies, or, as on a single machine, with
//     the cache of the Primary when that comes back, before its peer was taken into use, and goes on where it was. (DRBD's
//     rule: after a crash the Primary's copy is the source.)
//   - A copy that is behind never becomes the source for one that is not.
//   - What a Primary found after a crash stays.
//
// The last point but three is no excuse for a Primary that goes on without a disk of its own: what its peer, the only copy, had
// acknowledged and loses with its power is there again before applications go on.
//
// Under protocol B the same holds. Under protocol A the other copy counts as flushed, not as current, once the link to the
// Primary has ended.
//
// # What is checked
//
// Each read, everything at each promotion, and both copies byte for byte after each healing, when the pair must have come
// together by itself within half an hour. At any time: never two Primaries that see each other, no promotion without an
// UpToDate copy, and, with both disks as a loss of power now would leave them, every block that differs is marked by bitmap
// or activity log of one of them. When a flush has returned, when the power goes, and now and then, every sector of a copy
// that counts is looked at with all contents that it may have after a loss of power: what was flushed is there, as the other
// node may be lost for good. In the end every goroutine has ended.
//
// No more is resynced than the rules demand: the blocks written since both were last in sync, or so shortly before that the
// peer may not have confirmed them; all extents that can be in the activity log of a node that went down as Primary, or
// lost its disk; what the device has grown by; and everything after a full sync was asked for.
//
// A verify finds no difference between copies that were brought together, while applications write.
//
// # Fencing
//
// The handler fence-peer reaches the other node by another way. It takes its time, fails, or tells the truth: it outdates
// the peer, finds it Primary, Inconsistent or without power, or with resource-and-stonith takes its power, but not for a copy
// that is only Consistent: DRBD would then take that one for UpToDate, and whether it is nobody can be asked. As the usual
// handlers do, it bars the peer from fencing in turn until both are in sync. The operator then has no discipline: with
// resource-and-stonith any node may be promoted at any time, and it must fail where the copy is behind.
//
// # Split brains
//
// The operator promotes a node beside a Primary that has gone on alone, and writes there. What that node's copy holds is
// where a branch of the model begins, also if the power goes when the generation is on the disk and before the promotion is
// answered. One of the two is given up: by discard-my-data, or by an after-sb policy. Until then each node has what its own
// applications were promised, and afterwards both have what the winner had.
//
// # Seeds
//
// Even seeds leave the disks whole and attached. Seeds run protocol C, but B where the seed is 3 modulo 5, A where it is 4.
//
// Seeds that are 0 to 3 modulo 7 do more: the operator begins and stops verifies, and overwrites one of two good copies in
// full (invalidate, invalidate-remote). With k = seed / 7, those where k is even use a csums-alg, those where k/2 is even a
// data-integrity-alg, and those where k is divisible by 3 begin with two fresh disks that hold different things: the
// initial full sync is part of their life.
//
// The resync controller is on where seed / 24 is odd. Seeds from 100 on have, modulo 13:
//
//	0      fencing resource-only; outdate
//	1, 2   fencing resource-and-stonith; outdate; 2: also on-no-data-accessible suspend-io
//	3      on-no-data-accessible suspend-io; suspend-io and resume-io
//	4, 5   disks and device grow, with power cuts in the middle; 5: also suspend-io
//	6, 7   split brains, which people decide; 7: after-sb policies do, as far as those drawn go, with and without always-asbp
//	8      two fresh disks that are declared to be the same
//	9      on-congestion pull-ahead (or now and then disconnect) under protocol A, and a network that stands still for a
//	       moment; data damaged on the wire, with a data-integrity-alg
//	10     on-io-error pass_on; thin resync; old disks put back
//	11     on-io-error call-local-io-error; congestion as in 9; old disks put back
//	12     damage, thin resync and old disks as above; bitmaps that are longer compressed than plain
//
// and half of 6 and 7 have rr-conflict call-pri-lost. By default three of each kind run. -v prints what was drawn, what came
// of it, and how many packets of each kind travelled; by default the test fails if something expected was not among it.
//
// Seeds from 100 on draw the size of the activity log, 7 to 6433 extents, which may change from boot to boot, how slow flushes
// are and how late connections, and one in three each whether write-sames travel, whether Primaries are lost for good, whether
// disks stand still and whether new connections break. Below, it is 7 extents.
//
// Seeds that are 1 modulo 3 keep the metadata on a second disk with a cache of its own, even ones in a slot of it.
//
// Two failures at once that no pair of nodes can survive are left out: a disk fails only where the other copy is good, as that of a resync's target, and
// the power stays on for some seconds after that.
//
// # Repeatability
//
// All randomness comes from the seed: delays are functions of seed, time and place, and crypto/rand is replaced. One
// processor runs the goroutines. The same seed so gives the same run, but for rare preemptions.
package torture
