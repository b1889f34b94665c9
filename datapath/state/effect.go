package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Effect is something the engine has to do after a step, one after the other, in order, each finished before the next
// begins. Persist before acknowledge before announce: within a step PersistMD and SetAllBits come before every effect
// that tells the peer or an operator, so a crash between two effects never leaves the outside knowing more than the
// disk. The new state is to be published before the first effect.
//
// Send effects queue a packet on the data socket (replies on meta) and need not wait for the network; a failure to
// send is reported by LinkLost, and the remaining effects are still carried out.
type Effect interface{ effect() }

// Effects on the own disk. They are finished when the data is on stable storage. If they fail, the engine posts
// DiskError{Meta: true} and carries out no further effect of the step that tells the peer or an operator of success.
type (
	// PersistMD writes UUIDs, flags and size.
	PersistMD struct {
		UUIDs UUIDs
		Flags MDFlags
		Size  uint64 // sectors
	}
	// SetAllBits marks everything out of sync and writes the bitmap. PersistMD with MDFullSync came before; one without
	// follows.
	SetAllBits struct{}
	// ClearAllBits marks everything in sync and writes the bitmap.
	ClearAllBits struct{}
	// WriteBitmap writes changed bits.
	WriteBitmap struct{}
	// SetSize changes the size of device and bitmap. New bits are set if NewBits is.
	SetSize struct {
		Sectors uint64
		NewBits bool
	}
	// ReleaseDisk: use the disk no more, wait for what is under way, close it, then post DiskReleased. Clear: the peer's copy
	// goes on without it, and the metadata is to lose these flags, if it can be written: a disk that hangs delays nobody else.
	ReleaseDisk struct{ Clear MDFlags }
)

// Effects on the link.
type (
	// StartConnecting: listen and dial until both sockets are up; post LinkUp or PeerRejected.
	StartConnecting struct{}
	// CloseLink: send what is queued (briefly), close the sockets or stop looking for the peer, finish what the peer
	// sent, mark what it did not confirm, then post LinkClosed.
	CloseLink struct{}
	// SendProtocol, SendSyncParam and SendSizes announce what the engine knows; they open the conversation. SendSizes
	// asks the peer for an answer, and for one without a resync of what is new.
	SendProtocol  struct{ DiscardMyData bool }
	SendSyncParam struct{}
	SendSizes     struct{ Ask, NoResync bool }
	// SendUUIDs announces the history. The engine fills in the number of bits set, unless it was Counted: then it is what
	// the step went by, before it marked everything perhaps. It is sent only with a disk.
	SendUUIDs struct {
		UUIDs   UUIDs
		Flags   uint64
		Bits    uint64
		Counted bool
	}
	// SendState announces the state.
	SendState struct{ State drbd.State }
	// SendSyncUUID tells the target that the resync begins.
	SendSyncUUID struct{ UUID uint64 }
	// SendChangeReq asks the peer to agree; with ConnWide as P_CONN_ST_CHG_REQ.
	SendChangeReq struct {
		Change   drbd.Change
		ConnWide bool
	}
	// SendChangeReply answers on the meta socket, to P_CONN_ST_CHG_REQ if ConnWide is set.
	SendChangeReply struct {
		Code     drbd.RetCode
		ConnWide bool
	}
	// SendBitmap sends the whole bitmap, as source or as target of the coming resync.
	SendBitmap struct{}
)

// Effects on resync, and on who watches.
type (
	// StartResync: the resync begins. The target asks for blocks, unless the state is a paused one; the source answers.
	StartResync struct{ Target bool }
	// StopResync: it ended or was aborted; forget its requests.
	StopResync struct{}
	// PauseResync and ContinueResync: the target stops asking, or goes on.
	PauseResync    struct{}
	ContinueResync struct{}
	// StartVerify: an online verify begins. With Source this node asks for digests and compares; else it answers.
	StartVerify struct{ Source bool }
	// StopVerify: it ended or was aborted.
	StopVerify struct{}
	// AnswerCommand answers a command; Err is nil or tells why it failed, most often a *Refusal.
	AnswerCommand struct {
		ID  CommandID
		Err error
	}
	// Notify is a line for operators.
	Notify struct {
		Level proto.Level
		Text  string
	}
	// FencePeer: run the handler fence-peer, then post FencePeerDone.
	FencePeer struct{}
	// RunHandler: run a handler of drbd.conf, if one is configured. Nothing waits for it.
	RunHandler struct{ Name string }
)

func (PersistMD) effect()       {}
func (SetAllBits) effect()      {}
func (ClearAllBits) effect()    {}
func (WriteBitmap) effect()     {}
func (SetSize) effect()         {}
func (ReleaseDisk) effect()     {}
func (StartConnecting) effect() {}
func (CloseLink) effect()       {}
func (SendProtocol) effect()    {}
func (SendSyncParam) effect()   {}
func (SendSizes) effect()       {}
func (SendUUIDs) effect()       {}
func (SendState) effect()       {}
func (SendSyncUUID) effect()    {}
func (SendChangeReq) effect()   {}
func (SendChangeReply) effect() {}
func (SendBitmap) effect()      {}
func (StartResync) effect()     {}
func (StopResync) effect()      {}
func (PauseResync) effect()     {}
func (ContinueResync) effect()  {}
func (StartVerify) effect()     {}
func (StopVerify) effect()      {}
func (AnswerCommand) effect()   {}
func (Notify) effect()          {}
func (FencePeer) effect()       {}
func (RunHandler) effect()      {}
