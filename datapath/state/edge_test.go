package state

import (
	"errors"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func TestAttachEdges(t *testing.T) {
	fresh := func() *simNode { return newSimPair(t.Fatalf).n[0] }
	for _, tt := range []struct {
		name  string
		flags MDFlags
		disk  proto.DiskState
		pdsk  proto.DiskState
	}{
		{"fresh", 0, proto.Inconsistent, proto.DUnknown},
		{"outdated", MDConsistent, proto.Outdated, proto.DUnknown},
		{"good", MDConsistent | MDWasUpToDate, proto.UpToDate, proto.DUnknown},
		{"peer outdated", MDConsistent | MDWasUpToDate | MDPeerOutdated, proto.UpToDate, proto.Outdated},
		{"crashed", MDConsistent | MDWasUpToDate | MDPrimary | MDConnected, proto.UpToDate, proto.DUnknown},
		{"full sync", MDConsistent | MDWasUpToDate | MDFullSync, proto.UpToDate, proto.DUnknown},
	} {
		n := fresh()
		n.md.UUIDs, n.md.Flags = UUIDs{Current: 0x101}, tt.flags
		if err := n.attach(); err != nil {
			t.Fatal(err)
		}
		want(t, n, proto.Secondary, proto.RoleUnknown, proto.StandAlone, tt.disk, tt.pdsk)
		if n.s.CrashedPrimary != (tt.flags&MDPrimary != 0) || n.md.Flags&MDPrimary != 0 || n.md.UUIDs.Current != 0x100 {
			t.Errorf("%s: %+v", tt.name, n.s)
		}
		if full := len(n.bits) == simBlocks; full != (tt.flags&MDFullSync != 0) || n.md.Flags&MDFullSync != 0 {
			t.Errorf("%s: %d bits, flags %#x", tt.name, len(n.bits), n.md.Flags)
		}
	}
	n := fresh()
	n.md.Size = 2000 // the disk has 1000
	if err := n.attach(); err != nil || n.s.Disk != proto.Failed || n.answers[1] == nil {
		t.Errorf("shrunk disk: %v %v %v", err, n.s.Disk, n.answers)
	}
	n.do(DiskReleased{})
	if n.s.Disk != proto.Diskless {
		t.Error(n.s.Disk)
	}
	n.do(AttachStart{})
	n.do(AttachFailed{ID: 9, Err: errors.New("no such disk")})
	if n.s.Disk != proto.Diskless || n.answers[9] == nil {
		t.Error("failed attach")
	}
}

func TestSizes(t *testing.T) {
	p := newSimPair(t.Fatalf)
	n := p.n[0]
	n.attach()
	n.do(Connect{})
	n.do(LinkUp{})
	n.do(PeerSizes{Sizes: drbd.Sizes{Disk: 800}})
	if n.s.Size != 800 || n.md.Size != 800 {
		t.Errorf("size %d, on disk %d", n.s.Size, n.md.Size)
	}
	n.md.Flags = MDConsistent | MDWasUpToDate
	p.crash(0)
	n.attach()
	n.do(Connect{})
	n.do(LinkUp{})
	n.do(PeerSizes{Sizes: drbd.Sizes{Disk: 700}})
	if n.s.Conn != proto.Disconnecting || !strings.Contains(strings.Join(n.notes, "\n"), "too small") {
		t.Errorf("a good copy was shrunk: %+v", n.s)
	}
}

func TestPeerRejected(t *testing.T) {
	p := newSimPair(t.Fatalf)
	n := p.n[0]
	n.attach()
	n.do(Connect{})
	n.do(PeerRejected{Text: "the secrets differ"})
	n.do(LinkClosed{})
	want(t, n, proto.Secondary, proto.RoleUnknown, proto.StandAlone, proto.Inconsistent, proto.DUnknown)
	if n.notes[len(n.notes)-1] == "" || !strings.Contains(strings.Join(n.notes, "\n"), "secrets differ") {
		t.Error(n.notes)
	}
}

func TestSkipInitialSync(t *testing.T) {
	_, a, _ := upPair(t)
	a.bits[3] = true
	a.do(PeerUUIDsReceived{drbd.UUIDs{Current: 0x500, Flags: drbd.UUIDSkipInitialSync}})
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.s.UUIDs.Current != 0x500 || len(a.bits) != 0 || a.md.UUIDs.Current != 0x500 {
		t.Errorf("%+v %v", a.s.UUIDs, a.bits)
	}
}

// TestSkipInitialSyncOfBoth: one node declares the disks to be the same, or both do at once. One generation, no resync,
// and none after a reconnection either.
func TestSkipInitialSyncOfBoth(t *testing.T) {
	for _, both := range []bool{false, true} {
		p, a, b := upPair(t)
		a.bits[3] = true
		ida, _ := a.command(func(id CommandID) Event { return SkipInitialSync{ID: id} })
		idb := CommandID(0)
		if both {
			idb, _ = b.command(func(id CommandID) Event { return SkipInitialSync{ID: id} })
		}
		p.settle(rng())
		for range 2 {
			want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
			want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
			if a.s.UUIDs != b.s.UUIDs || a.md.UUIDs != b.md.UUIDs || masked(a.s.UUIDs.Current) == drbd.UUIDJustCreated || len(a.bits) != 0 {
				t.Fatalf("both %v: %+v and %+v, marked %v", both, a.s.UUIDs, b.s.UUIDs, a.bits)
			}
			p.cut()
			p.cable = true
			p.settle(rng())
		}
		if a.answers[ida] != nil || b.answers[idb] != nil {
			t.Error("refused", a.answers[ida], b.answers[idb])
		}
		if err := a.do(SkipInitialSync{}); code(err) != drbd.SSNotSupported {
			t.Errorf("a second time: %v", err)
		}
	}
}

// TestSkipInitialSyncLost: the peer never hears of it. Its copy is still a fresh one, and gets all blocks.
func TestSkipInitialSyncLost(t *testing.T) {
	p, a, b := upPair(t)
	a.data[2] = 7
	a.do(SkipInitialSync{})
	p.cut()
	p.cable = true
	p.settle(rng())
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	if a.data != b.data {
		t.Errorf("%v and %v", a.data, b.data)
	}
}

func TestSkipInitialSyncRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(s *State)
		code    drbd.RetCode
	}{
		"no link":         {func(s *State) { s.Conn = proto.WFConnection }, drbd.SSNeedConnection},
		"busy":            {func(s *State) { s.Conn = proto.SyncTarget }, drbd.SSResyncRunning},
		"no disk":         {func(s *State) { s.Disk = proto.Diskless }, drbd.SSNoLocalDisk},
		"no peer disk":    {func(s *State) { s.PeerDisk = proto.Diskless }, drbd.SSNoRemoteDisk},
		"a used disk":     {func(s *State) { s.UUIDs.Current = 0x500 }, drbd.SSNotSupported},
		"a used peer":     {func(s *State) { s.PeerUUIDs.Current = 0x500 }, drbd.SSNotSupported},
		"Primary":         {func(s *State) { s.Role = proto.Primary }, drbd.SSNotSupported},
		"a Primary peer":  {func(s *State) { s.PeerRole = proto.Primary }, drbd.SSNotSupported},
		"a good peer":     {func(s *State) { s.PeerDisk = proto.UpToDate }, drbd.SSNotSupported},
		"another request": {func(s *State) { s.Pending.Kind = PendingPromote }, drbd.SSInTransientState},
	} {
		_, a, _ := upPair(t)
		s := a.s
		c.prepare(&s)
		if ns, fx, err := Step(s, SkipInitialSync{ID: 1}); code(err) != c.code || ns != s || fx != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFailedBlocks(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	a.write(1, 1)
	p.cable = true
	p.until(t, func() bool { return b.s.Conn == proto.SyncTarget })
	before := b.s.UUIDs
	b.do(ResyncDone{Failed: 1})
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.Inconsistent, proto.UpToDate)
	if b.s.UUIDs != before {
		t.Error("UUIDs were rotated although blocks failed")
	}
	a.do(PeerState{State: b.s.Word(), Bits: 1, Failed: 1})
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Inconsistent)
	if a.s.UUIDs.Bitmap == 0 {
		t.Error("the source forgot what the target lacks")
	}
}

func TestAbortedResyncStaysUnusable(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	a.write(1, 1)
	p.cable = true
	p.until(t, func() bool { return b.s.Conn == proto.WFBitMapT })
	want(t, b, proto.Secondary, proto.Primary, proto.WFBitMapT, proto.Outdated, proto.UpToDate)
	w := a.s.Word()
	w.Disk, w.Conn = proto.Failed, proto.Connected
	b.do(PeerState{State: w})
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.Outdated, proto.Failed)
	var r *Refusal
	if err := b.do(Promote{}); !errors.As(err, &r) {
		t.Error("an old copy could be promoted")
	}
}

func TestRefusalText(t *testing.T) {
	r := refuse(drbd.SSTwoPrimaries, "promote")
	if r.Error() != "promote: the peer is Primary (SS_TWO_PRIMARIES): demote the peer first" || r.Retry {
		t.Error(r.Error())
	}
	if !refuse(drbd.SSInTransientState, "x").Retry {
		t.Error("a transient state is worth another try")
	}
}

// TestSkipInitialSyncOldState: a state of the peer from before it heard does not undo what was decided; writes that a
// Primary makes then go to both.
func TestSkipInitialSyncOldState(t *testing.T) {
	p, a, b := upPair(t)
	old := b.s.Word()
	a.do(SkipInitialSync{})
	a.do(PeerState{State: old})
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	p.settle(rng())
	w := b.s.Word()
	w.Disk = proto.Inconsistent
	a.do(PeerState{State: w})
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Inconsistent)
}

// deliverFrom hands over what a node has sent on the data socket.
func (p *simPair) deliverFrom(n *simNode) {
	for len(n.out[0]) > 0 {
		pkt := n.out[0][0]
		n.out[0] = n.out[0][1:]
		n.peer.receive(pkt)
	}
}

// TestOutdatedBesideDiskless: a copy that an operator has declared Outdated meets a peer without a disk, which then attaches an
// older one. The newer copy is not overwritten from that.
func TestOutdatedBesideDiskless(t *testing.T) {
	for _, how := range []string{"while connected", "before it connects", "both disks while connected"} {
		t.Run(how, func(t *testing.T) {
			p, a, b := syncedPair(t)
			if _, err := b.command(func(id CommandID) Event { return Detach{ID: id} }); err != nil {
				t.Fatal(err)
			}
			p.settle(rng())
			a.write(1, 99)
			_ = a.do(Disconnect{Force: true})
			p.settle(rng())
			_ = a.do(Demote{})
			if err := a.do(Outdate{}); err != nil {
				t.Fatal(err)
			}
			if how == "both disks while connected" {
				_ = a.do(Detach{})
				p.settle(rng())
			}
			_ = a.do(Connect{})
			p.settle(rng())
			if how == "both disks while connected" {
				_ = a.attach()
				p.settle(rng())
			}
			want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.Outdated, proto.Diskless)
			want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.Diskless, proto.Inconsistent)
			if a.md.Flags&(MDConsistent|MDWasUpToDate) != MDConsistent {
				t.Errorf("flags %x", a.md.Flags)
			}
			for _, n := range p.n {
				var r *Refusal
				if err := promote(t, p, n, false); !errors.As(err, &r) || r.Code != drbd.SSNoUpToDateDisk {
					t.Errorf("%s: promotion without a good copy: %v", n.name, err)
				}
			}
			a.receive(SendChangeReq{Change: change(drbd.MaskRole, drbd.State{Role: proto.Primary})}) // a kernel would ask
			if last := a.out[1][len(a.out[1])-1].(SendChangeReply); last.Code != drbd.SSNoUpToDateDisk {
				t.Errorf("a promotion without a good copy is granted: %v", last.Code)
			}
			a.out[1] = nil
			if how == "before it connects" {
				p.cut()
				p.settle(rng())
				_ = b.attach()
				p.cable = true
			} else {
				_ = b.attach()
			}
			inSync(t, p)
			if a.data[1] != 99 || b.data != a.data {
				t.Errorf("%v and %v", a.data, b.data)
			}
		})
	}
}

// TestPrimaryOnThePeersDisk: a node without a disk is promoted on the copy of a peer that was Primary before, and loses it. Its
// own old disk is not taken into use beneath the application. The peer's copy is known as the right one when it is back, unless
// the peer is a kernel, which does not tell of its generation.
func TestPrimaryOnThePeersDisk(t *testing.T) {
	for _, kernel := range []bool{false, true} {
		p, a, b := syncedPair(t)
		_ = a.do(Demote{})
		p.settle(rng())
		if _, err := b.command(func(id CommandID) Event { return Detach{ID: id} }); err != nil {
			t.Fatal(err)
		}
		p.settle(rng())
		old := b.s.Exposed
		if err := promote(t, p, a, false); err != nil {
			t.Fatal(err)
		}
		a.write(1, 99)
		_ = a.do(Demote{})
		p.settle(rng())
		if kernel {
			b.s.Exposed = old
		}
		if err := promote(t, p, b, false); err != nil {
			t.Fatal(err)
		}
		if !kernel && masked(b.s.Exposed) != masked(a.s.UUIDs.Current) {
			t.Errorf("%X is in use, %X is known", a.s.UUIDs.Current, b.s.Exposed)
		}
		p.crash(0)
		p.settle(rng())
		_ = b.attach()
		p.settle(rng())
		want(t, b, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.Diskless, proto.DUnknown)
		if kernel {
			continue
		}
		_ = a.attach()
		_ = a.do(Connect{})
		p.settle(rng())
		want(t, b, proto.Primary, proto.Secondary, proto.Connected, proto.Diskless, proto.UpToDate)
	}
}

// TestTakeoverFromDiskless: a Primary without a disk waits for its peer's copy, which is taken into use by the peer meanwhile,
// perhaps after a loss of power, or after a resync began that the disk has not heard of. It does not go on with what was changed
// there; demoted, it follows with the bitmap.
func TestTakeoverFromDiskless(t *testing.T) {
	for _, c := range []struct{ crash, unheard bool }{{}, {crash: true}, {unheard: true}} {
		p, a, b := syncedPair(t)
		a.s.OnNoData = NoDataSuspends
		if _, err := a.command(func(id CommandID) Event { return Detach{ID: id} }); err != nil {
			t.Fatal(err)
		}
		p.settle(rng())
		if c.unheard { // a resync began since, of which the peer's disk knows nothing
			u := &b.s.UUIDs
			u.Bitmap, u.History0, u.History1 = u.Bitmap+syncUUIDOffset, u.Bitmap, u.History0
		}
		if c.crash {
			p.crash(1)
			_ = b.attach()
			_ = b.do(Connect{})
		}
		p.cut()
		if err := promote(t, p, b, false); err != nil {
			t.Fatal(err)
		}
		b.write(1, 99)
		_ = b.do(Demote{})
		p.cable = true
		p.settle(rng())
		if a.s.Conn >= proto.Connected || !a.s.SuspNoD {
			t.Fatalf("%+v: the Primary goes on beneath its application with what the peer has changed: %+v", c, a.s)
		}
		_ = a.do(Demote{})
		for _, n := range p.n {
			n.notes = nil
			_ = n.do(Connect{})
		}
		p.settle(rng())
		_ = a.attach()
		p.settle(rng())
		want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
		if a.data != b.data {
			t.Errorf("%+v: %v and %v", c, a.data, b.data)
		}
		for _, note := range append(a.notes, b.notes...) {
			if strings.Contains(note, "result 2)") || strings.Contains(note, "result -2)") {
				t.Errorf("%+v: a full resync: %s", c, note)
			}
		}
	}
}

// TestDetachedIsOutdated: a node lets its disk go while the peer's is good, writes through that one, and both lose their power.
// The disk, back alone, is not taken for the good one, and does not have the peer fenced; back with the peer it is.
func TestDetachedIsOutdated(t *testing.T) {
	for _, force := range []bool{false, true} {
		p, a, b := syncedPair(t)
		a.s.Fencing, b.s.Fencing = FencingAndSuspendIO, FencingAndSuspendIO
		detach := func() {
			if _, err := a.command(func(id CommandID) Event { return Detach{ID: id, Force: force} }); err != nil {
				t.Fatal(err)
			}
			p.settle(rng())
			want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.Diskless, proto.UpToDate)
		}
		detach()
		_ = a.attach()
		inSync(t, p)
		detach()
		b.data[1], b.bits[1] = 99, true // written by a
		for i, n := range p.n {
			p.crash(i)
			n.s.Fencing = FencingAndSuspendIO
		}
		_ = a.attach()
		_ = b.attach()
		want(t, a, proto.Secondary, proto.RoleUnknown, proto.StandAlone, proto.Outdated, proto.DUnknown)
		if err := promote(t, p, a, false); code(err) != drbd.SSNoUpToDateDisk || b.s.Disk < proto.Consistent {
			t.Errorf("promotion of the copy that was detached: %v; the peer's is %v", err, b.s.Disk)
		}
		_, _ = a.do(Connect{}), b.do(Connect{})
		inSync(t, p)
		if a.data[1] != 99 {
			t.Errorf("%v and %v", a.data, b.data)
		}
	}
}

// TestFailedIsInconsistent: a Primary's disk refuses what the peer takes, and the link breaks before the peer hears of that. It
// has no generation of its own then; the disk, attached again, does not win as that of a crashed Primary.
func TestFailedIsInconsistent(t *testing.T) {
	p, a, b := syncedPair(t)
	_ = a.do(DiskError{Text: "injected"})
	b.data[1] = 99 // written by a
	p.cut()
	p.settle(rng())
	want(t, a, proto.Primary, proto.RoleUnknown, proto.WFConnection, proto.Diskless, proto.DUnknown)
	if _, err := a.command(func(id CommandID) Event { return Demote{ID: id} }); err != nil {
		t.Fatal(err)
	}
	a.bits[1] = true // the activity log
	_ = a.attach()
	want(t, a, proto.Secondary, proto.RoleUnknown, proto.WFConnection, proto.Inconsistent, proto.DUnknown)
	if err := promote(t, p, a, false); code(err) != drbd.SSNoUpToDateDisk {
		t.Errorf("promotion of the copy that failed: %v", err)
	}
	p.cable = true
	p.settle(rng())
	inSync(t, p)
	if a.data[1] != 99 || b.data[1] != 99 {
		t.Errorf("%v and %v", a.data, b.data)
	}
}

// TestCutBeforeTheSourceBegins: a source missed the end of a resync, went on alone, and loses its power when the histories have
// been compared and the resync of what it wrote has not begun. The next comparison leads to that again.
func TestCutBeforeTheSourceBegins(t *testing.T) {
	p, a, b := syncedPair(t)
	p.cut()
	p.settle(rng())
	a.write(3, 77)
	p.cable = true
	p.until(t, func() bool { return b.s.Conn == proto.SyncTarget })
	b.data[3] = 77 // and nobody hears that it has
	b.bits = map[int]bool{}
	_ = b.do(ResyncDone{})
	p.cut()
	p.settle(rng())
	a.write(4, 55)
	_ = a.do(Demote{})
	p.cable = true
	p.until(t, func() bool { return a.s.Conn == proto.WFBitMapS })
	p.crash(0)
	p.settle(rng())
	_ = a.attach()
	_ = a.do(Connect{})
	inSync(t, p)
	if a.data[4] != 55 || a.data != b.data {
		t.Errorf("%v and %v", a.data, b.data)
	}
}

// TestAttachBesideDetach: a copy that is Outdated, though its node went down as Primary, is attached while the peer lets
// its own disk go, and the peer attaches again before it has heard. Both must come to the same, and not each be the target
// of the other.
func TestAttachBesideDetach(t *testing.T) {
	p, a, b := syncedPair(t)
	p.crash(0)
	a.md.Flags = a.md.Flags&^MDWasUpToDate | MDCrashedPrimary
	p.settle(rng())
	if err := a.do(Connect{}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.Diskless)
	if err := b.do(Detach{Force: true}); err != nil { // its word is under way
		t.Fatal(err)
	}
	if err := a.attach(); err != nil { // and so is this one's
		t.Fatal(err)
	}
	p.housework(rng())
	if err := b.attach(); err != nil {
		t.Fatal(err)
	}
	p.deliverFrom(a)
	p.deliverFrom(b)
	p.settle(rng())
	want(t, a, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
}

// TestAttachOfBoth: both nodes of a pair, one of them Primary, let their disks go and attach them again before they have
// heard of each other's attach. What was said before does not count, or each would begin a generation of its own.
func TestAttachOfBoth(t *testing.T) {
	p, a, b := syncedPair(t)
	if err := a.do(Detach{Force: true}); err != nil {
		t.Fatal(err)
	}
	p.deliverFrom(a)
	if err := b.do(Detach{Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, n := range p.n {
		n.do(DiskReleased{})
		n.todo = nil
		if err := n.attach(); err != nil {
			t.Fatal(err)
		}
	}
	p.deliverFrom(b)
	p.deliverFrom(a)
	p.settle(rng())
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
}

// TestGrowBesideVerify: a verify that is asked for while the device grows is refused; the resync comes first.
func TestGrowBesideVerify(t *testing.T) {
	p, a, b := syncedPair(t)
	a.s.PeerSize, b.s.OwnSize = 2000, 2000
	id, err := b.command(func(id CommandID) Event { return Verify{ID: id} })
	if err != nil {
		t.Fatal(err)
	}
	if err := a.do(Resize{OwnSize: 2000}); err != nil {
		t.Fatal(err)
	}
	p.settle(rng())
	if err := b.answers[id]; code(err) != drbd.SSInTransientState {
		t.Errorf("verify: %v", err)
	}
	want(t, a, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
	want(t, b, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
}

// TestGrowBesidePromotion: the device grows on one node while the other one's promotion, granted already, has not been
// answered yet. Who is Primary is the source of the new part, and both must mean the same node by that.
func TestGrowBesidePromotion(t *testing.T) {
	for _, grant := range []bool{true, false} {
		for _, tie := range []bool{true, false} {
			p, a, b := syncedPair(t)
			a.command(func(id CommandID) Event { return Demote{ID: id} })
			p.settle(rng())
			a.s.ResolveConflicts, b.s.ResolveConflicts = tie, !tie
			a.s.PeerSize, b.s.OwnSize = 2000, 2000
			id, err := b.command(func(id CommandID) Event { return Promote{ID: id} })
			if err != nil {
				t.Fatal(err)
			}
			if grant {
				p.deliverFrom(b)
			}
			if err := a.do(Resize{OwnSize: 2000}); err != nil {
				t.Fatal(err)
			}
			for _, ev := range []Event{Promote{}, Resize{OwnSize: 2000}} {
				if err := a.do(ev); code(err) != drbd.SSInTransientState {
					t.Errorf("%T while the direction is open: %v", ev, err)
				}
			}
			p.deliverFrom(a) // the answer to the promotion, on the other socket, comes later
			p.deliverFrom(b)
			p.deliverFrom(a)
			p.settle(rng())
			if err, ok := b.answers[id]; err != nil || !ok {
				t.Fatal(err, ok)
			}
			want(t, b, proto.Primary, proto.Secondary, proto.Connected, proto.UpToDate, proto.UpToDate)
			want(t, a, proto.Secondary, proto.Primary, proto.Connected, proto.UpToDate, proto.UpToDate)
			if a.s.Size != 2000 || b.s.Size != 2000 || a.s.UUIDs.History0 != b.s.UUIDs.History0 || masked(a.s.UUIDs.History0) == 0x4 {
				t.Errorf("not resynced: %v %v", a.s.UUIDs, b.s.UUIDs)
			}
		}
	}
}

// TestFullStartUnheard: the target of a full resync bears a generation that is the last one in the source's history, and
// again and again the link breaks when the source has begun and the target has not heard of it, and the source is promoted alone.
func TestFullStartUnheard(t *testing.T) {
	p, a, b := syncedPair(t)
	old, oldData := b.md, b.data
	for v := byte(1); v <= 2; v++ { // each time the copies part and come together again
		p.cut()
		p.settle(rng())
		a.write(3, v)
		p.cable = true
		if inSync(t, p); v == 1 {
			old = b.md
			oldData = b.data
		}
	}
	p.cut()
	p.settle(rng())
	a.write(4, 55)
	p.crash(1)
	b.md, b.data, b.bits = old, oldData, map[int]bool{} // an old disk is put back
	_ = b.attach()
	_ = b.do(Connect{})
	for range 3 {
		p.cable = true
		p.until(t, func() bool { return a.s.Conn == proto.SyncSource })
		p.cut()
		p.settle(rng())
		_ = a.do(Demote{})
		if err := promote(t, p, a, false); err != nil {
			t.Fatal(err)
		}
		a.write(5, a.data[5]+1)
	}
	p.cable = true
	inSync(t, p)
	if a.data != b.data || a.s.UUIDs.masked() != b.s.UUIDs.masked() {
		t.Errorf("%v and %v, %v and %v", a.data, b.data, a.s.UUIDs, b.s.UUIDs)
	}
}
