//go:build lab

package lab

import (
	"fmt"
	"strings"
	"time"
)

// mute lets nothing out of the node on the meta connection any more: pings, and acknowledgements of what a resync wrote, get
// lost. The other connection, which carried more so far, goes on. speak ends it.
func (e *end) mute(peer *end) {
	e.p.t.Helper()
	e.sh(fmt.Sprintf(`dev=$(ip -o addr show to %s | awk '{ print $2; exit }')
set -- $(ss -tnHiO state established dst %s | awk '{ split($3, l, ":"); split($4, r, ":"); match($0, /bytes_received:[0-9]+/)
  if (l[2] == 7788 || r[2] == 7788) print substr($0, RSTART+15, RLENGTH-15) + 0, l[2], r[2] }' | sort -n | head -n 1)
test $# = 3
tc qdisc add dev $dev root handle 1: prio bands 3 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
tc qdisc add dev $dev parent 1:3 handle 30: netem loss 100%%
tc filter add dev $dev parent 1: protocol ip prio 1 u32 match ip sport $2 0xffff match ip dport $3 0xffff flowid 1:3`, e.n.Addr(), peer.n.Addr()))
}

func (e *end) speak() {
	e.p.t.Helper()
	e.sh("tc qdisc del dev $(ip -o addr show to " + e.n.Addr() + " | awk '{ print $2; exit }') root")
}

// resyncFinish: the target of a resync has all, but its acknowledgements and its word that it is done get lost with the link.
// (Both engines call a resync done when a ping after the last acknowledgement is answered, so neither of the nodes does.) What
// the Primary writes then is in the next resync, and nothing is copied again but what the Primary had no word of.
func resyncFinish(s *scene) {
	for i, writes := range []bool{false, true} {
		s.primary.must("pause-sync")
		s.cut()
		s.primary.write(1024, 256)
		want := s.primary.raw(1024, 256)
		s.heal()
		s.primary.sees("a paused resync", func(v view) bool { return v.Conn == "PausedSyncS" && v.OutOfSync == 256<<10 })
		s.secondary.sees("a paused resync", func(v view) bool { return v.Conn == "PausedSyncT" })
		s.secondary.mute(s.primary)
		s.primary.must("resume-sync")
		s.secondary.sees("the end of the resync", func(view) bool { return s.secondary.raw(1024, 256) == want })
		if v := s.primary.now(); v.Conn != "SyncSource" || v.OutOfSync == 0 {
			s.t.Fatalf("the end of the resync was not lost: %s", v.Text)
		}
		s.cut()
		s.secondary.speak()
		most := int64(256 << 10)
		if writes {
			s.primary.write(4096, 128)
			most += 128 << 10
		}
		before := s.travelled()
		s.heal()
		s.resynced(fmt.Sprintf("the end of resync %d was lost, writes %v", i+1, writes), before, most-256<<10, most)
	}
}

// verified is a load that writes every 4 KiB block of the first MiB of the device once, in random order, and reads all of it
// back.
func verified(mib int) string {
	return fmt.Sprintf("fio --name=w --filename=/dev/drbd0 --size=%dm --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8 --randrepeat=0 "+
		"--verify=crc32c --verify_fatal=1 --verify_state_save=0 --eta=never", mib)
}

// busyResync: the whole device is written while a full resync runs, which is cut once.
func busyResync(s *scene) {
	w := s.load(verified(28))
	s.primary.must("invalidate-remote")
	s.primary.sees("a part of the resync", func(v view) bool { return v.Conn == "SyncSource" && v.OutOfSync < 24<<20 })
	s.cut()
	time.Sleep(500 * time.Millisecond)
	s.heal()
	s.primary.sees("the resync again", func(v view) bool { return v.Conn == "SyncSource" })
	s.end("fio beside a resync", w)
	s.synced("a busy resync")
}

// full is how long a full resync to the Secondary takes.
func (s *scene) full(what string) time.Duration {
	s.t.Helper()
	began, before := time.Now(), s.primary.now().Sent
	s.primary.must("invalidate-remote")
	s.primary.sees(what, func(v view) bool { return v.inSync() && v.Sent >= before+s.size })
	s.secondary.sees(what, view.inSync)
	took := time.Since(began)
	s.t.Logf("%s: %.1f s, %.1f MiB/s", what, took.Seconds(), float64(s.size)/(1<<20)/took.Seconds())
	return took
}

// load starts a load on the Primary and returns when its writes come to the Secondary.
func (s *scene) load(script string) <-chan error {
	s.t.Helper()
	before := s.secondary.now().Received
	w := s.primary.going(script)
	s.secondary.sees("the load", func(v view) bool { return v.Received >= before+256<<10 })
	return w
}

// leastRate: beside a busy application a resync falls towards its least rate, 1 MiB/s, but not below.
func leastRate(s *scene) {
	idle := s.full("idle")
	w := s.load(fio(20))
	busy := s.full("busy")
	s.end("fio", w)
	s.synced("full resyncs")
	least := time.Duration(s.size>>20) * time.Second
	// The source decides; what the kernel's takes for a busy disk is its own affair.
	if busy < 3*idle/2 || !s.primary.kernel && busy < least/3 {
		s.t.Error("the resync did not give way")
	}
	if busy > 2*least {
		s.t.Error("the resync fell below its least rate")
	}
}

// controller: a resync that finds its own rate, to c-max-rate at most, and gives way to applications.
func controller(s *scene) {
	if idle := s.full("idle, the controller at work"); idle < 3*time.Second {
		s.t.Error("faster than c-max-rate 8M")
	}
	w := s.load(fio(8))
	s.full("busy, the controller at work")
	s.end("fio", w)
	s.synced("the controller's resyncs")
}

// writesDuringPause: a full resync is paused by each node while the Primary writes where it has been and where it has not,
// and while the link is cut.
func writesDuringPause(s *scene) {
	s.primary.must("invalidate-remote")
	for i, e := range []*end{s.primary, s.secondary} {
		s.primary.sees("a part of the resync", func(v view) bool { return v.Conn == "SyncSource" && v.OutOfSync < int64(28-i*4)<<20 })
		e.must("pause-sync")
		s.primary.sees("a pause", func(v view) bool { return v.Conn == "PausedSyncS" })
		s.secondary.sees("a pause", func(v view) bool { return v.Conn == "PausedSyncT" })
		left := s.primary.now().OutOfSync
		for _, at := range []int{256 + 512*i, 24<<10 + 512*i} { // both ends: a resync goes upwards
			s.primary.write(at, 256)
		}
		if got, want := s.secondary.raw(256+512*int64(i), 256), s.primary.raw(256+512*int64(i), 256); got != want {
			s.t.Error("a write where the resync has been did not reach the target")
		}
		if now := s.primary.now(); now.Conn != "PausedSyncS" || now.OutOfSync > left || now.OutOfSync < left-1<<20 {
			s.t.Errorf("the resync went on in its pause: %d KiB were left: %s", left>>10, now.Text)
		}
		if i == 1 {
			s.cut()
			s.primary.write(4096, 256)
			s.heal()
			s.primary.sees("the pause again", func(v view) bool { return v.Conn == "PausedSyncS" })
		}
		e.must("resume-sync")
	}
	s.synced("writes during pauses")
}

// revertOlderData: the Secondary's disk is set back to a copy of an older generation. That is noticed, and all data comes; a
// copy of the generation that both have left last takes only what was written since.
func revertOlderData(s *scene) {
	for _, generations := range []int{1, 2} {
		s.secondary.leave()
		s.secondary.keep()
		for g := range generations {
			s.primary.sees("the end of the link", func(v view) bool { return v.Conn == "WFConnection" })
			s.primary.write(1024*(g+1), 256)
			if g < generations-1 {
				s.secondary.come()
				s.synced("a newer generation")
				s.primary.write(8192, 128)
				s.secondary.leave()
			}
		}
		s.secondary.revert()
		before := s.travelled()
		s.secondary.come()
		if generations == 1 {
			s.resynced("older by the last generation", before, 256<<10, 1<<20)
		} else {
			s.resynced("older by two generations", before, s.size, s.size)
		}
	}
}

// snapshotUnderLoad: both disks are set back to copies that were taken in one moment under load, as after a power cut of both
// nodes. The Primary's activity log covers all in which they differ.
func snapshotUnderLoad(s *scene) {
	s.primary.write(1024, 256)
	want := s.primary.raw(1024, 256)
	w := s.load(strings.Replace(fio(6), "--rw=", "--offset=8m --rw=", 1))
	time.Sleep(time.Second)
	order := []*end{s.secondary, s.primary}
	for _, e := range order {
		e.freeze()
	}
	for _, e := range order {
		e.keep()
	}
	for _, e := range order {
		e.thaw()
	}
	s.end("fio", w)
	s.synced("the load is over")
	for _, e := range order {
		e.leave()
	}
	for _, e := range order {
		e.revert()
	}
	for _, e := range order {
		e.come()
	}
	s.synced("snapshots of both disks")
	for _, e := range order {
		if e.raw(1024, 256) != want {
			s.t.Errorf("%s lost what was written before", e.n.Name())
		}
	}
	s.primary.must("primary")
}

// stressAL: writes all over a device of 100 extents with an activity log of 67; then the Primary's node loses power. No more
// than the log covers is resynced, and that is what drbdmeta finds.
func stressAL(s *scene) {
	covered := int64(67 * 4 << 20)
	for _, e := range []*end{s.primary, s.secondary} { // what other pairs left
		e.sh("dd if=/dev/zero of=/dev/ubdb bs=1M count=64 oflag=direct conv=notrunc status=none")
	}
	s.skip()
	s.primary.must("primary")
	before := s.primary.now().ALWrites
	s.end("fio", s.primary.going(fio(5)))
	s.synced("writes all over")
	if n := s.primary.now().ALWrites - before; n < 2*67 {
		s.t.Errorf("only %d transactions of the activity log", n)
	}
	s.primary.sh("sync")
	w := s.load(fio(20))
	time.Sleep(time.Second)
	s.primary.powerOff()
	<-w
	s.secondary.sees("the loss of the peer", func(v view) bool { return v.Conn == "WFConnection" })
	s.primary.powerOn()
	marks := s.primary.sh(fmt.Sprintf(`dd if=%s of=%s bs=1M iflag=direct conv=sparse status=none
for c in apply-al dump-md; do drbdmeta --force 1 v08 %[2]s internal $c; done; rm %[2]s`, backing, copyOf))
	bits := bitsSet.FindStringSubmatch(marks)
	if bits == nil {
		s.t.Fatalf("drbdmeta: %.900s", marks)
	}
	s.primary.come()
	s.synced("after a power cut of the Primary")
	got := s.travelled() // since the Primary's node has power again
	if !s.primary.kernel {
		covered += covered/64 + 64<<10 // a handshake, a bitmap, headers
	}
	s.t.Logf("drbdmeta finds %s bits, %d blocks came", bits[1], got/4096)
	if got > covered {
		s.t.Errorf("%d MiB came, the activity log covers %d", got>>20, covered>>20)
	}
	s.primary.must("primary")
}
