package blocktest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/santui/datapath/block"
)

// ErrInjected is what a Rule without an error of its own fails with.
var ErrInjected = errors.New("injected fault")

// Op names the calls of a Device.
type Op uint8

// The calls a Rule can be for; they can be ORed.
const (
	OpRead Op = 1 << iota
	OpWrite
	OpFlush
	OpDiscard
	OpZero
	OpAny Op = 0xff
)

// Rule says which calls go wrong, and how. A call matches if its kind is in Ops and
// its range touches [From, To); To 0 means to the end. Flush has no range and
// matches by kind alone.
type Rule struct {
	Ops      Op
	From, To int64
	// Skip lets that many matching calls pass first; Times is how many are then
	// affected, 0 for all.
	Skip, Times int

	// Delay is slept before the call.
	Delay time.Duration
	// Block, if not nil, is waited for before the call: until it is closed.
	Block <-chan struct{}
	// Err fails the call without doing it. Short, for writes, does that many
	// bytes first. Fail with neither means ErrInjected.
	Err   error
	Fail  bool
	Short int
	// FlipBit, if >= 1, turns over bit FlipBit-1 of the data read, or of the data
	// written on its way to the disk.
	FlipBit int
	// Hook, if not nil, runs before the call.
	Hook func(op Op, off, n int64)
}

// Faults is a Device that passes calls to another one, except where a Rule says
// otherwise. Of several matching rules the first added that is not used up counts.
type Faults struct {
	block.Device
	mu    sync.Mutex
	rules []*activeRule
	calls map[Op]int
}

type activeRule struct {
	Rule
	seen int
}

// NewFaults wraps dev without any rules.
func NewFaults(dev block.Device) *Faults { return &Faults{Device: dev, calls: map[Op]int{}} }

// Inject adds a rule; the function returned takes it away.
func (f *Faults) Inject(r Rule) (remove func()) {
	a := &activeRule{Rule: r}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, a)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, x := range f.rules {
			if x == a {
				f.rules = append(f.rules[:i:i], f.rules[i+1:]...)
				return
			}
		}
	}
}

// Calls counts the calls of the kinds in ops, failed ones included.
func (f *Faults) Calls(ops Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for op, c := range f.calls {
		if op&ops != 0 {
			n += c
		}
	}
	return n
}

// match finds the rule for a call and does what comes before it.
func (f *Faults) match(op Op, off, n int64) (r Rule, err error) {
	f.mu.Lock()
	f.calls[op]++
	for _, a := range f.rules {
		if a.Ops&op == 0 || op != OpFlush && (off+n <= a.From || a.To > 0 && off >= a.To) {
			continue
		}
		if a.Times > 0 && a.seen >= a.Skip+a.Times {
			continue
		}
		a.seen++
		if a.seen > a.Skip {
			r = a.Rule
			break
		}
	}
	f.mu.Unlock()
	if r.Hook != nil {
		r.Hook(op, off, n)
	}
	if r.Block != nil {
		<-r.Block
	}
	if r.Delay > 0 {
		time.Sleep(r.Delay)
	}
	if r.Err == nil && (r.Fail || r.Short > 0) {
		r.Err = ErrInjected
	}
	if r.Err != nil {
		return r, fmt.Errorf("%d bytes at %d: %w", n, off, r.Err)
	}
	return r, nil
}

func flip(p []byte, bit int) {
	if bit >= 1 && (bit-1)/8 < len(p) {
		p[(bit-1)/8] ^= 1 << ((bit - 1) % 8)
	}
}

// ReadAt implements block.Device.
func (f *Faults) ReadAt(p []byte, off int64) (int, error) {
	r, err := f.match(OpRead, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	n, err := f.Device.ReadAt(p, off)
	flip(p[:n], r.FlipBit)
	return n, err
}

// WriteAt implements block.Device.
func (f *Faults) WriteAt(p []byte, off int64) (int, error) {
	r, err := f.match(OpWrite, off, int64(len(p)))
	if err != nil {
		if r.Short <= 0 {
			return 0, err
		}
		short := min(r.Short, len(p))
		n, werr := f.Device.WriteAt(p[:short-short%f.LogicalBlockSize()], off)
		return n, errors.Join(err, werr)
	}
	if r.FlipBit >= 1 {
		p = append([]byte(nil), p...)
		flip(p, r.FlipBit)
	}
	return f.Device.WriteAt(p, off)
}

// Grow implements block.Grower.
func (f *Faults) Grow() (int64, error) { return block.Grow(f.Device) }

// Flush implements block.Device.
func (f *Faults) Flush() error {
	if _, err := f.match(OpFlush, 0, 0); err != nil {
		return err
	}
	return f.Device.Flush()
}

// Discard implements block.Device.
func (f *Faults) Discard(off, n int64) error {
	if _, err := f.match(OpDiscard, off, n); err != nil {
		return err
	}
	return f.Device.Discard(off, n)
}

// WriteZeroes implements block.Device.
func (f *Faults) WriteZeroes(off, n int64, unmap bool) error {
	if _, err := f.match(OpZero, off, n); err != nil {
		return err
	}
	return f.Device.WriteZeroes(off, n, unmap)
}
