package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func (m *machine) connect(e Connect) error {
	switch {
	case m.s.Conn == proto.Disconnecting:
		return refuse(drbd.SSInTransientState, "connect")
	case m.s.Conn != proto.StandAlone && e.DiscardMyData:
		return &Refusal{Code: drbd.SSNothingToDo, Text: "connect: discard-my-data counts only when it starts from StandAlone",
			Remedy: "disconnect first"}
	case m.s.Conn != proto.StandAlone:
		m.answer(e.ID, nil)
		return nil
	case e.DiscardMyData && m.s.Role == proto.Primary:
		return &Refusal{Code: drbd.SSDeviceInUse, Text: "connect: a Primary cannot discard its data", Remedy: "demote first"}
	}
	m.s.DiscardMyData = e.DiscardMyData
	m.lookForPeer()
	m.answer(e.ID, nil)
	return nil
}

// lookForPeer goes by way of Unconnected to WFConnection.
func (m *machine) lookForPeer() {
	for _, c := range []proto.ConnState{proto.Unconnected, proto.WFConnection} {
		ns := m.s
		ns.Conn = c
		m.force(ns)
	}
	m.out.connectLink = m.s.Conn == proto.WFConnection
}

func (m *machine) disconnect(e Disconnect) error {
	const what = "disconnect"
	switch {
	case m.s.Conn == proto.StandAlone:
		m.answer(e.ID, nil)
		return nil
	case m.s.Conn == proto.Disconnecting:
		return refuse(drbd.SSInTransientState, what)
	case m.s.Pending.Kind != PendingNone && !e.Force:
		return refuse(drbd.SSInTransientState, what)
	}
	ns := m.s
	ns.Conn, ns.DisconnectID = proto.Disconnecting, e.ID
	if !e.Force && asksPeer(m.s, sanitize(ns)) {
		p := Pending{Kind: PendingDisconnect, ID: e.ID, Change: change(drbd.MaskConn, drbd.State{Conn: proto.Disconnecting})}
		if check(m.s, sanitize(ns), false) == drbd.SSPrimaryNOP {
			// The peer's copy is Outdated from now on, and the peer has to remember it (conn_try_disconnect, drbd_nl.c).
			ns.PeerDisk = proto.Outdated
			p.Change = change(drbd.MaskConn|drbd.MaskPeerDisk, drbd.State{Conn: proto.Disconnecting, PeerDisk: proto.Outdated})
		}
		return m.ask(ns, p, what)
	}
	if rv := m.try(ns, e.Force); !rv.OK() {
		return refuse(rv, what)
	}
	m.unanswered()
	return nil
}

func (m *machine) linkUp(e LinkUp) error {
	if m.s.Conn != proto.WFConnection {
		return nil
	}
	ns := m.s
	ns.Conn = proto.WFReportParams
	if rv := m.try(ns, false); !rv.OK() {
		return nil
	}
	m.s.Features, m.s.ResolveConflicts, m.s.DRBD9 = e.Features, e.ResolveConflicts, e.DRBD9
	m.out.hello, m.out.sizes, m.out.uuids, m.out.state = true, &SendSizes{}, true, true
	m.out.stateConn = proto.WFConnection // what DRBD says here
	return nil
}

func (m *machine) linkLost(e LinkLost) error {
	if !m.s.Linked() {
		return nil
	}
	if e.Text != "" {
		m.notify(proto.LevelWarn, "the link is lost: %s", e.Text)
	}
	reason := e.Reason
	if reason < proto.Timeout || reason > proto.TearDown {
		reason = proto.NetworkFailure
	}
	m.dropLink(reason)
	return nil
}

// dropLink leaves the link for one of the states from Disconnecting to TearDown.
func (m *machine) dropLink(to proto.ConnState) {
	ns := m.s
	ns.Conn = to
	m.force(ns)
	m.unanswered()
}

func (m *machine) linkClosed() error {
	switch {
	case m.s.Conn == proto.Disconnecting:
		id := m.s.DisconnectID
		ns := m.s
		ns.Conn, ns.DisconnectID, ns.DiscardMyData = proto.StandAlone, 0, false
		m.force(ns)
		m.answer(id, nil)
		m.fencePeer()
	case m.s.Conn >= proto.Timeout && m.s.Conn <= proto.TearDown:
		m.lookForPeer()
		m.fencePeer()
	default:
		return nil
	}
	m.out.writeBitmap = true
	return nil
}

func (m *machine) peerRejected(e PeerRejected) error {
	if m.s.Conn < proto.WFConnection {
		return nil
	}
	m.reject("%s", e.Text)
	return nil
}

// reject gives the peer up until an operator connects again.
func (m *machine) reject(format string, args ...any) {
	m.notify(proto.LevelAlert, format, args...)
	m.dropLink(proto.Disconnecting)
}

func (m *machine) peerSizes(e PeerSizes) error {
	if !m.s.Linked() {
		return nil
	}
	m.s.Asking = m.s.Asking && e.Sizes.Current == 0 // then the peer asks too
	p, ns := e.Sizes, m.s
	ns.PeerSize = p.Disk
	if !m.s.Asking { // both go by what they have told each other when they asked
		ns.OwnSize = max(e.OwnSize, ns.OwnSize)
	}
	if p.Disk != 0 {
		ns.PeerUser = p.User
	}
	before := m.s.Conn < proto.Connected || m.s.PeerDisk == proto.Diskless || m.s.Disk == proto.Negotiating
	if m.s.Disk < proto.Negotiating {
		m.disklessSize(&ns, p)
		return nil
	}
	switch { // DRBD takes a connected peer's word for it, as somebody has resized the device there
	case before:
		ns.Resizing = false // the comparison of histories decides about the new part too
		ns.Limit = atMost(ns.UserSize, ns.PeerUser)
	case p.Disk != 0 && p.User != ns.Limit:
		m.notify(proto.LevelInfo, "the peer limits the size of the device to %d sectors (0 = no limit)", p.User)
		ns.Limit = p.User
	}
	size := agreedSize(ns.OwnSize, p.Disk, ns.Size, ns.Limit)
	if m.s.Disk == proto.Negotiating && p.Current != 0 {
		// The peer's device is what there is: a kernel does not grow it for a disk that comes late (seen in the lab), and would
		// send a bitmap of that size. One that does says so again.
		size = min(size, max(p.Current, ns.Size))
	}
	switch {
	case size < ns.Size && size == ns.Limit && ns.Disk >= proto.Outdated && before:
		m.reject("size in the peer's drbd.conf says %d sectors, the device has %d: it would shrink. Make size at least as large as the device is on both nodes",
			size, ns.Size)
		return nil
	case size < ns.Size && ns.Disk >= proto.Outdated && before:
		m.reject("the peer's disk is too small: %d sectors, the device has %d. Give the peer a larger disk", size, ns.Size)
		return nil
	case !before:
		m.peerResized(ns, size, p)
		return nil
	case size > ns.Size && ns.Size != 0 && ns.Disk > proto.Inconsistent:
		m.notify(proto.LevelWarn, "the device grows from %d to %d sectors; the new part is marked out of sync", ns.Size, size)
	}
	if m.s.Conn > proto.WFReportParams && (size != ns.Size || size == ns.Limit && p.Current > size) {
		m.out.sizes = &SendSizes{} // a peer that attached late has not counted with the limit here
	}
	m.resize(&ns, size, ns.Size)
	m.s = ns
	return nil
}

// disklessSize takes the size of the peer's device (receive_sizes, drbd_receiver.c).
func (m *machine) disklessSize(ns *State, p drbd.Sizes) {
	if p.Current == 0 && p.Disk != 0 && m.s.Conn >= proto.Connected {
		// The peer asks, as its disk has grown; the device is what it was. A kernel takes it for as large as that disk.
		m.out.sizes = &SendSizes{}
		m.s = *ns
		return
	}
	size := p.Current
	if size == 0 {
		size = p.User
	}
	if size == 0 {
		size = p.Disk
	}
	switch {
	case size == 0 || p.Disk == 0 && ns.Size != 0:
	case size < ns.Size && ns.Role == proto.Primary:
		m.reject("the peer's device is too small: %d sectors, the one in use here has %d. Demote first", size, ns.Size)
		return
	case ns.Disk == proto.Diskless:
		m.resize(ns, size, 0)
	}
	m.s = *ns
}

func (m *machine) peerUUIDs(p drbd.UUIDs) error {
	if !m.s.Linked() {
		return nil
	}
	m.s.PeerUUIDs = PeerUUIDs{
		UUIDs: UUIDs{Current: p.Current, Bitmap: p.Bitmap, History0: p.History0, History1: p.History1},
		Known: true, Bits: p.Bits, Flags: p.Flags,
	}
	diskless := m.s.Disk < proto.Inconsistent
	if diskless && m.s.Role == proto.Primary && (m.s.Conn < proto.Connected || m.s.PeerDisk == proto.Diskless) &&
		masked(m.s.Exposed) != masked(p.Current) {
		m.reject("the peer's copy is not the generation of data in use here, %016X", m.s.Exposed)
		return nil
	}
	if diskless && (m.s.Role == proto.Primary || m.s.Conn >= proto.Connected) {
		m.s.Exposed = p.Current
	}
	if !diskless && m.s.Conn == proto.Connected && p.Flags&drbd.UUIDSkipInitialSync != 0 {
		m.peerSkips(p.Current)
	}
	return nil
}
