//go:build lab

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// scenes are the scenarios of DRBD's test suite that one pair after the other plays, santui with the kernel's DRBD.
var scenes = []script{
	{name: "suspend-io", short: "santui", conf: fencing("resource-and-stonith"), play: suspendIO},
	{name: "split-brain", play: splitBrain},
	{name: "split-brain policies", conf: func(c *DRBDConf) {
		c.NetExtra += "    after-sb-0pri discard-least-changes;\n    after-sb-1pri discard-secondary;\n"
	}, play: splitBrainPolicies},
	{name: "toggle-disk", play: toggleDisk},
	{name: "io-errors", play: ioErrors},
	{name: "skip-initial-sync", fresh: true, play: skipInitialSync},
	{name: "fencing", conf: fencing("resource-only"), play: fencePeer},
	{name: "promote-while-connecting", play: promoteWhileConnecting},
	{name: "two-primaries-reject", short: "santui", play: twoPrimaries},
	{name: "resync-finish", conf: func(c *DRBDConf) { // a node that is mute lives on for a while
		c.NetExtra = strings.Replace(c.NetExtra, "ping-timeout 20;", "ping-timeout 100;", 1)
	}, play: resyncFinish},
	{name: "busy-resync", conf: rate("3M"), play: busyResync},
	{name: "c-min-rate", conf: func(c *DRBDConf) { c.DiskEnd += "    c-min-rate 1M;\n" }, mib: [2]int64{12, 12}, play: leastRate},
	{name: "resync-controller", conf: func(c *DRBDConf) {
		c.Control = "    c-plan-ahead 20;\n    c-fill-target 128k;\n    c-max-rate 8M;\n    c-min-rate 1M;\n"
	}, play: controller},
	{name: "resync-write-during-pause", conf: rate("3M"), play: writesDuringPause},
	{name: "revert-older-data", play: revertOlderData},
	{name: "resync-snapshot", play: snapshotUnderLoad},
	{name: "stress-al", fresh: true, mib: [2]int64{400, 400}, play: stressAL},
	{name: "attach-while-connected-not-uptodate", short: "kernel", conf: rate("3M"), play: attachNotUpToDate},
	{name: "attach-while-connected-resize", play: attachAfterResize},
	{name: "connect-differing-sizes", fresh: true, mib: [2]int64{32, 24}, play: differingSizes},
	{name: "connect-differing-sizes smaller Primary", fresh: true, mib: [2]int64{24, 32}, play: differingSizes},
	{name: "size-option", fresh: true, conf: func(c *DRBDConf) { c.DiskEnd += "    size 8M;\n" }, play: sizeOption},
	{name: "attach-foreign", play: attachForeign},
}

// TestScenesWithKernel plays what must never go wrong, TestLongScenesWithKernel the others, each node being Primary once.
func TestScenesWithKernel(t *testing.T) { play(t, true) }

func TestLongScenesWithKernel(t *testing.T) { play(t, false) }

func rate(fixed string) func(*DRBDConf) { return func(c *DRBDConf) { c.Rate = fixed } }

func fencing(policy string) func(*DRBDConf) {
	return func(c *DRBDConf) {
		c.DiskEnd += "    fencing " + policy + ";\n"
		c.Sections += "  handlers {\n    fence-peer /run/fence;\n  }\n"
	}
}

// verdict lets the next fence-peer of the node, and one that waits, end with a code; "" lets it wait.
func (e *end) verdict(code string) {
	e.p.t.Helper()
	if code == "" {
		e.sh("rm -f /run/verdict; : >/run/fenced")
		return
	}
	e.sh(": >/run/fenced; echo " + code + " >/run/verdict")
}

// fenced waits until fence-peer was called on the node.
func (e *end) fenced() {
	e.p.t.Helper()
	for end := time.Now().Add(20 * time.Second); e.sh("cat /run/fenced") == ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			e.p.t.Fatalf("%s does not call fence-peer", e.n.Name())
		}
	}
}

// suspendIO: a Primary's I/O waits until its peer is known to be fenced; or, if that fails, until it is back.
func suspendIO(s *scene) {
	frozen := func() <-chan error {
		s.primary.verdict("")
		s.cut()
		s.primary.fenced()
		w := s.primary.going(s.primary.dd(1024, 512))
		s.waits("a write", w)
		if v := s.primary.now(); !v.Suspended {
			s.t.Fatalf("not suspended: %s", v.Text)
		}
		return w
	}
	w := frozen()
	s.primary.verdict("7")
	s.end("the write, when the peer is fenced", w)
	s.primary.sees("the verdict", func(v view) bool { return v.PeerDisk == "Outdated" && !v.Suspended })
	s.heal()
	s.synced("the fenced peer is back")

	w = frozen()
	s.primary.verdict("1")
	s.waits("a write, though fencing failed,", w)
	s.heal()
	s.end("the write, when the peer is back", w)
	s.synced("the peer that was not fenced is back")
}

// fork lets both nodes change the data on their own, in different places, KiB each; the Primary stays it.
func (s *scene) fork(primary, secondary int) {
	s.t.Helper()
	s.cut()
	s.primary.write(1024, primary)
	s.secondary.must("primary")
	s.secondary.write(8192, secondary)
	s.secondary.must("secondary")
}

// splitBrain: both nodes see it and stay apart, with their data untouched; then one loses, then the other.
func splitBrain(s *scene) {
	for _, primaryLoses := range []bool{false, true} {
		s.fork(256, 128)
		was := s.primary.raw(8192, 128) + s.secondary.raw(1024, 256)
		s.heal()
		s.apart()
		if s.primary.raw(8192, 128)+s.secondary.raw(1024, 256) != was {
			s.t.Fatal("data was touched in a split brain")
		}
		loser, winner, at, length := s.secondary, s.primary, int64(1024), int64(256)
		if primaryLoses {
			loser, winner, at, length = s.primary, s.secondary, 8192, 128
			if err := loser.do("connect", "--discard-my-data"); err == nil {
				s.t.Error("a Primary may discard its data")
			}
			loser.must("secondary")
		}
		want := winner.raw(at, length)
		loser.must("connect", "--discard-my-data")
		winner.must("connect")
		s.synced(loser.n.Name() + " loses")
		if loser.raw(at, length) != want {
			s.t.Errorf("%s does not have what %s wrote", loser.n.Name(), winner.n.Name())
		}
		if primaryLoses {
			loser.must("primary") // as it was
		}
	}
}

// splitBrainPolicies: with one Primary the Secondary loses, with none the node that changed less.
func splitBrainPolicies(s *scene) {
	s.fork(128, 512)
	want := s.primary.raw(1024, 128)
	s.heal()
	s.synced("after-sb-1pri discard-secondary")
	if s.primary.raw(1024, 128) != want {
		s.t.Error("the Primary lost")
	}
	for _, c := range [][2]int{{512, 128}, {128, 512}} {
		s.fork(c[0], c[1])
		s.primary.must("secondary")
		want := s.primary.raw(1024, int64(c[0]))
		if c[1] > c[0] {
			want = s.secondary.raw(8192, int64(c[1]))
		}
		s.heal()
		s.synced(fmt.Sprintf("after-sb-0pri discard-least-changes, %d and %d KiB", c[0], c[1]))
		got := s.primary.raw(1024, int64(c[0]))
		if c[1] > c[0] {
			got = s.primary.raw(8192, int64(c[1]))
		}
		if got != want {
			s.t.Error("the wrong node lost")
		}
		s.primary.must("primary")
	}
}

// skip lets the node that is to be Primary declare two fresh disks the same.
func (s *scene) skip() {
	s.t.Helper()
	if s.primary.kernel {
		s.primary.sh("drbdadm new-current-uuid --clear-bitmap r0/0")
	} else {
		s.santui("sync", "skip", "--confirm", PairName)
	}
	s.both("two good copies", view.inSync)
}

// skipInitialSync: two fresh disks are declared the same; nothing is copied.
func skipInitialSync(s *scene) {
	s.skip()
	if v := s.primary.now(); v.Sent+v.Received > 1<<20 {
		s.t.Errorf("something was copied: %s", v.Text)
	}
	s.primary.must("primary")
	s.primary.write(0, int(s.size>>10))
	s.synced("written in full")
	s.cut()
	s.primary.write(4096, 256)
	s.heal()
	s.synced("cut and healed")
}

// ioErrors: the disk of either node fails under a writer. Applications go on with the copy that is left; when the disk is
// well again it takes what it missed.
func ioErrors(s *scene) {
	for _, e := range []*end{s.primary, s.secondary} {
		w := s.primary.going(fio(3))
		time.Sleep(time.Second)
		e.fails()
		e.sees("the loss of its disk", func(v view) bool { return v.Disk == "Diskless" })
		s.end("fio over "+e.n.Name()+"'s broken disk", w)
		want := s.primary.sh("sha256sum </dev/drbd0")
		e.linear(e.mib)
		e.must("attach")
		s.synced(e.n.Name() + "'s disk is well again")
		if got := s.primary.sh("sha256sum </dev/drbd0"); got != want {
			s.t.Errorf("the device reads %s, it was %s", got, want)
		}
	}
}

// toggleDisk: each node's disk is taken out of use and back, twice, while it is written.
func toggleDisk(s *scene) {
	for i := range 4 {
		e := []*end{s.primary, s.secondary}[i%2]
		w := s.primary.going(fio(3))
		time.Sleep(500 * time.Millisecond)
		e.must("detach")
		e.sees("no disk", func(v view) bool { return v.Disk == "Diskless" })
		time.Sleep(500 * time.Millisecond)
		e.must("attach")
		s.end("fio", w)
		s.synced(e.n.Name() + "'s disk is back")
	}
}
