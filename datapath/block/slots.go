package block

import (
	"fmt"
	"path/filepath"
	"sync"
)

// Slots opens devices whose parts belong to several users of one process: the first one claims the device, the last one
// gives it back. The zero value is ready.
type Slots struct {
	mu   sync.Mutex
	open map[string]*shared
}

type shared struct {
	Device
	slots map[int]bool // in use
}

// slot is one user's share. Its owner keeps to its part by itself.
type slot struct {
	*shared
	of   *Slots
	path string
	n    int
	once sync.Once
	err  error
}

// Open opens the device at path for its slot n; ErrInUse if that is open already, or the device elsewhere.
func (s *Slots) Open(path string, n int) (Device, error) {
	name := path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		name = real
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.open[name]
	if d == nil {
		dev, err := Open(path, Options{})
		if err != nil {
			return nil, err
		}
		if s.open == nil {
			s.open = map[string]*shared{}
		}
		d = &shared{dev, map[int]bool{}}
		s.open[name] = d
	}
	if d.slots[n] {
		return nil, fmt.Errorf("open slot %d of %s: %w: another resource has it", n, path, ErrInUse)
	}
	d.slots[n] = true
	return &slot{shared: d, of: s, path: name, n: n}, nil
}

// Grow implements Grower.
func (s *slot) Grow() (int64, error) { return Grow(s.Device) }

// Close gives the slot back, and the device with the last one.
func (s *slot) Close() error {
	s.once.Do(func() {
		s.of.mu.Lock()
		defer s.of.mu.Unlock()
		delete(s.slots, s.n)
		if len(s.slots) == 0 {
			delete(s.of.open, s.path)
			s.err = s.Device.Close()
		}
	})
	return s.err
}
