package state

import (
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// TestRandomPair drives two machines with random commands, writes, cuts and crashes. The invariants of every step are
// in invariants; at the end everything is repaired, and unless the histories have parted, both copies must be the same.
func TestRandomPair(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 7))
		p := newSimPair(rt.Fatalf)
		p.n[0].trace, p.n[1].trace = rt.Logf, rt.Logf
		fencing, noData := FencingPolicy(rapid.IntRange(0, 2).Draw(rt, "fencing")), NoDataPolicy(rapid.IntRange(0, 1).Draw(rt, "no data"))
		for _, n := range p.n {
			n.s.Fencing, n.s.OnNoData = fencing, noData
		}
		always := rapid.Bool().Draw(rt, "always-asbp")
		for i, valid := range validAfterSB {
			policy := rapid.SampledFrom(valid).Draw(rt, "after-sb")
			p.n[0].s.AfterSB[i], p.n[1].s.AfterSB[i] = policy, drbd.MirrorAfterSB(policy)
			p.n[0].s.AlwaysASBP, p.n[1].s.AlwaysASBP = always, always
		}
		p.grows = rapid.Bool().Draw(rt, "grows")
		start := rapid.IntRange(0, 2).Draw(rt, "start")
		if start > 0 {
			for _, n := range p.n {
				n.attach()
				n.do(Connect{})
			}
			p.settle(r)
		}
		if start > 1 {
			p.n[0].do(Promote{Force: true})
			p.settle(r)
		}
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			p.act(rt, r)
			p.together(rt)
		}
		p.repair(rt, r)
	})
}

func (p *simPair) together(rt *rapid.T) {
	a, b := p.n[0], p.n[1]
	if a.link && b.link && a.s.Conn >= proto.Connected && b.s.Conn >= proto.Connected &&
		a.s.Role == proto.Primary && b.s.Role == proto.Primary {
		rt.Fatalf("two Primaries:\n %+v\n %+v", a.s, b.s)
	}
}

func (p *simPair) act(rt *rapid.T, r *rand.Rand) {
	n := p.n[rapid.IntRange(0, 1).Draw(rt, "node")]
	cmd := func(mk func(CommandID) Event) { n.command(mk) }
	switch rapid.IntRange(0, 29).Draw(rt, "action") {
	case 0, 1, 2, 3:
		p.deliver(r)
	case 4, 5:
		p.housework(r)
	case 6:
		p.settle(r)
	case 7:
		force := rapid.IntRange(0, 9).Draw(rt, "force") == 0
		cmd(func(id CommandID) Event { return Promote{ID: id, Force: force} })
	case 8:
		cmd(func(id CommandID) Event { return Demote{ID: id} })
	case 9:
		cmd(func(id CommandID) Event { return Connect{ID: id} })
	case 10:
		force := rapid.Bool().Draw(rt, "force")
		cmd(func(id CommandID) Event { return Disconnect{ID: id, Force: force} })
	case 11:
		p.cut()
	case 12:
		p.cable = true
	case 13:
		n.attach()
	case 14:
		force := rapid.Bool().Draw(rt, "force")
		cmd(func(id CommandID) Event { return Detach{ID: id, Force: force} })
	case 15:
		on := rapid.Bool().Draw(rt, "on")
		if rapid.Bool().Draw(rt, "after") {
			_ = n.do(ResyncAfter{Wait: on})
			return
		}
		cmd(func(id CommandID) Event {
			if on {
				return PauseSync{ID: id}
			}
			return ResumeSync{ID: id}
		})
	case 16:
		p.crash(rapid.IntRange(0, 1).Draw(rt, "crash"))
	case 18:
		cmd(func(id CommandID) Event { return Verify{ID: id} })
	case 19:
		other := rapid.Bool().Draw(rt, "other")
		cmd(func(id CommandID) Event { return Invalidate{ID: id, Peer: other} })
	case 20:
		cmd(func(id CommandID) Event { return SkipInitialSync{ID: id} })
	case 22:
		cmd(func(id CommandID) Event { return Outdate{ID: id} })
	case 23, 24:
		if len(n.bits) == 0 {
			n.do(Congested{})
			if rapid.Bool().Draw(rt, "write") {
				n.write(0, 9)
			}
		}
	case 21:
		cmd(func(id CommandID) Event { return ResumeIO{ID: id} })
	case 25:
		cmd(func(id CommandID) Event { return SuspendIO{ID: id} })
	case 28:
		n.do(AttachUnanswered{})
	case 26:
		cmd(func(id CommandID) Event { return Connect{ID: id, DiscardMyData: true} })
	case 27:
		if !p.grows {
			return
		}
		n.own = max(n.own, rapid.SampledFrom([]uint64{1000, 1500, 2000, 3000}).Draw(rt, "own"))
		clean := rapid.IntRange(0, 9).Draw(rt, "clean") == 0
		cmd(func(id CommandID) Event { return Resize{ID: id, OwnSize: n.own, AssumeClean: clean} })
	case 29: // it is only asked for by the other node, if at all
		if p.grows {
			n.own = max(n.own, rapid.SampledFrom([]uint64{1500, 2000, 3000}).Draw(rt, "own"))
		}
	case 17:
		n.write(rapid.IntRange(0, simBlocks-1).Draw(rt, "block"), byte(rapid.IntRange(1, 255).Draw(rt, "value")))
	}
}

// repair brings both nodes up again and checks what they come to.
func (p *simPair) repair(rt *rapid.T, r *rand.Rand) {
	p.settle(r)
	for _, n := range p.n {
		n.notes = nil
		for id := CommandID(1); id <= n.next; id++ {
			if _, ok := n.answers[id]; !ok {
				rt.Fatalf("%s: command %d was never answered: %+v", n.name, id, n.s)
			}
		}
	}
	p.cable = true
	for range 3 {
		for _, n := range p.n {
			n.do(ResumeSync{})
			n.do(ResyncAfter{})
			n.do(ResumeIO{})
			if n.own = max(n.own, n.peer.own); n.s.Conn < proto.WFReportParams && n.own > 1000 {
				n.do(Resize{OwnSize: n.own}) // a node alone may have grown
			}
			if n.s.Disk == proto.Diskless {
				n.attach()
			}
			if n.s.Conn == proto.StandAlone {
				n.do(Connect{})
			}
		}
		p.settle(r)
	}
	a, b := p.n[0], p.n[1]
	if a.s.Size != b.s.Size { // a node may have grown while the other one could not follow
		a.do(Resize{OwnSize: a.own})
		p.settle(r)
	}
	for _, n := range p.n {
		if n.s.Conn == proto.StandAlone {
			text := strings.Join(n.notes, "\n")
			for _, why := range []string{"split brain", "would be overwritten", "would be the source", "nothing in common",
				"peer is Primary", "no UpToDate copy", "not the generation", "both are Primary", "is too small"} {
				if strings.Contains(text, why) {
					return
				}
			}
			rt.Fatalf("%s is StandAlone for no good reason:\n%s\n %+v", n.name, text, n.s)
		}
	}
	if a.s.Conn != proto.Connected || b.s.Conn != proto.Connected {
		rt.Fatalf("not Connected:\n %+v\n %+v\n%s\n%s", a.s, b.s, strings.Join(a.notes, "\n"), strings.Join(b.notes, "\n"))
	}
	if a.s.Disk == proto.UpToDate || b.s.Disk == proto.UpToDate {
		if a.s.Disk != b.s.Disk && a.s.Disk != proto.Diskless && b.s.Disk != proto.Diskless || a.s.Disk != b.s.PeerDisk {
			rt.Fatalf("disks have not converged:\n %+v\n %+v", a.s, b.s)
		}
	}
	if a.s.Disk == proto.UpToDate && b.s.Disk == proto.UpToDate && a.s.Size != b.s.Size {
		rt.Fatalf("sizes %d and %d\n %+v\n %+v", a.s.Size, b.s.Size, a.s, b.s)
	}
	if a.s.Disk == proto.UpToDate && b.s.Disk == proto.UpToDate && !p.grows && len(a.bits)+len(b.bits) > 0 {
		rt.Fatalf("marks are left: %v and %v\n %+v\n %+v", a.bits, b.bits, a.s, b.s)
	}
	if a.s.Disk == proto.UpToDate && b.s.Disk == proto.UpToDate && a.data != b.data {
		rt.Fatalf("both UpToDate, but %v and %v\n %+v\n %+v\n%s\n%s", a.data, b.data, a.s, b.s,
			strings.Join(a.notes, "\n"), strings.Join(b.notes, "\n"))
	}
}
