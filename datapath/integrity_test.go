package datapath

import (
	"crypto/md5"
	"testing"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// TestIntegrity: everything works with a digest on each block: sync both ways, live writes, zeroes, reads through the peer.
func TestIntegrity(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "integrity")
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.DataIntegrityAlg = "crc32c" })
	p.synced()
	a, b := p.node[0], p.node[1]
	w := startWriter(a, 1, 4)
	p.cable.pull()
	a.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	p.cable.plug()
	p.await("the resync", inSync)
	w.end()
	a.ok("zeroes", a.WriteZeroes(1<<20, 2<<20, true))
	if a.Discard(0, 1<<20) == nil {
		t.Error("a discard became zeroes, which were not agreed")
	}
	a.write(5<<20, pattern(9, 64<<10))
	a.ok("flush", a.Flush())
	p.equal()
	a.ok("detach", a.Detach(bg()))
	got := make([]byte, 64<<10)
	if _, err := a.ReadAt(got, 5<<20); err != nil || string(got) != string(pattern(9, 64<<10)) {
		t.Errorf("a read through the peer: %v", err)
	}
	if w.errs > 0 || b.heard("digest") {
		t.Errorf("%d writes failed", w.errs)
	}
}

// TestDamagedData: a block whose digest differs ends the link and does not reach the disk; zeroes are not offered.
func TestDamagedData(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "integrity")
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.DataIntegrityAlg = "md5" })
	p.primary()
	block := pattern(4, 4096)
	sum := md5.Sum(block)
	send := func(sum [16]byte) {
		d := drbd.Data{Sector: 64, ID: drbd.BlockIDOf(1), Seq: 1, Flags: drbd.DPSendWriteAck}
		p.send(drbd.CmdData, raw(append(append(d.Append(nil), sum[:]...), block...)))
	}
	send(sum)
	p.expectMeta(drbd.CmdWriteAck)
	if string(p.n.content()[64*512:][:4096]) != string(block) {
		t.Error("the block is not on the disk")
	}
	p.send(drbd.CmdDataRequest, drbd.BlockRequest{Sector: 64, ID: drbd.BlockIDOf(5), Size: 4096})
	if b := p.expect(drbd.CmdDataReply); len(b) != drbd.SizeData+16+4096 || string(b[drbd.SizeData:][:16]) != string(sum[:]) {
		t.Error("a reply without the right digest")
	}
	if l := p.n.cfg.features(); l&drbd.FeatureZeroes != 0 {
		t.Error("zeroes are offered")
	}
	block = pattern(5, 4096)
	send(sum)
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("data-integrity-alg") || !p.n.heard("ProtocolError") {
		p.n.dump()
		t.Error("the damage was not named")
	}
	if string(p.n.content()[64*512:][:4096]) == string(block) {
		t.Error("damaged data is on the disk")
	}
}
