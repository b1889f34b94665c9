package datapath

import (
	"testing"
	"time"
)

// TestLone: who does the peer's writes, when they come one at a time, several at once, and waiting for each other.
func TestLone(t *testing.T) {
	var o lone
	now := time.Unix(1000, 0)
	arrive := func(gap time.Duration, alone, want bool) {
		t.Helper()
		now = now.Add(gap)
		got := o.takes(now, alone)
		if got != want {
			t.Fatalf("the receiver does it: %v, want %v", got, want)
		}
		if now = now.Add(50 * time.Microsecond); got {
			o.ended = now
		}
	}
	workers := func() {
		t.Helper()
		for range loneAgain - 1 {
			arrive(time.Millisecond, true, false)
		}
		arrive(time.Millisecond, true, true)
	}
	arrive(time.Millisecond, true, true)
	arrive(loneGap, true, true)
	arrive(loneGap-1, true, false) // it waited for the one before
	workers()
	arrive(time.Second, false, false) // others with it
	workers()
}
