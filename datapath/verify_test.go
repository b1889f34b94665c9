package datapath

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// spoil changes a disk behind the engine's back.
func (n *node) spoil(off int64, b []byte) {
	n.t.Helper()
	if _, err := n.disk.WriteAt(b, off); err != nil {
		n.t.Fatal(err)
	}
}

func verified(alg string, rate int64) func(int, *Config) {
	return func(_ int, c *Config) {
		c.VerifyAlg = alg
		if rate > 0 {
			c.ResyncRate = rate
		}
	}
}

// outcome waits for the end of a verify that is newer than old.
func (n *node) outcome(old *proto.Verify) *proto.Verify {
	n.t.Helper()
	n.await("the end of the verify", func(s *Status) bool { return s.LastVerify != nil && s.LastVerify != old && s.Conn == proto.Connected })
	return n.Status().LastVerify
}

// TestVerifyFindsAll: whichever node compares, whoever is Primary, while an application writes, a verify finds exactly
// the blocks that differ, marks them on both nodes, and a reconnection repairs them from the Primary.
func TestVerifyFindsAll(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "verify")
	t.Parallel()
	for i, alg := range []string{"sha1", "crc32c", "md5", "sha256", "sha512"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, testSize, testSize, verified(alg, 0))
			p.synced()
			compares := p.node[i%2]
			w := startWriter(p.node[0], 7, 4)
			size := p.node[0].Size()
			end := size - size%4096
			p.node[1].spoil(end-512<<10, pattern(1, 512))   // one sector of a block
			p.node[0].spoil(end-256<<10, pattern(2, 12288)) // three blocks
			p.node[1].spoil(size-512, pattern(3, 512))      // the last sector
			want := []proto.Extent{{Offset: end - 512<<10, Length: 4096}, {Offset: end - 256<<10, Length: 12288}, {Offset: (size - 512) &^ 4095}}
			want[2].Length = size - want[2].Offset
			compares.ok("verify", compares.VerifyStart(bg(), 0))
			for _, n := range p.node {
				v := n.outcome(nil)
				if d := cmp.Diff(want, v.Ranges); d != "" {
					t.Errorf("%s: %s", n.name, d)
				}
				if !v.Complete || v.Checked != size || v.Differ != 16384+want[2].Length || v.By != compares.name || v.Alg != alg || v.Failed != 0 {
					t.Errorf("%s: %+v", n.name, v)
				}
			}
			w.end()
			if w.errs > 0 {
				t.Errorf("%d writes failed", w.errs)
			}
			p.await("the marks", func(s *Status) bool { return s.OutOfSync == 16384+want[2].Length })
			p.node[1].ok("disconnect", p.node[1].Disconnect(bg(), false))
			p.node[1].ok("connect", p.node[1].Connect(bg(), false))
			p.await("the repair", inSync)
			p.equal()
			old := compares.Status().LastVerify
			compares.ok("verify again", compares.VerifyStart(bg(), 0))
			if v := compares.outcome(old); !v.Complete || v.Differ != 0 {
				t.Errorf("after the repair: %+v", v)
			}
		})
	}
}

func TestVerifyStopAndRange(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "verify")
	t.Parallel()
	p := newPair(t, testSize, testSize, verified("crc32c", 1<<20))
	p.tweak = nil
	p.up()
	p.await("connection", connected)
	for _, n := range p.node {
		n.ok("rate", n.SetResyncRate(1<<30))
	}
	a, b := p.node[0], p.node[1]
	a.ok("promote", a.Promote(bg(), true))
	p.await("the initial sync", inSync)
	a.ok("rate", a.SetResyncRate(1<<20))
	size := a.Size()
	b.spoil(0, pattern(1, 4096))
	b.spoil(size-8192, pattern(2, 4096))
	if err := a.VerifyStart(bg(), size); err == nil {
		t.Error("a verify behind the end began")
	}
	if err := a.VerifyStop(bg()); err == nil {
		t.Error("stopped what does not run")
	}
	a.ok("verify", a.VerifyStart(bg(), 0))
	if err := b.VerifyStop(bg()); err == nil {
		t.Error("the other node stopped it")
	}
	a.await("progress", func(s *Status) bool {
		return s.Sync != nil && s.Sync.Kind == "verify" && s.Sync.Left < s.Sync.Total && s.Sync.Source == a.name && s.Sync.Differ == 4096
	})
	a.ok("stop", a.VerifyStop(bg()))
	v := a.outcome(nil)
	if v.Complete || v.Why == "" || v.Checked == 0 || v.Checked >= size || v.Differ != 4096 {
		t.Errorf("%+v", v)
	}
	b.outcome(nil)
	a.ok("rate", a.SetResyncRate(1<<30))
	a.ok("verify", a.VerifyStart(bg(), size/2+100))
	if v = a.outcome(v); v.Complete || v.From != size/2 || v.Checked != size-size/2 || v.Differ != 4096 {
		t.Errorf("%+v", v)
	}
}

// TestVerifyBreaks: the link breaks, or a disk fails, in the middle; nothing hangs, applications write on.
func TestVerifyBreaks(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, verified("sha1", 0))
	p.synced()
	for i, n := range p.node {
		n.ok("rate", n.SetResyncRate(2<<20))
		n.ok("verify", n.VerifyStart(bg(), 0))
		p.await("a verify", func(s *Status) bool { return s.Conn.Verifying() })
		old := n.Status().LastVerify
		p.cable.pull()
		n.await("the outcome", func(s *Status) bool { return s.LastVerify != old })
		if v := n.Status().LastVerify; v.Complete || v.Why == "" {
			t.Errorf("%+v", v)
		}
		p.node[0].write(0, pattern(uint64(i), 1<<20))
		p.cable.plug()
		p.await("the resync", inSync)
	}
	b := p.node[1]
	b.ok("verify", b.VerifyStart(bg(), 0))
	b.ok("detach", b.Detach(bg()))
	p.await("the end", func(s *Status) bool { return s.Conn == proto.Connected })
	p.node[0].write(0, pattern(9, 1<<20))
	b.ok("attach", b.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

func TestVerifyNeedsAlgorithm(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	if err := p.node[0].VerifyStart(bg(), 0); err == nil {
		t.Error("verify without verify-alg")
	}
	c := p.node[0].cfg
	c.VerifyAlg = "rot13"
	if _, err := New(c); err == nil {
		t.Error("verify-alg rot13 accepted")
	}
}

// TestVerifyPackets: a scripted peer that compares, and one that answers, with handles as DRBD 9 sends them.
func TestVerifyPackets(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.VerifyAlg = "md5" })
	p.primary()
	p.send(drbd.CmdStateChgReq, drbd.Change{Mask: drbd.MaskConn, Val: uint32(proto.VerifyS) << 4})
	if rc, err := drbd.ParseRetCode(p.expectMeta(drbd.CmdStateChgReply)); err != nil || !rc.OK() {
		t.Fatalf("verify: %v, %v", rc, err)
	}
	p.send(drbd.CmdOVRequest, drbd.BlockRequest{Sector: 8, ID: drbd.BlockIDOf(42), Size: 4096})
	b := p.expect(drbd.CmdOVReply)
	req, err := drbd.ParseBlockRequest(drbd.CmdOVReply, b)
	zeroMD5 := "620f0b67a91f7f74151bc5be745b7110" // of 4096 zeroes
	if err != nil || req.Sector != 8 || req.ID != drbd.BlockIDOf(42) || hex.EncodeToString(b[drbd.SizeRequest:]) != zeroMD5 {
		t.Errorf("reply %+v %x, %v", req, b[drbd.SizeRequest:], err)
	}
	p.ack(drbd.CmdOVResult, drbd.BlockAck{Sector: 8, ID: drbd.BlockIDOf(drbd.OVOutOfSync), Size: 4096})
	p.n.await("the mark", func(s *Status) bool { return s.OutOfSync == 4096 })
	up := drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.Connected, Disk: proto.UpToDate, PeerDisk: proto.UpToDate}
	p.send(drbd.CmdState, up)
	// The outcome waits until the peer's last verdicts are in.
	p.expectMeta(drbd.CmdPing)
	p.ack(drbd.CmdPingAck, drbd.Empty{})
	if v := p.n.outcome(nil); v.Differ != 4096 || v.Checked != 4096 || v.From != 4096 || v.By != names[1] {
		t.Errorf("%+v", v)
	}

	done := make(chan error, 1)
	go func() { done <- p.n.VerifyStart(bg(), p.n.Size()-8192) }()
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	p.must(<-done)
	sum, _ := hex.DecodeString(zeroMD5)
	for i := range 2 {
		req, err := drbd.ParseBlockRequest(drbd.CmdOVRequest, p.expect(drbd.CmdOVRequest))
		p.must(err)
		if i == 1 {
			sum[0]++
		}
		p.send(drbd.CmdOVReply, raw(append(req.Append(nil), sum...)))
		r, err := drbd.ParseBlockAck(p.expectMeta(drbd.CmdOVResult))
		if want := uint64(drbd.OVInSync + i); err != nil || r.Sector != req.Sector || r.ID.Number() != want {
			t.Errorf("result %+v, %v, want %d", r, err, want)
		}
	}
	p.expectMeta(drbd.CmdPing)
	p.ack(drbd.CmdPingAck, drbd.Empty{})
	if st, err := drbd.ParseState(p.expect(drbd.CmdState)); err != nil || st.Conn != proto.Connected {
		t.Errorf("at the end: %+v, %v", st, err)
	}
}

// TestVerifyBadPackets: nobody may answer what was not asked, or send a verdict on what was not sent.
func TestVerifyBadPackets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		meta bool
		cmd  drbd.Cmd
		pl   drbd.Payload
	}{
		{"digest unasked", false, drbd.CmdOVReply, raw(append(drbd.BlockRequest{Size: 4096}.Append(nil), make([]byte, 16)...))},
		{"request beyond the end", false, drbd.CmdOVRequest, drbd.BlockRequest{Sector: 1 << 40, Size: 4096}},
		{"request of 2 MiB", false, drbd.CmdOVRequest, drbd.BlockRequest{Size: 2 << 20}},
		{"verdict unasked", true, drbd.CmdOVResult, drbd.BlockAck{Size: 4096, ID: drbd.BlockIDOf(drbd.OVOutOfSync)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := puppetNode(t, func(c *Config) { c.VerifyAlg = "md5" })
			p.primary()
			if c.meta {
				p.ack(c.cmd, c.pl)
			} else {
				p.send(c.cmd, c.pl)
			}
			p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
			if !p.n.heard("ProtocolError") || p.n.Status().OutOfSync != 0 {
				p.n.dump()
				t.Error("no protocol error")
			}
		})
	}
}

// TestInvalidate: either node starts a full resync in the wanted direction; never over a Primary.
func TestInvalidate(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "invalidate")
	t.Parallel()
	for _, remote := range []bool{false, true} {
		t.Run(fmt.Sprint("remote ", remote), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, testSize, testSize, nil)
			p.synced()
			a, b := p.node[0], p.node[1]
			a.write(0, pattern(1, 1<<20))
			if a.Invalidate(bg()) == nil || b.InvalidateRemote(bg()) == nil {
				t.Fatal("a Primary's copy would be overwritten")
			}
			w := startWriter(a, 3, 2)
			b.spoil(3<<20, pattern(2, 1<<20))
			start := time.Now()
			if remote {
				a.ok("invalidate-remote", a.InvalidateRemote(bg()))
			} else {
				b.ok("invalidate", b.Invalidate(bg()))
			}
			b.await("the resync's end", func(s *Status) bool { return inSync(s) && s.LastInSync.After(start) })
			w.end()
			p.await("the resync's end", inSync)
			p.equal()
			if w.errs > 0 {
				t.Errorf("%d writes failed", w.errs)
			}
		})
	}
}

// TestConsentOfFailingDisk: the disk of a node fails when it agrees to what the peer asks for. The request ends, and both nodes
// know what came of it.
func TestConsentOfFailingDisk(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"invalidate", "detach"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, testSize, testSize, nil)
			faults, mem := p.faulty(1)
			p.synced()
			asks, f := p.node[0], p.node[0].Detach // b begins a generation for a Primary without disk
			if what == "invalidate" {
				asks.ok("demote", asks.Demote(bg()))
				p.await("the demotion", func(s *Status) bool { return s.Role == proto.Secondary && s.PeerRole == proto.Secondary })
				f = asks.Invalidate
			}
			faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: mem.Size() - 4096, Err: syscall.EIO})
			ctx, cancel := context.WithTimeout(bg(), 5*time.Second)
			defer cancel()
			if err := f(ctx); err == nil || !strings.Contains(err.Error(), "SS_NO_LOCAL_DISK") {
				t.Errorf("%s: %v", what, err)
			}
			asks.await("the peer's disk to leave", func(s *Status) bool { return s.Disk == proto.UpToDate && s.PeerDisk == proto.Diskless })
			p.node[1].await("the state of the peer", func(s *Status) bool {
				return s.Conn == proto.Connected && s.Disk == proto.Diskless && s.PeerDisk == proto.UpToDate
			})
		})
	}
}
