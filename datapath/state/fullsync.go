package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// invalidate asks for a full resync over the own copy, or with Peer over the peer's.
func (m *machine) invalidate(e Invalidate) error {
	p := Pending{Kind: PendingInvalidate, ID: e.ID}
	conn, rv := proto.StartingSyncT, mayBecomeTarget(m.s)
	if e.Peer {
		p.Kind, conn, rv = PendingInvalidatePeer, proto.StartingSyncS, mayBecomeSource(m.s)
	}
	if m.s.Pending.Kind != PendingNone || m.s.Asking {
		rv = drbd.SSInTransientState
	}
	if !rv.OK() {
		return fullSyncRefusal(rv, p.Kind)
	}
	p.Change = change(drbd.MaskConn, drbd.State{Conn: conn})
	ns := m.s
	ns.Conn = conn
	return m.ask(ns, p, p.Kind.String())
}

func fullSyncRefusal(rv drbd.RetCode, k PendingKind) *Refusal {
	r := refuse(rv, k.String())
	if rv == drbd.SSDeviceInUse {
		r.Text = k.String() + ": the node whose copy would be overwritten is Primary"
		r.Remedy = "demote it first"
	}
	return r
}

// mayBecomeTarget says whether the own copy may be overwritten in full from the peer's. Stricter than DRBD: not while
// this node is Primary, and only from a copy that is UpToDate (DRBD would declare it so).
func mayBecomeTarget(s State) drbd.RetCode {
	rv := atRest(s)
	switch {
	case !rv.OK():
		return rv
	case s.Role == proto.Primary:
		return drbd.SSDeviceInUse
	case s.PeerDisk != proto.UpToDate:
		return drbd.SSNoUpToDateDisk
	default:
		return drbd.SSSuccess
	}
}

// mayBecomeSource is the mirror image: the peer's copy is overwritten from the own one.
func mayBecomeSource(s State) drbd.RetCode {
	rv := atRest(s)
	switch {
	case !rv.OK():
		return rv
	case s.PeerRole == proto.Primary:
		return drbd.SSDeviceInUse
	case s.Disk != proto.UpToDate:
		return drbd.SSNoUpToDateDisk
	default:
		return drbd.SSSuccess
	}
}

// atRest: connected, nothing runs, and both nodes have a disk.
func atRest(s State) drbd.RetCode {
	switch {
	case s.Conn < proto.Connected:
		return drbd.SSNeedConnection
	case s.Conn > proto.Connected:
		return drbd.SSResyncRunning
	case s.Disk < proto.Inconsistent:
		return drbd.SSNoLocalDisk
	case s.PeerDisk < proto.Inconsistent:
		return drbd.SSNoRemoteDisk
	default:
		return drbd.SSSuccess
	}
}

// mayEnter says whether the peer may bring this node into a connection state.
func (m *machine) mayEnter(c proto.ConnState) drbd.RetCode {
	switch {
	case c == proto.TearDown:
		return drbd.SSSuccess
	case m.s.Asking:
		return drbd.SSInTransientState // the resync of what the device grows by comes first
	}
	switch c {
	case proto.VerifyT:
		return mayVerify(m.s)
	case proto.StartingSyncS:
		return mayBecomeSource(m.s)
	case proto.StartingSyncT:
		return mayBecomeTarget(m.s)
	default:
		m.notify(proto.LevelWarn, "the peer asks for %v, which this version of santui does not do", c)
		return drbd.SSNotSupported
	}
}

// startFullSync goes on from StartingSyncS or StartingSyncT: every bit is set, and the resync begins without an exchange
// of bitmaps (after_state_ch and abw_start_sync, drbd_state.c). The target sets its bits when it hears that the source has
// begun; DRBD's does so here, and keeps them if the link breaks before the source has.
func (m *machine) startFullSync() {
	ns := m.s
	switch m.s.Conn {
	case proto.StartingSyncS:
		ns.Conn, ns.PeerDisk = proto.SyncSource, proto.Inconsistent
		m.out.setAll = true
	case proto.StartingSyncT:
		ns.Conn, ns.FullDue = proto.WFSyncUUID, true
	default:
		return
	}
	m.force(ns)
	if u := m.s.EarlySyncUUID; u != 0 && m.s.Conn == proto.WFSyncUUID {
		m.s.EarlySyncUUID = 0
		_ = m.syncUUID(u) // it never refuses
	}
}
