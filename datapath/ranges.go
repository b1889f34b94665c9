package datapath

// spanKind says what a span protects.
type spanKind uint8

const (
	spanApp    spanKind = iota // an application's write, until both copies have it
	spanPeer                   // a write that the peer sent, until it is on the disk
	spanResync                 // resync data being written; spanAsked keeps applications out
	spanRead                   // resync data being read for the peer, until it is queued
	spanAsked                  // resync data or digests asked for, until it is on the disk or compared
	spanVerify                 // data being read to be compared with the peer's digest; spanAsked keeps applications out
)

// conflict says whether two overlapping spans must not be active together. Reads do not disturb each other. What was
// asked for and what the peer sends are ordered by the sender: a write that arrives before the answer is older than
// the answer.
func conflict(a, b spanKind) bool {
	if a > b {
		a, b = b, a
	}
	switch {
	case b == spanVerify:
		return a == spanPeer
	case b == spanAsked:
		return a == spanApp
	case a == spanRead:
		return false
	case a == spanApp && b == spanResync:
		return false
	}
	return true
}

// span is a range of the device that is in use, or waits for its turn.
type span struct {
	off, end   int64
	kind       spanKind
	waits      int32 // earlier spans in conflict
	prev, next *span
	req        *peerReq // whose it is, if the peer's
	granted    func()   // called without waiting when the turn comes later than add; may be under the traffic lock
}

// ranges orders overlapping accesses by arrival. The traffic lock guards it.
type ranges struct {
	head, tail *span
	n          int
}

// add queues s and says whether its turn is now.
func (r *ranges) add(s *span) bool {
	s.waits, s.next, s.prev = 0, nil, r.tail
	for e := r.head; e != nil; e = e.next {
		if e.off < s.end && s.off < e.end && conflict(e.kind, s.kind) {
			s.waits++
		}
	}
	if r.tail == nil {
		r.head = s
	} else {
		r.tail.next = s
	}
	r.tail = s
	r.n++
	return s.waits == 0
}

// remove takes s out and gives later spans their turn.
func (r *ranges) remove(s *span) {
	for e := s.next; e != nil; e = e.next {
		if e.waits > 0 && e.off < s.end && s.off < e.end && conflict(s.kind, e.kind) {
			if e.waits--; e.waits == 0 {
				e.granted()
			}
		}
	}
	if s.prev == nil {
		r.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		r.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	r.n--
}
