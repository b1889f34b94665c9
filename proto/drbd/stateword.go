package drbd

import "example.com/santui/proto"

// State is the state word of a node, as P_STATE and change requests carry it (union drbd_state, linux/drbd.h). Role,
// Conn and Disk are the sender's own; Peer and PeerDisk what it thinks of the receiver.
type State struct {
	Role     proto.Role
	Peer     proto.Role
	Conn     proto.ConnState
	Disk     proto.DiskState
	PeerDisk proto.DiskState
	Susp     bool // I/O suspended by the user
	AftrISP  bool // resync paused by dependency
	PeerISP  bool // resync paused by the peer
	UserISP  bool // resync paused by the user
	SuspNoD  bool // I/O suspended: no data reachable
	SuspFen  bool // I/O suspended: the fencing handler runs
}

// Shifts of the fields of a state word.
const (
	shiftRole     = 0
	shiftPeer     = 2
	shiftConn     = 4
	shiftDisk     = 9
	shiftPeerDisk = 13
	shiftSusp     = 17
	shiftAftrISP  = 18
	shiftPeerISP  = 19
	shiftUserISP  = 20
	shiftSuspNoD  = 21
	shiftSuspFen  = 22
)

// Masks of the fields of a state word, for change requests.
const (
	MaskRole     = 3 << shiftRole
	MaskPeer     = 3 << shiftPeer
	MaskConn     = 31 << shiftConn
	MaskDisk     = 15 << shiftDisk
	MaskPeerDisk = 15 << shiftPeerDisk
	MaskSusp     = 1 << shiftSusp
	MaskAftrISP  = 1 << shiftAftrISP
	MaskPeerISP  = 1 << shiftPeerISP
	MaskUserISP  = 1 << shiftUserISP
	MaskSuspNoD  = 1 << shiftSuspNoD
	MaskSuspFen  = 1 << shiftSuspFen
	// MaskAll covers the defined bits. DRBD 9 also sets bit 23, quorum, which is dropped.
	MaskAll = 1<<23 - 1
)

func bit(b bool, shift uint) uint32 {
	if b {
		return 1 << shift
	}
	return 0
}

// Word packs the state.
func (s State) Word() uint32 {
	return uint32(s.Role&3)<<shiftRole | uint32(s.Peer&3)<<shiftPeer | uint32(s.Conn&31)<<shiftConn |
		uint32(s.Disk&15)<<shiftDisk | uint32(s.PeerDisk&15)<<shiftPeerDisk |
		bit(s.Susp, shiftSusp) | bit(s.AftrISP, shiftAftrISP) | bit(s.PeerISP, shiftPeerISP) |
		bit(s.UserISP, shiftUserISP) | bit(s.SuspNoD, shiftSuspNoD) | bit(s.SuspFen, shiftSuspFen)
}

// StateOf unpacks a state word. Bits above 22 are dropped; the fields may hold numbers that name no state, see Valid.
func StateOf(w uint32) State {
	return State{
		Role: proto.Role(w >> shiftRole & 3), Peer: proto.Role(w >> shiftPeer & 3),
		Conn: proto.ConnState(w >> shiftConn & 31), Disk: proto.DiskState(w >> shiftDisk & 15),
		PeerDisk: proto.DiskState(w >> shiftPeerDisk & 15),
		Susp:     w&MaskSusp != 0, AftrISP: w&MaskAftrISP != 0, PeerISP: w&MaskPeerISP != 0,
		UserISP: w&MaskUserISP != 0, SuspNoD: w&MaskSuspNoD != 0, SuspFen: w&MaskSuspFen != 0,
	}
}

// Valid says whether every field names a state.
func (s State) Valid() bool {
	return s.Role <= proto.Secondary && s.Peer <= proto.Secondary && s.Conn <= proto.Behind &&
		s.Disk <= proto.UpToDate && s.PeerDisk <= proto.UpToDate
}

// Change is a requested state change: the fields under Mask become those of Val.
type Change struct {
	Mask, Val uint32
}

// Apply gives the word with the change applied.
func (c Change) Apply(w uint32) uint32 { return w&^c.Mask | c.Val&c.Mask }

// Conn gives the requested connection state, false if the request does not touch it.
func (c Change) Conn() (proto.ConnState, bool) {
	return proto.ConnState(c.Val >> shiftConn & 31), c.Mask&MaskConn != 0
}

// Mirror turns the peer's request into what it means for this node: role and peer role, disk and peer disk change
// places, the peer's own pauses become peer pauses, and connection states become their counterparts (convert_state,
// drbd_receiver.c). A connection state without a counterpart stays as it is, for the receiver to refuse.
func (c Change) Mirror() Change {
	m := StateOf(c.Mask)
	v := StateOf(c.Val)
	conn := v.Conn
	switch conn {
	case proto.StartingSyncS:
		conn = proto.StartingSyncT
	case proto.StartingSyncT:
		conn = proto.StartingSyncS
	case proto.VerifyS:
		conn = proto.VerifyT
	case proto.Disconnecting:
		conn = proto.TearDown
	}
	return Change{Mask: mirror(m, m.Conn).Word(), Val: mirror(v, conn).Word()}
}

func mirror(s State, conn proto.ConnState) State {
	return State{
		Role: s.Peer, Peer: s.Role, Conn: conn, Disk: s.PeerDisk, PeerDisk: s.Disk,
		PeerISP: s.AftrISP || s.UserISP,
	}
}
