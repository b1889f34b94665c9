package datapath

import (
	"errors"
	"sync"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto/drbd"
)

// remoteRead is a read that the peer answers. The traffic lock guards it, except that the link's receiver fills p while
// filling is set.
type remoteRead struct {
	off     int64
	p       []byte
	link    *link
	since   time.Time
	id      uint64
	filling bool
	err     error
	done    chan struct{} // capacity 1
}

var remoteReads = sync.Pool{New: func() any { return &remoteRead{done: make(chan struct{}, 1)} }}

// ReadAt fills p from off: from the local disk where it is current, otherwise from the peer. off and len(p) are
// multiples of 512.
func (r *Resource) ReadAt(p []byte, off int64) (int, error) {
	if err := r.traffic.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n := min(len(p)-done, maxRead)
		if err := r.traffic.read(p[done:done+n], off+int64(done)); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Size is the size of the device in bytes, 0 while it is not known.
func (r *Resource) Size() int64 {
	r.traffic.mu.Lock()
	defer r.traffic.mu.Unlock()
	return r.traffic.gate.size
}

// read does one read of at most 1 MiB.
func (t *traffic) read(p []byte, off int64) error {
	for {
		seen, err := t.readOnce(p, off)
		if err == nil || seen == 0 || !t.again(seen, err) {
			return err
		}
	}
}

// readOnce tries the local disk, then the peer. It gives the number of the gate that it passed, 0 if it did not.
func (t *traffic) readOnce(p []byte, off int64) (seen uint64, err error) {
	n := int64(len(p))
	t.mu.Lock()
	t.apps++
	t.resumed()
	d := t.gate.disk
	seen = t.gates
	if !t.gate.access {
		t.mu.Unlock()
		return 0, t.noData("read", off, n, nil)
	}
	if d != nil && !t.gate.good && (t.gate.frozen || d.bm.CountRange(off, n) > 0) {
		d = nil // frozen: the peer's marks may be on their way
	}
	if d != nil {
		d.refs++
	}
	t.mu.Unlock()
	var diskErr error
	if d != nil {
		_, diskErr = d.dev.ReadAt(p, off)
		t.mu.Lock()
		d.put()
		if diskErr == nil {
			t.count.read += n
		}
		t.mu.Unlock()
		if diskErr == nil {
			return seen, nil
		}
		t.fail(d, false, diskErr)
	}
	if err := t.readPeer(p, off); err != nil {
		return seen, t.noData("read", off, n, errors.Join(diskErr, err))
	}
	return seen, nil
}

var errNoPeer = errors.New("the peer cannot be asked")

func (t *traffic) readPeer(p []byte, off int64) error {
	rr := remoteReads.Get().(*remoteRead) //nolint:errcheck // the pool holds nothing else
	rr.off, rr.p, rr.err, rr.filling = off, p, nil, false
	t.mu.Lock()
	l := t.gate.peer
	if l == nil {
		t.mu.Unlock()
		remoteReads.Put(rr)
		return errNoPeer
	}
	rr.link, rr.since = l, time.Now()
	rr.id = t.handle(rr)
	t.asking++
	l.out.put(outItem{kind: outAsk, cmd: drbd.CmdDataRequest, off: off, n: int64(len(p)), id: drbd.BlockIDOf(rr.id)})
	t.mu.Unlock()
	<-rr.done
	err := rr.err
	rr.p, rr.link = nil, nil
	remoteReads.Put(rr)
	return err
}

// finishRead answers a remote read. The lock is held.
func (t *traffic) finishRead(rr *remoteRead, err error) {
	t.release(rr.id)
	t.asking--
	rr.err = err
	rr.done <- struct{}{}
}

// claimRead finds the read that a reply of n bytes at sector is for; the receiver then fills its buffer.
func (t *traffic) claimRead(l *link, sector uint64, id drbd.BlockID, n int) (*remoteRead, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rr, ok := t.find(id.Number()).(*remoteRead)
	if !ok || rr.link != l || rr.filling || rr.off != int64(sector)*block.SectorSize || len(rr.p) != n {
		return nil, badData(drbd.CmdDataReply, "%d bytes at sector %d: nobody asked for them", n, sector)
	}
	rr.filling = true
	return rr, nil
}

// answered ends a remote read whose buffer was filled, or that the peer refused.
func (t *traffic) answered(rr *remoteRead, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finishRead(rr, err)
}

var errPeerRead = errors.New("the peer could not read it")

// refusedRead takes the peer's NEG_DREPLY.
func (t *traffic) refusedRead(l *link, a drbd.BlockAck) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	rr, ok := t.find(a.ID.Number()).(*remoteRead)
	if !ok || rr.link != l || rr.filling {
		return badMeta(drbd.CmdNegDReply, "nobody asked for sector %d", a.Sector)
	}
	t.finishRead(rr, errPeerRead)
	return nil
}
