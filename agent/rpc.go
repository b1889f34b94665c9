package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// maxSessions bounds the sessions that an agent serves at once, cockpits and peer together.
const maxSessions = 32

// EnsureIdentity loads this node's key, and makes one at the first start.
func EnsureIdentity(cfg Config) (*session.Identity, error) {
	dir := filepath.Join(cfg.StateDir, "identity")
	id, err := session.LoadIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return session.GenerateIdentity(dir)
	}
	return id, err
}

func (a *Agent) sessionOptions(kind session.Kind, mux *session.Mux) session.Options {
	return session.Options{Node: a.cfg.Node, Version: Version, Kind: kind, Mux: mux, Logger: a.log}
}

// listener is one address that the agent serves.
type listener struct {
	net.Listener
	opt session.Options
}

// Close ends the listener; closing twice is no error.
func (l listener) Close() error {
	if err := l.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// listen opens the Unix socket for cockpits and the TLS port for the peer.
func (a *Agent) listen(ctx context.Context) ([]listener, error) {
	unix, err := a.listenUnix(ctx)
	if err != nil {
		return nil, err
	}
	out := []listener{{unix, a.sessionOptions(session.KindAgent, a.mux)}}
	if a.cfg.Peer.Listen == "" {
		return out, nil
	}
	var lc net.ListenConfig
	tcp, err := lc.Listen(ctx, "tcp", a.cfg.Peer.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for %s on %s: %w", a.peerName, a.cfg.Peer.Listen, err), unix.Close())
	}
	opt := a.sessionOptions(session.KindAgent, a.peerMux)
	opt.Admit = func(h session.Hello) error {
		if h.Kind != session.KindPeer || h.Node != a.peerName {
			return proto.Errorf(proto.CodeDenied, "this port is for the agent of %s", a.peerName).On(a.cfg.Node)
		}
		return nil
	}
	return append(out, listener{tls.NewListener(tcp, session.ServerConfig(a.identity, []string{a.cfg.Peer.Pin})), opt}), nil
}

// listenUnix makes the socket, for root only. One that a dead agent left is replaced; one that answers is not.
func (a *Agent) listenUnix(ctx context.Context) (net.Listener, error) {
	path := a.cfg.Socket
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if conn, err := session.DialUnix(ctx, path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("an agent answers on %s already: stop it first", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the socket of an earlier agent: %w", err)
	}
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for cockpits on %s: %w", path, err)
	}
	return l, nil
}

// serve answers connections until the listener is closed, and returns when the last session has ended.
func (a *Agent) serve(ctx context.Context, l listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxSessions)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			a.log.Warn("accept a connection", "addr", l.Addr(), "err", err)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			a.log.Warn("too many sessions: connection refused", "limit", maxSessions)
			_ = c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := session.Serve(ctx, c, l.opt, nil); err != nil && ctx.Err() == nil {
				a.log.Info("session ended", "remote", c.RemoteAddr(), "err", err)
			}
		})
	}
}

// cockpitMux answers cockpits and the command line.
func (a *Agent) cockpitMux() *session.Mux {
	x := session.NewMux()
	session.HandleFunc(x, proto.MethodPing, func(context.Context, session.Peer, proto.Empty) (proto.Empty, error) { return proto.Empty{}, nil })
	session.HandleFunc(x, proto.MethodSnapshot, func(ctx context.Context, _ session.Peer, _ proto.Empty) (proto.Snapshot, error) {
		return a.snapshotNow(ctx), nil
	})
	session.StreamFunc(x, proto.MethodWatch, func(ctx context.Context, _ session.Peer, _ proto.Empty, send func(proto.WatchEvent) error) error {
		return a.hub.watch(ctx, send)
	})
	session.HandleFunc(x, proto.MethodCheck, func(ctx context.Context, _ session.Peer, in proto.CheckRequest) (proto.CheckList, error) {
		reply, err := a.look(ctx, in)
		return reply.Checks, err
	})
	session.HandleFunc(x, proto.MethodPlan, func(ctx context.Context, _ session.Peer, in proto.CheckRequest) (proto.PlanReply, error) {
		return a.look(ctx, in)
	})
	session.HandleFunc(x, proto.MethodOpStart, a.opStart)
	session.StreamFunc(x, proto.MethodOpWatch, a.opWatch)
	session.HandleFunc(x, proto.MethodOpDecide, func(ctx context.Context, _ session.Peer, in proto.DecideRequest) (proto.Op, error) {
		return a.runner.Decide(ctx, in)
	})
	session.HandleFunc(x, proto.MethodOps, func(context.Context, session.Peer, proto.Empty) (proto.OpsReply, error) {
		return proto.OpsReply{Schema: proto.Schema, Ops: brief(a.journal.All())}, nil
	})
	session.HandleFunc(x, proto.MethodReport, a.report)
	session.HandleFunc(x, proto.MethodDoctor, a.doctor)
	session.StreamFunc(x, proto.MethodSetup, a.setup)
	session.HandleFunc(x, proto.MethodSync, a.sync)
	session.HandleFunc(x, proto.MethodVerify, a.verify)
	session.HandleFunc(x, proto.MethodResource, a.resourceAction)
	return x
}

// newPeerMux answers the other agent.
func (a *Agent) newPeerMux() *session.Mux {
	x, l := session.NewMux(), local{a}
	session.HandleFunc(x, proto.MethodPing, func(context.Context, session.Peer, proto.Empty) (proto.Empty, error) { return proto.Empty{}, nil })
	session.HandleFunc(x, proto.MethodPeerObserve, func(ctx context.Context, _ session.Peer, in proto.ObserveRequest) (proto.Observation, error) {
		return l.Observe(ctx, in)
	})
	session.HandleFunc(x, proto.MethodPeerStep, func(ctx context.Context, _ session.Peer, in proto.PeerStepRequest) (proto.StepResult, error) {
		return l.Step(ctx, in), nil
	})
	session.HandleFunc(x, proto.MethodPeerLock, func(ctx context.Context, p session.Peer, in proto.Lock) (proto.Empty, error) {
		in.Node = p.Node // the lock belongs to whoever asks, whatever it says
		return proto.Empty{}, l.Lock(ctx, in)
	})
	session.HandleFunc(x, proto.MethodPeerUnlock, func(ctx context.Context, _ session.Peer, in proto.Lock) (proto.Empty, error) {
		return proto.Empty{}, l.Unlock(ctx, in)
	})
	session.HandleFunc(x, proto.MethodPeerJournal, func(ctx context.Context, _ session.Peer, in proto.Op) (proto.Empty, error) {
		return proto.Empty{}, l.Journal(ctx, in)
	})
	return x
}

// brief drops what a list of operations does not show, so that many fit into one frame.
func brief(ops []proto.Op) []proto.Op {
	if len(ops) > 50 {
		ops = ops[:50]
	}
	for i := range ops {
		ops[i].Steps, ops[i].Checks.Checks, ops[i].Plan.Steps = nil, nil, nil
	}
	return ops
}
