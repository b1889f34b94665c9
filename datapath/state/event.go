package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Event is something that happened or is asked for. A command carries an ID: Step either returns a Refusal for it, or
// its effects, now or after a later event, hold exactly one AnswerCommand with that ID (if the ID is not 0).
type Event interface{ event() }

// Local commands.
type (
	// AttachStart announces that the disk is being opened: Diskless becomes Attaching. It is not answered by itself;
	// Attached or AttachFailed with the command's ID follow.
	AttachStart struct{}
	// Attached brings what the metadata says, after the activity log was applied.
	Attached struct {
		ID      CommandID
		UUIDs   UUIDs
		Flags   MDFlags
		Size    uint64 // last agreed size in the metadata, in sectors, 0 if there is none
		OwnSize uint64 // usable size of the disk, in sectors
	}
	// AttachFailed ends an attach. Err is handed to AnswerCommand.
	AttachFailed struct {
		ID  CommandID
		Err error
	}
	// AttachUnanswered: the disk is Negotiating, and the peer has been silent about it for longer than it may be.
	AttachUnanswered struct{}
	// Detach lets go of the disk. With Force the peer is not asked.
	Detach struct {
		ID    CommandID
		Force bool
	}
	// Connect leaves StandAlone. DiscardMyData makes this node lose a split brain found at the next handshake.
	Connect struct {
		ID            CommandID
		DiscardMyData bool
	}
	// Disconnect goes StandAlone. A peer is asked first, unless Force is set.
	Disconnect struct {
		ID    CommandID
		Force bool
	}
	// Promote makes this node Primary. Force declares a disk that is Inconsistent, Outdated or Consistent to be
	// UpToDate, if nothing better is at hand.
	Promote struct {
		ID     CommandID
		Force  bool
		fenced bool // fence-peer has been called for it
	}
	// Demote makes this node Secondary. No write may be under way any more, and the peer must have confirmed all of them
	// (with their barriers), or LinkLost must have been posted first: a Secondary that loses the link does not start a
	// new generation, so a write that got lost then would never be resynced. For the same reason it ends an Ahead: the
	// resync begins. InUse says that the device is open.
	Demote struct {
		ID    CommandID
		InUse bool
	}
	// PauseSync and ResumeSync hold back the resync and let it go on.
	PauseSync  struct{ ID CommandID }
	ResumeSync struct{ ID CommandID }
	// ResyncAfter says that the resync of another resource goes first, or does not any more. It is not answered; a Refusal
	// that may be tried again is only for now.
	ResyncAfter struct{ Wait bool }
	// Invalidate asks for a full resync that overwrites the copy of this node, or with Peer that of the other one. The
	// node that is overwritten must not be Primary.
	Invalidate struct {
		ID   CommandID
		Peer bool
	}
	// SkipInitialSync declares two disks that were just created to be the same, as they are.
	SkipInitialSync struct{ ID CommandID }
	// Resize takes what has become of the disk: OwnSize is its usable size now, in sectors. With AssumeClean the new
	// part of the device counts as in sync.
	Resize struct {
		ID          CommandID
		OwnSize     uint64
		AssumeClean bool
	}
	// Outdate declares the copy of this node, a Secondary without connection, to be Outdated.
	Outdate struct{ ID CommandID }
	// SuspendIO and ResumeIO hold application I/O back and let it go on. ResumeIO also ends a suspension for want of data,
	// whose I/O then fails, or of a fenced peer.
	SuspendIO struct{ ID CommandID }
	ResumeIO  struct{ ID CommandID }
	// Verify asks for an online verify, driven by this node.
	Verify struct{ ID CommandID }
)

// Events of the link.
type (
	// LinkUp: both sockets are open, features and authentication are done. It is legal in WFConnection only.
	LinkUp struct {
		ResolveConflicts bool   // this node accepted the meta socket
		Features         uint32 // agreed feature flags
		DRBD9            bool   // the peer is a DRBD 9 that speaks 8.4's protocol
	}
	// LinkLost: the link broke or had to be given up; Reason is one of Timeout to TearDown. Ignored without a link.
	LinkLost struct {
		Reason proto.ConnState
		Text   string
	}
	// LinkClosed answers CloseLink: sockets are closed, all that the peer had sent is on disk, and every write that the
	// peer had not confirmed is marked in the bitmap.
	LinkClosed struct{}
	// PeerRejected: the peer cannot be talked to, for a reason that trying again does not cure: options or versions
	// that differ, a wrong secret. The node goes StandAlone.
	PeerRejected struct{ Text string }
)

// Packets from the peer, in the order in which their socket brought them.
type (
	// PeerSizes is P_SIZES. OwnSize is the usable size of the own disk, in sectors, if it has grown since; else 0.
	PeerSizes struct {
		Sizes   drbd.Sizes
		OwnSize uint64
	}
	// PeerUUIDsReceived is P_UUIDS.
	PeerUUIDsReceived struct{ UUIDs drbd.UUIDs }
	// PeerState is P_STATE. Bits is how many bits are set in the own bitmap, Failed how many blocks of the running
	// resync failed; acknowledgements that came before on the meta socket must be counted in.
	// Told is how many bits this node last announced with its UUIDs: the peer decides by the same numbers.
	PeerState struct {
		State        drbd.State
		Bits, Failed uint64
		Told         uint64
		UnderWay     bool // application writes passed the gate and are not done: without a link they are marked when they are
	}
	// PeerChangeReq is P_STATE_CHG_REQ, or with ConnWide P_CONN_ST_CHG_REQ, as the peer sent it, not mirrored.
	PeerChangeReq struct {
		Change   drbd.Change
		ConnWide bool
	}
	// PeerChangeReply is P_STATE_CHG_REPLY or P_CONN_ST_CHG_REPLY.
	PeerChangeReply struct{ Code drbd.RetCode }
	// BitmapReceived: the peer's whole bitmap has been merged into the own one.
	BitmapReceived struct{}
	// SyncUUIDReceived is P_SYNC_UUID.
	SyncUUIDReceived struct{ UUID uint64 }
)

// Events of data and disk.
type (
	// ResyncDone: as SyncTarget nothing but Failed blocks is left to fetch, and a ping sent after the last
	// acknowledgement has been answered.
	ResyncDone struct{ Failed uint64 }
	// VerifyDone: as VerifyS all that was asked for has been compared, and a ping sent after the last result has been
	// answered.
	VerifyDone struct{}
	// Congested: as Primary more is under way to the peer than is configured; Text says what. It is to be posted only while
	// no bit is set in the bitmap.
	Congested struct{ Text string }
	// CaughtUp: as Ahead nothing that was sent is unconfirmed, and has not been for a while.
	CaughtUp struct{}
	// FencePeerDone answers FencePeer with the exit code of the handler, -1 if there is none.
	FencePeerDone struct{ Exit int }
	// DiskError: the disk failed a request; Meta if it was in the metadata.
	DiskError struct {
		Meta bool
		Text string
	}
	// DiskReleased answers ReleaseDisk: nothing uses the disk any more and it is closed.
	DiskReleased struct{}
)

func (AttachStart) event()       {}
func (Attached) event()          {}
func (AttachFailed) event()      {}
func (AttachUnanswered) event()  {}
func (Detach) event()            {}
func (Connect) event()           {}
func (Disconnect) event()        {}
func (Promote) event()           {}
func (Demote) event()            {}
func (PauseSync) event()         {}
func (ResumeSync) event()        {}
func (ResyncAfter) event()       {}
func (Invalidate) event()        {}
func (SkipInitialSync) event()   {}
func (Resize) event()            {}
func (Verify) event()            {}
func (Outdate) event()           {}
func (SuspendIO) event()         {}
func (ResumeIO) event()          {}
func (FencePeerDone) event()     {}
func (Congested) event()         {}
func (CaughtUp) event()          {}
func (LinkUp) event()            {}
func (LinkLost) event()          {}
func (LinkClosed) event()        {}
func (PeerRejected) event()      {}
func (PeerSizes) event()         {}
func (PeerUUIDsReceived) event() {}
func (PeerState) event()         {}
func (PeerChangeReq) event()     {}
func (PeerChangeReply) event()   {}
func (BitmapReceived) event()    {}
func (SyncUUIDReceived) event()  {}
func (ResyncDone) event()        {}
func (VerifyDone) event()        {}
func (DiskError) event()         {}
func (DiskReleased) event()      {}
