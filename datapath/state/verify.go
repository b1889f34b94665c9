package state

import (
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// verify asks the peer to take part in an online verify: this node asks for digests and compares.
func (m *machine) verify(e Verify) error {
	const what = "verify"
	if m.s.Pending.Kind != PendingNone || m.s.Asking {
		return refuse(drbd.SSInTransientState, what)
	}
	if rv := mayVerify(m.s); !rv.OK() {
		return refuse(rv, what)
	}
	ns := m.s
	ns.Conn = proto.VerifyS
	return m.ask(ns, Pending{Kind: PendingVerify, ID: e.ID, Change: change(drbd.MaskConn, drbd.State{Conn: proto.VerifyS})}, what)
}

// mayVerify: both copies must be good, and nothing else may run on them.
func mayVerify(s State) drbd.RetCode {
	rv := atRest(s)
	switch {
	case !s.CanVerify:
		return drbd.SSNoVerifyAlg
	case !rv.OK():
		return rv
	case s.Disk != proto.UpToDate || s.PeerDisk != proto.UpToDate:
		return drbd.SSNoUpToDateDisk
	default:
		return drbd.SSSuccess
	}
}

// verifyDone ends the verify that this node drives. The peer ends its part when it hears the new state (receive_state,
// drbd_receiver.c).
func (m *machine) verifyDone() error {
	if m.s.Conn == proto.VerifyS {
		ns := m.s
		ns.Conn = proto.Connected
		m.force(ns)
	}
	return nil
}

// afterVerify collects what the begin or end of a verify leads to.
func (m *machine) afterVerify(os, ns State) {
	switch {
	case !os.Conn.Verifying() && ns.Conn.Verifying():
		m.out.startVerify = &StartVerify{Source: ns.Conn == proto.VerifyS}
	case os.Conn.Verifying() && !ns.Conn.Verifying():
		m.out.stopVerify = true
		m.out.state = m.out.state || os.Conn == proto.VerifyS && ns.Conn == proto.Connected
	}
}
