// Package sessiontest has what tests of sessions share: a session within the process, and the suite that every kind of
// session must pass. It owns no state; what it starts ends with the test.
package sessiontest

import (
	"testing"

	"example.com/santui/proto/session"
)

// Pair opens a session in memory whose serving side answers with h, and closes it with the test. It works inside
// testing/synctest.
func Pair(t testing.TB, h *session.Mux) (client, server *session.Session) {
	t.Helper()
	return PairOptions(t, session.Options{Node: "admin@laptop", Version: "test", Kind: session.KindCockpit},
		session.Options{Node: "otter", Version: "test", Kind: session.KindAgent, Mux: h})
}

// PairOptions is Pair with the options of both sides.
func PairOptions(t testing.TB, client, server session.Options) (c, s *session.Session) {
	t.Helper()
	c, s, err := session.MemoryPair(client, server)
	if err != nil {
		t.Fatalf("memory pair: %v", err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Close()
		_ = c.Wait()
		_ = s.Wait()
	})
	return c, s
}
