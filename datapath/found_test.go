package datapath

import (
	"errors"
	"syscall"
	"testing"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// The tests of this file are the shortest forms of what datapath/torture found.

// marks gives what a disk would have marked after a loss of power now, activity log applied; of its cache nothing is left.
func marks(t *testing.T, d *blocktest.Mem) *meta.Bitmap {
	t.Helper()
	md, err := meta.Open(d.CrashClone(1, 0), meta.OpenOptions{ALExtents: 67})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := md.ApplyAL(bg()); err != nil {
		t.Fatal(err)
	}
	return md.Bitmap()
}

// faulty puts node i's disk, before the pair is used, behind rules.
func (p *pair) faulty(i int) (*blocktest.Faults, *blocktest.Mem) {
	p.t.Helper()
	mem := p.node[i].disk.(*blocktest.Mem)
	_ = p.node[i].Close()
	faults := blocktest.NewFaults(mem)
	p.boot(i, faults)
	return faults, mem
}

// A write whose extent the activity log cannot take any more goes to the peer, which marks it durably: this node's disk
// knows nothing of it.
func TestWriteWithoutActivityLog(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	faults, mem := p.faulty(0)
	p.synced()
	a, b := p.node[0], p.node[1]
	a.write(0, pattern(1, 4096))
	md, err := meta.Open(mem, meta.OpenOptions{ALExtents: 67})
	if err != nil {
		t.Fatal(err)
	}
	l := md.Layout()
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: l.ALOffset, To: l.ALOffset + l.ALSize, Times: 1, Err: syscall.EIO})
	a.write(9<<20, pattern(2, 8192))
	if got := b.content()[9<<20:][:8192]; string(got) != string(pattern(2, 8192)) {
		t.Fatal("the write is not on the disk that is left")
	}
	if !marks(t, mem).Test(9<<20/4096) && !marks(t, b.disk.(*blocktest.Mem)).Test(9<<20/4096) {
		t.Error("after a loss of power of both nodes nobody would know that the copies differ")
	}
	a.await("the detach", func(s *Status) bool { return s.Disk == proto.Diskless })
	a.ok("attach", a.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

// Without a peer such a write fails, says why, and was not done anywhere.
func TestWriteWithoutActivityLogAlone(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	faults, mem := p.faulty(0)
	a := p.node[0]
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), true))
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: a.Size(), Err: syscall.ENOSPC})
	if _, err := a.WriteAt(pattern(2, 4096), 9<<20); !errors.Is(err, ErrNoData) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if n := mem.Unflushed(); n != 0 {
		t.Errorf("%d sectors were written", n)
	}
}
