package datapath

import "sync"

// turn is whose turn it is to write to a socket. Unlike a mutex it may be held while waiting for the network.
type turn struct {
	mu    sync.Mutex
	free  sync.Cond
	taken bool
}

func (t *turn) init() { t.free.L = &t.mu }

// take waits for the turn.
func (t *turn) take() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.taken {
		t.free.Wait()
	}
	t.taken = true
}

// try takes the turn if nobody has it.
func (t *turn) try() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken {
		return false
	}
	t.taken = true
	return true
}

func (t *turn) give() {
	t.mu.Lock()
	t.taken = false
	t.mu.Unlock()
	t.free.Signal()
}
