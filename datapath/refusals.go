package datapath

import (
	"fmt"
	"sync"
	"time"

	"example.com/santui/proto"
)

// refusals are the blocks of a resync that the peer's disk would not read or write, and that operators have not been told of.
// A disk that leaves in the middle of a resync refuses all that is under way: that is one line and not one for each block.
type refusals struct {
	mu            sync.Mutex
	reads, writes refusal
}

type refusal struct {
	blocks      int
	bytes       int64
	sector      uint64 // of the first one
	first, last time.Time
}

const (
	refusalQuiet = 200 * time.Millisecond // without another one they are told of
	refusalLate  = 10 * time.Second       // they are told of in any case
)

func (r *refusals) add(of *refusal, sector uint64, bytes uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of.last = time.Now()
	if of.blocks == 0 {
		of.sector, of.first = sector, of.last
	}
	of.blocks++
	of.bytes += int64(bytes)
}

// tell tells of those that no more will be added to soon, or of all. gone: the peer has no disk now.
func (r *refusals) tell(l *link, all, gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range []struct {
		of   *refusal
		what string
	}{{&r.reads, "read"}, {&r.writes, "write"}} {
		of := *k.of
		if of.blocks == 0 || !all && time.Since(of.last) < refusalQuiet && time.Since(of.first) < refusalLate {
			continue
		}
		*k.of = refusal{}
		what := fmt.Sprintf("%d bytes at sector %d of its disk", of.bytes, of.sector)
		if of.blocks > 1 {
			what = fmt.Sprintf("%d blocks of a resync, %d KiB, the first one at sector %d of its disk", of.blocks, of.bytes>>10, of.sector)
		}
		why := ""
		if gone {
			why = ", as that left in the middle of the resync"
		}
		l.r.event(proto.LevelAlert, "%s cannot %s %s%s: they stay out of sync", l.r.cfg.Peer, k.what, what, why)
	}
}
