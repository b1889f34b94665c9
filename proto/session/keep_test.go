package session_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail error = errors.New("no route")
		var server *session.Session
		dials := 0
		open := func(context.Context) (*session.Session, error) {
			dials++
			if fail != nil {
				return nil, fail
			}
			c, s, err := session.MemoryPair(session.Options{Kind: session.KindPeer}, session.Options{Kind: session.KindPeer})
			server = s
			return c, err
		}
		ups := make(chan *session.Session, 10)
		var waits []time.Duration
		var last error
		k := session.KeepFunc(t.Context(), open, func(s *session.Session) { ups <- s }, func(err error, d time.Duration) {
			waits, last = append(waits, d), err
		})
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		want := time.Second
		for i, d := range waits {
			if lo, hi := want*8/10, want*12/10; d < lo || d > hi {
				t.Errorf("wait %d is %v, want %v to %v", i, d, lo, hi)
			}
			want = min(2*want, 10*time.Second)
		}
		if len(waits) < 8 || len(waits) != dials || !errors.Is(last, fail) {
			t.Errorf("%d waits, %d dials, last error %v", len(waits), dials, last)
		}

		fail = nil
		k.RetryNow()
		s := <-ups
		synctest.Wait()
		if k.Session() != s {
			t.Error("Session is not the one that is up")
		}
		time.Sleep(time.Minute)
		waits = nil
		_ = server.Close() // it lasted a minute: the next wait is a short one
		if s2 := <-ups; s2 == s {
			t.Error("the same session twice")
		}
		if len(waits) != 1 || waits[0] > 1200*time.Millisecond || !errors.Is(last, io.EOF) {
			t.Errorf("after a long session: %v, %v", waits, last)
		}

		fail = proto.Errorf(proto.CodeVersion, "too old")
		waits = nil
		_ = server.Close()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(waits) != 2 || waits[1] < 8*time.Second {
			t.Errorf("after a refusal: %v", waits)
		}

		fail = nil
		k.RetryNow()
		s = <-ups
		_ = k.Close()
		if !errors.Is(s.Err(), session.ErrClosed) || k.Session() != nil {
			t.Errorf("after Close: %v", s.Err())
		}
		_ = server.Wait()
	})
}

func TestKeepDials(t *testing.T) {
	up := make(chan struct{})
	a, b := tcpConns(t)
	go func() { _ = session.Serve(context.Background(), b, agentOptions, nil) }()
	k := session.Keep(t.Context(), func(context.Context) (io.ReadWriteCloser, error) { return a, nil },
		session.Options{Kind: session.KindCockpit}, func(*session.Session) { close(up) }, nil)
	<-up
	_ = k.Close()
}
