//go:build lab

package lab

import (
	"math/rand/v2"
	"strings"
	"time"
)

// fencePeer: what each exit code of fence-peer means to a Primary that lost its peer, and to a Secondary that restarted
// alone and is to take over.
func fencePeer(s *scene) {
	for _, c := range []struct{ code, peer string }{
		{"3", "Inconsistent"}, {"4", "Outdated"}, {"5", "Outdated"}, {"7", "Outdated"}, {"6", "DUnknown"}, {"1", "DUnknown"},
	} {
		s.primary.verdict(c.code)
		s.cut()
		s.primary.fenced()
		s.primary.write(1024, 128)
		s.primary.sees("what exit code "+c.code+" says of the peer", func(v view) bool { return v.PeerDisk == c.peer && v.Disk == "UpToDate" && !v.Suspended })
		before := s.travelled()
		s.heal()
		s.resynced("fence-peer, exit code "+c.code, before, 128<<10, 1<<20)
	}
	s.primary.must("secondary")
	for _, c := range []struct {
		codes, disk string // one promotion each, and the disk's state after the last
		promoted    bool   // by the last
	}{{"1 5 4", "UpToDate", true}, {"1 7", "UpToDate", true}, {"1 6", "Outdated", false}} {
		s.cut()
		s.secondary.leave()
		s.secondary.come()
		s.secondary.sees("a copy that may be old", func(v view) bool { return v.Disk == "Consistent" })
		for i, code := range strings.Fields(c.codes) {
			last := i == len(strings.Fields(c.codes))-1
			s.secondary.verdict(code)
			if err := s.secondary.do("primary"); (err == nil) != (last && c.promoted) {
				s.t.Errorf("alone, exit code %s: promotion: %v", code, err)
			}
			want := "Consistent"
			if last {
				want = c.disk
			}
			if v := s.secondary.now(); v.Disk != want {
				s.t.Errorf("alone, exit code %s: %s, expected %s: %s", code, v.Disk, want, v.Text)
			}
		}
		if c.promoted {
			s.secondary.write(8192, 128)
			s.secondary.must("secondary")
		}
		s.heal()
		s.synced("a Secondary alone, exit codes " + c.codes)
	}
}

// promoteWhileConnecting: a promotion at any moment of a handshake ends; there are never two Primaries, and what the one
// writes is on both.
func promoteWhileConnecting(s *scene) {
	s.primary.must("secondary")
	won := 0
	for round := range 8 {
		caller := []*end{s.primary, s.secondary}[round%2]
		caller.must("disconnect")
		s.both("the end of the link", func(v view) bool { return v.Conn == "StandAlone" || v.Conn == "WFConnection" })
		connected := make(chan error, 1)
		go func() { connected <- caller.do("connect") }()
		time.Sleep(rand.N(1500 * time.Millisecond))
		err := s.primary.do("primary")
		s.end("connect", connected)
		s.both("the connection", view.inSync)
		s.t.Logf("round %d: promotion: %v", round, err)
		if err != nil {
			continue
		}
		won++
		if err := s.secondary.do("primary"); err == nil {
			s.t.Fatal("two Primaries")
		}
		s.primary.write(1024+64*round, 64)
		s.primary.must("secondary")
	}
	if won == 0 {
		s.t.Error("no promotion was granted")
	}
	s.synced("promoted while connecting")
}

// twoPrimaries: a second Primary is refused in a connection, and two that were promoted apart do not come together, whether
// the second one wrote or not (each has begun a generation, so DRBD 8.4 calls it a split brain); no data is touched.
func twoPrimaries(s *scene) {
	if err := s.secondary.do("primary"); err == nil {
		s.t.Fatal("two Primaries in one connection")
	}
	s.both("one Primary", func(v view) bool { return v.Role != v.PeerRole })
	for _, writes := range []bool{false, true} {
		s.cut()
		s.secondary.must("primary")
		if writes {
			s.secondary.write(8192, 128)
		}
		was := s.primary.raw(0, s.size>>10) + s.secondary.raw(0, s.size>>10)
		s.heal()
		s.apart()
		for _, e := range []*end{s.primary, s.secondary} {
			if v := e.now(); v.Role != "Primary" || v.Disk != "UpToDate" {
				s.t.Errorf("%s: %s", e.n.Name(), v.Text)
			}
		}
		if s.primary.raw(0, s.size>>10)+s.secondary.raw(0, s.size>>10) != was {
			s.t.Fatal("data was touched")
		}
		want := s.secondary.raw(8192, 128)
		for _, e := range []*end{s.secondary, s.primary} {
			e.must("secondary")
		}
		s.primary.must("connect", "--discard-my-data")
		s.secondary.must("connect")
		s.synced("neither is Primary any more, the first one loses")
		if s.primary.raw(8192, 128) != want {
			s.t.Error("the wrong data lost")
		}
		s.primary.must("primary")
	}
}
