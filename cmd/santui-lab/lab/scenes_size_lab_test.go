//go:build lab

package lab

import (
	"fmt"
	"strings"
	"time"
)

// attachNotUpToDate: a disk that was let go of, in order and in the middle of a resync, takes only what it misses when it is
// back.
func attachNotUpToDate(s *scene) {
	diskless := func(v view) bool { return v.PeerDisk == "Diskless" }
	s.secondary.must("detach")
	s.primary.sees("no disk there", diskless)
	s.primary.write(1024, 256)
	before := s.travelled()
	s.secondary.must("attach")
	s.resynced("a disk that missed 256 KiB", before, 256<<10, 256<<10)

	s.primary.must("invalidate-remote")
	s.primary.sees("half of the resync", func(v view) bool { return v.Conn == "SyncSource" && v.OutOfSync < s.size/2 })
	s.secondary.must("detach")
	s.primary.sees("no disk there", diskless)
	s.primary.write(1024, 256)
	left := s.primary.now().OutOfSync
	if left < 4<<20 {
		s.t.Fatalf("the resync was over: %s", s.primary.now().Text)
	}
	before = s.travelled()
	s.secondary.must("attach")
	s.resynced("a disk in the middle of a resync", before, left/2, left+1<<20) // some may have been under way
}

// sized waits until the device has the size that disks of so many MiB allow, on both nodes.
func (s *scene) sized(what string, mib int64) {
	s.t.Helper()
	s.size = usableOf(s.t, mib)
	for end := time.Now().Add(30 * time.Second); s.primary.size() != s.size || s.secondary.size() != s.size; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: %d and %d bytes, expected %d", what, s.primary.size(), s.secondary.size(), s.size)
		}
	}
}

// attachAfterResize: both disks grow while the Secondary's is out of use. When that is back the device grows, by itself or
// when asked, and only what is new and what was missed travels.
func attachAfterResize(s *scene) {
	mib := int64(sceneMiB)
	for _, e := range []*end{s.primary, s.secondary} { // what another pair left there would pass for metadata when the disk has grown
		e.sh(fmt.Sprintf("dd if=/dev/zero of=/dev/ubdb bs=1M seek=%d count=32 oflag=direct conv=notrunc status=none", mib))
	}
	for _, asked := range []*end{s.primary, s.secondary} {
		s.secondary.must("detach")
		s.primary.sees("no disk there", func(v view) bool { return v.PeerDisk == "Diskless" })
		s.primary.write(1024, 128)
		was, before := s.size, s.travelled()
		mib += 16
		for _, e := range []*end{s.primary, s.secondary} {
			e.linear(mib)
		}
		s.secondary.must("attach")
		s.both("the disk is back", view.inSync)
		if size := asked.size(); size != usableOf(s.t, mib) {
			s.t.Logf("%s is asked to grow", asked.n.Name())
			asked.must("resize")
		}
		s.sized("the new size", mib)
		s.primary.write(int(was>>10), 512)
		s.resynced(fmt.Sprintf("the device grew to %d MiB", s.size>>20), before, 640<<10, s.size-was+1<<20)
	}
}

// differingSizes: two fresh disks of different sizes make a device of the smaller. A larger disk in the place of one changes
// nothing; one that is too small for the data is refused, and the device stays in use.
func differingSizes(s *scene) {
	small := min(s.primary.mib, s.secondary.mib)
	s.sized("the smaller disk counts", small)
	s.ok("the first sync", s.primary.force())
	s.synced("the first sync")
	if s.primary.now().Role != "Primary" {
		s.primary.must("primary")
	}
	s.primary.write(int(s.size>>10)-512, 512)
	before := s.travelled()
	s.secondary.must("disconnect")
	s.primary.sees("the end of the link", func(v view) bool { return v.Conn == "WFConnection" })
	s.secondary.must("connect")
	s.resynced("connected again", before, 0, 0)
	s.sized("connected again", small)

	had := s.secondary.mib
	s.secondary.leave()
	s.primary.sees("the end of the link", func(v view) bool { return v.Conn == "WFConnection" })
	s.secondary.linear(16)
	s.secondary.blank()
	s.secondary.come()
	time.Sleep(3 * time.Second)
	if v := s.primary.now(); v.Conn == "Connected" || v.Disk != "UpToDate" || s.primary.size() != s.size {
		s.t.Errorf("a disk that is too small: %s", v.Text)
	}
	s.primary.write(int(s.size>>10)-256, 256)
	s.secondary.leave()
	s.secondary.linear(had)
	s.secondary.blank()
	s.secondary.come()
	if s.primary.now().Conn == "StandAlone" {
		s.primary.must("connect")
	}
	s.synced("a new disk that is large enough")
	s.sized("a new disk that is large enough", small)
}

// sizeOption: the size of the disk section limits the device on both nodes. A larger one counts when they meet next: the new
// part is marked on both and resynced by neither, until a Primary has lost its peer and got it back.
func sizeOption(s *scene) {
	const mib = 8
	sized := func(want int64) {
		s.t.Helper()
		s.size = want
		for _, e := range []*end{s.primary, s.secondary} {
			if n := e.size(); n != want {
				s.t.Fatalf("%s has %d bytes, expected %d", e.n.Name(), n, want)
			}
		}
	}
	sized(mib << 20)
	s.ok("the first sync", s.primary.force())
	s.synced("the first sync")
	if s.primary.now().Role != "Primary" {
		s.primary.must("primary")
	}
	s.primary.write(mib<<10-256, 256)
	s.synced("a write at the end")
	s.primary.must("secondary")
	for _, e := range []*end{s.secondary, s.primary} {
		e.leave()
		e.sh(fmt.Sprintf("sed -i 's/ size %dM;/ size %dM;/' /etc/drbd.conf", mib, 2*mib))
	}
	s.secondary.come()
	s.primary.come()
	s.both("the new part is marked", func(v view) bool {
		return v.Conn == "Connected" && v.Disk == "UpToDate" && v.PeerDisk == "UpToDate" && v.OutOfSync == mib<<20
	})
	sized(2 * mib << 20)
	s.primary.must("primary")
	s.primary.write(mib<<10-128, 256) // a part of it is new
	s.both("marked as before, a write goes to both", func(v view) bool { return v.Conn == "Connected" && v.OutOfSync == mib<<20 })
	before := s.travelled()
	s.secondary.must("disconnect") // a kernel that connects counts from 0
	s.primary.sees("the end of the link", func(v view) bool { return v.Conn == "WFConnection" })
	s.secondary.must("connect")
	s.resynced("the new part", before, mib<<20, mib<<20)
	sized(2 * mib << 20)
}

// attachForeign: the disk of another pair takes the place of the Secondary's, while connected. Nobody takes it, nothing is
// copied, and the Primary goes on; with new metadata it is the Secondary's.
func attachForeign(s *scene) {
	s.primary.write(1024, 256)
	s.secondary.must("detach")
	s.primary.sees("no disk there", func(v view) bool { return v.PeerDisk == "Diskless" })
	for _, history := range []string{"D00D000000000004:0000000000000000:0123456789ABCDE0:0000000000000004", // made as this pair was
		"D00D000000000004:D00D000000000002:0123456789ABCDE0:0123456789ABCDE2"} {
		s.secondary.sh("drbdmeta --force 0 v08 " + backing + " internal set-gi " + history + ":1:1:0:0:0:0:0")
		was := s.primary.raw(0, 8192) + s.secondary.raw(0, 8192)
		err := s.secondary.do("attach")
		if !s.secondary.kernel && (err == nil || !strings.Contains(err.Error(), "does not go together")) {
			s.t.Errorf("attach: %v", err)
		}
		s.t.Logf("attach: %v", err)
		s.secondary.sees("no disk", func(v view) bool { return v.Conn == "Connected" && v.Disk == "Diskless" && v.PeerDisk == "UpToDate" })
		s.primary.sees("no disk there", func(v view) bool { return v.Conn == "Connected" && v.Disk == "UpToDate" && v.PeerDisk == "Diskless" })
		if s.primary.raw(0, 8192)+s.secondary.raw(0, 8192) != was {
			s.t.Error("data was touched")
		}
	}
	s.primary.write(2048, 256)
	s.secondary.blank()
	s.secondary.must("attach")
	s.synced("new metadata")
}
