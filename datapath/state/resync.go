package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// bitmapReceived: source and target have merged each other's bits.
func (m *machine) bitmapReceived() error {
	ns := m.s
	switch m.s.Conn {
	case proto.WFBitMapT:
		ns.Conn = proto.WFSyncUUID
		m.out.bitmap = m.try(ns, false).OK()
	case proto.WFBitMapS:
		ns.Conn, ns.PeerDisk = proto.SyncSource, proto.Inconsistent
		m.try(ns, false)
	default:
		return nil
	}
	m.out.writeBitmap = true
	return nil
}

// startSource starts the bitmap's new era and tells the target its name for the time of the resync
// (drbd_gen_and_send_sync_uuid, drbd_main.c).
func (m *machine) startSource() {
	if p := m.s.PeerUUIDs; p.Known {
		m.s.UUIDs = m.s.UUIDs.rebased(p.Current) // in full: everything is marked
	}
	u := m.s.UUIDs.Bitmap
	if u != 0 && u != drbd.UUIDJustCreated {
		u += syncUUIDOffset
	} else {
		u = m.newUUID()
	}
	m.setBitmapUUID(u)
	m.out.syncUUID = &SendSyncUUID{UUID: u}
	m.out.startResync = &StartResync{}
}

// syncUUID: the source begins, after an exchange of bitmaps or because it is not Ahead any more; from now on this copy is a
// mixture and bears a name of its own.
func (m *machine) syncUUID(u uint64) error {
	if m.s.Pending.Kind == PendingInvalidate && (m.s.Conn == proto.Connected || m.s.Conn == proto.WFBitMapT || target(m.s.Conn)) {
		m.s.EarlySyncUUID = u // the peer's consent comes on the other socket
	}
	if m.s.GrowDue && m.s.Conn == proto.Connected {
		m.s.EarlySyncUUID = u
	}
	if m.s.Conn != proto.WFSyncUUID && m.s.Conn != proto.Behind || !m.s.Attached() {
		return nil
	}
	ns := m.s
	m.out.setAll = m.out.setAll || m.s.FullDue
	// What a node that was left behind has been told is in memory only. The source clears its bits with each block that
	// comes here, perhaps to a volatile cache.
	m.out.writeBitmap = m.out.writeBitmap || m.s.Conn == proto.Behind
	ns.UUIDs.Bitmap = 0
	ns.Conn, ns.Disk = proto.SyncTarget, proto.Inconsistent
	if rv := m.try(ns, false); !rv.OK() {
		m.notify(proto.LevelWarn, "the resync cannot begin: %v", refuse(rv, "SyncTarget"))
		m.dropLink(proto.ProtocolError)
		return nil
	}
	m.setCurrent(u)
	return nil
}

func (m *machine) resyncDone(e ResyncDone) error {
	if target(m.s.Conn) {
		m.resyncFinished(e.Failed)
	}
	return nil
}

func source(c proto.ConnState) bool { return c == proto.SyncSource || c == proto.PausedSyncS }
func target(c proto.ConnState) bool { return c == proto.SyncTarget || c == proto.PausedSyncT }

// resyncFinished ends a resync on either side (drbd_resync_finished, drbd_worker.c).
func (m *machine) resyncFinished(failed uint64) {
	target := target(m.s.Conn)
	ns := m.s
	ns.Conn, ns.Disk, ns.PeerDisk = proto.Connected, proto.UpToDate, proto.UpToDate
	switch {
	case failed > 0 && target:
		ns.Disk = proto.Inconsistent
	case failed > 0:
		ns.PeerDisk = proto.Inconsistent
	}
	if failed > 0 {
		m.notify(proto.LevelAlert, "resync ended with %d blocks that could not be copied; they stay out of sync. Replace the failing disk", failed)
		m.force(ns)
		return
	}
	if target && m.s.PeerUUIDs.Known {
		p := m.s.PeerUUIDs.UUIDs
		sync := m.s.UUIDs.Current
		m.s.UUIDs.Bitmap, m.s.UUIDs.History0, m.s.UUIDs.History1 = p.Bitmap, p.History0, p.History1
		m.setBitmapUUID(sync)
		m.setCurrent(p.Current)
	}
	m.retireBitmapUUID()
	m.s.PeerUUIDs.UUIDs = m.s.UUIDs // the two are equal now
	ns.UUIDs, ns.PeerUUIDs, ns.Exposed = m.s.UUIDs, m.s.PeerUUIDs, m.s.Exposed
	m.force(ns)
	switch {
	case target:
		m.handler("after-resync-target")
	case m.s.Fencing != FencingDontCare && m.s.Disk == proto.UpToDate && m.s.PeerDisk == proto.UpToDate:
		m.handler("unfence-peer")
	}
	m.notify(proto.LevelInfo, "resync done, both copies are UpToDate")
}

// retireBitmapUUID moves the bitmap slot into the history.
func (m *machine) retireBitmapUUID() {
	if m.s.UUIDs.Bitmap != 0 {
		m.setBitmapUUID(0)
	}
}
