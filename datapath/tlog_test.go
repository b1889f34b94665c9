package datapath

import (
	"testing"
	"time"
)

// TestEpochAge: the slower the peer's flush, the rarer it is asked for; but never so rare that the peer seems to owe an
// answer.
func TestEpochAge(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, c := range []struct{ patience, took, want time.Duration }{
		{42 * time.Second, 0, 20 * ms},
		{42 * time.Second, ms, 20 * ms},
		{42 * time.Second, 5 * ms, 80 * ms},
		{42 * time.Second, time.Second, 500 * ms},
		{0, time.Second, 500 * ms}, // ko-count 0: it may owe it for ever
		{800 * ms, time.Second, 100 * ms},
		{100 * ms, time.Second, 12500 * time.Microsecond},
		{100 * ms, 0, 12500 * time.Microsecond},
	} {
		l := tlog{oldest: oldestEpoch(c.patience), took: c.took}
		if got := l.age(); got != c.want {
			t.Errorf("patience %v, a flush of %v: %v, want %v", c.patience, c.took, got, c.want)
		}
	}
}

// TestWhatThePeerOwes: nothing while an epoch is only open and all of its writes are answered.
func TestWhatThePeerOwes(t *testing.T) {
	t.Parallel()
	opened := time.Now().Add(-time.Minute)
	e := &epoch{opened: opened, pending: 1}
	tr, l := &traffic{log: tlog{epochs: []*epoch{e}}}, &link{replicates: true}
	if since, owed := tr.oldest(l); !owed || since != opened {
		t.Errorf("an unanswered write: %v %v", since, owed)
	}
	e.pending = 0
	if since, owed := tr.oldest(l); owed {
		t.Errorf("an open epoch: %v", since)
	}
	e.sent, e.ended = true, opened.Add(time.Second)
	if since, owed := tr.oldest(l); !owed || since != e.ended {
		t.Errorf("an unanswered barrier: %v %v", since, owed)
	}
}
