package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// peerState takes in what the peer says of itself (receive_state, drbd_receiver.c). In WFReportParams, and where a disk
// comes or is forced, it is the moment to compare histories.
func (m *machine) peerState(e PeerState) error {
	p, os := e.State, m.s
	if !os.Linked() || !p.Valid() {
		return nil
	}
	real, done := m.realPeerDisk(e)
	if done {
		return nil
	}
	conn := os.Conn
	if conn == proto.WFReportParams {
		conn = proto.Connected
	}
	if p.Disk >= proto.Negotiating && m.s.Attached() {
		if !m.s.PeerUUIDs.Known {
			return m.noUUIDs(os)
		}
		if m.considers(p, real) {
			if p.Disk == proto.Negotiating && os.Conn >= proto.Connected {
				e.Told, m.out.counted, m.out.bits = e.Bits, true, e.Bits // the peer goes by what the answer tells
			}
			if e.UnderWay && m.s.UUIDDue {
				e.Bits = max(e.Bits, 1) // they passed before I/O was suspended
			}
			c, ok := m.handshake(p.Role, real, e.Bits, e.Told)
			if !ok && (!m.s.Linked() || !m.outlived(&p, &real)) {
				return nil
			}
			if ok {
				conn = c
			}
		}
	}
	if os.Conn == proto.VerifyT && p.Conn != proto.VerifyS {
		conn = proto.Connected // the peer has compared all that it wanted, or something came in between
	}
	behind, done := m.fallBehind(p, real)
	if done {
		return nil
	}
	if behind {
		conn = proto.Behind
	}
	m.establish(os, p, real, conn)
	return nil
}

// noUUIDs: a peer with a disk must have told its history before its state. A late attach here waits for it.
func (m *machine) noUUIDs(os State) error {
	if os.Disk != proto.Negotiating {
		m.notify(proto.LevelWarn, "the peer did not tell the history of its data")
		m.dropLink(proto.ProtocolError)
	}
	return nil
}

// realPeerDisk judges what the peer's disk state means in the middle of a resync. done: the state needs nothing more.
func (m *machine) realPeerDisk(e PeerState) (real proto.DiskState, done bool) {
	p, s := e.State, m.s
	real = p.Disk
	if real == proto.Negotiating {
		real = proto.Consistent
		if s.PeerUUIDs.Flags&drbd.UUIDInconsistent != 0 {
			real = proto.Inconsistent
		}
	}
	if s.Skipped {
		if real == proto.Inconsistent && s.Conn == proto.Connected {
			// From before it heard. Believed, it would leave writes marked that nobody resyncs.
			return proto.UpToDate, false
		}
		m.s.Skipped = false
	}
	source := source(s.Conn)
	ended := source && p.Conn == proto.Connected && e.Bits <= e.Failed
	behind := s.PeerDisk == proto.Inconsistent || s.PeerDisk == proto.Consistent
	switch {
	case behind && real == proto.UpToDate && s.Conn > proto.Connected && s.Disk == proto.UpToDate:
		if p.Conn > proto.Connected && p.Conn < proto.SyncSource {
			return proto.Inconsistent, false // still preparing
		}
		if source && p.Conn == proto.Connected {
			if ended {
				m.resyncFinished(e.Failed)
			}
			return real, true
		}
	case ended && e.Failed > 0 && real == proto.Inconsistent:
		m.resyncFinished(e.Failed)
		return real, true
	case p.Conn == proto.Behind && s.Conn == proto.Connected:
		return min(real, proto.Inconsistent), false // this node has lost its disk while Ahead: nobody has the peer's changes
	case s.PeerDisk == proto.UpToDate && real == proto.Inconsistent && s.Conn == proto.Connected &&
		p.Conn > proto.SyncSource && p.Conn < proto.Ahead:
		return proto.UpToDate, false // the peer has not noticed yet that the resync is over
	}
	return real, false
}

// considers says whether the peer's state is a reason to compare histories.
func (m *machine) considers(p drbd.State, real proto.DiskState) bool {
	s := m.s
	if s.Conn < proto.Connected {
		return true
	}
	// The peer's copy was declared good, which its request did not tell.
	forced := s.Disk == proto.Inconsistent && s.PeerDisk == proto.Inconsistent && real == proto.UpToDate
	// A disk was attached at the same time as the one here, or stayed after all: DRBD takes it as it is.
	appeared := s.PeerDisk < proto.Inconsistent && real >= proto.Inconsistent
	return s.Conn == proto.Connected && (s.ConsiderResync || forced || appeared || p.Disk == proto.Negotiating || s.Disk == proto.Negotiating ||
		p.Conn >= proto.StartingSyncS && p.Conn <= proto.WFBitMapT)
}

// outlived says whether the link survives a failed handshake: it does if it was about a late attach, which fails
// instead.
func (m *machine) outlived(p *drbd.State, real *proto.DiskState) bool {
	switch {
	case m.s.Disk == proto.Negotiating:
		m.dropDisk()
		return true
	case p.Disk == proto.Negotiating:
		m.notify(proto.LevelWarn, "the peer's disk is not accepted")
		p.Disk, *real = proto.Diskless, proto.Diskless
		m.out.uuids, m.out.state = true, true // so that the peer sees it too
		return true
	default:
		m.dropLink(proto.Disconnecting)
		return false
	}
}

// establish commits what the peer's state and the handshake led to.
func (m *machine) establish(os State, p drbd.State, real proto.DiskState, conn proto.ConnState) {
	ns := m.s
	ns.Conn, ns.PeerRole, ns.PeerDisk = conn, p.Role, real
	ns.PeerISP = p.AftrISP || p.UserISP
	ns.ConsiderResync = false
	if (conn == proto.Connected || conn == proto.WFBitMapS) && ns.Disk == proto.Negotiating && !undecided(ns, p) {
		ns.Disk = ns.NegDisk
	}
	ns = sanitize(ns)
	fresh := os.Conn < proto.Connected
	rv := check(m.s, ns, !fresh)
	if ns.Role == proto.Primary && p.Role == proto.Primary {
		rv = drbd.SSTwoPrimaries
	}
	if !rv.OK() {
		r := refuse(rv, "the connection cannot be made")
		if rv == drbd.SSTwoPrimaries && ns.Role == proto.Primary && os.Disk < proto.UpToDate && real == proto.UpToDate {
			r.Text, r.Remedy = "the connection cannot be made: the peer is Primary and has the good copy; the one here is "+os.Disk.String(), "Demote this node"
		}
		m.out.setAll = false
		m.reject("%s. %s", r.Text, r.Remedy)
		return
	}
	if ns != m.s {
		m.commit(ns)
		m.s.ConsiderResync = false // done just now
	}
	if os.Conn == proto.Connected && ns.Conn > proto.Connected && p.Conn <= proto.Connected && p.Disk != proto.Negotiating {
		m.out.uuids, m.out.state = true, true // the peer has not decided to resync yet
	}
	if m.s.Conn >= proto.Connected {
		m.s.DiscardMyData = false
	}
}

// undecided says that a late attach goes on waiting although the peer has no disk: its word is from before it heard of the
// attach, and it may be attaching too by now. If both went by such words, each would begin a generation of its own.
func undecided(ns State, p drbd.State) bool {
	return ns.PeerDisk < proto.Inconsistent && p.PeerDisk < proto.Negotiating
}

// handshake decides who resyncs from whom (drbd_sync_handshake, drbd_receiver.c). false: they cannot go together, and
// the operator has been told why.
func (m *machine) handshake(peerRole proto.Role, peerDisk proto.DiskState, bits, told uint64) (proto.ConnState, bool) {
	disk := m.s.Disk
	if disk == proto.Negotiating {
		disk = m.s.NegDisk
	}
	crashed := m.s.PeerUUIDs.Flags&drbd.UUIDCrashedPrimary != 0
	v := Compare(Side{m.s.UUIDs, m.s.Role, m.s.CrashedPrimary}, Side{m.s.PeerUUIDs.UUIDs, peerRole, crashed},
		Caps{Features: m.s.Features, ResolveConflicts: m.s.ResolveConflicts})
	m.notify(proto.LevelInfo, "comparison of histories: %s (rule %d, result %d)", v.Text, v.Rule, v.Result)
	if v.Result == Unrelated || v.Result == NeedFeature {
		m.notify(proto.LevelAlert, "%s. Connect the nodes that belong together; if this is the right peer, recreate the metadata of the copy to be overwritten",
			v.Text)
		return 0, false
	}
	result := m.byDisks(v.Result, disk, peerDisk)
	own := m.s.UUIDs
	m.s.PeerUUIDs.UUIDs = v.Peer
	if v.Rule != missedEnd {
		// Stricter than DRBD: else a node that loses its power before the resync begins would agree with the peer afterwards,
		// and what it marked alone would stay marked. The beginning moves the bitmap's generation into the history.
		m.s.UUIDs = v.Self
	}
	result, ok := m.splitBrain(result, peerRole, disk, peerDisk, told, v.Strangers)
	if !ok {
		return 0, false
	}
	if m.s.UUIDDue && result == NoSync && bits > 0 && m.s.Role == proto.Primary && peerRole != proto.Primary && disk == proto.UpToDate {
		// Writes were under way when the link broke; the peer may lack them. DRBD sends them again, here they are resynced.
		m.newCurrent(m.s.UUIDs.Current)
		m.out.uuids = true
		result = SourceBitmap
	}
	switch {
	case result > 0 && disk <= proto.Inconsistent:
		m.notify(proto.LevelAlert, "this node would be the source of the resync, but its disk is Inconsistent")
		return 0, false
	case v.Rule == peerMissedEnd && m.s.UUIDDue && m.s.Role == proto.Primary && peerRole == proto.Secondary && result < 0:
		// The peer was the source when the link broke, has missed that its resync was finished, and has not been promoted since:
		// that would have begun a generation. So the copy here is the newer one.
		m.notify(proto.LevelInfo, "the peer missed the end of its resync to this Primary: the nodes connect anew under a new generation")
		m.s.UUIDDue = false
		m.newCurrent(m.s.UUIDs.Current)
		m.dropLink(proto.ProtocolError)
		return 0, false
	case result < 0 && m.s.Role == proto.Primary && m.s.Disk >= proto.Consistent:
		if m.s.RRConflict == RRCallPriLost {
			m.handler("pri-lost")
		}
		advice := "Demote the node whose changes are to be lost, and connect it with discard-my-data"
		if m.s.UUIDDue {
			advice = "Its I/O is suspended. Demote it in any case; then connect the node whose changes are to be lost with discard-my-data"
		}
		m.notify(proto.LevelAlert, "this node is Primary and would be overwritten from the peer. %s", advice)
		return 0, false
	}
	m.out.setAll = m.out.setAll || result == SourceFull || result == TargetFull
	if m.old.Conn >= proto.Connected && m.s.UUIDs == v.Self {
		m.out.compared = &own // the peer, whose late attach this is, has to compare the same
	}
	switch {
	case result > 0:
		return proto.WFBitMapS, true
	case result < 0:
		return proto.WFBitMapT, true
	case bits > 0:
		m.notify(proto.LevelAlert, "%d blocks are marked out of sync, and no resync begins by itself, as the nodes agree about their history: a verify found "+
			"them, or the device has grown while the nodes were apart. Copy them with verify repair, from the node whose data counts (either, for what is new)", bits)
	}
	return proto.Connected, true
}

// byDisks: if exactly one disk is Inconsistent, it is the target, whatever the histories say.
func (m *machine) byDisks(result int, disk, peer proto.DiskState) int {
	if !(disk == proto.Inconsistent && peer > proto.Inconsistent || peer == proto.Inconsistent && disk > proto.Inconsistent) {
		return result
	}
	full := result == SplitBrain2 || result == SourceFull || result == TargetFull
	result = SourceBitmap
	if disk == proto.Inconsistent {
		result = TargetBitmap
	}
	if full {
		result *= 2
	}
	return result
}
