package session

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"example.com/santui/proto"
)

// The waiting times of a Keeper.
const (
	minBackoff = time.Second
	maxBackoff = 10 * time.Second
)

// Keeper keeps a session open: it opens one, waits until it is over, and opens the next, for ever. Between attempts it
// waits 1 s, then twice as long each time up to 10 s, and a random fifth more or less. After a session that lasted
// longer than the last wait it starts at 1 s again; after a refusal it waits 10 s, since nothing changes by itself.
type Keeper struct {
	open   func(context.Context) (*Session, error)
	onUp   func(*Session)
	onDown func(err error, retry time.Duration)
	now    chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex // protects cur
	cur *Session
}

// Keep starts a Keeper that dials and opens a session as Client does. See KeepFunc.
func Keep(ctx context.Context, dial func(context.Context) (io.ReadWriteCloser, error), o Options,
	onUp func(*Session), onDown func(err error, retry time.Duration)) *Keeper {
	return KeepFunc(ctx, func(ctx context.Context) (*Session, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return Client(ctx, conn, o)
	}, onUp, onDown)
}

// KeepFunc starts a Keeper. onUp is called with every new session, onDown when a session is over or could not be
// opened, with the reason and the time until the next attempt; both may be nil, run on the Keeper's goroutine, one at a
// time, and must return soon. It ends with ctx or Close.
func KeepFunc(ctx context.Context, open func(context.Context) (*Session, error),
	onUp func(*Session), onDown func(err error, retry time.Duration)) *Keeper {
	ctx, cancel := context.WithCancel(ctx)
	k := &Keeper{open: open, onUp: onUp, onDown: onDown, now: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	if k.onUp == nil {
		k.onUp = func(*Session) {}
	}
	if k.onDown == nil {
		k.onDown = func(error, time.Duration) {}
	}
	go k.loop(ctx)
	return k
}

// Session is the session that is up, or nil.
func (k *Keeper) Session() *Session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cur
}

// RetryNow cuts the present wait short. It does nothing while a session is up.
func (k *Keeper) RetryNow() {
	select {
	case k.now <- struct{}{}:
	default:
	}
}

// Close closes the session and stops. It returns when both are done, handlers included; onDown is not called for it.
func (k *Keeper) Close() error {
	k.cancel()
	<-k.done
	return nil
}

func (k *Keeper) loop(ctx context.Context) {
	defer close(k.done)
	wait := minBackoff
	for {
		up, err := k.once(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, &proto.Error{Code: proto.CodeVersion}), errors.Is(err, &proto.Error{Code: proto.CodeDenied}):
			wait = maxBackoff
		case up > wait:
			wait = minBackoff
		}
		d := jitter(wait)
		wait = min(2*wait, maxBackoff)
		k.onDown(err, d)
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-k.now:
			wait = minBackoff
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// once opens one session and waits for its end; up is how long it lasted.
func (k *Keeper) once(ctx context.Context) (up time.Duration, err error) {
	s, err := k.open(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	k.set(s)
	defer k.set(nil)
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	select {
	case <-k.now: // asked for while we were dialling
	default:
	}
	k.onUp(s)
	select {
	case <-s.Done():
	case <-ctx.Done():
	}
	err = s.Wait()
	return time.Since(began), err
}

func (k *Keeper) set(s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cur = s
}

// jitter keeps two nodes that lost each other from dialling in step.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
