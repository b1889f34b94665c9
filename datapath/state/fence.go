package state

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Exit codes of fence-peer (enum drbd_peer_state, linux/drbd.h).
const (
	peerInconsistent = 3
	peerOutdated     = 4
	peerDown         = 5
	peerPrimary      = 6
	peerStonithed    = 7
)

// fencePeer calls the handler when a Primary has lost its peer (conn_disconnect, drbd_receiver.c).
func (m *machine) fencePeer() {
	switch {
	case m.s.Fencing == FencingDontCare || !unfenced(m.s):
	case m.s.Disk < proto.Consistent:
		m.notify(proto.LevelWarn, "the peer is not fenced: the copy here is not Consistent itself")
		ns := m.s
		ns.SuspFen = false
		m.force(ns)
	default:
		m.callFencePeer()
	}
}

// callFencePeer calls it, unless a call is under way, whose end then decides.
func (m *machine) callFencePeer() {
	if !m.s.Fence.Running {
		m.s.Fence.Running, m.s.Fence.Links, m.out.fence = true, m.s.Links, true
	}
}

// fencingDecides says whether a promotion that is refused for this reason may be possible once the peer is fenced
// (drbd_set_role, drbd_nl.c).
func (m *machine) fencingDecides(rv drbd.RetCode) bool {
	switch {
	case m.s.Fencing == FencingDontCare || m.s.Conn >= proto.WFReportParams || m.s.PeerDisk <= proto.Outdated:
		return false
	case rv == drbd.SSNoUpToDateDisk:
		return m.s.Disk == proto.Consistent
	default:
		return rv == drbd.SSPrimaryNOP && m.s.Disk >= proto.Consistent
	}
}

// fencePeerDone draws the conclusions from the handler's exit code (conn_try_outdate_peer, drbd_nl.c).
func (m *machine) fencePeerDone(e FencePeerDone) error {
	f := m.s.Fence
	if !f.Running {
		return nil
	}
	m.s.Fence = Fence{}
	switch {
	case m.s.Conn >= proto.WFReportParams || f.Links != m.s.Links:
		m.notify(proto.LevelInfo, "the exit code %d of fence-peer does not count: the nodes have met since", e.Exit)
		if m.s.Conn < proto.WFReportParams && !f.Promote {
			m.fencePeer()
		}
	default:
		m.fenced(e.Exit)
	}
	if !f.Promote {
		return nil
	}
	if err := m.promote(Promote{ID: f.ID, Force: f.Force, fenced: true}); err != nil {
		m.answer(f.ID, err)
	}
	return nil
}

func (m *machine) fenced(exit int) {
	ns, what := m.s, ""
	switch exit {
	case peerInconsistent:
		ns.PeerDisk, what = proto.Inconsistent, "the peer's copy is Inconsistent"
	case peerOutdated:
		ns.PeerDisk, what = proto.Outdated, "the peer's copy is Outdated"
	case peerDown:
		what = "the peer is down"
		if m.s.Disk == proto.UpToDate {
			ns.PeerDisk = proto.Outdated
		} else {
			what += ", but the copy here is not known to be UpToDate"
		}
	case peerPrimary:
		ns.Disk, what = min(ns.Disk, proto.Outdated), "the peer is Primary, so the copy here is Outdated"
	case peerStonithed:
		ns.PeerDisk, what = proto.Outdated, "the peer was shut down"
		if m.s.Fencing != FencingAndSuspendIO {
			what += ", though fencing is resource-only"
		}
	default:
		what = "which is none that DRBD knows"
	}
	what = fmt.Sprintf("fence-peer: exit code %d, %s", exit, what)
	if rv := m.try(ns, false); ns != m.s && !rv.OK() {
		what += fmt.Sprintf("; that cannot be so here (%v)", rv)
	}
	level := proto.LevelWarn
	if m.s.SuspFen {
		level, what = proto.LevelAlert, what+". I/O stays suspended until the peer is back, or resume-io"
	}
	m.notify(level, "%s", what)
}

// outdate declares the own copy Outdated.
func (m *machine) outdate(e Outdate) error {
	const what = "outdate"
	switch {
	case m.s.Disk == proto.Outdated:
		m.answer(e.ID, nil)
		return nil
	case m.s.Conn >= proto.WFReportParams:
		return &Refusal{Code: drbd.SSConnectedOutdates, Text: what + ": the nodes are connected, so this copy follows the peer's",
			Remedy: "disconnect first"}
	case m.s.Disk < proto.Consistent:
		return refuse(drbd.SSLowerThanOutdated, what)
	}
	ns := m.s
	ns.Disk = proto.Outdated
	if rv := m.try(ns, false); !rv.OK() {
		if m.s.Role == proto.Primary {
			return &Refusal{Code: rv, Text: what + ": this node is Primary", Remedy: "demote it first"}
		}
		return refuse(rv, what)
	}
	m.answer(e.ID, nil)
	return nil
}

func (m *machine) suspendIO(e SuspendIO) error {
	m.s.Susp = true
	m.answer(e.ID, nil)
	return nil
}

// resumeIO ends every suspension (drbd_adm_resume_io, drbd_nl.c).
func (m *machine) resumeIO(e ResumeIO) error {
	ns := m.s
	ns.Susp, ns.SuspNoD, ns.SuspFen = false, false, false
	if ns != m.s {
		if m.s.SuspFen {
			m.notify(proto.LevelWarn, "I/O goes on by an operator's word, although the peer is not fenced")
		}
		m.force(ns)
	}
	m.answer(e.ID, nil)
	return nil
}
