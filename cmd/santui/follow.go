package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// The waiting times of a command that starts or follows an operation.
const (
	usualPatience = 10 * time.Minute
	startTime     = time.Minute // for the checks and the locks that come before an operation
	firstPause    = 500 * time.Millisecond
	longestPause  = 10 * time.Second
)

func patienceFlag(fl *pflag.FlagSet, d *time.Duration) {
	fl.DurationVar(d, "patience", usualPatience, "how long the agent that runs the operation may be silent before this command leaves it alone (exit code 9)")
}

// lost says whether an error means that an agent is silent, as opposed to having said no.
func lost(err error) bool {
	if errors.Is(err, session.ErrBroken) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	switch session.Code(err) {
	case proto.CodeUnreachable, proto.CodeTimeout, proto.CodeInterrupted:
		return true
	default:
		return false
	}
}

// insist sends a request that must not get lost, and sends it again while its answer is: the agent does it once. A first
// attempt that does not even reach the agent fails at once, since nothing has begun.
func (a *app) insist(ctx context.Context, n cli.Node, patience time.Duration, m proto.Method, in any) (proto.Op, error) {
	var o proto.Op
	sent := false
	once := func() error {
		s, err := connect(ctx, n)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		sent = true
		ctx, cancel := context.WithTimeout(ctx, startTime)
		defer cancel()
		return s.Call(ctx, m, in, &o)
	}
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := once()
		if err == nil || !lost(err) || !sent {
			return o, err
		}
		if ctx.Err() != nil || time.Since(began) > patience {
			_, _ = fmt.Fprintf(a.stderr, "santui: %s has not answered: whether the operation has begun is not known; santui ops lists what runs\n", n.Name)
			return o, cli.Exit(cli.ExitDetached, nil)
		}
		if pause == firstPause {
			_, _ = fmt.Fprintf(a.stderr, "santui: %s was asked and does not answer (%v); waiting for it, at most %v\n", n.Name, err, patience)
		}
		sleep(ctx, pause)
	}
}

// start begins an operation. It is asked for again under its request id while no answer comes.
func (a *app) start(ctx context.Context, n cli.Node, req proto.OpStartRequest, patience time.Duration) (proto.Op, error) {
	if req.DryRun {
		return call[proto.Op](ctx, n, proto.MethodOpStart, req)
	}
	return a.insist(ctx, n, patience, proto.MethodOpStart, req)
}

// beginUndo asks for the undo of an operation that does not run. An agent that is asked again while it runs is busy.
func (a *app) beginUndo(ctx context.Context, n cli.Node, d proto.DecideRequest, patience time.Duration) error {
	_, err := a.insist(ctx, n, patience, proto.MethodOpDecide, d)
	if errors.Is(err, &proto.Error{Code: proto.CodeBusy}) {
		return nil
	}
	return err
}

// follower prints an operation's steps as they end. It belongs to the goroutine that calls follow.
type follower struct {
	a        *app
	id       string
	runner   cli.Node // whose agent runs the operation
	other    cli.Node // whose agent has a copy of the journal
	ask      *asker   // decides where the operation waits, if not nil
	patience time.Duration

	last    proto.Op
	printed map[string]bool
	heard   time.Time // of the runner, or anything new of the operation
	told    bool      // that the runner is silent
}

// followOp returns the operation once it is final. The agents go on without us: a runner that is silent is waited for,
// meanwhile the other agent's copy is followed; when we are interrupted, or patience ends, that is said, and the operation is
// left alone.
func (a *app) followOp(ctx context.Context, n cli.Node, id string, ask *asker, patience time.Duration) (proto.Op, error) {
	f := &follower{a: a, id: id, runner: n, ask: ask, patience: patience, printed: map[string]bool{}, heard: time.Now()}
	p, err := a.loadPair()
	if err != nil {
		return proto.Op{}, err
	}
	for _, x := range p.Node {
		if x.Name != n.Name {
			f.other = x
		}
	}
	return f.follow(ctx)
}

func (f *follower) follow(ctx context.Context) (proto.Op, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		before := f.heard
		err := f.watch(ctx, f.runner, 0)
		if f.heard.After(before) {
			pause = firstPause
		}
		switch {
		case f.last.State.Final():
			return f.last, nil
		case ctx.Err() != nil, errors.Is(err, errNobody):
			_, _ = fmt.Fprintf(f.a.stderr, "santui: detached; the operation goes on: santui attach %s\n", f.id)
			return f.last, cli.Exit(cli.ExitDetached, nil)
		case err != nil && !lost(err):
			return f.last, err
		}
		f.tell(err)
		began := time.Now()
		_ = f.watch(ctx, f.other, pause) // a copy: it may know nothing yet, or nothing any more
		switch {
		case f.last.State.Final():
			return f.last, nil
		case time.Since(f.heard) > f.patience:
			return f.last, f.detach()
		}
		sleep(ctx, pause-time.Since(began))
	}
}

// watch follows the operation on one agent until it is final, the agent is lost, or limit, if there is one, has passed.
func (f *follower) watch(ctx context.Context, n cli.Node, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	s, err := connect(ctx, n)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	runs, answered := n.Name == f.runner.Name, false
	err = s.Stream(ctx, proto.MethodOpWatch, proto.OpRequest{ID: f.id}, func(raw json.RawMessage) error {
		var o proto.Op // slices of the one before must not be written into
		if err := json.Unmarshal(raw, &o); err != nil {
			return fmt.Errorf("an operation from %s cannot be read: %w", n.Name, err)
		}
		if answered = true; runs && f.told {
			f.told = false
			_, _ = fmt.Fprintf(f.a.stderr, "santui: %s answers again\n", n.Name)
		}
		if o.Rev > f.last.Rev {
			f.last, f.heard = o, time.Now()
			if !f.a.json {
				f.a.printSteps(o, f.printed)
			}
		}
		if !runs || f.ask == nil || len(o.Choices) == 0 || o.State.Final() {
			return nil
		}
		choice, err := f.ask.choose(ctx, o)
		if err == nil {
			_, err = call[proto.Op](ctx, n, proto.MethodOpDecide, proto.DecideRequest{ID: f.id, Choice: choice, By: owner()})
		}
		return err
	})
	if runs && answered {
		f.heard = time.Now()
	}
	return err
}

// tell says once that the runner is silent and what is done about it.
func (f *follower) tell(err error) {
	if f.told {
		return
	}
	f.told = true
	why := "the view of the operation ended"
	if err != nil {
		why = err.Error()
	}
	_, _ = fmt.Fprintf(f.a.stderr, "santui: %s, which runs operation %s, does not answer (%s). The operation does not need this command. "+
		"Asking again, and %s for its copy, at most %v\n", f.runner.Name, f.id, why, f.other.Name, f.patience)
}

// detach leaves the operation alone because nobody has told anything new of it for too long.
func (f *follower) detach() error {
	_, _ = fmt.Fprintf(f.a.stderr, "santui: detached: %s has been silent for %v. Last heard of %s: %s. If its agent lives the operation goes on: "+
		"santui attach %s; if %s is gone: santui takeover\n", f.runner.Name, time.Since(f.heard).Round(time.Second), f.id, last(f.last), f.id, f.runner.Name)
	if f.a.json && f.last.ID != "" {
		if err := cli.PrintJSON(f.a.stdout, f.last); err != nil {
			return err
		}
	}
	return cli.Exit(cli.ExitDetached, nil)
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
