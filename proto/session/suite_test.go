package session_test

import (
	"context"
	"net"
	"os"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"example.com/santui/proto/session"
	"example.com/santui/proto/session/sessiontest"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(helper); mode != "" {
		os.Exit(helperMain(mode))
	}
	goleak.VerifyTestMain(m)
}

// tcpPair opens a real session over a loopback connection.
func tcpPair(t *testing.T, co, so session.Options) (c, s *session.Session) {
	t.Helper()
	a, b := tcpConns(t)
	type result struct {
		s   *session.Session
		err error
	}
	got := make(chan result, 1)
	go func() {
		s, err := session.Server(context.Background(), b, so)
		got <- result{s, err}
	}()
	c, err := session.Client(t.Context(), a, co)
	r := <-got
	if err != nil || r.err != nil {
		t.Fatalf("opening: client %v, server %v", err, r.err)
	}
	t.Cleanup(func() {
		_, _ = c.Close(), r.s.Close()
		_, _ = c.Wait(), r.s.Wait()
	})
	return c, r.s
}

func tcpConns(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestYamux(t *testing.T) { sessiontest.Suite(t, tcpPair) }

func TestMemory(t *testing.T) {
	sessiontest.Suite(t, func(t *testing.T, c, s session.Options) (*session.Session, *session.Session) {
		return sessiontest.PairOptions(t, c, s)
	})
}

func TestMemoryInBubble(t *testing.T) {
	for range 2 { // a second bubble is what yamux would not survive
		synctest.Test(t, func(t *testing.T) {
			c, _ := sessiontest.Pair(t, session.NewMux())
			if err := c.Call(t.Context(), "x", nil, nil); session.Code(err) != "not-found" {
				t.Error(err)
			}
		})
	}
}
