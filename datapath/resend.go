package datapath

import (
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// A Primary whose own disk holds no good copy keeps what it writes until the peer has confirmed that it is on stable storage.
// If the link breaks before, the peer may lose power and come back without it, though applications were told that it is done
// and a flush would vouch for it next. So it is written again, in the same order, before applications go on with a copy that
// is back. DRBD keeps none and goes on with what the peer has (RESEND, drbd_req.c).

// kept is a write of which an application was told that it is done.
type kept struct {
	cmd    drbd.Cmd
	p      []byte // of CmdData, from block.GetBuffer
	off, n int64
	unmap  bool
}

// mayKeep is how many bytes of data are kept; more writers wait until the peer has confirmed some.
func (c *Config) mayKeep() int64 { return max(int64(c.MaxBuffers)*block4k, maxWrite) }

// alone says whether what is written now is on no other good copy than the peer's. The lock is held.
func (g *gate) alone() bool { return g.disk == nil || !g.good }

// keepsTooMuch says whether w has to wait, and ends the epoch that it waits for. The lock is held.
func (t *traffic) keepsTooMuch(w *write) bool {
	if w.again || !t.gate.alone() || t.keeping < t.cfg.mayKeep() {
		return false
	}
	t.closeEpoch()
	return true
}

// promise takes note, as w passes the gate, that it will be kept. The lock is held.
func (t *traffic) promise(w *write) {
	w.keeps, w.keptBytes = t.gate.alone() && !w.again, 0
	if w.keeps {
		w.keptBytes = int64(len(w.p))
		t.keeping += w.keptBytes
	}
}

// keep copies the data of a write that will be kept.
func (w *write) keep() {
	if w.keeps && w.cmd == drbd.CmdData {
		w.copied = block.GetBuffer(len(w.p))
		copy(w.copied, w.p)
	}
}

// unkeep ends it. The lock is held.
func (t *traffic) unkeep(w *write) {
	t.keeping -= w.keptBytes
	if w.copied != nil {
		block.PutBuffer(w.copied)
	}
	w.copied, w.keptBytes, w.keeps, w.again = nil, 0, false, false
}

// orphan takes a write that the peer has, perhaps not on its disk, out of the log of a link that has ended, while this node
// has no good copy. It gives the bytes that nobody has kept. The lock is held.
func (t *traffic) orphan(w *write) (lost int64) {
	switch {
	case w.again:
		t.anew = true
		return 0
	case w.netPending || w.netFailed:
		return 0
	case !w.keeps:
		return w.n // the disk was good when it was written
	}
	t.kept = append(t.kept, kept{w.cmd, w.copied, w.off, w.n, w.unmap})
	w.copied = nil
	return 0
}

// owes says whether writes are to be written again before applications go on, and how many bytes they are.
func (t *traffic) owes() (n int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.kept {
		n += t.kept[i].n
	}
	return n, len(t.kept) > 0
}

// forget gives up what was kept, and says how many bytes that is.
func (t *traffic) forget() int64 {
	n, _ := t.owes()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	return n
}

// drop lets go of what was kept. The lock is held.
func (t *traffic) drop() {
	for i := range t.kept {
		if p := t.kept[i].p; p != nil {
			block.PutBuffer(p)
		}
	}
	t.kept = nil
}

// resend writes what was kept again and returns when the peer has confirmed it. Applications wait meanwhile, so that it may
// be done once more, all of it, if it fails half way.
func (t *traffic) resend() error {
	for {
		t.mu.Lock()
		list := t.kept // only the end of a link adds to it
		t.anew = false
		t.mu.Unlock()
		for i := range list {
			if err := t.rewrite(&list[i]); err != nil {
				return err
			}
		}
		t.mu.Lock()
		t.awaitEpoch(t.log.seq)
		if !t.anew {
			t.drop()
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
	}
}

// rewrite writes one of them. The peer may be one that cannot write zeroes, though it could before.
func (t *traffic) rewrite(k *kept) error {
	cmd, step := k.cmd, k.n
	if cmd == drbd.CmdZeroes && !t.peerZeroes() {
		cmd, step = drbd.CmdData, int64(len(zeroes))
	}
	for done := int64(0); done < k.n; done += step {
		p, n := k.p, min(step, k.n-done)
		if cmd != k.cmd {
			p = zeroes[:n]
		}
		if _, err := t.writeOnce(cmd, p, k.off+done, n, k.unmap, true); err != nil {
			return err
		}
	}
	return nil
}

// resent: what was kept is on stable storage, or could not be written and is tried again later.
type resent struct{ err error }

// resendNow begins to write what was kept, now that a copy is back.
func (o *owner) resendNow(g *gate) {
	if _, owes := o.r.traffic.owes(); !owes || !g.primary || !g.access || g.frozen || o.st.Suspended() || o.resending {
		return
	}
	o.resending = true
	o.r.background.Add(1)
	go func() {
		defer o.r.background.Done()
		o.r.inbox.put(resent{o.r.traffic.resend()})
	}()
}

func (o *owner) resent(m resent) {
	o.resending = false
	if m.err != nil {
		o.r.cfg.Logger.Debug("resend", "err", m.err) // the next tick tries again, if a copy is there
		return
	}
	o.r.event(proto.LevelInfo, "what %s had acknowledged and not confirmed to be on its disk has been written again; I/O goes on", o.r.cfg.Peer)
	o.widen()
	o.publish()
}

// tellOrphans tells operators what a link left behind: bytes that are kept, and bytes that nobody has.
func (r *Resource) tellOrphans(m orphans) {
	peer := r.cfg.Peer
	if m.kept > 0 {
		r.event(proto.LevelWarn, "the link was lost while %d KiB of writes that %s had acknowledged may not have been on its disk yet. This node, "+
			"which has no good copy, keeps them and writes them again when %s is back, before I/O goes on", m.kept>>10, peer, peer)
	}
	if m.lost > 0 {
		r.event(proto.LevelAlert, "the link was lost while %d KiB of writes that %s had acknowledged may not have been on its disk yet, "+
			"and the disk here had just failed: if %s lost power they are gone. The next flush fails; check the file system", m.lost>>10, peer, peer)
	}
}

// forgetKept: this node is not Primary any more.
func (o *owner) forgetKept() {
	if n := o.r.traffic.forget(); n > 0 {
		o.r.event(proto.LevelAlert, "this node is not Primary any more and gives up %d KiB of writes that %s had acknowledged and may not have on its disk: "+
			"if %s lost power since, they are gone, and no flush vouched for them", n>>10, o.r.cfg.Peer, o.r.cfg.Peer)
	}
}

// orphans are the bytes of writes that the peer of a link that has ended alone has.
type orphans struct{ kept, lost int64 }
