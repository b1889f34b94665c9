package lvmops

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestAsideWaitsForASlowLook: a look that takes longer than its limit fails once; who asks again waits for it and then gets
// an answer of his own, and at no time do two of them run.
func TestAsideWaitsForASlowLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &Ops{stuck: map[string]chan struct{}{}}
		running, most, n := 0, 0, 0
		look := func() (int, error) {
			running++
			most = max(most, running)
			if n++; n == 1 {
				time.Sleep(lookLimit + time.Second)
			}
			running--
			return n, nil
		}
		if _, err := aside(t.Context(), o, "device", look); !errors.Is(err, errHangs) {
			t.Errorf("the slow look: %v", err)
		}
		begin := time.Now()
		if v, err := aside(t.Context(), o, "device", look); err != nil || v != 2 || time.Since(begin) != time.Second {
			t.Errorf("the next one: %d, %v after %v", v, err, time.Since(begin))
		}
		n = 0
		go func() { _, _ = aside(t.Context(), o, "device", look) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := aside(ctx, o, "device", look); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's own limit: %v", err)
		}
		time.Sleep(time.Minute)
		if most != 1 || len(o.stuck) != 0 {
			t.Errorf("%d at once, %d left", most, len(o.stuck))
		}
	})
}
