package state

import (
	"fmt"
	"strings"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// finish puts the collected effects in order: disk, peer, operators.
func (m *machine) finish() []Effect {
	if line := changes(m.old, m.s); line != "" {
		m.out.notes = append([]Effect{Notify{Level: proto.LevelInfo, Text: line}}, m.out.notes...)
	}
	fx := m.diskEffects(nil)
	if m.out.ioError {
		fx = append(fx, RunHandler{Name: "local-io-error"})
	}
	fx = m.sends(fx)
	add := func(on bool, e Effect) {
		if on {
			fx = append(fx, e)
		}
	}
	if m.out.startResync != nil {
		fx = append(fx, *m.out.startResync)
	}
	if m.out.startVerify != nil {
		fx = append(fx, *m.out.startVerify)
	}
	add(m.out.pause, PauseResync{})
	add(m.out.resume, ContinueResync{})
	add(m.out.release, ReleaseDisk{Clear: m.out.clear})
	add(m.out.closeLink, CloseLink{})
	add(m.out.connectLink, StartConnecting{})
	add(m.out.fence, FencePeer{})
	fx = append(fx, m.out.answers...)
	return append(fx, m.out.notes...)
}

func (m *machine) diskEffects(fx []Effect) []Effect {
	if m.out.setSize != nil {
		fx = append(fx, *m.out.setSize)
	}
	if m.out.stopResync {
		fx = append(fx, StopResync{})
	}
	if m.out.stopVerify {
		fx = append(fx, StopVerify{})
	}
	if !m.s.Attached() {
		return fx
	}
	if m.out.writeBitmap {
		// Before the UUIDs: as long as they tell of the resync, what a cut leaves of the bitmap is compared again.
		fx = append(fx, WriteBitmap{})
	}
	md := PersistMD{UUIDs: m.s.UUIDs, Flags: m.s.Flags, Size: m.s.Size}
	switch {
	case m.out.setAll:
		full := md
		full.Flags |= MDFullSync
		fx = append(fx, full, SetAllBits{}, md)
	case m.out.clearAll:
		// The bitmap must be empty before the UUIDs say that the copies are the same.
		fx = append(fx, ClearAllBits{}, md)
	case m.out.persist || md.UUIDs != m.old.UUIDs || md.Flags != m.old.Flags || md.Size != m.old.Size:
		fx = append(fx, md)
	}
	return fx
}

func (m *machine) sends(fx []Effect) []Effect {
	if m.out.reply != nil {
		fx = append(fx, *m.out.reply)
	}
	if !m.s.Linked() {
		return fx
	}
	if m.out.hello {
		fx = append(fx, SendProtocol{DiscardMyData: m.s.DiscardMyData}, SendSyncParam{})
	}
	if m.out.sizes != nil {
		fx = append(fx, *m.out.sizes) // before the resync of a part of the device that it tells of
	}
	if m.out.syncUUID != nil {
		fx = append(fx, *m.out.syncUUID)
	}
	if m.out.uuids && m.s.Attached() {
		u := m.s.UUIDs
		if m.out.compared != nil {
			u = *m.out.compared
		}
		fx = append(fx, SendUUIDs{UUIDs: u, Flags: m.uuidFlags(), Bits: m.out.bits, Counted: m.out.counted})
	}
	if m.out.state {
		w := m.s.Word()
		if outdatedAlone(m.s) {
			w.Disk = proto.Inconsistent
		}
		if m.out.stateConn != 0 {
			w.Conn = m.out.stateConn
		}
		fx = append(fx, SendState{State: w})
	}
	if m.out.request != nil {
		fx = append(fx, *m.out.request)
	}
	if m.out.bitmap {
		fx = append(fx, SendBitmap{})
	}
	return fx
}

func (m *machine) uuidFlags() uint64 {
	var f uint64
	if m.s.DiscardMyData {
		f |= drbd.UUIDDiscardMyData
	}
	if m.out.skip {
		f |= drbd.UUIDSkipInitialSync
	}
	if m.s.CrashedPrimary {
		f |= drbd.UUIDCrashedPrimary
	}
	if m.s.Disk == proto.Negotiating && m.s.NegDisk == proto.Inconsistent {
		f |= drbd.UUIDInconsistent
	}
	return f
}

// changes tells in DRBD's words how two states differ.
func changes(o, n State) string {
	var b strings.Builder
	add := func(name string, from, to fmt.Stringer) {
		if from != to {
			fmt.Fprintf(&b, "%s( %v -> %v ) ", name, from, to)
		}
	}
	add("peer", o.PeerRole, n.PeerRole)
	add("role", o.Role, n.Role)
	add("conn", o.Conn, n.Conn)
	add("disk", o.Disk, n.Disk)
	add("pdsk", o.PeerDisk, n.PeerDisk)
	flag := func(name string, from, to bool) {
		if from != to {
			fmt.Fprintf(&b, "%s( %t -> %t ) ", name, from, to)
		}
	}
	flag("susp", o.Susp, n.Susp)
	flag("susp_nod", o.SuspNoD, n.SuspNoD)
	flag("susp_fen", o.SuspFen, n.SuspFen)
	return strings.TrimRight(b.String(), " ")
}
