package datapath

import (
	"context"
	"sync/atomic"
	"time"
)

// pacer spreads requests such that their bytes keep to a rate, which may change at any time.
type pacer struct {
	rate *atomic.Int64 // bytes a second
	due  time.Time     // when the next request may go out
}

// maxBurst is how much is made up for after a pause.
const maxBurst = 100 * time.Millisecond

// wait returns when n more bytes fit the rate; false if ctx ended first.
func (p *pacer) wait(ctx context.Context, n int64) bool {
	now := time.Now()
	if earliest := now.Add(-maxBurst); p.due.Before(earliest) {
		p.due = earliest
	}
	if d := p.due.Sub(now); d > 0 {
		t := time.NewTimer(min(d, time.Second))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(p.rate.Load()) * float64(time.Second)))
	return true
}
