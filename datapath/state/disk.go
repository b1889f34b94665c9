package state

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func (m *machine) attachStart() error {
	switch {
	case m.s.Disk == proto.Failed || m.s.Disk == proto.Attaching:
		return refuse(drbd.SSInTransientState, "attach")
	case m.s.Disk != proto.Diskless:
		return &Refusal{Code: drbd.SSNothingToDo, Text: "attach: a disk is attached already"}
	}
	ns := m.s
	ns.Disk = proto.Attaching
	if rv := m.try(ns, false); !rv.OK() {
		return refuse(rv, "attach")
	}
	return nil
}

func (m *machine) attached(e Attached) error {
	if m.s.Disk != proto.Attaching || m.s.Conn == proto.WFReportParams {
		return refuse(drbd.SSInTransientState, "attach")
	}
	r := m.unfit(e)
	if r == nil {
		r = m.foreign(e)
	}
	if r != nil {
		m.dropDisk()
		m.answer(e.ID, r)
		return nil
	}
	ns := m.s
	ns.UUIDs, ns.OwnSize = e.UUIDs, e.OwnSize
	ns.Flags = e.Flags & (MDFullSync | MDALDisabled)
	ns.CrashedPrimary = e.Flags&MDCrashedPrimary != 0 || e.Flags&MDPrimary != 0
	ns.OnlyCopy = e.Flags&MDPrimary != 0 && e.UUIDs.Current&1 == 0 // the flag was another node's
	if e.Flags&MDFullSync != 0 || ns.CrashedPrimary && e.Flags&MDALDisabled != 0 {
		m.out.setAll = true
		m.notify(proto.LevelWarn, "everything counts as out of sync, as the metadata says")
	}
	ns.Flags &^= MDFullSync
	disk, peer := m.diskOf(e.Flags)
	if m.s.Conn >= proto.Connected {
		// The peer has a say in what this disk is worth.
		ns.NegDisk, ns.NegPeerDisk = disk, peer
		disk, peer = proto.Negotiating, m.s.PeerDisk
		ns.PeerUUIDs = PeerUUIDs{}
		ns.Flags = e.Flags &^ MDFullSync // they stay what they are until that is settled
	}
	ns.Disk, ns.PeerDisk = disk, peer
	ns.Limit = atMost(ns.UserSize, ns.PeerUser)
	m.resize(&ns, agreedSize(e.OwnSize, ns.PeerSize, e.Size, ns.Limit), e.Size)
	if rv := m.try(ns, false); !rv.OK() {
		m.out = outcome{}
		m.dropDisk()
		m.answer(e.ID, refuse(rv, "attach"))
		return nil
	}
	m.out.persist = true
	m.answer(e.ID, nil)
	return nil
}

// diskOf reads the disk states off the metadata's flags.
func (m *machine) diskOf(f MDFlags) (own, peer proto.DiskState) {
	peer = m.s.PeerDisk
	if f&MDPeerOutdated != 0 && m.s.Conn < proto.Connected {
		peer = proto.Outdated
	}
	switch {
	case f&MDConsistent == 0:
		return proto.Inconsistent, peer
	case f&MDWasUpToDate == 0:
		return proto.Outdated, peer
	case f&MDPeerOutdated == 0 && m.s.Fencing != FencingDontCare:
		return proto.Consistent, peer // the peer may have gone on without this copy
	default:
		return proto.UpToDate, peer
	}
}

// unfit says why a disk cannot be used here.
func (m *machine) unfit(e Attached) *Refusal {
	switch {
	case e.OwnSize == 0:
		return refuse(drbd.SSNoLocalDisk, "attach: the disk has no room for data")
	case e.OwnSize < e.Size:
		return &Refusal{Code: drbd.SSNoLocalDisk,
			Text:   fmt.Sprintf("attach: the disk has %d sectors, its metadata says %d", e.OwnSize, e.Size),
			Remedy: "give the disk its old size back"}
	case e.OwnSize < m.s.UserSize:
		return &Refusal{Code: drbd.SSNoLocalDisk,
			Text:   fmt.Sprintf("attach: the disk has %d sectors, size in drbd.conf says %d", e.OwnSize, m.s.UserSize),
			Remedy: "use a larger disk, or make size in the disk section no more than the disk has; the metadata takes a part of it"}
	case m.s.UserSize != 0 && m.s.UserSize < e.Size:
		return &Refusal{Code: drbd.SSNoLocalDisk,
			Text:   fmt.Sprintf("attach: size in drbd.conf says %d sectors, the device has %d: it would shrink", m.s.UserSize, e.Size),
			Remedy: "make size in the disk section at least as large as the device is"}
	case m.s.Size > 0 && e.OwnSize < m.s.Size && (m.s.Role == proto.Primary || m.s.Conn >= proto.Connected):
		return &Refusal{Code: drbd.SSNoLocalDisk,
			Text:   fmt.Sprintf("attach: the disk has %d sectors, the device in use has %d", e.OwnSize, m.s.Size),
			Remedy: "use a disk that is at least as large. If this one has grown since: disconnect, attach it, resize, and connect"}
	case m.s.Role == proto.Primary && m.s.Conn < proto.Connected && m.s.Exposed != 0 &&
		(m.s.LeftBehind || masked(m.s.Exposed) != masked(e.UUIDs.Current)):
		return &Refusal{Code: drbd.SSNoUpToDateDisk,
			Text:   "attach: the disk does not hold the generation of data that is in use",
			Remedy: "connect to the peer that has it"}
	}
	return nil
}

// foreign says why a disk does not go together with the copy of the peer that is connected. A kernel's DRBD that finds this out
// says so in its log only (receive_state, drbd_receiver.c), and the attaching node waits for its word for ever.
func (m *machine) foreign(e Attached) *Refusal {
	if m.s.Conn < proto.Connected || !m.s.PeerUUIDs.Known || m.s.PeerDisk < proto.Inconsistent {
		return nil
	}
	disk, _ := m.diskOf(e.Flags)
	v := Compare(Side{e.UUIDs, m.s.Role, e.Flags&(MDCrashedPrimary|MDPrimary) != 0},
		Side{m.s.PeerUUIDs.UUIDs, m.s.PeerRole, m.s.PeerUUIDs.Flags&drbd.UUIDCrashedPrimary != 0},
		Caps{Features: m.s.Features, ResolveConflicts: m.s.ResolveConflicts})
	result := m.byDisks(v.Result, disk, m.s.PeerDisk)
	remedy := "if it is the wrong disk, attach the right one. If the peer's data shall be copied to this one, recreate its metadata (create-md) and attach it again"
	switch {
	case v.Result == Unrelated || v.Result == NeedFeature:
	case result == SplitBrain && m.s.AfterSB == [3]uint32{}, result == SplitBrain2 && (!m.s.AlwaysASBP || v.Strangers):
		if !v.Strangers {
			remedy = "if it is the wrong disk, attach the right one. Else disconnect and attach it; then the node whose changes are to be lost " +
				"connects with discard-my-data as a Secondary, and the other one as usual"
		}
	case result > 0 && result < SplitBrain && m.s.PeerRole == proto.Primary && m.s.PeerDisk > proto.Inconsistent:
		remedy = "a Primary is never overwritten: see which data is wanted first. " + remedy
	default:
		return nil
	}
	return &Refusal{Code: drbd.SSNoLocalDisk,
		Text:   fmt.Sprintf("attach: the data on the disk does not go together with that of the peer: %s (rule %d). Nothing was copied", v.Text, v.Rule),
		Remedy: remedy}
}

// attachUnanswered: the peer has not said for long what a late attach comes to. It may have refused without a word.
func (m *machine) attachUnanswered() error {
	if m.s.Disk != proto.Negotiating || m.s.Conn < proto.Connected || m.s.PeerDisk < proto.Inconsistent {
		return nil
	}
	m.notify(proto.LevelAlert, "the peer does not say whether the disk that was attached goes together with its own, which may mean that it refuses: "+
		"the disk is let go, nothing was copied. The peer's log says why. If the peer's data shall be copied to this disk, recreate its metadata (create-md) and attach it again")
	m.dropDisk()
	return nil
}

// dropDisk lets go of a disk that was opened for an attach.
func (m *machine) dropDisk() {
	ns := m.s
	ns.Disk = proto.Failed
	m.force(ns)
}

func (m *machine) attachFailed(e AttachFailed) error {
	if m.s.Disk != proto.Attaching {
		return refuse(drbd.SSInTransientState, "attach")
	}
	ns := m.s
	ns.Disk = proto.Diskless
	m.force(ns)
	m.answer(e.ID, e.Err)
	return nil
}

func (m *machine) detach(e Detach) error {
	const what = "detach"
	switch {
	case m.s.Disk == proto.Diskless:
		m.answer(e.ID, nil)
		return nil
	case !m.s.Attached() || m.s.Pending.Kind != PendingNone:
		return refuse(drbd.SSInTransientState, what)
	case m.s.Conn > proto.Connected && m.s.PeerDisk < proto.UpToDate && !e.Force:
		return refuse(drbd.SSResyncRunning, what)
	}
	ns := m.s
	ns.Disk, ns.DetachID, m.out.detaches = proto.Failed, e.ID, true
	if e.Force {
		m.force(ns)
		return nil
	}
	if asksPeer(m.s, sanitize(ns)) {
		return m.ask(ns, Pending{Kind: PendingDetach, ID: e.ID, Change: change(drbd.MaskDisk, drbd.State{Disk: proto.Failed})}, what)
	}
	if rv := m.try(ns, false); !rv.OK() {
		return refuse(rv, what)
	}
	return nil
}

func (m *machine) diskError(e DiskError) error {
	if !m.s.Attached() {
		return nil
	}
	m.notify(proto.LevelAlert, "I/O error on the backing disk: %s", e.Text)
	ns := m.s
	if m.s.OnIOError == IOErrorPassOn && !e.Meta && m.s.Disk != proto.Negotiating {
		ns.Disk = min(ns.Disk, proto.Inconsistent)
	} else {
		ns.Disk = proto.Failed
		m.out.ioError = m.s.OnIOError == IOErrorCallHandler
	}
	m.force(ns)
	return nil
}

func (m *machine) diskReleased() error {
	if m.s.Disk != proto.Failed {
		return nil
	}
	ns := m.s
	ns.Disk = proto.Diskless
	ns.UUIDs, ns.Flags, ns.CrashedPrimary, ns.OwnSize = UUIDs{}, 0, false, 0
	ns.NegDisk, ns.NegPeerDisk, ns.DetachID = 0, 0, 0
	id := m.s.DetachID
	m.force(ns)
	m.answer(id, nil)
	return nil
}

// agreedSize is the device's size for the usable sizes of the two disks, the size last agreed on, and the limit; 0 is
// unknown, or no limit (drbd_new_dev_size, drbd_nl.c).
func agreedSize(own, peer, last, limit uint64) uint64 {
	size := atMost(own, peer)
	if last != 0 && (own == 0 || peer == 0) {
		size = atMost(last, size)
	}
	return atMost(size, limit)
}

// atMost is the lesser of two sizes of which 0 is none (min_not_zero of the kernel).
func atMost(a, b uint64) uint64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// resize gives ns a new size; last is the size that the bitmap covers now, if there is one.
func (m *machine) resize(ns *State, size, last uint64) {
	if size == ns.Size && (size == last || ns.Disk == proto.Diskless) {
		return // what a node without disk has heard from the peer is not what the disk that comes says
	}
	ns.Size = size
	m.out.setSize = &SetSize{Sectors: size, NewBits: last != 0 && size > last}
}
