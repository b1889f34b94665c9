package drbd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// reencode decodes a whole packet and encodes it again.
func reencode(t testing.TB, h Header, f Framing, payload []byte) []byte {
	fixed := payload[:h.Cmd.Fixed()]
	rest := payload[len(fixed):]
	pack := func(p Payload, err error) []byte {
		if err != nil {
			t.Fatalf("%v: %v", h, err)
		}
		b := AppendHeader(nil, f, h)
		b = p.Append(b)
		if len(b) < f.Size()+len(payload) {
			b = append(b, payload[len(b)-f.Size():]...)
		}
		return b
	}
	switch h.Cmd {
	case CmdFeatures:
		p, err := ParseFeatures(payload)
		return pack(p, err)
	case CmdProtocol, CmdProtocolUpdate:
		p, err := ParseProtocol(payload)
		return pack(p, err)
	case CmdSyncParam89:
		p, err := ParseSyncParam(payload)
		return pack(p, err)
	case CmdSizes:
		p, err := ParseSizes(payload)
		return pack(p, err)
	case CmdUUIDs:
		p, err := ParseUUIDs(payload)
		return pack(p, err)
	case CmdState:
		p, err := ParseState(payload)
		return pack(p, err)
	case CmdSyncUUID:
		p, err := ParseSyncUUID(payload)
		return pack(p, err)
	case CmdStateChgReq, CmdConnStChgReq:
		p, err := ParseChange(payload)
		return pack(p, err)
	case CmdStateChgReply, CmdConnStChgReply:
		p, err := ParseRetCode(payload)
		return pack(p, err)
	case CmdData, CmdDataReply, CmdRSDataReply:
		p, err := ParseData(fixed)
		if size, e := BlockSize(h.Cmd, h.Length, 0); e != nil || size != len(rest) {
			t.Fatalf("%v: block of %d bytes (%v), have %d", h, size, e, len(rest))
		}
		return pack(p, err)
	case CmdBarrier:
		p, err := ParseBarrier(payload)
		return pack(p, err)
	case CmdBarrierAck:
		p, err := ParseBarrierAck(payload)
		return pack(p, err)
	case CmdRSDataRequest, CmdDataRequest, CmdRSThinReq, CmdOVRequest, CmdOVReply, CmdCSumRSRequest:
		p, err := ParseBlockRequest(h.Cmd, payload)
		return pack(p, err)
	case CmdRecvAck, CmdWriteAck, CmdRSWriteAck, CmdNegAck, CmdNegDReply, CmdNegRSDReply, CmdOVResult, CmdRSIsInSync, CmdRSCancel,
		CmdSuperseded, CmdRetryWrite:
		p, err := ParseBlockAck(payload)
		return pack(p, err)
	case CmdTrim, CmdZeroes, CmdWSame:
		p, err := ParseRange(h.Cmd, payload)
		return pack(p, err)
	case CmdOutOfSync, CmdRSDeallocated:
		p, err := ParseBlockDesc(h.Cmd, payload)
		return pack(p, err)
	case CmdDelayProbe:
		p, err := ParseDelayProbe(payload)
		return pack(p, err)
	default:
		return pack(Bytes(payload), nil)
	}
}

// TestKernelStreams reads whole streams between two kernels to their end and encodes every packet again.
func TestKernelStreams(t *testing.T) {
	files, err := filepath.Glob("testdata/conn*.bin")
	if err != nil || len(files) != 8 {
		t.Fatal(files, err)
	}
	seen := map[Cmd]int{}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sock := SocketData
		if strings.Contains(name, "meta") {
			sock = SocketMeta
		}
		r := NewReader(bytes.NewReader(raw), sock, H80)
		if strings.Contains(name, "later") || name == "testdata/conn1-node2-meta.bin" {
			r.SetFraming(H100)
		}
		framing := r.framing
		at := 0
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
			seen[h.Cmd]++
			payload := make([]byte, h.Length)
			if err := r.ReadBlock(payload); err != nil {
				t.Fatal(err)
			}
			end := at + framing.Size() + int(h.Length)
			if got := reencode(t, h, framing, payload); !bytes.Equal(got, raw[at:end]) {
				t.Fatalf("%s at %d: %v\n had %x\n got %x", name, at, h.Cmd, raw[at:end], got)
			}
			at = end
			if h.Cmd == CmdFeatures || h.Cmd == CmdInitialMeta {
				r.SetFraming(H100)
				framing = H100
			}
		}
		if at != len(raw) {
			t.Errorf("%s: read %d of %d bytes", name, at, len(raw))
		}
	}
	if len(seen) != 25 || seen[CmdRSWriteAck] != 249+146 || seen[CmdRSDataRequest] != 205+146 {
		t.Errorf("saw %d kinds: %v", len(seen), seen)
	}
}

func TestKernelValues(t *testing.T) {
	raw, err := os.ReadFile("testdata/conn1-node1-data.bin")
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(bytes.NewReader(raw), SocketData, H80)
	next := func(c Cmd) []byte {
		t.Helper()
		h, err := r.Next()
		if err != nil || h.Cmd != c {
			t.Fatalf("%v %v, want %v", h, err, c)
		}
		b, err := r.Rest()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if f, err := ParseFeatures(next(CmdFeatures)); err != nil || f != (Features{Min: 86, Max: 101, Flags: 15}) {
		t.Errorf("features %+v %v", f, err)
	}
	r.SetFraming(H100)
	next(CmdAuthChallenge)
	next(CmdAuthResponse)
	p, err := ParseProtocol(next(CmdProtocol))
	if err != nil || p != (Protocol{Protocol: proto.ProtocolC}) {
		t.Errorf("protocol %+v %v", p, err)
	}
	next(CmdSyncParam89)
	s, err := ParseSizes(next(CmdSizes))
	if err != nil || s.Disk != 32688 || s.Current != 32688 || s.MaxBio != 1<<20 || s.Limits == nil || s.Limits.LogicalBlock != 512 ||
		!s.Limits.Discard {
		t.Errorf("sizes %+v %+v %v", s, s.Limits, err)
	}
	u, err := ParseUUIDs(next(CmdUUIDs))
	if err != nil || u != (UUIDs{Current: UUIDJustCreated, Bits: 4086}) {
		t.Errorf("uuids %+v %v", u, err)
	}
	st, err := ParseState(next(CmdState))
	if err != nil || st != (State{Role: proto.Secondary, Conn: proto.WFConnection, Disk: proto.Inconsistent, PeerDisk: proto.DUnknown}) {
		t.Errorf("state %+v %v", st, err)
	}
	next(CmdState)
	c, err := ParseChange(next(CmdStateChgReq))
	if err != nil || c != (Change{0x1e03, 0x1001}) {
		t.Errorf("change %+v %v", c, err)
	}
}

func TestMirror(t *testing.T) {
	for _, tt := range []struct{ in, out Change }{
		{Change{MaskRole | MaskDisk, 0x1001}, Change{MaskPeer | MaskPeerDisk, 1<<2 | 8<<13}},
		{Change{MaskConn, uint32(proto.Disconnecting) << 4}, Change{MaskConn, uint32(proto.TearDown) << 4}},
		{Change{MaskConn, uint32(proto.VerifyS) << 4}, Change{MaskConn, uint32(proto.VerifyT) << 4}},
		{Change{MaskConn, uint32(proto.StartingSyncS) << 4}, Change{MaskConn, uint32(proto.StartingSyncT) << 4}},
		{Change{MaskConn, uint32(proto.StartingSyncT) << 4}, Change{MaskConn, uint32(proto.StartingSyncS) << 4}},
		{Change{MaskDisk, 0x400}, Change{MaskPeerDisk, 2 << 13}},
		{Change{0x1e1f0, 0xa010}, Change{MaskDisk | MaskConn, 5<<9 | uint32(proto.TearDown)<<4}},
	} {
		if got := tt.in.Mirror(); got != tt.out {
			t.Errorf("%#x/%#x mirrored to %#x/%#x, want %#x/%#x", tt.in.Mask, tt.in.Val, got.Mask, got.Val, tt.out.Mask, tt.out.Val)
		}
	}
	for w := range uint32(1 << 23) {
		if w%7 == 0 && StateOf(w).Word() != w {
			t.Fatalf("%#x became %#x", w, StateOf(w).Word())
		}
	}
	if StateOf(0x008000aa).Word() != 0xaa {
		t.Error("DRBD 9's quorum bit was not dropped")
	}
}

func TestRefusedHeaders(t *testing.T) {
	h := func(c Cmd, n uint32) []byte { return AppendHeader(nil, H100, Header{Cmd: c, Length: n}) }
	pad := h(CmdPing, 0)
	pad[15] = 1
	for _, tt := range []struct {
		name string
		sock Socket
		raw  []byte
		kind ErrorKind
	}{
		{"magic", SocketData, make([]byte, 16), BadMagic},
		{"padding", SocketMeta, pad, BadMagic},
		{"unknown", SocketData, h(5, 0), UnknownCommand},
		{"beyond the table", SocketData, h(0x60, 0), UnknownCommand},
		{"meta on data", SocketData, h(CmdWriteAck, 24), UnknownCommand},
		{"data on meta", SocketMeta, h(CmdData, 24), UnknownCommand},
		{"short barrier", SocketData, h(CmdBarrier, 4), BadLength},
		{"long state", SocketData, h(CmdState, 8), BadLength},
		{"long ack", SocketMeta, h(CmdWriteAck, 28), BadLength},
		{"huge data", SocketData, h(CmdData, 1<<32-1), BadLength},
		{"data over the limit", SocketData, h(CmdData, SizeData+MaxDigest+MaxData+1), BadLength},
		{"odd sizes", SocketData, h(CmdSizes, 40), BadLength},
		{"bitmap of more than a page", SocketData, h(CmdBitmap, 4096), BadLength},
	} {
		_, err := ReadHeader(bytes.NewReader(tt.raw), tt.sock, H100)
		var pe *PacketError
		if !errors.As(err, &pe) || pe.Kind != tt.kind || pe.Socket != tt.sock {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := ReadHeader(bytes.NewReader(h(CmdEnableRepl, 4)), SocketData, H100); err != nil || !CmdEnableRepl.Ignorable() {
		t.Errorf("DRBD 9's unasked packet: %v", err)
	}
	if _, err := BlockSize(CmdData, SizeData+100, 0); err == nil {
		t.Error("100 bytes of data accepted")
	}
	if _, err := BlockSize(CmdData, SizeData, 0); err != nil {
		t.Errorf("empty write: %v", err)
	}
	r := NewReader(bytes.NewReader(append(h(CmdState, 4), 1, 2)), SocketData, H100)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fixed(); err != io.ErrUnexpectedEOF {
		t.Errorf("cut packet: %v", err)
	}
}

func TestNoAllocs(t *testing.T) {
	dst := make([]byte, 0, 256)
	d := Data{Sector: 8, ID: IDSyncer, Seq: 1, Flags: DPSendWriteAck}
	raw := AppendPacket(nil, H100, 0, CmdWriteAck, BlockAck{Sector: 8, ID: IDSyncer, Size: 4096}, 0)
	src := bytes.NewReader(raw)
	r := NewReader(src, SocketMeta, H100)
	var sink uint64
	n := testing.AllocsPerRun(100, func() {
		b := AppendPacket(dst, H100, 0, CmdData, d, 4096)
		p, _ := ParseData(b[16:])
		b = AppendPacket(dst, H100, 0, CmdBarrier, Barrier{ID: BarrierIDOf(7)}, 0)
		q, _ := ParseBarrier(b[16:])
		b = AppendPacket(dst, H100, 0, CmdRSDataRequest, BlockRequest{Sector: 8, Size: 4096}, 0)
		s, _ := ParseBlockRequest(CmdRSDataRequest, b[16:])
		src.Reset(raw)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		fixed, err := r.Fixed()
		if err != nil {
			t.Fatal(err)
		}
		a, _ := ParseBlockAck(fixed)
		sink += p.Sector + uint64(q.ID.Number()) + s.Sector + a.Sector
	})
	if n != 0 {
		t.Errorf("%v allocations on the hot path", n)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x83, 0x74, 0x02, 0x67, 0xff, 0xfe, 0, 72}, uint8(0))
	f.Add(AppendHeader(nil, H100, Header{Cmd: CmdData, Volume: 3, Length: 4120}), uint8(2))
	f.Add(AppendHeader(nil, H95, Header{Cmd: CmdData, Length: 1 << 20}), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, framing uint8) {
		fr := Framing(framing % 3)
		for _, s := range []Socket{SocketData, SocketMeta} {
			h, err := ReadHeader(bytes.NewReader(b), s, fr)
			if err != nil {
				continue
			}
			if again := AppendHeader(nil, fr, h); !bytes.Equal(again, b[:fr.Size()]) {
				t.Fatalf("%x became %x", b[:fr.Size()], again)
			}
			if h.Length > SizeData+MaxDigest+MaxData {
				t.Fatalf("accepted %v", h)
			}
		}
	})
}

// TestWSameGolden: a write-same as the C struct p_wsame of a kernel lays it out, behind a header of version 100, with a
// digest of 4 bytes (drbd_protocol.h).
func TestWSameGolden(t *testing.T) {
	golden := "8620ec20" + "0000" + "0034" + "00000220" + "00000000" + // magic, volume, P_WSAME, length, pad
		"0000000000001000" + "00f0b1a2c3d4e5ff" + "00000029" + "00000302" + // sector, block_id, seq_num, dp_flags
		"08000000" + // size: 128 MiB
		"01020304" + strings.Repeat("a5", 512)
	id := BlockID{0x00, 0xf0, 0xb1, 0xa2, 0xc3, 0xd4, 0xe5, 0xff}
	want := Range{Data: Data{Sector: 4096, ID: id, Seq: 41, Flags: DPSync | DPSendWriteAck | DPWSame}, Size: 128 << 20}
	block := bytes.Repeat([]byte{0xa5}, 512)
	pl := append(append(want.Append(nil), 1, 2, 3, 4), block...)
	b := AppendPacket(nil, H100, 0, CmdWSame, Bytes(pl), 0)
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("%s, want %s", got, golden)
	}
	r := NewReader(bytes.NewReader(b), SocketData, H100)
	h, err := r.Next()
	if err != nil || h.Cmd != CmdWSame {
		t.Fatal(h, err)
	}
	if n, err := BlockSize(h.Cmd, h.Length, 4); err != nil || n != 512 {
		t.Errorf("block of %d bytes, %v", n, err)
	}
	f, err := r.Fixed()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRange(h.Cmd, f); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	rest, err := r.Rest()
	if err != nil || !bytes.Equal(rest, append([]byte{1, 2, 3, 4}, block...)) {
		t.Errorf("%x, %v", rest, err)
	}
}

func FuzzPacket(f *testing.F) {
	for c := range Cmd(len(rules)) {
		if c.Known() {
			f.Add(uint16(c), make([]byte, c.Fixed()))
		}
	}
	f.Add(uint16(CmdFeatures), make([]byte, SizeFeatures))
	f.Fuzz(func(t *testing.T, cmd uint16, b []byte) {
		c := Cmd(cmd)
		for _, s := range []Socket{SocketData, SocketMeta} {
			if Check(s, Header{Cmd: c, Length: uint32(len(b))}) != nil {
				continue
			}
			parseAny(c, b)
		}
		parseAny(c, b) // whatever its length
	})
}

// parseAny runs every parser; none may panic, whatever the length.
func parseAny(c Cmd, b []byte) {
	_, _ = ParseFeatures(b)
	_, _ = ParseProtocol(b)
	_, _ = ParseSyncParam(b)
	_, _ = ParseSizes(b)
	_, _ = ParseUUIDs(b)
	_, _ = ParseState(b)
	_, _ = ParseSyncUUID(b)
	_, _ = ParseChange(b)
	_, _ = ParseRetCode(b)
	_, _ = ParseData(b)
	_, _ = ParseRange(c, b)
	_, _ = ParseBlockRequest(c, b)
	_, _ = ParseBlockAck(b)
	_, _ = ParseBarrier(b)
	_, _ = ParseBarrierAck(b)
	_, _ = ParseBlockDesc(c, b)
	_, _ = ParseDelayProbe(b)
	_, _ = BlockSize(c, uint32(len(b)), 20)
}
