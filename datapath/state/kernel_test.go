package state

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// kernelStreams is where the packets of two kernels lie; see the README there.
const kernelStreams = "../../proto/drbd/testdata"

// packet is one packet of a kernel, reduced to what the state machine makes or takes.
type packet struct {
	cmd     drbd.Cmd
	payload string
}

func kernelPackets(t *testing.T, name string, skip bool) []packet {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(kernelStreams, name))
	if err != nil {
		t.Fatal(err)
	}
	sock := drbd.SocketData
	if strings.Contains(name, "meta") {
		sock = drbd.SocketMeta
	}
	r := drbd.NewReader(bytes.NewReader(raw), sock, drbd.H80)
	if skip {
		r.SetFraming(drbd.H100)
	}
	var ps []packet
	for {
		h, err := r.Next()
		if err == io.EOF {
			return ps
		}
		if err != nil {
			t.Fatal(err)
		}
		switch h.Cmd {
		case drbd.CmdFeatures, drbd.CmdInitialMeta:
			r.SetFraming(drbd.H100)
		case drbd.CmdSizes, drbd.CmdUUIDs, drbd.CmdState, drbd.CmdSyncUUID, drbd.CmdCompressedBitmap, drbd.CmdStateChgReq,
			drbd.CmdConnStChgReq, drbd.CmdStateChgReply, drbd.CmdConnStChgReply:
			b, err := r.Rest()
			if err != nil {
				t.Fatal(err)
			}
			if h.Cmd == drbd.CmdCompressedBitmap || h.Cmd == drbd.CmdSizes {
				b = nil
			}
			ps = append(ps, packet{h.Cmd, string(b)})
		}
	}
}

// standIn takes the place of one of the two kernels: it gets what the other one sent, and must send what it sent.
type standIn struct {
	t    *testing.T
	s    State
	bits uint64
	want []packet
	pos  int
}

func (k *standIn) do(ev Event) {
	k.t.Helper()
	old := k.s
	s, fx, err := Step(k.s, ev)
	if err != nil {
		k.t.Fatalf("%T: %v", ev, err)
	}
	if msg := invariants(old, s, fx, ev); msg != "" {
		k.t.Fatalf("%T: %s", ev, msg)
	}
	k.s = s
	for _, f := range fx {
		k.effect(f)
	}
}

func (k *standIn) effect(f Effect) {
	k.t.Helper()
	switch e := f.(type) {
	case SetAllBits:
		k.bits = 4086
	case SendSizes:
		k.sent(drbd.CmdSizes, drbd.Bytes(nil))
	case SendUUIDs:
		u := drbd.UUIDs{Current: e.UUIDs.Current, Bitmap: e.UUIDs.Bitmap, History0: e.UUIDs.History0, History1: e.UUIDs.History1,
			Bits: k.bits, Flags: e.Flags}
		if k.pos < len(k.want) && k.want[k.pos].cmd == drbd.CmdUUIDs && u.Current > drbd.UUIDJustCreated|1 {
			theirs, err := drbd.ParseUUIDs([]byte(k.want[k.pos].payload))
			if err != nil {
				k.t.Fatal(err)
			}
			if theirs.Current&1 != u.Current&1 {
				k.t.Fatalf("bit 0 of %x is not that of %x", u.Current, theirs.Current)
			}
			u.Current, k.s.UUIDs.Current, k.s.Exposed = theirs.Current, theirs.Current, theirs.Current // both are random
		}
		k.sent(drbd.CmdUUIDs, u)
	case SendState:
		k.sent(drbd.CmdState, e.State)
	case SendSyncUUID:
		if k.s.UUIDs.History0 == drbd.UUIDJustCreated { // random, because the old one was that of fresh metadata
			u, err := drbd.ParseSyncUUID([]byte(k.want[k.pos].payload))
			if err != nil {
				k.t.Fatal(err)
			}
			k.s.UUIDs.Bitmap, e.UUID = uint64(u), uint64(u)
		}
		k.sent(drbd.CmdSyncUUID, drbd.SyncUUID(e.UUID))
	case SendBitmap:
		k.sent(drbd.CmdCompressedBitmap, drbd.Bytes(nil))
	case SendChangeReq:
		cmd := drbd.CmdStateChgReq
		if e.ConnWide {
			cmd = drbd.CmdConnStChgReq
		}
		k.sent(cmd, e.Change)
	}
}

func (k *standIn) sent(c drbd.Cmd, p drbd.Payload) {
	k.t.Helper()
	got := packet{c, string(p.Append(nil))}
	if k.pos >= len(k.want) {
		k.t.Fatalf("packet %d: sent %v %x, the kernel nothing", k.pos, got.cmd, got.payload)
	}
	if w := k.want[k.pos]; got != w {
		k.t.Fatalf("packet %d: sent %v %x, the kernel %v %x", k.pos, got.cmd, got.payload, w.cmd, w.payload)
	}
	k.pos++
}

func (k *standIn) take(p packet) {
	k.t.Helper()
	b := []byte(p.payload)
	check := func(err error) {
		if err != nil {
			k.t.Fatal(err)
		}
	}
	switch p.cmd {
	case drbd.CmdSizes:
		k.do(PeerSizes{Sizes: drbd.Sizes{Disk: 32688, Current: 32688}})
	case drbd.CmdUUIDs:
		u, err := drbd.ParseUUIDs(b)
		check(err)
		k.do(PeerUUIDsReceived{u})
	case drbd.CmdState:
		s, err := drbd.ParseState(b)
		check(err)
		k.do(PeerState{State: s, Bits: k.bits})
	case drbd.CmdStateChgReq, drbd.CmdConnStChgReq:
		c, err := drbd.ParseChange(b)
		check(err)
		k.do(PeerChangeReq{Change: c, ConnWide: p.cmd == drbd.CmdConnStChgReq})
	case drbd.CmdStateChgReply, drbd.CmdConnStChgReply:
		c, err := drbd.ParseRetCode(b)
		check(err)
		k.do(PeerChangeReply{c})
	case drbd.CmdCompressedBitmap:
		k.do(BitmapReceived{})
	case drbd.CmdSyncUUID:
		u, err := drbd.ParseSyncUUID(b)
		check(err)
		k.do(SyncUUIDReceived{uint64(u)})
	}
}

func (k *standIn) connect(want []packet, tie bool) {
	k.t.Helper()
	k.want, k.pos = want, 0
	k.do(Connect{})
	k.do(LinkUp{ResolveConflicts: tie, Features: 15})
}

func (k *standIn) finished() {
	k.t.Helper()
	if k.pos != len(k.want) {
		k.t.Fatalf("sent %d of %d packets; next would be %v", k.pos, len(k.want), k.want[k.pos].cmd)
	}
}

func freshStandIn(t *testing.T) *standIn {
	k := &standIn{t: t, s: New(IOErrorDetach, 1), bits: 4086}
	k.do(AttachStart{})
	k.do(Attached{UUIDs: UUIDs{Current: drbd.UUIDJustCreated}, Size: 32688, OwnSize: 32688})
	return k
}

func later(t *testing.T) []packet { return kernelPackets(t, "conn1-node1-data-later.bin", true) }

// TestAsKernelTarget takes the place of the node that was resynced, over two connections.
func TestAsKernelTarget(t *testing.T) {
	k := freshStandIn(t)
	k.connect(kernelPackets(t, "conn1-node2-data.bin", false), true)
	for _, p := range kernelPackets(t, "conn1-node1-data.bin", false) {
		k.take(p)
	}
	if k.s.Conn != proto.SyncTarget {
		t.Fatalf("%+v", k.s)
	}
	for _, p := range later(t) {
		k.take(p) // the agreed disconnect
	}
	k.finished()
	if k.s.Conn != proto.TearDown {
		t.Fatalf("%+v", k.s)
	}
	k.bits = 0x660
	k.do(LinkClosed{})
	k.want, k.pos = kernelPackets(t, "conn2-node2-data.bin", false), 0
	k.do(LinkUp{Features: 15})
	for _, p := range kernelPackets(t, "conn2-node1-data.bin", false) {
		k.take(p)
	}
	k.finished()
	if k.s.Conn != proto.SyncTarget || k.s.UUIDs.Current != 0xe5e47bad58d006fc {
		t.Fatalf("%+v", k.s)
	}
}

// TestAsKernelSource takes the place of the node that was forced Primary.
func TestAsKernelSource(t *testing.T) {
	k := freshStandIn(t)
	k.connect(append(kernelPackets(t, "conn1-node1-data.bin", false), later(t)...), false)
	peer := kernelPackets(t, "conn1-node2-data.bin", false)
	meta := kernelPackets(t, "conn1-node2-meta.bin", true)
	for _, p := range peer[:4] {
		k.take(p)
	}
	k.do(Promote{Force: true})
	k.take(meta[0])
	for _, p := range peer[4:] {
		k.take(p)
	}
	if k.s.Conn != proto.SyncSource {
		t.Fatalf("%+v", k.s)
	}
	k.do(Disconnect{})
	k.take(meta[1])
	k.finished()
	k.do(LinkClosed{})
	if k.s.Conn != proto.StandAlone || k.s.PeerDisk != proto.Inconsistent || k.s.UUIDs.Bitmap != 0xe5e37bad58d006fd {
		t.Fatalf("%+v", k.s)
	}
	k.bits = 0x664
	k.connect(kernelPackets(t, "conn2-node1-data.bin", false), false)
	for _, p := range kernelPackets(t, "conn2-node2-data.bin", false) {
		k.take(p)
	}
	k.finished()
	if k.s.Conn != proto.SyncSource {
		t.Fatalf("%+v", k.s)
	}
}
