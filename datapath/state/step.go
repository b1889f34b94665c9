package state

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Step computes what an event does to a state. It is total and deterministic. The error is a *Refusal; then the state
// is the old one and there are no effects. An event that does not fit the state and came from the link or the disk, as
// a packet of a link that is gone already, changes nothing and is no error.
func Step(s State, ev Event) (State, []Effect, error) {
	m := &machine{old: s, s: s}
	if err := m.dispatch(ev); err != nil {
		return s, nil, err
	}
	return m.s, m.finish(), nil
}

// machine is one step under way: the state so far and what must follow from it.
type machine struct {
	old, s State
	out    outcome
}

// outcome collects effects by kind; finish puts them in order.
type outcome struct {
	setSize                         *SetSize
	persist, setAll, clearAll       bool
	detaches                        bool    // the disk is let go because somebody wants it
	clear                           MDFlags // and loses these flags: the peer may go on
	writeBitmap, stopResync         bool
	startVerify                     *StartVerify
	stopVerify                      bool
	reply                           *SendChangeReply
	skip                            bool // the UUIDs tell the peer that its fresh disk holds the same
	hello, uuids, state             bool
	counted                         bool // the UUIDs tell of so many bits
	bits                            uint64
	compared                        *UUIDs // own ones, before the comparison repaired them
	sizes                           *SendSizes
	stateConn                       proto.ConnState // what SendState claims, if not 0
	syncUUID                        *SendSyncUUID
	request                         *SendChangeReq
	bitmap                          bool
	startResync                     *StartResync
	pause, resume                   bool
	release, closeLink, connectLink bool
	fence                           bool
	ioError                         bool // the handler for it is called before the peer is told
	answers                         []Effect
	notes                           []Effect
}

func (m *machine) dispatch(ev Event) error {
	switch e := ev.(type) {
	case AttachStart:
		return m.attachStart()
	case Attached:
		return m.attached(e)
	case AttachFailed:
		return m.attachFailed(e)
	case AttachUnanswered:
		return m.attachUnanswered()
	case Detach:
		return m.detach(e)
	case DiskError:
		return m.diskError(e)
	case DiskReleased:
		return m.diskReleased()
	case Promote:
		return m.promote(e)
	case Demote:
		return m.demote(e)
	case PauseSync:
		return m.setPause(e.ID, true)
	case ResumeSync:
		return m.setPause(e.ID, false)
	case ResyncAfter:
		return m.resyncAfter(e.Wait)
	case Invalidate:
		return m.invalidate(e)
	case SkipInitialSync:
		return m.skipInitialSync(e)
	case Resize:
		return m.resizeCmd(e)
	case Verify:
		return m.verify(e)
	case Outdate:
		return m.outdate(e)
	case SuspendIO:
		return m.suspendIO(e)
	case ResumeIO:
		return m.resumeIO(e)
	case FencePeerDone:
		return m.fencePeerDone(e)
	default:
		return m.dispatchLink(ev)
	}
}

func (m *machine) dispatchLink(ev Event) error {
	switch e := ev.(type) {
	case Connect:
		return m.connect(e)
	case Disconnect:
		return m.disconnect(e)
	case LinkUp:
		return m.linkUp(e)
	case LinkLost:
		return m.linkLost(e)
	case LinkClosed:
		return m.linkClosed()
	case PeerRejected:
		return m.peerRejected(e)
	case PeerSizes:
		return m.peerSizes(e)
	case PeerUUIDsReceived:
		return m.peerUUIDs(e.UUIDs)
	case PeerState:
		return m.peerState(e)
	case PeerChangeReq:
		return m.peerChangeReq(e)
	case PeerChangeReply:
		return m.peerChangeReply(e)
	case BitmapReceived:
		return m.bitmapReceived()
	case SyncUUIDReceived:
		return m.syncUUID(e.UUID)
	case ResyncDone:
		return m.resyncDone(e)
	case VerifyDone:
		return m.verifyDone()
	case Congested:
		return m.congested(e)
	case CaughtUp:
		return m.caughtUp()
	default:
		return refuse(drbd.SSNotSupported, fmt.Sprintf("event %T", ev))
	}
}

// check says whether a proposed state may be entered; with hard set only facts count, not wishes.
func check(os, ns State, hard bool) drbd.RetCode {
	if rv := validTransition(os, ns); !rv.OK() {
		return rv
	}
	if hard {
		return drbd.SSSuccess
	}
	// A state that was bad before for the same reason may go on being so.
	fences := os.Fencing != FencingDontCare && os.Disk >= proto.Inconsistent
	if rv := validState(ns, fences); !rv.OK() && validState(os, fences) != rv {
		return rv
	}
	return validSoft(os, ns)
}

// try sanitizes, validates and commits a proposed state.
func (m *machine) try(ns State, hard bool) drbd.RetCode {
	ns = sanitize(ns)
	if ns == m.s {
		return drbd.SSNothingToDo
	}
	if rv := check(m.s, ns, hard); !rv.OK() {
		return rv
	}
	m.commit(ns)
	return drbd.SSSuccess
}

// force commits a fact. Facts that cannot follow on the present state are dropped.
func (m *machine) force(ns State) bool { return m.try(ns, true).OK() }

// commit makes a sanitized state the present one and collects what follows.
func (m *machine) commit(ns State) {
	os := m.s
	suspend(os, &ns)
	if os.Conn < proto.Connected && ns.Conn >= proto.Connected {
		ns.Links++
	}
	ns.FullDue = ns.FullDue && (ns.Conn == proto.WFSyncUUID || ns.Conn == proto.Behind)
	good := proto.UpToDate
	if (os.Disk != good || os.PeerDisk != good) && ns.Disk == good && ns.PeerDisk == good {
		ns.CrashedPrimary = false
		ns.PeerUUIDs.Flags &^= drbd.UUIDCrashedPrimary
	}
	if os.Disk == proto.Inconsistent && os.PeerDisk == proto.Inconsistent &&
		os.PeerRole == proto.Secondary && ns.PeerRole == proto.Primary {
		ns.ConsiderResync = true
	}
	switch {
	case ns.Role != proto.Primary || ns.Conn >= proto.Connected && ns.Disk >= proto.Inconsistent:
		ns.LeftBehind = false
	case os.Disk >= proto.Inconsistent && ns.Disk < proto.Inconsistent,
		os.Role != proto.Primary && ns.Disk < proto.Inconsistent:
		// Stricter than DRBD, which goes by the generation alone: the peer tells of its new one only when it has heard, and a
		// kernel does not if it was Primary in between.
		ns.LeftBehind = true
	}
	switch {
	case ns.Conn >= proto.Connected || ns.Disk < proto.Inconsistent:
		ns.OnlyCopy = false
	case os.Conn >= proto.Connected && os.PeerRole == proto.Primary && os.PeerDisk < proto.Inconsistent:
		ns.OnlyCopy = true
	}
	m.s = ns
	m.markCurrent()
	if m.s.Disk >= proto.Inconsistent && os.Disk < proto.Consistent && ns.Disk >= proto.Consistent {
		m.s.Exposed = m.s.UUIDs.Current
	}
	if s := &m.s; os.Disk >= proto.Inconsistent && s.Disk < proto.Inconsistent && s.Conn >= proto.Connected && s.Exposed != 0 &&
		s.PeerUUIDs.Known && masked(s.PeerUUIDs.Bitmap) == masked(s.Exposed) {
		// The peer's new generation, begun because this disk goes, came before its consent did: they use different sockets.
		s.Exposed = s.PeerUUIDs.Current
	}
	m.afterDisks(os, ns)
	m.afterLink(os, ns)
	m.s.Flags = m.s.MDFlags()
}

// markCurrent keeps bit 0 of the current UUID what it means: this node is Primary.
func (m *machine) markCurrent() {
	if !m.s.Attached() || m.s.UUIDs.Current == 0 {
		return
	}
	m.s.UUIDs.Current &^= 1
	if m.s.Role == proto.Primary {
		m.s.UUIDs.Current |= 1
	}
}

// afterDisks collects what a change of roles and disk states leads to (after_state_ch, drbd_state.c).
func (m *machine) afterDisks(os, ns State) {
	if os.PeerDisk <= proto.Attaching && ns.PeerDisk > os.PeerDisk && ns.PeerDisk != proto.DUnknown {
		// The peer attached its disk. DRBD looks at Diskless only: a peer that was Attaching when the link came up would
		// wait for an answer for ever.
		m.out.uuids, m.out.state = true, true
	}
	m.bump(os, ns)
	m.bumpLate()
	if !os.SuspFen && ns.SuspFen {
		m.notify(proto.LevelAlert, "the peer is lost: I/O is suspended until it is fenced or back")
	}
	if !os.SuspNoD && ns.SuspNoD {
		m.notify(proto.LevelAlert, "no UpToDate copy can be reached: I/O is suspended until one is back. resume-io lets it fail instead")
	}
	if os.Suspended() && !ns.Suspended() {
		m.notify(proto.LevelInfo, "I/O goes on")
	}
	if !noGoodCopy(os) && noGoodCopy(ns) {
		m.handler("pri-on-incon-degr")
	}
	if os.Role == proto.Primary && ns.Role == proto.Secondary && ns.Conn <= proto.Connected {
		m.out.writeBitmap = true
	}
	connected := ns.Conn >= proto.Connected
	if connected && os.Disk == proto.Attaching && ns.Disk == proto.Negotiating {
		m.out.sizes, m.out.uuids, m.out.state = &SendSizes{}, true, true
	}
	if os.Disk == proto.Negotiating && outdatedAlone(ns) {
		m.out.state = true // the peer took it for a good one
	}
	if os.Disk != proto.Failed && ns.Disk == proto.Failed {
		m.out.state = m.out.state || connected
		m.out.release = true
		if connected && os.Disk == proto.UpToDate && ns.PeerDisk == proto.UpToDate {
			m.out.clear = MDWasUpToDate
			if !m.out.detaches {
				// What it refused was confirmed, and the peer may never hear why. Were it Consistent, it would be the source as a
				// crashed Primary's copy. DRBD leaves the flags as they are (__drbd_set_state, drbd_state.c).
				m.out.clear |= MDConsistent
			}
		}
	}
	if os.Disk != proto.Diskless && ns.Disk == proto.Diskless ||
		os.Disk == proto.UpToDate && ns.Disk == proto.Inconsistent {
		m.out.state = m.out.state || connected
	}
}

// bump starts a new generation when the peer's copy falls behind while somebody may write.
func (m *machine) bump(os, ns State) {
	if ns.Disk < proto.UpToDate || m.s.UUIDs.Bitmap != 0 {
		return
	}
	lost := lostPeerData(os.PeerDisk, ns.PeerDisk) && (ns.Role == proto.Primary || ns.PeerRole == proto.Primary)
	diskless := ns.PeerDisk < proto.Inconsistent && os.PeerRole != proto.Primary && ns.PeerRole == proto.Primary
	switch {
	case lost && ns.SuspFen:
		m.s.UUIDDue = true
	case lost || diskless:
		m.newCurrent(m.s.UUIDs.Current)
		m.out.uuids = true
	}
}

// bumpLate starts the generation that was put off, now that I/O goes on without the peer. If it goes on with the peer,
// the handshake has seen to it.
func (m *machine) bumpLate() {
	if !m.s.UUIDDue || m.s.SuspFen {
		return
	}
	m.s.UUIDDue = false
	switch {
	case m.s.Conn >= proto.Connected:
	case m.s.Disk < proto.Inconsistent:
		m.s.Exposed = m.newUUID() // nobody has what was written: no copy may be taken for it (drbd_adm_resume_io, drbd_nl.c)
	case m.s.UUIDs.Bitmap == 0:
		m.newCurrent(m.s.UUIDs.Current)
	}
}

// afterLink collects what a change of the connection leads to (after_state_ch, drbd_state.c).
func (m *machine) afterLink(os, ns State) {
	switch {
	case !source(os.Conn) && source(ns.Conn):
		m.startSource()
	case !target(os.Conn) && target(ns.Conn):
		m.out.startResync = &StartResync{Target: true}
	case os.Conn.Syncing() && !ns.Conn.Syncing():
		m.out.stopResync = true
	case os.Conn != ns.Conn && os.Conn.Syncing():
		m.out.pause = ns.Conn == proto.PausedSyncS || ns.Conn == proto.PausedSyncT
		m.out.resume = !m.out.pause
	}
	m.afterVerify(os, ns)
	connected := ns.Conn >= proto.Connected
	if os.Conn != proto.WFBitMapS && ns.Conn == proto.WFBitMapS {
		m.out.bitmap = true
	}
	if connected && (os.AftrISP != ns.AftrISP || os.UserISP != ns.UserISP) ||
		os.Conn == proto.WFReportParams && connected ||
		os.Disk < proto.UpToDate && os.Conn >= proto.SyncSource && ns.Conn == proto.Connected {
		m.out.state = true
	}
	if os.Conn > proto.Connected && ns.Conn <= proto.Connected {
		m.out.writeBitmap = true
	}
	if os.Conn >= proto.WFConnection && ns.Conn <= proto.TearDown {
		m.out.closeLink = true
		m.forgetPeer()
	}
}

// forgetPeer drops what is only known of a peer that can be asked.
func (m *machine) forgetPeer() {
	m.s.PeerUUIDs = PeerUUIDs{}
	m.s.ConsiderResync = false
	m.s.Features, m.s.ResolveConflicts, m.s.DRBD9 = 0, false, false
	m.s.EarlySyncUUID, m.s.Skipped = 0, false
	m.s.Resizing, m.s.Asking, m.s.AskedClean, m.s.GrowDue, m.s.GrowPeer = false, false, false, false, 0
	m.s.PeerUser, m.s.Limit = 0, m.s.UserSize // both nodes go by what they tell each other next
}

// newUUID makes a new generation's name: step and finalizer of splitmix64 over the seed.
func (m *machine) newUUID() uint64 {
	for {
		m.s.Seed += 0x9e3779b97f4a7c15
		z := m.s.Seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		if z &^= 1; z != 0 && z != drbd.UUIDJustCreated {
			return z
		}
	}
}

// newCurrent starts a new generation: the bitmap records changes since the base. Bit 0 of the base tells whether this
// node was Primary already when the generations parted; automatic recovery from split brain goes by it. A promotion by force
// may find an older base: DRBD forgets it (drbd_uuid_new_current, drbd_main.c), and with it a peer whose resync it names.
func (m *machine) newCurrent(base uint64) {
	m.setBitmapUUID(base)
	m.setCurrent(m.newUUID())
}

func (m *machine) setCurrent(u uint64) {
	m.s.UUIDs.Current = u
	m.markCurrent()
	m.s.Exposed = m.s.UUIDs.Current
}

// setBitmapUUID fills the bitmap slot and moves what it held to the history; 0 into an empty slot does nothing.
func (m *machine) setBitmapUUID(u uint64) {
	if old := m.s.UUIDs.Bitmap; old != 0 {
		m.s.UUIDs.History1, m.s.UUIDs.History0 = m.s.UUIDs.History0, old
	}
	m.s.UUIDs.Bitmap = u
}

func (m *machine) answer(id CommandID, err error) {
	if id != 0 {
		m.out.answers = append(m.out.answers, AnswerCommand{ID: id, Err: err})
	}
}

func (m *machine) notify(l proto.Level, format string, args ...any) {
	m.out.notes = append(m.out.notes, Notify{Level: l, Text: fmt.Sprintf(format, args...)})
}

func (m *machine) handler(name string) { m.out.notes = append(m.out.notes, RunHandler{Name: name}) }
