package datapath

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/proto"
)

// Resource is one replicated device on one node. All methods may be called from any goroutine.
type Resource struct {
	cfg      Config
	inbox    *mailbox
	gone     chan struct{} // closed when the owner goroutine has ended
	traffic  *traffic
	rate     syncRate
	verifies *digester // nil without verify-alg
	csums    *digester // nil without csums-alg
	seals    *digester // nil without data-integrity-alg
	status   atomic.Pointer[Status]
	changed  atomic.Pointer[chan struct{}]
	linked   atomic.Pointer[link] // the newest one; it may have died
	broken   atomic.Int64         // see LinkInfo

	background sync.WaitGroup // what the owner started and does not wait for itself
	closeOnce  sync.Once
}

// New checks the configuration and starts the resource's owner goroutine. It does no I/O: the resource is Secondary,
// StandAlone and Diskless until Attach and Connect.
func New(cfg Config) (*Resource, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Resource{cfg: cfg, inbox: newMailbox(), gone: make(chan struct{})}
	r.seals = newDigester(cfg.DataIntegrityAlg)
	r.verifies, r.csums = newDigester(cfg.VerifyAlg), newDigester(cfg.CsumsAlg)
	r.traffic = newTraffic(&r.cfg)
	r.traffic.fail = r.diskFailed
	r.traffic.tell = func(c congestion) { r.inbox.put(c) }
	r.rate.control = cfg.SyncControl
	r.rate.fixed.Store(cfg.ResyncRate)
	c := make(chan struct{})
	r.changed.Store(&c)
	r.status.Store(&Status{At: time.Now(), Role: proto.Secondary, PeerDisk: proto.DUnknown})
	if cfg.SyncOrder != nil {
		cfg.SyncOrder.join(cfg.Resource, cfg.ResyncAfter, func(waits string) { r.inbox.put(syncTurn{waits}) })
	}
	go r.own()
	return r, nil
}

// closeTime is how long each orderly step of Close may take before it is cut short.
const closeTime = 5 * time.Second

// Close ends the resource in good order: writes under way are finished, the node is demoted unless the device is held
// open, the peer is told, the disk is flushed, its metadata left clean, and everything closed. It always ends the
// resource, and may be called again.
func (r *Resource) Close() error {
	r.closeOnce.Do(func() {
		for _, cmd := range []any{cmdDemote{}, cmdDisconnect{}, cmdDetach{}} {
			ctx, cancel := context.WithTimeout(context.Background(), closeTime)
			if err := r.ask(ctx, cmd); err != nil {
				r.cfg.Logger.Info("closing", "step", cmd, "err", err)
			}
			cancel()
		}
		_ = r.ask(context.Background(), cmdClose{})
		<-r.gone
		r.background.Wait()
	})
	return nil
}
