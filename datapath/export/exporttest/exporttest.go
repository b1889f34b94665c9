package exporttest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
)

// Counts are the calls a Memory has seen.
type Counts struct {
	Reads, Writes, Flushes, Discards, Zeroes, Unmaps atomic.Int64
}

// Memory is a device in memory.
type Memory struct {
	Counts Counts
	// Fail, when set before use, is asked before every call ("read", "write",
	// "flush", "discard", "zero"); its error is returned instead of doing it.
	// It may also block.
	Fail func(op string, off, n int64) error

	mu   sync.RWMutex
	data []byte
}

// NewMemory makes a device of size bytes, all zero.
func NewMemory(size int64) *Memory { return &Memory{data: make([]byte, size)} }

// begin checks a call and asks Fail.
func (m *Memory) begin(op string, off, n int64) error {
	if off < 0 || n < 0 || off > int64(len(m.data))-n || off%512 != 0 || n%512 != 0 {
		return fmt.Errorf("%s of %d bytes at %d on a device of %d: %w", op, n, off, len(m.data), syscall.EINVAL)
	}
	if m.Fail != nil {
		return m.Fail(op, off, n)
	}
	return nil
}

// ReadAt reads.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.Counts.Reads.Add(1)
	if err := m.begin("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return copy(p, m.data[off:]), nil
}

// WriteAt writes.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.Counts.Writes.Add(1)
	if err := m.begin("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(m.data[off:], p), nil
}

// Flush counts.
func (m *Memory) Flush() error {
	m.Counts.Flushes.Add(1)
	return m.begin("flush", 0, 0)
}

// Discard fills the range with 0xdb: whoever relies on zeroes finds out.
func (m *Memory) Discard(off, n int64) error {
	m.Counts.Discards.Add(1)
	if err := m.begin("discard", off, n); err != nil {
		return err
	}
	m.fill(off, n, 0xdb)
	return nil
}

// WriteZeroes zeroes the range.
func (m *Memory) WriteZeroes(off, n int64, unmap bool) error {
	m.Counts.Zeroes.Add(1)
	if unmap {
		m.Counts.Unmaps.Add(1)
	}
	if err := m.begin("zero", off, n); err != nil {
		return err
	}
	m.fill(off, n, 0)
	return nil
}

func (m *Memory) fill(off, n int64, v byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.data[off : off+n]
	for i := range p {
		p[i] = v
	}
}

// Size is the size in bytes.
func (m *Memory) Size() int64 { return int64(len(m.data)) }

// Null accepts everything, and reads leave the buffer as it is. The value is
// its size in bytes.
type Null int64

// ReadAt does nothing.
func (Null) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

// WriteAt does nothing.
func (Null) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Flush does nothing.
func (Null) Flush() error { return nil }

// Discard does nothing.
func (Null) Discard(_, _ int64) error { return nil }

// WriteZeroes does nothing.
func (Null) WriteZeroes(_, _ int64, _ bool) error { return nil }

// Size is the size in bytes.
func (n Null) Size() int64 { return int64(n) }
