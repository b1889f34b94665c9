package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// limits are the disk states that a connection state allows (sanitize_state, drbd_state.c).
type limits struct{ diskMin, diskMax, peerMin, peerMax proto.DiskState }

func limitsOf(c proto.ConnState) limits {
	switch c {
	case proto.WFBitMapT, proto.PausedSyncT, proto.StartingSyncT, proto.WFSyncUUID, proto.Behind:
		return limits{proto.Inconsistent, proto.Outdated, proto.UpToDate, proto.UpToDate}
	case proto.VerifyS, proto.VerifyT:
		return limits{proto.UpToDate, proto.UpToDate, proto.UpToDate, proto.UpToDate}
	case proto.Connected:
		return limits{proto.Diskless, proto.UpToDate, proto.Diskless, proto.UpToDate}
	case proto.WFBitMapS, proto.PausedSyncS, proto.StartingSyncS, proto.Ahead:
		return limits{proto.UpToDate, proto.UpToDate, proto.Inconsistent, proto.Consistent}
	case proto.SyncTarget:
		return limits{proto.Inconsistent, proto.Inconsistent, proto.UpToDate, proto.UpToDate}
	case proto.SyncSource:
		return limits{proto.UpToDate, proto.UpToDate, proto.Inconsistent, proto.Inconsistent}
	default:
		return limits{proto.Diskless, proto.UpToDate, proto.Inconsistent, proto.DUnknown}
	}
}

func clamp(d, lo, hi proto.DiskState) proto.DiskState { return max(min(d, hi), lo) }

// sanitize adds to a proposed state what follows from it (sanitize_state, drbd_state.c).
func sanitize(ns State) State {
	if ns.Conn < proto.Connected {
		ns.PeerISP = false
		ns.PeerRole = proto.RoleUnknown
		if ns.PeerDisk > proto.DUnknown || ns.PeerDisk < proto.Inconsistent {
			ns.PeerDisk = proto.DUnknown
		}
	}
	if ns.Conn > proto.Connected && (ns.Disk <= proto.Failed || ns.PeerDisk <= proto.Failed) {
		abort(&ns)
	}
	if ns.Conn.Verifying() && (ns.Disk != proto.UpToDate || ns.PeerDisk != proto.UpToDate) {
		ns.Conn = proto.Connected // stricter than DRBD, which would declare both UpToDate
	}
	if ns.Conn < proto.Connected && ns.Disk == proto.Negotiating {
		// The link broke before the peer said whether this disk is good. It is if it holds what users have seen.
		if masked(ns.Exposed) == masked(ns.UUIDs.Current) && !ns.LeftBehind {
			ns.Disk, ns.PeerDisk = ns.NegDisk, ns.NegPeerDisk
		} else {
			ns.Disk, ns.PeerDisk = proto.Failed, proto.DUnknown
		}
	}
	if ns.Conn >= proto.Connected && ns.Conn < proto.Ahead {
		if !outdatedAlone(ns) {
			ns.Disk = settled(ns.Disk)
		}
		ns.PeerDisk = settled(ns.PeerDisk)
	}
	limit(&ns)
	ns.Conn = paused(ns.Conn, ns.AftrISP || ns.PeerISP || ns.UserISP)
	limit(&ns) // a resync that goes on allows less than a paused one
	return ns
}

func limit(ns *State) {
	l := limitsOf(ns.Conn)
	ns.Disk = clamp(ns.Disk, l.diskMin, l.diskMax)
	ns.PeerDisk = clamp(ns.PeerDisk, l.peerMin, l.peerMax)
}

// abort ends a resync for want of a disk. Stricter than DRBD, which lets the old copy of a target that had not begun yet
// pass for UpToDate: it stays Outdated until it is compared again.
func abort(ns *State) {
	switch ns.Conn {
	case proto.WFBitMapS, proto.SyncSource, proto.PausedSyncS, proto.Ahead:
		if ns.PeerDisk > proto.Inconsistent {
			ns.PeerDisk = proto.Inconsistent // what it says of itself then, see outdatedAlone
		}
	}
	ns.Conn = proto.Connected
}

// outdatedAlone says that an Outdated copy stays so though the nodes see each other: the peer has no disk. Stricter than DRBD,
// which takes it for UpToDate, where nobody is there to say that it is good after all. The peer is told that it is Inconsistent,
// as a kernel would use it. It is not: once the peer has a disk, the histories decide.
func outdatedAlone(s State) bool {
	return s.Conn == proto.Connected && s.Disk == proto.Outdated && s.PeerDisk < proto.Inconsistent
}

// settled: Consistent and Outdated vanish when the nodes see each other.
func settled(d proto.DiskState) proto.DiskState {
	if d == proto.Consistent || d == proto.Outdated {
		return proto.UpToDate
	}
	return d
}

func paused(c proto.ConnState, on bool) proto.ConnState {
	switch {
	case on && c == proto.SyncSource:
		return proto.PausedSyncS
	case on && c == proto.SyncTarget:
		return proto.PausedSyncT
	case !on && c == proto.PausedSyncS:
		return proto.SyncSource
	case !on && c == proto.PausedSyncT:
		return proto.SyncTarget
	default:
		return c
	}
}

// validState says whether a state may be entered of free will (is_valid_state, drbd_state.c). With fences a Primary must
// know that a peer it cannot see will not become one.
func validState(ns State, fences bool) drbd.RetCode {
	primary := ns.Role == proto.Primary
	switch {
	case primary && ns.PeerRole == proto.Primary:
		return drbd.SSTwoPrimaries
	case primary && ns.Conn < proto.Connected && ns.Disk < proto.UpToDate:
		return drbd.SSNoUpToDateDisk
	case fences && primary && ns.Conn < proto.Connected && ns.PeerDisk >= proto.DUnknown:
		return drbd.SSPrimaryNOP
	case primary && ns.Disk <= proto.Inconsistent && ns.PeerDisk <= proto.Inconsistent:
		return drbd.SSNoUpToDateDisk
	case ns.Conn > proto.Connected && ns.Disk < proto.Inconsistent:
		return drbd.SSNoLocalDisk
	case ns.Conn > proto.Connected && ns.PeerDisk < proto.Inconsistent:
		return drbd.SSNoRemoteDisk
	case ns.Conn > proto.Connected && ns.Disk < proto.UpToDate && ns.PeerDisk < proto.UpToDate:
		return drbd.SSNoUpToDateDisk
	case ns.Disk == proto.Outdated && !outdatedAlone(ns) && (ns.Conn == proto.Connected || ns.Conn == proto.WFBitMapS ||
		ns.Conn == proto.SyncSource || ns.Conn == proto.PausedSyncS):
		return drbd.SSConnectedOutdates
	case primary && ns.Disk < proto.UpToDate && ns.PeerDisk < proto.UpToDate:
		return drbd.SSNoUpToDateDisk
	case ns.Conn >= proto.Connected && ns.PeerDisk == proto.DUnknown:
		return drbd.SSConnectedOutdates
	default:
		return drbd.SSSuccess
	}
}

// validSoft limits what may be asked for (is_valid_soft_transition, drbd_state.c). While a connection is being set up,
// which is WFReportParams here, nothing but the connection may change.
func validSoft(os, ns State) drbd.RetCode {
	rv := drbd.SSSuccess
	if ns.Conn == proto.Disconnecting && os.Conn == proto.StandAlone {
		rv = drbd.SSAlreadyStandAlone
	}
	if ns.Disk > proto.Attaching && os.Disk == proto.Diskless {
		rv = drbd.SSIsDiskless
	}
	if ns.Conn == proto.WFConnection && os.Conn < proto.Unconnected {
		rv = drbd.SSNoNetConfig
	}
	if ns.Disk == proto.Outdated && os.Disk < proto.Outdated && os.Disk != proto.Attaching {
		rv = drbd.SSLowerThanOutdated
	}
	if os.Conn == proto.WFReportParams && ns.Conn < proto.Connected {
		rv = drbd.SSInTransientState
	}
	if ns.Conn == proto.Disconnecting && ns.PeerDisk == proto.Outdated && os.Conn < proto.Connected && os.PeerDisk > proto.Outdated {
		rv = drbd.SSOutdateWithoutConn
	}
	// The peer would go on announcing its changes to a node that makes its own.
	if os.Role != proto.Primary && ns.Role == proto.Primary && ns.Conn == proto.Behind {
		rv = drbd.SSInTransientState
	}
	// A promotion in the middle of a handshake could overtake its outcome.
	if os.Role != proto.Primary && ns.Role == proto.Primary && ns.PeerDisk == proto.UpToDate &&
		ns.Disk != proto.UpToDate && ns.Disk != proto.Diskless && (ns.Conn <= proto.WFSyncUUID || ns.Conn != os.Conn) {
		rv = drbd.SSInTransientState
	}
	return rv
}

// validTransition limits what can happen at all (is_valid_transition and is_valid_conn_transition, drbd_state.c).
func validTransition(os, ns State) drbd.RetCode {
	if ns.Disk == proto.Failed && os.Disk == proto.Diskless {
		return drbd.SSIsDiskless
	}
	o, n := os.Conn, ns.Conn
	switch {
	case o == n:
		return drbd.SSSuccess
	case o == proto.StandAlone && n == proto.Disconnecting:
		return drbd.SSAlreadyStandAlone
	case o == proto.StandAlone && n != proto.Unconnected:
		return drbd.SSNeedConnection
	case o < proto.WFReportParams && n >= proto.Connected:
		return drbd.SSNeedConnection
	case o >= proto.Timeout && o <= proto.TearDown && n != proto.Unconnected && n != proto.Disconnecting:
		return drbd.SSInTransientState
	case o == proto.Disconnecting && n != proto.StandAlone:
		return drbd.SSInTransientState
	default:
		return drbd.SSSuccess
	}
}

// asksPeer says whether the peer must agree to a change (cl_wide_st_chg, drbd_state.c).
func asksPeer(os, ns State) bool {
	if os.Conn < proto.Connected {
		return false
	}
	if ns.Conn == proto.Disconnecting {
		return true
	}
	return ns.Conn >= proto.Connected &&
		(os.Role != proto.Primary && ns.Role == proto.Primary || os.Disk != proto.Failed && ns.Disk == proto.Failed)
}

// noGoodCopy says that this Primary can reach no UpToDate copy.
func noGoodCopy(s State) bool {
	return s.Role == proto.Primary && s.Disk < proto.UpToDate && s.PeerDisk < proto.UpToDate
}

// suspend adds the suspensions that a change of state begins or ends (sanitize_state and after_state_ch, drbd_state.c).
func suspend(os State, ns *State) {
	switch {
	case ns.Role != proto.Primary:
		ns.SuspFen, ns.SuspNoD = false, false
		return
	case ns.Fencing == FencingAndSuspendIO && unfenced(*ns) && !unfenced(os) && ns.Disk >= proto.Inconsistent:
		ns.SuspFen = true
	case ns.SuspFen && unaware(*ns):
	case !unfenced(*ns):
		ns.SuspFen = false
	}
	switch {
	case !noGoodCopy(*ns):
		ns.SuspNoD = false
	case ns.OnNoData == NoDataSuspends && !noGoodCopy(os):
		ns.SuspNoD = true
	}
}

// unfenced says that this Primary does not know whether the peer can take over.
func unfenced(s State) bool {
	return s.Role == proto.Primary && s.Conn < proto.Connected && s.PeerDisk > proto.Outdated
}

// unaware says that the peer lacks what was under way when the link broke, and does not know it yet: if this Primary were lost
// now, the peer's copy would pass for the current one. DRBD sends again what was under way before it answers; here the answers
// wait until the peer's copy is Outdated.
func unaware(s State) bool { return s.Conn == proto.WFBitMapS && s.PeerDisk > proto.Outdated }

// lostPeerData says whether a change of the peer's disk state means that its copy falls behind from now on
// (lost_contact_to_peer_data, drbd_state.c).
func lostPeerData(o, n proto.DiskState) bool {
	if o >= proto.Inconsistent && o != proto.DUnknown && o != proto.Outdated &&
		(n < proto.Inconsistent || n == proto.DUnknown || n == proto.Outdated) {
		return true
	}
	return o == proto.DUnknown && (n == proto.Diskless || n == proto.Failed || n == proto.Outdated)
}
