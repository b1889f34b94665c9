package datapath

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// good makes the node the one with the data.
func (n nine) good() nine {
	n.t.Helper()
	n.n.ok("promote", n.n.Promote(bg(), true))
	n.n.ok("demote", n.n.Demote(bg()))
	return n
}

// inState are the connection states in which a peer can send anything, and how to get there.
var inState = []struct {
	conn  proto.ConnState
	enter func(n nine)
}{
	{proto.WFReportParams, func(n nine) {
		n.accept()
		n.features(drbd.Features{Min: 86, Max: 101})
	}},
	{proto.Connected, func(n nine) { n.inSync() }},
	{proto.WFBitMapS, func(n nine) { n.good().comesFresh() }},
	{proto.WFBitMapT, func(n nine) { n.becomesSource() }},
	{proto.WFSyncUUID, func(n nine) {
		n.becomesSource()
		n.giveBitmap()
		n.takeBitmap()
	}},
	{proto.SyncSource, func(n nine) { n.good().becomesTarget() }},
	{proto.SyncTarget, func(n nine) {
		n.becomesSource()
		n.startsSync()
	}},
	{proto.PausedSyncS, func(n nine) {
		n.good().becomesTarget()
		n.state(drbd.State{Role: proto.Secondary, Peer: proto.Secondary, Conn: proto.PausedSyncT, Disk: proto.Inconsistent, PeerDisk: proto.UpToDate, UserISP: true})
	}},
	{proto.PausedSyncT, func(n nine) {
		n.becomesSource()
		n.startsSync()
		n.state(drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.PausedSyncS, Disk: proto.UpToDate, PeerDisk: proto.Inconsistent, UserISP: true})
	}},
	{proto.VerifyT, func(n nine) {
		n.inSync()
		n.send(drbd.CmdStateChgReq, drbd.Change{Mask: drbd.MaskConn, Val: uint32(proto.VerifyS) << 4})
		n.expectMeta(drbd.CmdStateChgReply)
	}},
	{proto.VerifyS, func(n nine) {
		n.inSync()
		done := make(chan error, 1)
		go func() { done <- n.n.VerifyStart(bg(), 0) }()
		n.expect(drbd.CmdStateChgReq)
		n.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
		n.must(<-done)
	}},
}

// anywhere is wrong in each of these states: unknown, malformed, oversize, beyond the device, or nothing that was asked.
var anywhere = []hostile{
	{name: "unknown command", cmd: 0x77, pl: raw{}},
	{name: "bad magic", header: []byte("this is no DRBD header at all...")},
	{name: "huge length", header: drbd.AppendHeader(nil, drbd.H100, drbd.Header{Cmd: drbd.CmdData, Length: 1<<32 - 1})},
	{name: "huge bitmap", header: drbd.AppendHeader(nil, drbd.H100, drbd.Header{Cmd: drbd.CmdBitmap, Length: 1 << 20})},
	{name: "bitmap of odd size", cmd: drbd.CmdBitmap, pl: raw(make([]byte, 13))},
	{name: "bitmap code without end", cmd: drbd.CmdCompressedBitmap, pl: raw{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
	{name: "state without meaning", cmd: drbd.CmdState, pl: raw{0xff, 0xff, 0xff, 0xff}},
	{name: "data beyond the end", cmd: drbd.CmdData, pl: raw(data(1<<62, 512))},
	{name: "data of more than 1 MiB", cmd: drbd.CmdData, pl: raw(data(0, 1<<20+512))},
	{name: "write-same without data", cmd: drbd.CmdWSame, pl: drbd.Range{Size: 4096}},
	{name: "block request of 2 MiB", cmd: drbd.CmdRSDataRequest, pl: drbd.BlockRequest{Size: 2 << 20}},
	{name: "resync data unasked", cmd: drbd.CmdRSDataReply, pl: raw(data(8, 512))},
	{name: "digest unasked", cmd: drbd.CmdOVReply, pl: raw(append(drbd.BlockRequest{Sector: 3, Size: 512}.Append(nil), make([]byte, 16)...))},
	{name: "data reply unasked", cmd: drbd.CmdDataReply, pl: raw(data(0, 4096))},
	{name: "features again", cmd: drbd.CmdFeatures, pl: drbd.Features{Min: 101, Max: 101}},
	{name: "write ack of unknown block", meta: true, cmd: drbd.CmdWriteAck, pl: drbd.BlockAck{ID: drbd.BlockIDOf(99)}},
	{name: "barrier ack unasked", meta: true, cmd: drbd.CmdBarrierAck, pl: drbd.BarrierAck{SetSize: 1}},
	{name: "state reply unasked", meta: true, cmd: drbd.CmdStateChgReply, pl: drbd.SSSuccess},
	{name: "block is the same, unasked", meta: true, cmd: drbd.CmdRSIsInSync, pl: drbd.BlockAck{Sector: 3, Size: 512, ID: drbd.IDSyncer}},
	{name: "resync ack beyond the end", meta: true, cmd: drbd.CmdRSWriteAck, pl: drbd.BlockAck{Sector: 1 << 50, Size: 4096, ID: drbd.IDSyncer}},
	{name: "data command on meta", meta: true, cmd: drbd.CmdData, pl: raw(data(0, 512))},
	{name: "bad magic on meta", meta: true, header: []byte("this is no DRBD header at all...")},
}

// TestHostilePackets: in every connection state, what does not belong there ends the connection with a protocol error that
// counts, and the node looks for its peer again.
func TestHostilePackets(t *testing.T) {
	t.Parallel()
	for _, at := range inState {
		for _, bad := range anywhere {
			t.Run(at.conn.String()+"/"+bad.name, func(t *testing.T) {
				t.Parallel()
				n := nineNode(t, func(c *Config) { c.VerifyAlg = "md5" })
				at.enter(n)
				n.n.await(at.conn.String(), func(s *Status) bool { return s.Conn == at.conn })
				n.throw(bad)
				n.n.await("the count", func(s *Status) bool { return s.Counters.ProtocolErrors == 1 && s.Conn < proto.Connected })
				if !n.n.heard(at.conn.String() + " -> ProtocolError") {
					n.n.dump()
					t.Error("no ProtocolError")
				}
				n.accept()
			})
		}
	}
}

// TestImpossibleSize: a node without disk takes the device's size from its peer, but not one that no device has.
func TestImpossibleSize(t *testing.T) {
	t.Parallel()
	for _, sectors := range []uint64{drbd.MaxSectors + 1, 1 << 55, 1<<63 + 8, 1<<64 - 1} {
		p := puppetNode(t, nil)
		p.must(p.n.Detach(bg()))
		p.accept()
		p.features(drbd.Features{Min: 86, Max: 101})
		p.n.await("the handshake", func(s *Status) bool { return s.Conn == proto.WFReportParams })
		before := p.n.Size()
		p.send(drbd.CmdProtocol, drbd.Protocol{Protocol: proto.ProtocolC})
		p.send(drbd.CmdSyncParam89, drbd.SyncParam{})
		p.throw(hostile{cmd: drbd.CmdSizes, pl: drbd.Sizes{Disk: sectors, Current: sectors}})
		p.n.await("the count", func(s *Status) bool { return s.Counters.ProtocolErrors == 1 && s.Conn < proto.Connected })
		if n := p.n.Size(); n != before {
			t.Errorf("the device has %d bytes", n)
		}
	}
}

// TestNothingBeforeAgreement: nothing is written or marked for a peer before it is known that the two copies go together.
func TestNothingBeforeAgreement(t *testing.T) {
	t.Parallel()
	for _, bad := range []hostile{
		{name: "data", cmd: drbd.CmdData, pl: raw(append(data(8, 0), bytes.Repeat([]byte{0xaa}, 4096)...))},
		{name: "zeroes", cmd: drbd.CmdZeroes, pl: drbd.Range{Data: drbd.Data{Flags: drbd.DPZeroes}, Size: 4096}},
		{name: "trim", cmd: drbd.CmdTrim, pl: drbd.Range{Size: 4096}},
		{name: "mark", cmd: drbd.CmdOutOfSync, pl: drbd.BlockDesc{Size: 4096}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			n := nineNode(t, nil).good()
			n.n.ok("promote", n.n.Promote(bg(), false))
			n.n.write(0, pattern(3, 64<<10))
			n.n.ok("flush", n.n.Flush())
			n.n.ok("demote", n.n.Demote(bg()))
			before, marked := n.n.content(), n.n.Status().OutOfSync
			n.accept()
			n.features(drbd.Features{Min: 86, Max: 101, Flags: 15})
			n.n.await("the handshake", func(s *Status) bool { return s.Conn == proto.WFReportParams })
			n.throw(bad)
			n.n.await("the count", func(s *Status) bool { return s.Counters.ProtocolErrors == 1 && s.Conn < proto.Connected })
			if !bytes.Equal(before, n.n.content()) || n.n.Status().OutOfSync != marked {
				t.Error("it was done")
			}
		})
	}
}

// TestBackOff: a peer whose connections end at once is not met again at once, and later each time.
func TestBackOff(t *testing.T) {
	t.Parallel()
	n := nineNode(t, func(c *Config) { c.ConnectInt = 500 * time.Millisecond })
	for i := 1; i < 4; i++ {
		n.accept()
		n.features(drbd.Features{Min: 86, Max: 101})
		n.n.await("the handshake", func(s *Status) bool { return s.Conn == proto.WFReportParams })
		began := time.Now()
		n.throw(anywhere[0])
		n.n.await("the end of the link", func(s *Status) bool { return s.Counters.ProtocolErrors == int64(i) && s.Conn < proto.WFReportParams })
		n.accept()
		if d, least := time.Since(began), min(backOff<<i, n.n.cfg.ConnectInt); d < least {
			t.Errorf("after %d failures it is back after %v, want at least %v", i, d, least)
		}
		n.hangUp()
	}
}

// TestPeerAsksAndDoesNotRead: answers to a peer that does not read are kept up to a bound, whatever the timeouts.
func TestPeerAsksAndDoesNotRead(t *testing.T) {
	t.Parallel()
	n := nineNode(t, func(c *Config) { c.Timeout, c.KoCount, c.PingTimeout = time.Hour, 0, time.Hour })
	n.inSync()
	_ = n.meta.SetDeadline(time.Now().Add(time.Minute))
	pings := make([]byte, 0, 64<<10)
	for len(pings) < 64<<10-drbd.HeaderSizeH100 {
		pings = drbd.AppendPacket(pings, drbd.H100, 0, drbd.CmdPing, drbd.Empty{}, 0)
	}
	for {
		if _, err := n.meta.Write(pings); err != nil {
			break
		}
	}
	n.n.await("the end of the link", func(s *Status) bool { return s.Counters.ProtocolErrors == 1 })
	if !n.n.heard("does not read its meta socket") {
		n.n.dump()
		t.Error("does not say why")
	}
}

// TestBacklog: the same for what is said on the data socket. Nobody reads the pipe, so the write that is under way must be
// broken off.
func TestBacklog(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	var q outQueue
	q.init(a)
	wrote := make(chan error, 1)
	go func() {
		_, err := a.Write(make([]byte, 1))
		wrote <- err
	}()
	sent := 0
	for q.put(outItem{kind: outPacket, raw: make([]byte, 1<<20)}) {
		if sent++; sent > 8 {
			t.Fatal("no bound")
		}
	}
	if err := <-wrote; err == nil {
		t.Error("the write under way went on")
	}
	if sent != maxUnread>>20 {
		t.Errorf("%d MiB were kept, the bound is %d", sent, maxUnread>>20)
	}
}

// TestReadsAreBounded: a peer that asks for blocks and takes none makes the node read no more than the budget.
func TestReadsAreBounded(t *testing.T) {
	t.Parallel()
	n := nineNode(t, func(c *Config) { c.Timeout, c.KoCount = time.Hour, 0 })
	n.inSync()
	ask := drbd.AppendPacket(nil, drbd.H100, 0, drbd.CmdRSDataRequest, drbd.BlockRequest{ID: drbd.BlockIDOf(1), Size: 1 << 20}, 0)
	_ = n.data.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for range 1000 {
		if _, err := n.data.Write(ask); err != nil {
			break
		}
	}
	t.Cleanup(n.hangUp)
	held := func() int64 {
		tr := n.n.traffic
		tr.mu.Lock()
		l := tr.gate.link
		tr.mu.Unlock()
		if l == nil {
			t.Fatal("the link is gone")
		}
		l.reads.mu.Lock()
		defer l.reads.mu.Unlock()
		return l.reads.used
	}
	n.n.await("a full budget", func(*Status) bool { return held() == maxPeerReads })
	for range 20 {
		if used := held(); used > maxPeerReads {
			t.Fatalf("%d bytes are held for the peer, the bound is %d", used, maxPeerReads)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestPartsDataFirst: who sees a split brain first leaves the peer time to see it too. The end of the meta socket, which tells
// the peer only that the link is gone, does not overtake what was sent on the other one; but it comes.
func TestPartsDataFirst(t *testing.T) {
	for _, patient := range []bool{true, false} {
		p := puppetNode(t, nil)
		p.n.ok("promote", p.n.Promote(bg(), true))
		p.n.ok("demote", p.n.Demote(bg()))
		u := p.n.Status().UUIDs
		p.hello(proto.Secondary, proto.UpToDate, drbd.UUIDs{Current: 0x1234567890, Bitmap: u.Bitmap})
		p.expect(drbd.CmdState)
		if _, err := p.data.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("the data socket: %v", err)
		}
		_ = p.meta.SetReadDeadline(time.Now().Add(partingTime / 2))
		rest, err := io.ReadAll(p.meta)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the meta socket ended with the data socket: % x, %v", rest, err)
		}
		if patient {
			_ = p.data.Close()
		}
		p.n.await("StandAlone", func(s *Status) bool { return s.Conn == proto.StandAlone })
		_ = p.meta.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err = io.ReadAll(p.meta); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the meta socket does not end")
		}
	}
}
