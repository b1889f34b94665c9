package datapath

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// puppet is a peer whose every packet the test writes.
type puppet struct {
	t           *testing.T
	n           *node
	ln          net.Listener
	data, meta  net.Conn
	rd, md      *drbd.Reader
	cannot      uint32 // feature flags that it does not offer
	user        uint64 // sectors, as size in its drbd.conf
	unconfirmed uint32 // writes since the last barrier that it confirmed
}

// puppetNode starts a node, disk attached, whose peer is a puppet. tweak changes its configuration.
func puppetNode(t *testing.T, tweak func(c *Config)) *puppet {
	t.Helper()
	p := &pair{t: t, cable: &cable{}, addr: [2]string{freePort(t), freePort(t)}}
	if p.addr[0] > p.addr[1] { // the smaller address dials at once
		p.addr[0], p.addr[1] = p.addr[1], p.addr[0]
	}
	p.tweak = func(_ int, c *Config) {
		c.CRAMAlg, c.Secret, c.ConnectInt = "", nil, 100*time.Millisecond
		c.PingTimeout = 200 * time.Millisecond
		if tweak != nil {
			tweak(c)
		}
	}
	n := p.boot(0, freshDisk(t, testSize))
	ln, err := net.Listen("tcp", p.addr[1])
	if err != nil {
		t.Fatal(err)
	}
	pp := &puppet{t: t, n: n, ln: ln}
	t.Cleanup(func() {
		_ = ln.Close()
		pp.hangUp()
		_ = n.Close()
	})
	n.ok("attach", n.Attach(bg()))
	n.ok("connect", n.Connect(bg(), false))
	return pp
}

func (p *puppet) hangUp() {
	for _, c := range []net.Conn{p.data, p.meta} {
		if c != nil {
			_ = c.Close()
		}
	}
	p.data, p.meta, p.unconfirmed = nil, nil, 0
}

func (p *puppet) must(err error) {
	p.t.Helper()
	if err != nil {
		p.n.dump()
		p.t.Fatal(err)
	}
}

// accept takes both sockets from the node.
func (p *puppet) accept() {
	p.t.Helper()
	p.hangUp()
	for p.data == nil {
		_ = p.ln.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
		c, err := p.ln.Accept()
		p.must(err)
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil || binary.BigEndian.Uint16(head[4:]) != uint16(drbd.CmdInitialData) {
			_ = c.Close()
			continue
		}
		p.data = c
	}
	var err error
	p.meta, err = net.Dial("tcp", p.n.cfg.LocalAddr)
	p.must(err)
	_, err = p.meta.Write(drbd.AppendHeader(nil, drbd.H80, drbd.Header{Cmd: drbd.CmdInitialMeta}))
	p.must(err)
	for _, c := range []net.Conn{p.data, p.meta} {
		_ = c.SetDeadline(time.Now().Add(8 * time.Second))
	}
	p.rd = drbd.NewReader(p.data, drbd.SocketData, drbd.H80)
	p.md = drbd.NewReader(p.meta, drbd.SocketMeta, drbd.H100)
}

func (p *puppet) send(cmd drbd.Cmd, pl drbd.Payload) {
	p.t.Helper()
	_, err := p.data.Write(drbd.AppendPacket(nil, drbd.H100, 0, cmd, pl, 0))
	p.must(err)
}

func (p *puppet) ack(cmd drbd.Cmd, pl drbd.Payload) {
	p.t.Helper()
	_, err := p.meta.Write(drbd.AppendPacket(nil, drbd.H100, 0, cmd, pl, 0))
	p.must(err)
}

// expect reads the data socket until a packet of that kind and gives its payload.
func (p *puppet) expect(cmd drbd.Cmd) []byte {
	p.t.Helper()
	return p.until(p.rd, cmd)
}

func (p *puppet) expectMeta(cmd drbd.Cmd) []byte {
	p.t.Helper()
	return p.until(p.md, cmd)
}

func (p *puppet) until(rd *drbd.Reader, cmd drbd.Cmd) []byte {
	p.t.Helper()
	for {
		if got, b := p.next(rd); got == cmd {
			return b
		}
	}
}

// next reads one packet.
func (p *puppet) next(rd *drbd.Reader) (drbd.Cmd, []byte) {
	p.t.Helper()
	h, err := rd.Next()
	p.must(err)
	b := make([]byte, h.Length)
	p.must(rd.ReadBlock(b))
	return h.Cmd, b
}

func (p *puppet) features(f drbd.Features) {
	p.t.Helper()
	_, err := p.data.Write(drbd.AppendPacket(nil, drbd.H80, 0, drbd.CmdFeatures, f, 0))
	p.must(err)
	p.expect(drbd.CmdFeatures)
	p.rd.SetFraming(drbd.H100)
}

// hello brings the link to Connected; the puppet is a node with that role, disk and history.
func (p *puppet) hello(role proto.Role, disk proto.DiskState, u drbd.UUIDs) {
	p.t.Helper()
	p.accept()
	p.features(drbd.Features{Min: 86, Max: 101, Flags: 15 &^ p.cannot})
	p.send(drbd.CmdProtocol, drbd.Protocol{Protocol: p.n.cfg.Protocol, IntegrityAlg: p.n.cfg.DataIntegrityAlg})
	p.send(drbd.CmdSyncParam89, drbd.SyncParam{VerifyAlg: p.n.cfg.VerifyAlg, CSumsAlg: p.n.cfg.CsumsAlg})
	size := uint64(p.n.Size() / 512)
	sizes := drbd.Sizes{Disk: size, User: p.user, Current: size, MaxBio: 1 << 20}
	if p.cannot&drbd.FeatureWSame == 0 {
		sizes.Limits = &drbd.QueueLimits{PhysicalBlock: 4096, LogicalBlock: 512, IOMin: 4096, Discard: true, WriteSame: true}
	}
	p.send(drbd.CmdSizes, sizes)
	p.send(drbd.CmdUUIDs, u)
	p.send(drbd.CmdState, drbd.State{Role: role, Conn: proto.WFConnection, Disk: disk, PeerDisk: proto.DUnknown})
}

// primary makes the node a Secondary in sync with a Primary puppet.
func (p *puppet) primary() {
	p.t.Helper()
	p.n.ok("promote", p.n.Promote(bg(), true))
	p.n.ok("demote", p.n.Demote(bg()))
	u := p.n.Status().UUIDs
	p.hello(proto.Primary, proto.UpToDate, drbd.UUIDs{Current: u.Current, Bitmap: u.Bitmap, History0: u.History[0], History1: u.History[1]})
	p.n.await("connection", func(s *Status) bool { return s.Conn == proto.Connected })
}

// secondary makes the node a Primary in sync with a Secondary puppet.
func (p *puppet) secondary() {
	p.t.Helper()
	p.primary()
	p.send(drbd.CmdState, drbd.State{Role: proto.Secondary, Peer: proto.Secondary, Conn: proto.Connected, Disk: proto.UpToDate, PeerDisk: proto.UpToDate})
	p.n.await("demotion", func(s *Status) bool { return s.PeerRole == proto.Secondary })
	done := make(chan error, 1)
	go func() { done <- p.n.Promote(bg(), false) }()
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	p.must(<-done)
}

func data(sector uint64, n int) []byte {
	d := drbd.Data{Sector: sector, ID: drbd.BlockIDOf(7), Seq: 1, Flags: drbd.DPSendWriteAck}
	return append(d.Append(nil), make([]byte, n)...)
}

type raw = drbd.Bytes

// hostile is a packet that no correct peer sends.
type hostile struct {
	name   string
	meta   bool
	cmd    drbd.Cmd
	pl     drbd.Payload
	header []byte // instead of cmd and pl
}

// throw sends it; the node may hang up in the middle.
func (p *puppet) throw(h hostile) {
	sock, b := p.data, h.header
	if h.meta {
		sock = p.meta
	}
	if b == nil {
		b = drbd.AppendPacket(nil, drbd.H100, 0, h.cmd, h.pl, 0)
	}
	_, _ = sock.Write(b)
}

// badPackets each must end the connection with a named protocol error, and the node must take the peer back.
var badPackets = []hostile{
	{name: "unknown command", cmd: 0x77, pl: raw{}},
	{name: "meta command on data", cmd: drbd.CmdPing, pl: raw{}},
	{name: "bad magic", header: []byte("this is no DRBD header at all...")},
	{name: "padding", header: append(drbd.AppendHeader(nil, drbd.H100, drbd.Header{Cmd: drbd.CmdUnplugRemote})[:15], 1)},
	{name: "short barrier", cmd: drbd.CmdBarrier, pl: raw{1, 2, 3}},
	{name: "long state", cmd: drbd.CmdState, pl: raw(make([]byte, 40))},
	{name: "state without meaning", cmd: drbd.CmdState, pl: raw{0xff, 0xff, 0xff, 0xff}},
	{name: "huge length", header: drbd.AppendHeader(nil, drbd.H100, drbd.Header{Cmd: drbd.CmdData, Length: 1<<32 - 1})},
	{name: "odd data", cmd: drbd.CmdData, pl: raw(data(0, 100))},
	{name: "data of more than 1 MiB", cmd: drbd.CmdData, pl: raw(data(0, 1<<20+512))},
	{name: "data beyond the end", cmd: drbd.CmdData, pl: raw(data(testSize/512, 512))},
	{name: "data far beyond the end", cmd: drbd.CmdData, pl: raw(data(1<<62, 512))},
	{name: "zeroes beyond the end", cmd: drbd.CmdZeroes, pl: drbd.Range{Size: 64 << 20}},
	{name: "trim of 1 GiB", cmd: drbd.CmdTrim, pl: drbd.Range{Size: 1 << 30}},
	{name: "write-same without data", cmd: drbd.CmdWSame, pl: drbd.Range{Size: 4096}},
	{name: "write-same of nothing", cmd: drbd.CmdWSame, pl: same(0, 0, make([]byte, 512))},
	{name: "write-same beyond the end", cmd: drbd.CmdWSame, pl: same(testSize/512, 512, make([]byte, 512))},
	{name: "write-same far beyond the end", cmd: drbd.CmdWSame, pl: same(1<<62, 512, make([]byte, 512))},
	{name: "write-same of more than 128 MiB", cmd: drbd.CmdWSame, pl: same(0, 128<<20+512, make([]byte, 512))},
	{name: "write-same of half a block", cmd: drbd.CmdWSame, pl: same(0, 6144, make([]byte, 4096))},
	{name: "write-same inside a block", cmd: drbd.CmdWSame, pl: same(1, 4096, make([]byte, 4096))},
	{name: "write-same of three sectors", cmd: drbd.CmdWSame, pl: same(0, 3072, make([]byte, 1536))},
	{name: "write-same of two blocks", cmd: drbd.CmdWSame, pl: same(0, 8192, make([]byte, 8192))},
	{name: "write-same of odd data", cmd: drbd.CmdWSame, pl: same(0, 4096, make([]byte, 100))},
	{name: "block request beyond the end", cmd: drbd.CmdRSDataRequest, pl: drbd.BlockRequest{Sector: 1 << 40, Size: 4096}},
	{name: "block request of 2 MiB", cmd: drbd.CmdDataRequest, pl: drbd.BlockRequest{Size: 2 << 20}},
	{name: "resync data unasked", cmd: drbd.CmdRSDataReply, pl: raw(data(0, 4096))},
	{name: "data reply unasked", cmd: drbd.CmdDataReply, pl: raw(data(0, 4096))},
	{name: "bitmap unasked", cmd: drbd.CmdBitmap, pl: raw(make([]byte, 512))},
	{name: "compressed bitmap unasked", cmd: drbd.CmdCompressedBitmap, pl: raw{2, 0xb2, 0x3f}},
	{name: "verify request", cmd: drbd.CmdOVRequest, pl: drbd.BlockRequest{Size: 4096}},
	{name: "checksum request", cmd: drbd.CmdCSumRSRequest, pl: drbd.BlockRequest{Size: 4096}},
	{name: "features again", cmd: drbd.CmdFeatures, pl: drbd.Features{Min: 101, Max: 101}},
	{name: "barrier ack unasked", meta: true, cmd: drbd.CmdBarrierAck, pl: drbd.BarrierAck{SetSize: 1}},
	{name: "write ack of unknown block", meta: true, cmd: drbd.CmdWriteAck, pl: drbd.BlockAck{ID: drbd.BlockIDOf(99)}},
	{name: "state reply unasked", meta: true, cmd: drbd.CmdStateChgReply, pl: drbd.SSSuccess},
	{name: "short ack", meta: true, cmd: drbd.CmdWriteAck, pl: raw{1}},
	{name: "data command on meta", meta: true, cmd: drbd.CmdData, pl: raw(data(0, 512))},
	{name: "refused read unasked", meta: true, cmd: drbd.CmdNegDReply, pl: drbd.BlockAck{ID: drbd.BlockIDOf(3)}},
	{name: "resync ack beyond the end", meta: true, cmd: drbd.CmdRSWriteAck, pl: drbd.BlockAck{Sector: 1 << 50, Size: 4096, ID: drbd.IDSyncer}},
}

func TestBadPackets(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.primary()
	before := append([]byte(nil), p.n.content()...)
	for i, bad := range badPackets {
		p.throw(bad)
		p.n.await(bad.name+": the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
		if !p.n.heard("Connected -> ProtocolError") || p.n.Status().Counters.ProtocolErrors != int64(i+1) {
			p.n.dump()
			t.Fatalf("%s: the link did not end with a protocol error that counts", bad.name)
		}
		p.n.mu.Lock()
		p.n.said = nil
		p.n.mu.Unlock()
		u := p.n.Status().UUIDs
		p.hello(proto.Primary, proto.UpToDate, drbd.UUIDs{Current: u.Current, Bitmap: u.Bitmap, History0: u.History[0], History1: u.History[1]})
		p.n.await(bad.name+": reconnection", func(s *Status) bool { return s.Conn == proto.Connected })
	}
	if string(before) != string(p.n.content()) {
		t.Error("bad packets changed data")
	}
}

// Packets that are odd but legal.
func TestOddPackets(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.primary()
	p.send(drbd.CmdEnableRepl, raw{1, 0, 0, 0})
	p.send(drbd.CmdUnplugRemote, drbd.Empty{})
	p.send(drbd.CmdDelayProbe, raw(make([]byte, 8)))
	p.send(drbd.CmdData, raw(data(0, 0)))
	p.expectMeta(drbd.CmdWriteAck)
	p.send(drbd.CmdBarrier, drbd.Barrier{ID: drbd.BarrierIDOf(0xdeadbeef)})
	a, err := drbd.ParseBarrierAck(p.expectMeta(drbd.CmdBarrierAck))
	if err != nil || a.ID != drbd.BarrierIDOf(0xdeadbeef) || a.SetSize != 1 {
		t.Errorf("barrier ack %+v, %v", a, err)
	}
	p.send(drbd.CmdBarrier, drbd.Barrier{}) // of an empty epoch: no answer
	p.ack(drbd.CmdPing, drbd.Empty{})
	h, err := p.md.Next()
	if err != nil || h.Cmd != drbd.CmdPingAck {
		t.Errorf("%v, %v where the answer to the ping belongs", h.Cmd, err)
	}
	p.send(drbd.CmdRSDataRequest, drbd.BlockRequest{Sector: 8, ID: drbd.BlockIDOf(42), Size: 12288})
	d, err := drbd.ParseData(p.expect(drbd.CmdRSDataReply))
	if err != nil || d.Sector != 8 || d.ID != drbd.BlockIDOf(42) {
		t.Errorf("resync reply %+v, %v", d, err)
	}
	p.send(drbd.CmdTrim, drbd.Range{Data: drbd.Data{Sector: 16, ID: drbd.BlockIDOf(9), Flags: drbd.DPSendWriteAck}, Size: 4096})
	w, err := drbd.ParseBlockAck(p.expectMeta(drbd.CmdWriteAck))
	if err != nil || w.Sector != 16 || w.Size != 4096 || w.ID != drbd.BlockIDOf(9) {
		t.Errorf("trim ack %+v, %v", w, err)
	}
	p.send(drbd.CmdStateChgReq, drbd.Change{Mask: drbd.MaskConn, Val: uint32(proto.VerifyS) << 4})
	rc, err := drbd.ParseRetCode(p.expectMeta(drbd.CmdStateChgReply))
	if err != nil || rc.OK() {
		t.Errorf("verify was granted: %v, %v", rc, err)
	}
}

func TestTruncatedThenClosed(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.primary()
	_, _ = p.data.Write(drbd.AppendPacket(nil, drbd.H100, 0, drbd.CmdData, raw(data(0, 4096)), 0)[:2000])
	p.hangUp()
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("Connected -> BrokenPipe") && !p.n.heard("Connected -> NetworkFailure") {
		p.n.dump()
		t.Error("neither a BrokenPipe nor a NetworkFailure")
	}
}

func TestOtherVersions(t *testing.T) {
	t.Parallel()
	for _, f := range []drbd.Features{{Min: 102, Max: 124}, {Min: 86, Max: 100}} {
		p := puppetNode(t, nil)
		p.accept()
		_, err := p.data.Write(drbd.AppendPacket(nil, drbd.H80, 0, drbd.CmdFeatures, f, 0))
		p.must(err)
		p.n.await("StandAlone", alone)
		if !p.n.heard("protocol versions") {
			p.n.dump()
			t.Error("does not name the versions")
		}
	}
}

func TestOtherOptions(t *testing.T) {
	t.Parallel()
	for name, pr := range map[string]drbd.Protocol{
		"protocol":            {Protocol: proto.ProtocolA},
		"data-integrity-alg":  {Protocol: proto.ProtocolC, IntegrityAlg: "sha1"},
		"allow-two-primaries": {Protocol: proto.ProtocolC, TwoPrimaries: true},
		"after-sb-0pri":       {Protocol: proto.ProtocolC, AfterSB0P: drbd.AfterSBDiscardYoungerPri},
	} {
		p := puppetNode(t, nil)
		p.accept()
		p.features(drbd.Features{Min: 86, Max: 101})
		p.send(drbd.CmdProtocol, pr)
		p.n.await("StandAlone", alone)
		if !p.n.heard(name) {
			p.n.dump()
			t.Errorf("does not name %s", name)
		}
	}
}

// TestThinUnagreed: a peer that cannot do thin resync must not ask for it.
func TestThinUnagreed(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.cannot = drbd.FeatureThinResync
	p.primary()
	p.throw(hostile{cmd: drbd.CmdRSThinReq, pl: drbd.BlockRequest{Size: 4096}})
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("thin resync was not agreed") {
		p.n.dump()
		t.Error("does not say why")
	}
}

func TestSilentPeerIsDropped(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.PingInt = 200 * time.Millisecond })
	p.primary()
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("did not answer a ping") {
		p.n.dump()
		t.Error("does not say why")
	}
	if i := p.n.LinkInfo(); i.Broken != 1 || !i.Since.IsZero() {
		t.Errorf("link: %+v", i)
	}
}

func TestUnansweredWrite(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.Timeout, c.KoCount = 50*time.Millisecond, 4 })
	p.secondary()
	start := time.Now()
	_, err := p.n.WriteAt(block.Buffer(4096), 0)
	if d := time.Since(start); err != nil || d < 150*time.Millisecond || d > 2*time.Second {
		t.Errorf("write took %v: %v", d, err)
	}
	p.n.await("the mark", func(s *Status) bool { return s.OutOfSync == 4096 })
	if !p.n.heard("unanswered") {
		p.n.dump()
		t.Error("does not say why")
	}
}

func TestMuteHandshake(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.Timeout, c.KoCount = 100*time.Millisecond, 2 })
	p.accept()
	p.features(drbd.Features{Min: 86, Max: 101})
	p.n.await("the end of the link", func(*Status) bool { return p.n.heard("has said nothing") })
}

// Epochs as the peer of a Primary sees them.
func TestEpochs(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.secondary()
	write := func() chan error {
		done := make(chan error, 1)
		go func() { _, err := p.n.WriteAt(block.Buffer(4096), 0); done <- err }()
		return done
	}
	for nr := range uint32(3) {
		done := write()
		d, err := drbd.ParseData(p.expect(drbd.CmdData))
		p.must(err)
		if d.Flags != drbd.DPSync|drbd.DPSendWriteAck {
			t.Errorf("flags %#x", d.Flags)
		}
		select {
		case <-done:
			t.Fatal("completed before the peer had it")
		case <-time.After(5 * time.Millisecond):
		}
		p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
		p.must(<-done)
		b, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
		if err != nil || b.ID.Number() != nr {
			t.Fatalf("barrier %d, expected %d: %v", b.ID.Number(), nr, err)
		}
		p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096}) // a repeated ack is no fault
		flushed := make(chan error, 1)
		go func() { flushed <- p.n.Flush() }()
		select {
		case <-flushed:
			t.Fatal("flushed before the peer did")
		case <-time.After(5 * time.Millisecond):
		}
		p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: b.ID, SetSize: 1})
		p.must(<-flushed)
	}
	done := write()
	d, err := drbd.ParseData(p.expect(drbd.CmdData))
	p.must(err)
	p.ack(drbd.CmdNegAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.must(<-done)
	p.n.await("the mark of a refused write", func(s *Status) bool { return s.OutOfSync == 4096 })
	b, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
	p.must(err)
	p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: b.ID, SetSize: 2}) // wrong count
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("the peer counted 2") {
		p.n.dump()
		t.Error("does not say what is wrong with the barrier")
	}
}

func TestNotOurPeer(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	u := drbd.UUIDs{Current: 0x1111111111111110, Bitmap: 0x2222222222222220, History0: 0x3333333333333330, History1: 0x4444444444444440}
	p.n.ok("promote", p.n.Promote(bg(), true))
	p.hello(proto.Secondary, proto.UpToDate, u)
	p.n.await("StandAlone", alone)
	if s := p.n.Status(); s.Problem == "" {
		t.Error("no problem is shown")
	}
}

func TestGarbageOnTheListener(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	_ = p.ln.Close()
	for range 20 {
		var c net.Conn
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			var err error
			if c, err = net.Dial("tcp", p.n.cfg.LocalAddr); err == nil {
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		junk := make([]byte, 64)
		_, _ = rand.Read(junk)
		_, _ = c.Write(junk)
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.Read(junk); !errors.Is(err, io.EOF) && err == nil {
			t.Error("answered to garbage")
		}
		_ = c.Close()
	}
}
