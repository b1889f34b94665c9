package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// skipInitialSync declares two fresh disks to be the same, as they are: both become UpToDate without a resync, under one
// new generation (drbd_adm_new_c_uuid with clear_bm, drbd_nl.c). The peer is told by its UUIDs; if it never hears that,
// its copy is still the fresh one, and a full resync follows.
func (m *machine) skipInitialSync(e SkipInitialSync) error {
	if rv := maySkip(m.s); !rv.OK() {
		r := refuse(rv, "skip the initial sync")
		if rv == drbd.SSNotSupported {
			r.Text = "skip the initial sync: only two disks that were just created, Inconsistent and Secondary, can be declared the same"
			r.Remedy = "let the resync run, or create the metadata of both disks anew"
		}
		return r
	}
	if rv := m.sameData(m.newUUID()); !rv.OK() {
		return refuse(rv, "skip the initial sync")
	}
	m.s.PeerUUIDs.UUIDs, m.s.Skipped = m.s.UUIDs, true
	m.out.uuids, m.out.skip = true, true
	m.notify(proto.LevelWarn, "both disks are declared to be the same; no initial resync")
	m.answer(e.ID, nil)
	return nil
}

func maySkip(s State) drbd.RetCode {
	fresh := func(d proto.DiskState, u UUIDs) bool {
		return d == proto.Inconsistent && masked(u.Current) == drbd.UUIDJustCreated
	}
	rv := atRest(s)
	switch {
	case s.Pending.Kind != PendingNone || s.Asking:
		return drbd.SSInTransientState
	case !rv.OK():
		return rv
	case s.Role == proto.Primary || s.PeerRole == proto.Primary || !s.PeerUUIDs.Known ||
		!fresh(s.Disk, s.UUIDs) || !fresh(s.PeerDisk, s.PeerUUIDs.UUIDs):
		return drbd.SSNotSupported
	default:
		return drbd.SSSuccess
	}
}

// peerSkips takes the peer's word that two fresh disks hold the same (receive_uuids, drbd_receiver.c). If both nodes
// gave theirs at once, the generation of the one that decides ties is kept. DRBD would keep both and find a split brain.
func (m *machine) peerSkips(current uint64) {
	if m.s.Asking && masked(m.s.UUIDs.Current) == drbd.UUIDJustCreated {
		// The peer decided before it heard of the larger disk here, so it does not mean the new part, and the two would not
		// agree on who resyncs it. On a new link this copy is fresh and that of the peer is not.
		m.notify(proto.LevelWarn, "the peer declares both disks to be the same while the one here grows: everything is resynced instead")
		m.dropLink(proto.ProtocolError)
		return
	}
	// A state of an Inconsistent disk may have been under way when the peer decided. With a request pending, it waits: the
	// peer would take it for the end of what it is about to grant.
	m.out.state = m.s.Pending.Kind == PendingNone
	switch {
	case masked(m.s.UUIDs.Current) == drbd.UUIDJustCreated:
	case m.skipped() && !m.s.ResolveConflicts:
		m.setCurrent(current)
		return
	default:
		return
	}
	if m.sameData(current).OK() {
		m.notify(proto.LevelWarn, "the peer declares both disks to be the same; no initial resync")
	}
}

// skipped says whether this copy became good without a resync, and is of the generation that began with that.
func (m *machine) skipped() bool {
	u := m.s.UUIDs
	return m.s.Disk == proto.UpToDate && u.Bitmap == 0 && u.History0 == 0 && masked(u.Current) != drbd.UUIDJustCreated
}

// sameData makes both copies UpToDate, of one generation and with nothing marked.
func (m *machine) sameData(current uint64) drbd.RetCode {
	ns := m.s
	ns.UUIDs.Bitmap = 0
	ns.Disk, ns.PeerDisk = proto.UpToDate, proto.UpToDate
	rv := m.try(ns, false)
	if rv.OK() {
		m.setCurrent(current)
		m.out.clearAll = true
	}
	return rv
}
