package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func change(mask uint32, val drbd.State) drbd.Change {
	return drbd.Change{Mask: mask, Val: val.Word() & mask}
}

// ask validates a change that the peer has to agree to, and asks.
func (m *machine) ask(ns State, p Pending, what string) error {
	if rv := check(m.s, sanitize(ns), false); !rv.OK() {
		return refuse(rv, what)
	}
	m.s.Pending = p
	m.out.request = &SendChangeReq{Change: p.Change, ConnWide: p.Kind == PendingDisconnect}
	return nil
}

func (m *machine) promote(e Promote) error {
	const what = "promote"
	switch {
	case m.s.Pending.Kind != PendingNone || m.s.Fence.Promote || m.s.Asking && m.s.Role != proto.Primary:
		return refuse(drbd.SSInTransientState, what)
	case m.s.Role == proto.Primary:
		m.answer(e.ID, nil)
		return nil
	}
	ns := m.s
	ns.Role = proto.Primary
	if e.fenced && m.s.Disk == proto.Consistent && m.s.Conn < proto.Connected && m.s.PeerDisk <= proto.Outdated {
		ns.Disk = proto.UpToDate // the peer has nothing newer, and never will without this node
	}
	p := Pending{Kind: PendingPromote, ID: e.ID, Change: change(drbd.MaskRole, drbd.State{Role: proto.Primary})}
	rv := check(m.s, sanitize(ns), false)
	if rv == drbd.SSNoUpToDateDisk && e.Force && ns.Disk >= proto.Inconsistent && ns.Disk < proto.UpToDate {
		ns.Disk = proto.UpToDate
		p.Forced = true
		p.Change = change(drbd.MaskRole|drbd.MaskDisk, drbd.State{Role: proto.Primary, Disk: proto.UpToDate})
		rv = check(m.s, sanitize(ns), false)
	}
	if m.fencingDecides(rv) && !e.fenced {
		m.s.Fence.Promote, m.s.Fence.ID, m.s.Fence.Force = true, e.ID, e.Force
		m.callFencePeer()
		return nil
	}
	if rv == drbd.SSPrimaryNOP && e.Force {
		m.notify(proto.LevelAlert, "promoted by force although the peer is not fenced: if it is Primary as well, the data forks")
		ns.PeerDisk = proto.Outdated
		rv = check(m.s, sanitize(ns), false)
	}
	if !rv.OK() {
		return refuse(rv, what)
	}
	if asksPeer(m.s, sanitize(ns)) {
		return m.ask(ns, p, what)
	}
	return m.promoted(ns, p)
}

// promoted makes this node Primary, now that nothing speaks against it.
func (m *machine) promoted(ns State, p Pending) error {
	before := m.s.UUIDs.Current
	if rv := m.try(ns, false); !rv.OK() {
		return refuse(rv, "promote")
	}
	m.s.DiscardMyData = false
	if m.s.Disk >= proto.Inconsistent {
		apart := m.s.Conn < proto.Connected || m.s.PeerDisk <= proto.Failed
		if apart && m.s.UUIDs.Bitmap == 0 || p.Forced {
			m.newCurrent(before)
			m.out.uuids = true // a peer without a disk may be promoted on this copy later, and has to know it when it is back
		} else if m.s.OnlyCopy || apart && m.s.UUIDs.startUnheard(m.s.UUIDs.History0) {
			// A Primary without a disk that waits for this copy must not go on with it once it has changed here, and the target of
			// a resync from here may have finished it, or not heard of it, and begin a generation too. DRBD keeps the generation,
			// as the bitmap goes back further (drbd_set_role, drbd_nl.c).
			m.s.UUIDs.History1, m.s.UUIDs.History0 = m.s.UUIDs.History0, before
			m.s.OnlyCopy = false
			m.setCurrent(m.newUUID())
			m.out.uuids = true
		}
	}
	m.out.state = true
	if p.Forced {
		m.out.uuids = true
		m.notify(proto.LevelWarn, "forced: the copy of this node counts as UpToDate from now on")
	}
	m.answer(p.ID, nil)
	return nil
}

func (m *machine) demote(e Demote) error {
	const what = "demote"
	switch {
	case m.s.Pending.Kind != PendingNone || m.s.Asking && m.s.Role == proto.Primary:
		return refuse(drbd.SSInTransientState, what)
	case m.s.Role == proto.Secondary:
		m.answer(e.ID, nil)
		return nil
	case e.InUse:
		return refuse(drbd.SSDeviceInUse, what)
	}
	_ = m.caughtUp() // it never refuses
	ns := m.s
	ns.Role = proto.Secondary
	if rv := m.try(ns, false); !rv.OK() {
		return refuse(rv, what)
	}
	m.out.state = true
	m.answer(e.ID, nil)
	return nil
}

func (m *machine) setPause(id CommandID, on bool) error {
	what := "resume-sync"
	if on {
		what = "pause-sync"
	}
	if m.s.Pending.Kind != PendingNone {
		// The state announced now would take back what the peer is about to grant.
		return refuse(drbd.SSInTransientState, what)
	}
	ns := m.s
	ns.UserISP = on
	if rv := m.try(ns, false); !rv.OK() {
		return refuse(rv, what)
	}
	m.answer(id, nil)
	return nil
}

// resyncAfter holds the resync back for another resource's, or lets it go on (drbd_pause_after, drbd_worker.c).
func (m *machine) resyncAfter(wait bool) error {
	if m.s.Pending.Kind != PendingNone {
		return refuse(drbd.SSInTransientState, "resync-after") // as in setPause
	}
	ns := m.s
	ns.AftrISP = wait
	m.force(ns)
	return nil
}

// peerChangeReply carries out what the peer agreed to.
func (m *machine) peerChangeReply(e PeerChangeReply) error {
	p := m.s.Pending
	if p.Kind == PendingNone || !m.s.Linked() {
		return nil
	}
	m.s.Pending = Pending{}
	defer m.syncNewLate()
	if !e.Code.OK() {
		if p.Kind == PendingDisconnect && e.Code == drbd.SSPrimaryNOP && p.Change.Mask&drbd.MaskDisk == 0 {
			return m.leaveOutdated(p)
		}
		if !m.s.GrowDue {
			m.s.EarlySyncUUID = 0
		}
		// See peerSkips; and a peer whose disk failed when it agreed counts on the change.
		m.out.state = m.s.PeerUUIDs.Flags&drbd.UUIDSkipInitialSync != 0 || e.Code == drbd.SSNoLocalDisk
		m.answer(p.ID, peerRefused(e.Code, p.Kind.String()))
		return nil
	}
	if err := m.granted(p); err != nil {
		m.answer(p.ID, err)
		m.out.state = true // the peer counts on a change that was not made
	}
	return nil
}

// leaveOutdated asks once more to disconnect: the peer is Primary, fences, and wants this copy to be Outdated.
func (m *machine) leaveOutdated(p Pending) error {
	ns := m.s
	ns.Conn = proto.Disconnecting
	if m.s.Disk < proto.Outdated {
		ns.DisconnectID = p.ID // nobody can take this copy for a good one
		m.force(ns)
		return nil
	}
	ns.Disk = proto.Outdated
	p.Change = change(drbd.MaskConn|drbd.MaskDisk, drbd.State{Conn: proto.Disconnecting, Disk: proto.Outdated})
	if err := m.ask(ns, p, p.Kind.String()); err != nil {
		m.answer(p.ID, err)
	}
	return nil
}

func peerRefused(code drbd.RetCode, what string) *Refusal {
	r := refuse(drbd.SSCWFailedByPeer, what)
	r.Text += ", " + code.String()
	switch code {
	case drbd.SSConcurrentStChg, drbd.SSInTransientState:
		r.Code, r.Retry, r.Remedy = code, true, "try again"
	case drbd.SSTwoPrimaries:
		r.Code, r.Remedy = code, "demote the peer first"
	}
	return r
}

// granted applies a pending change. It is validated again: the state may have moved while the peer thought about it.
func (m *machine) granted(p Pending) error {
	ns := m.s
	switch p.Kind {
	case PendingNone: // nothing was asked
	case PendingPromote:
		ns.Role = proto.Primary
		if p.Forced {
			ns.Disk = proto.UpToDate
		}
		return m.promoted(ns, p)
	case PendingDetach:
		ns.Disk, ns.DetachID, m.out.detaches = proto.Failed, p.ID, true
	case PendingDisconnect:
		ns.Conn, ns.DisconnectID = proto.Disconnecting, p.ID
		if p.Change.Mask&drbd.MaskPeerDisk != 0 {
			ns.PeerDisk = proto.Outdated
		}
		if p.Change.Mask&drbd.MaskDisk != 0 {
			ns.Disk = min(ns.Disk, proto.Outdated)
		}
	case PendingVerify, PendingInvalidate, PendingInvalidatePeer:
		return m.begin(p)
	}
	if rv := m.try(ns, false); !rv.OK() {
		return refuse(rv, p.Kind.String())
	}
	return nil
}

// begin starts the verify or full resync that the peer agreed to.
func (m *machine) begin(p Pending) error {
	if m.s.Conn == proto.VerifyT {
		// The peer would not have agreed during the verify that it had begun; the word of its end comes on the other socket.
		ns := m.s
		ns.Conn = proto.Connected
		m.force(ns)
	}
	conn, _ := p.Change.Conn()
	rv := drbd.SSSuccess
	switch {
	case p.Kind == PendingVerify:
		rv = mayVerify(m.s)
	case p.Kind == PendingInvalidate && m.s.Conn == proto.WFBitMapT, p.Kind == PendingInvalidatePeer && m.s.Conn == proto.WFBitMapS:
		// A comparison of histories led the same way meanwhile. The peer has begun what was asked.
	case p.Kind == PendingInvalidate && (target(m.s.Conn) || m.s.Conn == proto.Behind):
		// The peer, Ahead until just now with nothing marked, took a word from before this node fell behind for the end of
		// that resync, and has begun what was asked.
	case p.Kind == PendingInvalidate:
		rv = mayBecomeTarget(m.s)
	default:
		rv = mayBecomeSource(m.s)
	}
	ns := m.s
	ns.Conn = conn
	if rv.OK() {
		rv = m.try(ns, false)
	}
	if !rv.OK() {
		m.s.EarlySyncUUID = 0
		return refuse(rv, p.Kind.String())
	}
	m.startFullSync()
	m.answer(p.ID, nil)
	return nil
}

// unanswered ends a pending request whose peer is gone. A promotion is not made: nobody knows what the peer decided. A
// detach goes on alone if this node can bear it, and a disconnect has got what it wanted.
func (m *machine) unanswered() {
	p := m.s.Pending
	m.s.Pending = Pending{}
	switch p.Kind {
	case PendingNone: // nothing was asked
	case PendingPromote, PendingVerify, PendingInvalidate, PendingInvalidatePeer:
		m.answer(p.ID, &Refusal{Code: drbd.SSCWFailedByPeer, Text: p.Kind.String() + ": the link broke before the peer agreed",
			Remedy: "look at the peer, then try again"})
	case PendingDetach:
		if err := m.granted(p); err != nil {
			m.answer(p.ID, err)
		}
	case PendingDisconnect:
		ns := m.s
		ns.Conn = proto.Disconnecting
		if p.Change.Mask&drbd.MaskDisk != 0 {
			ns.Disk = min(ns.Disk, proto.Outdated) // the peer may count on it
		}
		m.force(ns)
		if m.s.DisconnectID != 0 {
			m.answer(p.ID, nil) // a later command waits for the end
			return
		}
		m.s.DisconnectID = p.ID
	}
}

// peerChangeReq judges what the peer wants to do.
func (m *machine) peerChangeReq(e PeerChangeReq) error {
	if !m.s.Linked() {
		return nil
	}
	code, ns := m.judge(e)
	m.out.reply = &SendChangeReply{Code: code, ConnWide: e.ConnWide}
	if code == drbd.SSSuccess {
		m.commit(ns)
		m.startFullSync()
	}
	if !m.s.Linked() {
		m.unanswered()
	}
	return nil
}

// drbd9UpToDate is UpToDate in the numbering that DRBD 9 uses inside change requests.
const drbd9UpToDate = 9

func (m *machine) judge(e PeerChangeReq) (drbd.RetCode, State) {
	if m.s.ResolveConflicts && m.s.Pending.Kind != PendingNone {
		return drbd.SSConcurrentStChg, m.s
	}
	c := e.Change.Mirror()
	v := drbd.StateOf(c.Apply(m.s.Word().Word()))
	if c.Mask&drbd.MaskPeerDisk != 0 && v.PeerDisk == drbd9UpToDate {
		v.PeerDisk = proto.UpToDate
	}
	touchesDisk := c.Mask&drbd.MaskDisk != 0
	if !v.Valid() || c.Mask&drbd.MaskRole != 0 || touchesDisk && v.Disk != proto.Outdated {
		return drbd.SSNotSupported, m.s
	}
	if c.Mask&drbd.MaskPeerDisk != 0 && v.PeerDisk == proto.UpToDate && m.skipped() && m.s.PeerDisk == proto.UpToDate {
		return drbd.SSInTransientState, m.s // it has not heard yet that its disk is good
	}
	if v.PeerDisk == proto.Failed && m.s.Conn > proto.Connected && m.s.Disk < proto.UpToDate {
		return drbd.SSNoUpToDateDisk, m.s // the copy here needs the one that the peer wants to let go of
	}
	if v.Peer == proto.Primary && m.s.PeerRole != proto.Primary && v.PeerDisk < proto.Inconsistent && m.s.Disk < proto.UpToDate {
		return drbd.SSNoUpToDateDisk, m.s // a kernel takes an Outdated or Negotiating disk for one that it can use
	}
	ns := m.s
	if conn, ok := c.Conn(); ok {
		if rv := m.mayEnter(conn); !rv.OK() {
			return rv, m.s
		}
		ns.Conn = conn
	}
	if touchesDisk && m.s.Disk > proto.Outdated {
		ns.Disk = v.Disk
	}
	ns.PeerRole, ns.PeerDisk, ns.PeerISP = v.Peer, v.PeerDisk, v.PeerISP
	ns = sanitize(ns)
	if ns == m.s {
		return drbd.SSNothingToDo, m.s
	}
	return check(m.s, ns, false), ns
}
