package datapath

import (
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// A configured policy resolves a split brain between two Secondaries: the node with fewer changes loses them, both nodes
// say how much that was, and nobody has to do anything.
func TestAfterSBLeastChanges(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.AfterSB[0] = "discard-least-changes" })
	p.synced()
	a, b := p.node[0], p.node[1]
	p.fork()
	b.write(2<<20, pattern(3, 4096))
	b.ok("demote", b.Demote(bg()))
	p.cable.plug()
	p.await("the resync", inSync)
	p.equal()
	if string(a.content()[1<<20:][:8192]) != string(pattern(2, 8192)) || string(a.content()[:8192]) == string(pattern(1, 8192)) {
		t.Error("the wrong node has lost")
	}
	for i, who := range []string{"this node", "the peer"} {
		if want := "the changes of " + who + " are discarded, up to 8192 bytes in 2 blocks"; !p.node[i].heard(want) {
			p.node[i].dump()
			t.Errorf("%s does not say %q", p.node[i].name, want)
		}
	}
}

// A Primary that would lose stays what it is; its handler is told.
func TestAfterSBSparesPrimary(t *testing.T) {
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) {
		c.AfterSB = [3]string{"discard-least-changes", "call-pri-lost-after-sb"}
	}, "pri-lost-after-sb")
	p.synced()
	a, b := p.node[0], p.node[1]
	a.write(3<<20, pattern(4, 4096))
	p.cable.pull()
	p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
	a.write(3<<20, pattern(5, 64<<10))
	a.ok("demote", a.Demote(bg()))
	b.ok("promote", b.Promote(bg(), false))
	b.write(1<<20, pattern(2, 8192))
	before := b.content()
	p.cable.plug()
	b.await("StandAlone", alone)
	if got := s[1].took(t, 1); len(got) != 1 || got[0] != "pri-lost-after-sb" {
		t.Errorf("ran %v", got)
	}
	if s := b.Status(); s.Role != proto.Primary || string(before) != string(b.content()) {
		t.Errorf("the Primary was touched: %+v", s)
	}
}

// discard-local on one node is discard-remote on the other.
func TestAfterSBLocal(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(i int, c *Config) { c.AfterSB[0] = []string{"discard-local", "discard-remote"}[i] })
	p.synced()
	p.fork()
	p.node[1].ok("demote", p.node[1].Demote(bg()))
	p.cable.plug()
	p.await("the resync", inSync)
	if string(p.node[0].content()[1<<20:][:8192]) != string(pattern(2, 8192)) {
		t.Error("discard-local did not lose")
	}
}

func TestAfterSBMustAgree(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.AfterSB[1] = "consensus" })
	p.accept()
	p.features(drbd.Features{Min: 86, Max: 101})
	own, err := drbd.ParseProtocol(p.expect(drbd.CmdProtocol))
	if err != nil || own.AfterSB1P != drbd.AfterSBConsensus {
		t.Errorf("announces %+v: %v", own, err)
	}
	p.send(drbd.CmdProtocol, drbd.Protocol{Protocol: proto.ProtocolC, AfterSB1P: drbd.AfterSBViolently})
	p.n.await("StandAlone", alone)
	if !p.n.heard("after-sb-1pri violently-as0p, this node consensus") {
		p.n.dump()
		t.Error("does not name the difference")
	}
}
