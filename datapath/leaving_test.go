package datapath

import (
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// asks reads requests of a resync until so many bytes were asked for.
func (n nine) asks(bytes int64) (reqs []drbd.BlockRequest) {
	n.t.Helper()
	for bytes > 0 {
		req, err := drbd.ParseBlockRequest(drbd.CmdRSDataRequest, n.expect(drbd.CmdRSDataRequest))
		n.must(err)
		reqs = append(reqs, req)
		bytes -= int64(req.Size)
	}
	return reqs
}

func (n nine) answers(reqs []drbd.BlockRequest, fill uint64) {
	n.t.Helper()
	for _, r := range reqs {
		d := drbd.Data{Sector: r.Sector, ID: drbd.IDSyncer}
		n.send(drbd.CmdRSDataReply, raw(append(d.Append(nil), pattern(fill, int(r.Size))...)))
	}
}

// leaves detaches the node's disk in the middle of a resync; nothing that it asked for is answered yet.
func leaves(t *testing.T) (n nine, reqs []drbd.BlockRequest, detached chan error) {
	t.Helper()
	n = nineNode(t, func(c *Config) { c.PingTimeout = 5 * time.Second })
	n.becomesSource()
	n.startsSync()
	reqs = n.asks(2 << 20) // at least two: a request has 1 MiB at most
	n.n.ok("pause", n.n.PauseSync(bg()))
	reqs = append(reqs, n.rest(func(s drbd.State) bool { return s.Conn == proto.PausedSyncT })...)
	detached = make(chan error, 1)
	go func() { detached <- n.n.Detach(bg()) }()
	n.expect(drbd.CmdStateChgReq)
	n.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	return n, reqs, detached
}

// startsAfterRefusal is startsSync where the node has refused answers to the resync before: a kernel must have counted that
// before the next one begins, so the node's bitmap comes when a ping has been answered.
func (n nine) startsAfterRefusal() {
	n.t.Helper()
	n.giveBitmap()
	n.expectMeta(drbd.CmdPing)
	time.Sleep(50 * time.Millisecond) // the ping is counted
	sent := n.n.traffic.sentBytes.Load()
	time.Sleep(50 * time.Millisecond)
	if n.n.traffic.sentBytes.Load() != sent {
		n.t.Error("the bitmap may have overtaken the refusal")
	}
	n.ack(drbd.CmdPingAck, drbd.Empty{})
	n.takeBitmap()
	n.send(drbd.CmdSyncUUID, drbd.SyncUUID(sourceUUIDs.Bitmap+1<<48))
	n.source(proto.SyncSource)
}

func leftDisk(s drbd.State) bool { return s.Disk <= proto.Failed }

// rest is what the node asks for until it tells of a state.
func (n nine) rest(until func(drbd.State) bool) (reqs []drbd.BlockRequest) {
	n.t.Helper()
	for {
		h, err := n.rd.Next()
		n.must(err)
		b := make([]byte, h.Length)
		n.must(n.rd.ReadBlock(b))
		switch h.Cmd {
		case drbd.CmdRSDataRequest:
			req, err := drbd.ParseBlockRequest(h.Cmd, b)
			n.must(err)
			reqs = append(reqs, req)
		case drbd.CmdState:
			if s, err := drbd.ParseState(b); err == nil && until(s) {
				return reqs
			}
		}
	}
}

// TestDiskLeavesUnanswered: the disk of a SyncTarget leaves, and what it has asked for is never answered, as a kernel's source
// does that has heard of it. No application waits for those blocks any more; a disk that comes back is not given an answer of
// then; and its resync does not wait for ever, but begins on a new link.
func TestDiskLeavesUnanswered(t *testing.T) {
	t.Parallel()
	n, reqs, detached := leaves(t)
	n.rest(leftDisk)
	n.must(<-detached)
	n.n.await("no disk", func(s *Status) bool { return s.Disk == proto.Diskless })
	tr := n.n.traffic
	tr.mu.Lock()
	spans := tr.ranges.n
	tr.mu.Unlock()
	if spans > 0 {
		t.Errorf("%d ranges of the device are still held", spans)
	}
	n.source(proto.Connected)
	n.n.ok("attach", n.n.Attach(bg()))
	n.send(drbd.CmdUUIDs, sourceUUIDs)
	n.source(proto.WFBitMapS)
	n.n.await("the next resync", func(s *Status) bool { return s.Conn == proto.WFBitMapT })
	n.answers(reqs[:1], 5)
	n.expectMeta(drbd.CmdNegAck)
	if string(n.n.content1(int64(reqs[0].Sector)*512)) == string(pattern(5, 4096)) {
		t.Error("an answer to the disk before was written")
	}
	n.startsAfterRefusal()
	n.n.ok("resume", n.n.ResumeSync(bg()))
	n.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !n.n.heard("were not answered") {
		n.n.dump()
		t.Error("does not say why the link ended")
	}
}

// TestDiskLeavesInOrder: a disk that leaves a resync waits a moment for the answers under way. The peer has answered
// everything when it hears of it, and the link lives on when the disk is back.
func TestDiskLeavesInOrder(t *testing.T) {
	t.Parallel()
	n, reqs, detached := leaves(t)
	time.Sleep(50 * time.Millisecond)
	if d := n.n.Status().Disk; d != proto.Inconsistent {
		t.Errorf("%v, and nothing was answered yet", d)
	}
	n.answers(reqs, 5)
	n.rest(leftDisk)
	n.must(<-detached)
	n.n.await("no disk", func(s *Status) bool { return s.Disk == proto.Diskless })
	n.source(proto.Connected)
	n.n.ok("attach", n.n.Attach(bg()))
	n.send(drbd.CmdUUIDs, sourceUUIDs)
	n.source(proto.WFBitMapS)
	n.startsAfterRefusal()
	n.n.ok("resume", n.n.ResumeSync(bg()))
	if len(n.asks(1)) == 0 || n.n.heard("were not answered") {
		n.n.dump()
		t.Error("the resync does not go on")
	}
}
