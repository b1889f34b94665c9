package datapath

import (
	"slices"
	"strings"
	"sync"

	"example.com/santui/datapath/state"
	"example.com/santui/proto"
)

// SyncOrder has resources of one node resynced one after the other (drbd.conf: resync-after, and 0.7's group). A resource
// waits while one that goes before it is being resynced or verified, or its resync is held back (_drbd_may_sync_now,
// drbd_worker.c). The zero value is ready for use; resources join it by their Config.
type SyncOrder struct {
	mu sync.Mutex
	in map[string]*inOrder
}

type inOrder struct {
	after []string
	busy  bool
	waits string // what it was told to wait for, "" for nothing
	tell  func(waits string)
}

// join adds a resource, which hears by tell what it waits for. tell must not block.
func (s *SyncOrder) join(name string, after []string, tell func(waits string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		s.in = map[string]*inOrder{}
	}
	s.in[name] = &inOrder{after: after, tell: tell}
	s.spread()
}

// leave takes a resource out; nobody waits for it any more.
func (s *SyncOrder) leave(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.in, name)
	s.spread()
}

// report says whether a resource goes first now.
func (s *SyncOrder) report(name string, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.in[name]; r != nil && r.busy != busy {
		r.busy = busy
		s.spread()
	}
}

// spread tells those for whom it has changed. The lock is held.
func (s *SyncOrder) spread() {
	for _, r := range s.in {
		var waits []string
		for _, first := range r.after {
			if f := s.in[first]; f != nil && f.busy {
				waits = append(waits, first)
			}
		}
		slices.Sort(waits)
		if w := strings.Join(waits, ", "); w != r.waits {
			r.waits = w
			r.tell(w)
		}
	}
}

// syncTurn says what the resync waits for, "" for nothing.
type syncTurn struct{ waits string }

// goesFirst says whether resources that come after this one have to wait.
func goesFirst(st *state.State) bool {
	return st.Conn >= proto.SyncSource && st.Conn <= proto.PausedSyncT || st.AftrISP || st.PeerISP || st.UserISP
}

// takeTurn tells the state machine, now or when it has ears for it.
func (o *owner) takeTurn() {
	if o.st.AftrISP != (o.waits != "") {
		_ = o.step(state.ResyncAfter{Wait: o.waits != ""})
	}
}
