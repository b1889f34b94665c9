package session_test

import (
	"context"
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"example.com/santui/proto/session"
)

// pingConn counts the pings that are written to it (yamux' spec.md: version, type 2, flags with SYN, stream 0).
type pingConn struct {
	net.Conn
	pings *atomic.Int32
}

func (c pingConn) Write(b []byte) (int, error) {
	if len(b) == 12 && b[1] == 2 && binary.BigEndian.Uint16(b[2:]) == 1 {
		c.pings.Add(1)
	}
	return c.Conn.Write(b)
}

// TestPingsOnlyInSilence: of two idle sides one pings and not both, and nobody does while there is other traffic.
func TestPingsOnlyInSilence(t *testing.T) {
	a, b := tcpConns(t)
	var pings atomic.Int32
	x := session.NewMux()
	session.HandleFunc(x, "x", func(context.Context, session.Peer, struct{}) (struct{}, error) { return struct{}{}, nil })
	const keep = 200 * time.Millisecond
	o := agentOptions
	o.KeepAlive, o.Mux = keep, x
	go func() { _ = session.Serve(context.Background(), pingConn{b, &pings}, o, nil) }()
	c, err := session.Client(t.Context(), pingConn{a, &pings}, session.Options{Kind: session.KindCockpit, KeepAlive: keep})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }()
	defer func() { _ = c.Close() }()
	began := time.Now()
	time.Sleep(10 * keep)
	n, both := pings.Load(), 2*float64(time.Since(began))/float64(keep)
	if n == 0 || float64(n) > 0.75*both {
		t.Errorf("%d pings in silence; both sides on their own would send %.0f", n, both)
	}
	if rtt, at := c.RTT(); rtt <= 0 || at.Before(began) {
		t.Errorf("round trip %v at %v", rtt, at)
	}
	pings.Store(0)
	longest, last := time.Duration(0), time.Now()
	for began = last; time.Since(began) < 5*keep; {
		if err := c.Call(t.Context(), "x", nil, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keep / 20)
		longest, last = max(longest, time.Since(last)), time.Now()
	}
	if n := pings.Load(); n > 1 && longest < keep/2 { // one may have been under way
		t.Errorf("%d pings beside calls at most %v apart", n, longest)
	}
}
