package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// UUIDs is the history of a copy of the data. Bit 0 of Current says that its node is Primary; comparisons mask it.
// The zero value is "no history"; fresh metadata has Current drbd.UUIDJustCreated.
type UUIDs struct {
	Current  uint64 // names the present generation
	Bitmap   uint64 // the generation since which the bitmap records changes; 0: the peer has all of them
	History0 uint64 // older generations, the younger one first
	History1 uint64
}

// PeerUUIDs is what the peer last told of its history. It is forgotten when the link is lost.
type PeerUUIDs struct {
	UUIDs
	Known bool
	Bits  uint64 // how many bits the peer's bitmap has set
	Flags uint64 // drbd.UUIDDiscardMyData and so on
}

// MDFlags are the flags of the metadata on disk (MDF_*, linux/drbd.h).
type MDFlags uint32

// The flags. All but FullSync and ALDisabled are computed from the state at each change while the disk is attached.
const (
	MDConsistent     MDFlags = 1
	MDPrimary        MDFlags = 2 // found at attach on a Secondary: it crashed as Primary
	MDConnected      MDFlags = 4
	MDFullSync       MDFlags = 8 // the bitmap on disk is void, everything is out of sync
	MDWasUpToDate    MDFlags = 0x10
	MDPeerOutdated   MDFlags = 0x20
	MDCrashedPrimary MDFlags = 0x40
	MDALDisabled     MDFlags = 0x100
)

// IOErrorPolicy says what a failing disk leads to (drbd.conf: on-io-error).
type IOErrorPolicy uint8

// The policies.
const (
	IOErrorDetach      IOErrorPolicy = iota // drop the disk
	IOErrorPassOn                           // keep it, as Inconsistent; an error in the metadata still drops it
	IOErrorCallHandler                      // run the handler local-io-error, then drop it
)

// FencingPolicy says what must be known of a lost peer before this node relies on its own copy (drbd.conf: fencing).
type FencingPolicy uint8

// The policies, each stricter than the one before.
const (
	FencingDontCare     FencingPolicy = iota
	FencingResource                   // fence-peer is called when a Primary loses its peer; no promotion without its success
	FencingAndSuspendIO               // resource-and-stonith: besides, I/O waits for the outcome
)

// NoDataPolicy says what becomes of I/O that no copy can serve (drbd.conf: on-no-data-accessible).
type NoDataPolicy uint8

// The policies.
const (
	NoDataFails    NoDataPolicy = iota // io-error
	NoDataSuspends                     // suspend-io: it waits until a copy is back
)

// CongestionPolicy says what a Primary does when more is under way to the peer than is configured (drbd.conf:
// on-congestion).
type CongestionPolicy uint8

// The policies.
const (
	CongestionBlocks      CongestionPolicy = iota // writes wait for the link
	CongestionPullsAhead                          // the peer is only told what changed, and resynced later
	CongestionDisconnects                         // the link is given up
)

// CommandID names a local command that waits for an answer; 0 means that nobody waits.
type CommandID uint64

// PendingKind is what the peer was asked to agree to.
type PendingKind uint8

// The kinds of pending request.
const (
	PendingNone PendingKind = iota
	PendingPromote
	PendingDetach
	PendingDisconnect
	PendingVerify
	PendingInvalidate     // the own copy is to be overwritten
	PendingInvalidatePeer // the peer's is
)

func (k PendingKind) String() string {
	return [...]string{"nothing", "promote", "detach", "disconnect", "verify", "invalidate", "invalidate-remote"}[k]
}

// Pending is the request that the peer has not answered yet. There is at most one.
type Pending struct {
	Kind   PendingKind
	ID     CommandID
	Change drbd.Change
	Forced bool // a promotion that declares the disk UpToDate
}

// Fence is a call of fence-peer under way.
type Fence struct {
	Running bool
	Links   uint64    // State.Links when it began: a newer link makes its outcome void
	Promote bool      // a promotion waits for it
	ID      CommandID // of the promotion
	Force   bool
}

// State is all that the state machine knows of a resource on one node. It is a comparable value without pointers.
// Make one with New; only Step changes it.
type State struct {
	Role     proto.Role
	PeerRole proto.Role
	Conn     proto.ConnState
	Disk     proto.DiskState
	PeerDisk proto.DiskState

	AftrISP bool // resync paused because the one of another resource goes first (resync-after)
	PeerISP bool // paused by the peer
	UserISP bool // paused by the user of this node

	Susp    bool // I/O suspended by the user
	SuspNoD bool // I/O suspended: no UpToDate copy can be reached
	SuspFen bool // I/O suspended until the lost peer is fenced or back

	UUIDs     UUIDs
	Flags     MDFlags // as they are, or are about to be, on disk; 0 while nothing is attached
	PeerUUIDs PeerUUIDs
	Exposed   uint64 // generation of the data that users of the device have seen (ed_uuid, drbd_int.h)

	LeftBehind     bool // this Primary went on without its disk, which may lack what users have seen
	CrashedPrimary bool // this node went down as Primary and has not been in sync since
	OnlyCopy       bool // a Primary without a disk went on with this copy until the link broke: it may be waiting for it

	// NegDisk and NegPeerDisk are what the disks become if the negotiation of a late attach finds no reason against it.
	NegDisk     proto.DiskState
	NegPeerDisk proto.DiskState

	Size     uint64 // size of the device, in sectors; 0 while unknown
	OwnSize  uint64 // usable size of the own disk, in sectors
	PeerSize uint64 // usable size of the peer's disk as it last said, in sectors
	// Limit is what the device may have at most, in sectors, 0 for no limit: the least that either node's UserSize says, or
	// what the connected peer has set since. PeerUser is what the peer last said of its own.
	Limit    uint64
	PeerUser uint64

	FullDue    bool       // as the target of a full resync: every bit is set when the source begins
	Resizing   bool       // the device has grown here, and the peer has not followed yet
	AskedClean bool       // that the new part counts as in sync
	Asking     bool       // the peer has been asked for its size: until it answers no role changes and nothing else begins
	GrowDue    bool       // the new part is resynced when the peer has answered what is pending; a promotion decides the direction
	GrowPeer   proto.Role // what the peer was when it asked: it may be demoted before its answer is here

	Features         uint32 // feature flags both nodes have (drbd.FeatureTrim ...)
	ResolveConflicts bool   // this node decides ties: it accepted the meta socket
	DRBD9            bool   // the peer is a DRBD 9
	DiscardMyData    bool   // this node's changes lose in the next split brain
	ConsiderResync   bool   // the peer was forced Primary while both disks were Inconsistent
	Skipped          bool   // both disks were declared the same here, and the peer has not told since that its own is good
	EarlySyncUUID    uint64 // the sync UUID, if it overtook the peer's consent to overwrite this copy

	// UUIDDue: the peer was lost while I/O was suspended. The new generation begins when I/O goes on without it; as long as
	// nothing is written, a peer that takes over is just newer.
	UUIDDue bool
	Fence   Fence
	Links   uint64 // how often the nodes were connected

	Pending      Pending
	DetachID     CommandID // waits until the disk is let go
	DisconnectID CommandID // waits until the link is down

	// What is configured; the engine sets it right after New.
	OnIOError    IOErrorPolicy
	Fencing      FencingPolicy
	OnNoData     NoDataPolicy
	OnCongestion CongestionPolicy
	CanVerify    bool   // there is a verify-alg
	UserSize     uint64 // size of drbd.conf, in sectors, 0 = all of the disk

	AfterSB    [3]uint32 // drbd.AfterSBDisconnect and so on, by the number of Primaries; both nodes have the same
	AlwaysASBP bool      // the policies also hold where the histories do not tell when the copies parted
	RRConflict RRConflict

	Seed uint64 // source of new UUIDs, advanced at each use
}

// New is a Secondary without disk and without link. seed must come from crypto/rand; new generations are derived from
// it, and two nodes that made the same ones would take different data for the same.
func New(policy IOErrorPolicy, seed uint64) State {
	return State{
		Role: proto.Secondary, PeerRole: proto.RoleUnknown, Conn: proto.StandAlone,
		Disk: proto.Diskless, PeerDisk: proto.DUnknown, OnIOError: policy, Seed: seed,
	}
}

// Word gives the state as it is told to the peer.
func (s State) Word() drbd.State {
	return drbd.State{
		Role: s.Role, Peer: s.PeerRole, Conn: s.Conn, Disk: s.Disk, PeerDisk: s.PeerDisk,
		AftrISP: s.AftrISP, PeerISP: s.PeerISP, UserISP: s.UserISP, Susp: s.Susp, SuspNoD: s.SuspNoD, SuspFen: s.SuspFen,
	}
}

// MDFlags computes the flags that the metadata must have in this state. Without an attached disk they stay as they
// are.
func (s State) MDFlags() MDFlags {
	if s.Disk < proto.Inconsistent {
		return s.Flags
	}
	f := s.Flags & (MDFullSync | MDALDisabled)
	set := func(on bool, bit MDFlags) {
		if on {
			f |= bit
		}
	}
	set(s.CrashedPrimary, MDCrashedPrimary)
	set(s.Role == proto.Primary || s.PeerDisk < proto.Inconsistent && s.PeerRole == proto.Primary, MDPrimary)
	set(s.Conn > proto.WFReportParams, MDConnected)
	set(s.Disk > proto.Inconsistent, MDConsistent)
	set(s.Disk > proto.Outdated, MDWasUpToDate)
	set(s.PeerDisk >= proto.Inconsistent && s.PeerDisk <= proto.Outdated, MDPeerOutdated)
	return f
}

// Suspended says whether application I/O waits.
func (s State) Suspended() bool { return s.Susp || s.SuspNoD || s.SuspFen }

// Attached says whether there is a disk whose metadata can be read and written.
func (s State) Attached() bool { return s.Disk == proto.Negotiating || s.Disk >= proto.Inconsistent }

// Linked says whether there is a peer to send to.
func (s State) Linked() bool { return s.Conn >= proto.WFReportParams }

// Replicates says whether application writes go to the peer as data (Q: drbd_should_do_remote). A change of it between
// two states starts a new epoch.
func (s State) Replicates() bool {
	return s.PeerDisk == proto.UpToDate && s.Conn >= proto.Connected ||
		s.PeerDisk >= proto.Inconsistent && s.PeerDisk != proto.DUnknown &&
			s.Conn >= proto.WFBitMapT && s.Conn <= proto.PausedSyncT
}
