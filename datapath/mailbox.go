package datapath

import "sync"

// mailbox carries messages to the owner goroutine. Putting never blocks: whoever posts bounds how much it may have
// under way (commands wait for their answer, receivers wait until a control packet was handled).
type mailbox struct {
	mu     sync.Mutex
	queue  []any
	closed bool
	wake   chan struct{} // capacity 1
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// put reports false when nobody reads the mailbox any more.
func (m *mailbox) put(v any) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.queue = append(m.queue, v)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns all that is queued, into the space of into.
func (m *mailbox) take(into []any) []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	into, m.queue = m.queue, into[:0]
	return into
}

// close refuses further messages and returns those that are left.
func (m *mailbox) close() []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	left := m.queue
	m.queue = nil
	return left
}
