package datapath

import (
	"syscall"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// TestBarrierWaitsForLeavingDisk: the disk of a Secondary is detached between a write and the barrier behind it. The answer,
// for which the Primary forgets the write, comes when the disk has been flushed on its way out; if it cannot be, the
// link ends instead.
func TestBarrierWaitsForLeavingDisk(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		p, faults := faultyPuppet(t)
		p.primary()
		p.send(drbd.CmdData, raw(data(8, 4096)))
		p.expectMeta(drbd.CmdWriteAck)
		block := make(chan struct{})
		rule := blocktest.Rule{Ops: blocktest.OpFlush, Block: block}
		if fails {
			rule.Err = syscall.EIO
		}
		heal := faults.Inject(rule)
		detached := make(chan error, 1)
		go func() { detached <- p.n.Detach(bg()) }()
		p.expect(drbd.CmdStateChgReq)
		p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
		p.n.await("the detach", func(s *Status) bool { return s.Disk < proto.Inconsistent })
		p.send(drbd.CmdBarrier, drbd.Barrier{ID: drbd.BarrierIDOf(0)})
		done := make(chan struct{})
		time.AfterFunc(100*time.Millisecond, func() {
			defer close(done)
			if !fails {
				heal()
			}
			close(block)
		})
		began := time.Now()
		for {
			h, err := p.md.Next()
			if err != nil {
				if !fails {
					t.Errorf("no answer: %v", err)
				}
				break
			}
			if h.Cmd == drbd.CmdBarrierAck {
				if fails || time.Since(began) < 90*time.Millisecond {
					t.Errorf("fails %v: the barrier is answered, after %v, and the disk not flushed", fails, time.Since(began))
				}
				break
			}
		}
		<-done
		p.hangUp()
	}
}
