package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// resizeCmd takes a disk that has become larger (drbd_adm_resize, drbd_nl.c). Without the peer's word the device keeps its
// size: the peer may have no room.
func (m *machine) resizeCmd(e Resize) error {
	const what = "resize"
	switch {
	case m.s.Disk < proto.Inconsistent:
		return refuse(drbd.SSNoLocalDisk, what)
	case m.s.Conn > proto.Connected:
		return refuse(drbd.SSResyncRunning, what)
	case m.s.Conn == proto.WFReportParams || m.s.Pending.Kind != PendingNone || m.s.Asking:
		return refuse(drbd.SSInTransientState, what)
	}
	ns := m.s
	ns.OwnSize = max(e.OwnSize, ns.OwnSize)
	peer := ns.PeerSize
	if ns.Conn < proto.Connected {
		peer = 0
	}
	size := max(agreedSize(ns.OwnSize, peer, ns.Size, ns.Limit), ns.Size)
	m.grow(&ns, size, e.AssumeClean)
	if ns.Conn == proto.Connected {
		m.out.sizes = &SendSizes{Ask: true, NoResync: e.AssumeClean}
		ns.Resizing, ns.Asking, ns.AskedClean = ns.Resizing || size > m.s.Size, !m.s.DRBD9, e.AssumeClean
	}
	m.s = ns
	m.answer(e.ID, nil)
	return nil
}

// grow makes the device larger, if size is.
func (m *machine) grow(ns *State, size uint64, clean bool) {
	if size <= ns.Size {
		return
	}
	m.notify(proto.LevelInfo, "the device grows from %d to %d sectors", ns.Size, size)
	if clean {
		m.notify(proto.LevelWarn, "the new part counts as in sync, as asked")
	}
	ns.Size = size
	m.out.setSize = &SetSize{Sectors: size, NewBits: !clean}
}

// peerResized takes the sizes that a connected peer tells, whose disk has grown or who answers that ours has
// (receive_sizes, drbd_receiver.c).
func (m *machine) peerResized(ns State, size uint64, p drbd.Sizes) {
	ownGrew, clean := ns.OwnSize > m.s.OwnSize, p.Flags&drbd.SizesNoResync != 0
	decided := p.Current != 0 && !m.s.DRBD9 // an answer; DRBD 9 tells of its disk before it grows
	switch {
	case m.s.Asking && m.s.AskedClean != clean:
		m.notify(proto.LevelAlert, "both nodes grow the device at once, and only one of them says that the new part is the same on both: it is marked out of sync")
		m.dropLink(proto.ProtocolError)
		return
	case size < ns.Size:
		m.reject("the peer wants to shrink the device from %d to %d sectors while both nodes use it. Give the peer's disk its old size back",
			ns.Size, size)
		return
	case decided:
		// What both disks have grown by since is for the next resize.
		size = min(size, max(p.Current, ns.Size))
	}
	if size > ns.Size && ns.Conn != proto.Connected {
		if decided {
			// A resync has begun while the peer was asked, and it has grown. The next handshake makes the sizes the same.
			m.notify(proto.LevelWarn, "the device has grown to %d sectors on the peer only, as a resync has begun here: the nodes connect anew", p.Current)
			m.dropLink(proto.ProtocolError)
			return
		}
		m.notify(proto.LevelWarn, "the device could grow from %d to %d sectors; resize it when the nodes are Connected and nothing is being resynced or verified",
			ns.Size, size)
		size = ns.Size
	}
	grew := size > ns.Size
	m.grow(&ns, size, clean)
	if p.Current == 0 || p.Current != size && (grew || ownGrew) {
		m.out.sizes = &SendSizes{NoResync: clean}
	}
	later := p.Current != 0 && p.Current < size // the peer, Ahead perhaps, does not follow now
	begin := (grew || ns.Resizing) && !later
	ns.Resizing = later
	m.s = ns
	switch {
	case !begin || clean:
	case m.s.Pending.Kind != PendingNone:
		m.s.GrowDue, m.s.GrowPeer = true, m.s.PeerRole
	default:
		m.syncNew(m.s.PeerRole)
	}
}

// syncNewLate begins the resync that waited for the peer's answer.
func (m *machine) syncNewLate() {
	if !m.s.GrowDue || !m.s.Linked() {
		return
	}
	u := m.s.EarlySyncUUID
	peer := m.s.GrowPeer
	m.s.GrowDue, m.s.GrowPeer, m.s.EarlySyncUUID = false, 0, 0
	m.syncNew(peer)
	if u != 0 && m.s.Conn == proto.WFSyncUUID {
		_ = m.syncUUID(u) // it never refuses
	}
}

// syncNew brings the new part of the device in line. Both nodes have marked it and begin without an exchange of bitmaps: the
// Primary is the source, or who decides ties (resync_after_online_grow, drbd_receiver.c).
func (m *machine) syncNew(peer proto.Role) {
	ns := m.s
	if ns.Disk != proto.UpToDate || ns.PeerDisk != proto.UpToDate {
		return // what makes the copies good takes the new part along
	}
	if m.s.DRBD9 {
		// DRBD 9.3.3 takes the new size and stays Established; who begins a resync of the new part waits for ever.
		m.notify(proto.LevelAlert, "DRBD 9 on the peer does not resync what a device has grown by: the new part is marked out of sync. "+
			"Invalidate the copy that is to be overwritten, or run an online verify and repair what differs")
		return
	}
	source := ns.ResolveConflicts
	if ns.Role != peer {
		source = ns.Role == proto.Primary
	}
	if source {
		ns.Conn, ns.PeerDisk = proto.SyncSource, proto.Inconsistent
	} else {
		ns.Conn = proto.WFSyncUUID
	}
	m.force(ns)
}
