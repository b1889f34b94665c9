package datapath

import (
	"crypto/md5"
	"testing"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// TestChecksumResync: after an invalidate of a copy of which little differs, little travels, in both directions, with an
// application that writes; the copies end equal.
func TestChecksumResync(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "checksum-resync")
	t.Parallel()
	for _, alg := range []string{"crc32c", "sha1"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.CsumsAlg = alg })
			p.synced()
			a, b := p.node[0], p.node[1]
			a.write(0, pattern(1, 4<<20))
			for _, from := range []*node{a, b} {
				other := a
				if from == a {
					other = b
				}
				other.spoil(9<<20, pattern(2, 8192))
				other.spoil(15<<20+512, pattern(3, 512))
				before := from.traffic.sentBytes.Load()
				from.ok("invalidate-remote", from.InvalidateRemote(bg()))
				other.await("the resync", func(s *Status) bool { return inSync(s) && other.heard("resync done") })
				p.await("the resync", inSync)
				p.equal()
				if n := from.traffic.sentBytes.Load() - before; n > 4*maxCsumRequest {
					t.Errorf("%s sent %d bytes", from.name, n)
				}
				if from == a {
					a.ok("demote", a.Demote(bg()))
					b.await("the demotion", func(s *Status) bool { return s.PeerRole == proto.Secondary })
				}
			}
			a.ok("promote", a.Promote(bg(), false))
			w := startWriter(a, 5, 4)
			a.ok("invalidate-remote", a.InvalidateRemote(bg()))
			b.await("the end", func(s *Status) bool { return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.OutOfSync == 0 })
			w.end()
			p.await("the end", inSync)
			p.equal()
			if w.errs > 0 {
				t.Errorf("%d writes failed", w.errs)
			}
		})
	}
}

// TestChecksumPackets: the source answers a digest with a word or with the block, and only as long as it fits.
func TestChecksumPackets(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.CsumsAlg = "md5" })
	p.primary()
	p.n.spoil(8192, pattern(1, 8192))
	same := md5.Sum(p.n.content()[8192:16384])
	ask := func(sum []byte) {
		req := drbd.BlockRequest{Sector: 16, ID: drbd.BlockIDOf(77), Size: 8192}
		p.send(drbd.CmdCSumRSRequest, raw(append(req.Append(nil), sum...)))
	}
	ask(same[:])
	if r, err := drbd.ParseBlockAck(p.expectMeta(drbd.CmdRSIsInSync)); err != nil || r.Sector != 16 || r.Size != 8192 || r.ID != drbd.BlockIDOf(77) {
		t.Errorf("%+v, %v", r, err)
	}
	same[3]++
	ask(same[:])
	b := p.expect(drbd.CmdRSDataReply)
	if string(b[drbd.SizeData:]) != string(p.n.content()[8192:16384]) {
		t.Error("another block was sent")
	}
	ask(same[:5])
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("ProtocolError") {
		t.Error("a short digest was taken")
	}
}

func TestSameUnasked(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.CsumsAlg = "md5" })
	p.primary()
	p.ack(drbd.CmdRSIsInSync, drbd.BlockAck{Size: 4096, ID: drbd.IDSyncer})
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("ProtocolError") {
		t.Error("a word on what nobody asked was taken")
	}
}
