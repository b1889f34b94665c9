package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// congested leaves the peer behind: from now on writes are only announced to it, as out of sync (maybe_pull_ahead,
// drbd_req.c). Stricter than DRBD: only from Connected, for during a resync or verify both nodes still clear and set bits
// for blocks that are under way, and with both copies good, so that each knows every bit that the other one has.
func (m *machine) congested(e Congested) error {
	s := m.s
	if s.OnCongestion == CongestionBlocks || s.Conn != proto.Connected || s.Role != proto.Primary || s.Disk != proto.UpToDate ||
		s.PeerDisk != proto.UpToDate || s.Pending.Kind != PendingNone || s.Resizing {
		return nil
	}
	if s.OnCongestion == CongestionDisconnects {
		m.reject("the link is congested: %s. It is given up, as on-congestion says. Connect when it has room again", e.Text)
		return nil
	}
	ns := s
	ns.Conn = proto.Ahead
	if m.try(ns, false).OK() {
		m.out.state = true
		m.notify(proto.LevelWarn, "the link is congested: %s. This node runs Ahead; the peer falls behind until it is resynced", e.Text)
	}
	return nil
}

// caughtUp begins the resync that brings the peer back. Both nodes have the same bits, so no bitmap is exchanged
// (do_start_resync, drbd_worker.c).
func (m *machine) caughtUp() error {
	if m.s.Conn == proto.Ahead {
		ns := m.s
		ns.Conn, ns.PeerDisk = proto.SyncSource, proto.Inconsistent
		m.force(ns)
	}
	return nil
}

// fallBehind says whether the peer, which runs Ahead, may leave this node behind. done: the link is given up instead.
func (m *machine) fallBehind(p drbd.State, real proto.DiskState) (behind, done bool) {
	switch {
	case p.Conn != proto.Ahead || m.s.Conn < proto.Connected || m.s.Disk < proto.Inconsistent:
		return false, false
	case m.s.Role == proto.Primary || real != proto.UpToDate:
		m.notify(proto.LevelWarn, "the peer says that it runs Ahead, its disk %v, while this node is %v", real, m.s.Role)
		m.dropLink(proto.ProtocolError)
		return false, true
	default:
		return true, false
	}
}
