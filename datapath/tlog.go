package datapath

import (
	"time"

	"example.com/santui/proto/drbd"
)

// epoch is a set of writes that the peer may do in any order among themselves. It ends with a barrier, whose
// acknowledgement says that all of them are on stable storage (struct drbd_epoch, drbd_int.h).
type epoch struct {
	nr      uint32 // barrier handle, counts from 0 on each link
	seq     uint64 // counts on for the life of the resource
	pending int    // writes whose own answer the peer still owes
	closed  bool   // takes no more writes
	sent    bool   // its barrier is on the way
	bytes   int64  // of data in it
	opened  time.Time
	ended   time.Time // when its barrier was sent
	writes  []*write
}

// tlog is the transfer log: every write that was sent and whose epoch the peer has not confirmed. The traffic lock
// guards it.
type tlog struct {
	epochs []*epoch // oldest first; the last one may be open
	free   []*epoch
	nextNr uint32
	seq    uint64        // of the newest epoch
	done   uint64        // all epochs up to this one are confirmed or given up
	writes int           // in all epochs
	bytes  int64         // of data in them
	took   time.Duration // from the newest barrier that was answered to its answer
	oldest time.Duration // bounds age: the least of maxEpochAge and a part of how long the peer may owe an answer
}

const (
	keptEpochs = 64
	// maxLogged bounds the transfer log, in epochs' worth of writes; more writers wait.
	maxLogged = 8
	// An epoch's age, see age, is between these; less where the peer may owe an answer only for a short time.
	minEpochAge = 20 * time.Millisecond
	maxEpochAge = 500 * time.Millisecond
	// flushShare bounds the time that the peer spends on barriers, while it takes no writes: to one part in so many.
	flushShare = 16
)

// age is how old an epoch may become, and how long it stays open when nothing more is written.
func (t *tlog) age() time.Duration { return min(max(minEpochAge, flushShare*t.took), t.oldest) }

// oldestEpoch is how old an epoch may become with a peer that may owe an answer for so long; 0: for ever. It may be open for
// twice that before its barrier is sent.
func oldestEpoch(patience time.Duration) time.Duration {
	if patience == 0 {
		return maxEpochAge
	}
	return min(maxEpochAge, patience/8)
}

// add puts w in the open epoch, opening one if there is none.
func (t *tlog) add(w *write, maxEpoch int) {
	e := t.open()
	if e != nil && time.Since(e.opened) > t.age() {
		e.closed, e = true, nil
	}
	if e == nil {
		e = t.begin()
	}
	e.writes = append(e.writes, w)
	if w.answered() {
		e.pending++
	}
	t.writes++
	e.bytes += int64(len(w.p))
	t.bytes += int64(len(w.p))
	w.epoch, w.epochSeq = e, e.seq
	if len(e.writes) >= maxEpoch {
		e.closed = true
	}
}

func (t *tlog) open() *epoch {
	if n := len(t.epochs); n > 0 && !t.epochs[n-1].closed {
		return t.epochs[n-1]
	}
	return nil
}

func (t *tlog) begin() *epoch {
	var e *epoch
	if n := len(t.free); n > 0 {
		e, t.free = t.free[n-1], t.free[:n-1]
	} else {
		e = new(epoch)
	}
	t.seq++
	*e = epoch{nr: t.nextNr, seq: t.seq, opened: time.Now(), writes: e.writes[:0]}
	t.nextNr++
	t.epochs = append(t.epochs, e)
	return e
}

// confirm takes the oldest epoch out if it is the one that the peer means (tl_release, drbd_main.c).
func (t *tlog) confirm(ack drbd.BarrierAck) (*epoch, error) {
	if len(t.epochs) == 0 {
		return nil, badMeta(drbd.CmdBarrierAck, "no barrier is waiting for an answer")
	}
	e := t.epochs[0]
	switch {
	case !e.sent:
		return nil, badMeta(drbd.CmdBarrierAck, "barrier %d was not sent yet", e.nr)
	case ack.ID.Number() != e.nr:
		return nil, badMeta(drbd.CmdBarrierAck, "it answers barrier %d, expected %d", ack.ID.Number(), e.nr)
	case int(ack.SetSize) != len(e.writes):
		return nil, badMeta(drbd.CmdBarrierAck, "barrier %d had %d writes, the peer counted %d", e.nr, len(e.writes), ack.SetSize)
	case e.pending > 0:
		return nil, badMeta(drbd.CmdBarrierAck, "%d writes before barrier %d are not acknowledged", e.pending, e.nr)
	}
	t.took = time.Since(e.ended)
	t.drop(e)
	return e, nil
}

// drop takes the oldest epoch out of the log.
func (t *tlog) drop(e *epoch) {
	t.epochs = t.epochs[:copy(t.epochs, t.epochs[1:])]
	t.done = e.seq
	t.writes -= len(e.writes)
	t.bytes -= e.bytes
}

// recycle keeps the memory of an epoch that was taken out.
func (t *tlog) recycle(e *epoch) {
	clear(e.writes)
	if len(t.free) < keptEpochs {
		t.free = append(t.free, e)
	}
}

func badMeta(cmd drbd.Cmd, format string, args ...any) error {
	return badPacket(drbd.SocketMeta, cmd, format, args...)
}
