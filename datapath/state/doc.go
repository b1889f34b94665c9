// Package state decides what a replicated resource does: Step takes the state of one node and an event, and gives the
// next state and the effects. It does no I/O, knows no clock and starts no goroutine; new generations come from a seed
// in the state. The owner goroutine of package datapath holds the State and carries the effects out. The rules are those
// of DRBD 8.4 for two nodes and one volume (drbd_state.c, drbd_receiver.c, drbd_worker.c), so that a kernel may be the
// peer.
//
// # Order
//
// A step proposes a state, adds what follows from it (sanitize), validates it, commits it and collects effects. Wishes
// (commands, requests of the peer) are validated in full; facts (a broken link, a broken disk) only as far as they are
// possible. A refused step changes nothing and has no effects.
//
// Effects come in a fixed order and are carried out one after the other: size, end of a resync, metadata and bitmap; then
// what the peer is told (reply, sync UUID, sizes, UUIDs, state, request, bitmap); then resync, disk and link; then
// answers and notes. So the rule is: persist, then acknowledge, then announce. The engine publishes the new state before
// the first effect.
//
// # Connection
//
// StandAlone goes by Connect to WFConnection, by LinkUp to WFReportParams, where all but the connection is frozen, and by
// the peer's first state, after a comparison of histories, to Connected, WFBitMapS or WFBitMapT, or back to StandAlone
// if the copies do not go together. WFBitMapS becomes SyncSource with the target's bitmap. WFBitMapT answers the source's
// bitmap with its own, is WFSyncUUID then, and with the sync UUID SyncTarget. ResyncDone ends SyncTarget; the state it
// announces ends SyncSource. A pause by either side, its operator's or because another resource goes first (ResyncAfter), turns
// SyncSource and SyncTarget into PausedSyncS and PausedSyncT.
//
// A lost link is first one of Timeout to TearDown, or Disconnecting; the engine closes it and cleans up, and LinkClosed
// leads to WFConnection, or from Disconnecting to StandAlone. A new link cannot come before that.
//
// # Disk
//
// Diskless goes by AttachStart to Attaching and by Attached to what the metadata says, or with a peer connected to
// Negotiating until the histories are compared. A disk whose history does not go together with what the peer has told is
// refused before the peer hears of it, and one about which the peer says nothing is given up (AttachUnanswered): a kernel
// refuses without a word. A disk is let go by way of Failed: ReleaseDisk, DiskReleased, Diskless.
//
// # Agreement
//
// Connected nodes agree on a promotion, a detach and a disconnect: SendChangeReq, PeerChangeReply. One request is pending
// at a time; commands that come meanwhile are refused with Retry. If both ask at once, the node with ResolveConflicts
// wins.
//
// So do they on a verify and on a full resync. Both set all bits and skip the exchange of bitmaps: the source is SyncSource
// in the same step, the target waits in WFSyncUUID. The sync UUID may overtake the peer's consent, which travels on the meta
// socket; it is kept until that comes. The target of a full resync sets its bits with the sync UUID: if the link breaks
// before, neither node has any.
//
// VerifyS ends with VerifyDone and says so with its state, which ends the peer's VerifyT. A copy that is no longer
// UpToDate ends a verify on either side.
//
// # Size
//
// The device has the size of the smaller disk, or less if either node's drbd.conf says so (Limit); a limit below the size
// that it has is refused. It grows by Resize on one node: its sizes ask the peer, who looks at its own
// disk, grows, answers and waits in WFSyncUUID; the Primary, or who decides ties, is SyncSource of the new part at once. A
// connected device never shrinks, and a link is refused to a peer too small for it. A DRBD 9 peer takes no part in that
// resync, so there is none: the new part stays marked.
//
// Until the peer has answered with its size no role changes here and no verify or full resync begins, since all of that
// decides who is the source; a request of this node that is pending when the device grows is answered first. A peer that
// does not follow, since it runs Ahead just now, is waited for: the next resize on either node begins the resync. A disk that
// grows while the nodes agree counts from the next resize on. If both ask at once, they go by what they have told each other.
//
// As with DRBD, marks of the new part may stay between two copies of one generation, if the link breaks before both have
// grown. No data is at risk, writes go to both. invalidate gets rid of them.
//
// # Generations
//
// Bit 0 of the current UUID says that the node is Primary. A new generation starts when a node that is Primary, or whose
// peer is, loses the peer's copy, and when a node is promoted without one or by force. A resync has a name of its own
// (the sync UUID) that the target bears until it is finished.
//
// As in DRBD, a Primary that is the source of a resync begins no generation when it loses its peer and goes on alone: its
// bitmap goes back further. So one fork is not seen: the target has finished the resync, or was never told that it began, and
// the source did not hear; then both are Primary alone. The copy with the newer generation wins. A source that is promoted only
// after that begins one, stricter than DRBD, and the fork is seen.
//
// # Fencing and suspended I/O
//
// With fencing a Primary that lost its peer calls fence-peer (FencePeer, FencePeerDone), and so does a promotion that
// cannot know whether the peer is Primary or has newer data; it waits for the outcome. With resource-and-stonith I/O is
// suspended until the peer is at most Outdated, or back. The new generation is put off as long (UUIDDue): had nothing been
// written, a peer that fenced this node is just newer. If the peer comes back instead, writes that it did not confirm are
// resynced under a new generation, where DRBD would send them again. I/O that no copy can serve is suspended if so
// configured. ResumeIO ends each suspension.
//
// # Stricter than DRBD
//
// An Outdated copy beside a peer without a disk, or whose resync is aborted because a disk is gone, stays Outdated
// instead of becoming UpToDate; the peer is told that it is Inconsistent. A disk that is detached while the peer's is
// good is Outdated on its way out: if both nodes lose their power afterwards, it passes for no good copy and has nobody
// fenced; alone it needs a promotion by force. A disk that fails then is Inconsistent, as far as its metadata can still
// be written: the peer has what it refused, and may never hear that it failed. The source cannot be detached in the
// middle of a resync without force. A promotion whose link breaks before the peer answered is not made. No after-sb
// policy turns over its own decision: if the resync does not begin, the exchange of bitmaps has changed the counts that
// some go by; then people decide. A Primary that has to lose a split brain is not demoted for it. A Primary's copy is
// never overwritten in full, and only an UpToDate copy is the source of that. Ahead begins from Connected only. A
// promotion by force keeps the base of the bitmap in the history. The target of a full resync marks everything when the
// source begins, not when it agrees. A copy that a Primary without a disk has lost sight of begins a generation when it
// is promoted, so that the Primary does not go on with what has changed beneath its applications.
//
// # Not in this version
//
// Refused by name: a dual Primary, invalidate without a connection.
// Absent: several volumes.
package state
