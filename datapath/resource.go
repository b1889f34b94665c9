package datapath

import (
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/proto"
)

// Resource is one replicated device on one node. All methods may be called from any goroutine.
type Resource struct {
	cfg     Config
	inbox   *mailbox
	gone    chan struct{} // closed when the owner goroutine has ended
	status  atomic.Pointer[Status]
	changed atomic.Pointer[chan struct{}]

	closeOnce sync.Once
	closeErr  error
}

// New checks the configuration and starts the resource's owner goroutine. It does no I/O: the resource is Secondary,
// StandAlone and Diskless until Attach and Connect.
func New(cfg Config) (*Resource, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Resource{cfg: cfg, inbox: newMailbox(), gone: make(chan struct{})}
	c := make(chan struct{})
	r.changed.Store(&c)
	r.status.Store(&Status{At: time.Now(), Role: proto.Secondary, PeerDisk: proto.DUnknown})
	go r.own()
	return r, nil
}
