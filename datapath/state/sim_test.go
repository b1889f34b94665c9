package state

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// simNode carries out the effects of a machine as an engine would, against a disk that survives a crash and a set of
// dirty blocks, and talks to another simNode over two queues.
type simNode struct {
	name  string
	s     State
	md    PersistMD       // on disk
	bits  map[int]bool    // own bitmap, in memory and on disk alike
	data  [simBlocks]byte // contents
	inUse bool

	out      [2][]any // data and meta packets on their way to the peer
	peer     *simNode
	link     bool   // sockets are open
	told     uint64 // bits announced
	own      uint64 // usable sectors of its disk
	unacked  bool   // a write waits for the peer's acknowledgement
	features uint32

	answers  map[CommandID]error
	notes    []string
	fail     func(format string, args ...any)
	trace    func(format string, args ...any)
	wantLink bool
	next     CommandID
	todo     []Event // what the engine owes: LinkClosed, DiskReleased
	promos   map[CommandID]bool
	fence    func(n *simNode) int // the handler fence-peer
}

const simBlocks = 8

type bitmapPacket map[int]bool

type outOfSync int // block

// simPair is two nodes and a cable.
type simPair struct {
	n     [2]*simNode
	cable bool
	grows bool
}

func newSimPair(fail func(string, ...any)) *simPair {
	p := &simPair{cable: true}
	for i := range p.n {
		p.n[i] = &simNode{
			name: fmt.Sprintf("n%d", i+1), s: New(IOErrorDetach, uint64(1000*(i+1))), bits: map[int]bool{},
			md: PersistMD{UUIDs: UUIDs{Current: drbd.UUIDJustCreated}}, answers: map[CommandID]error{}, fail: fail,
			own: 1000, features: drbd.FeatureWSame, promos: map[CommandID]bool{}, fence: outdateOther,
		}
	}
	p.n[0].peer, p.n[1].peer = p.n[1], p.n[0]
	p.n[0].s.CanVerify, p.n[1].s.CanVerify = true, true
	p.n[0].s.OnCongestion, p.n[1].s.OnCongestion = CongestionPullsAhead, CongestionPullsAhead
	return p
}

func (n *simNode) id() CommandID { n.next++; return n.next }

// outdateOther is the usual fence-peer: it reaches the other node by another way and runs outdate there.
func outdateOther(n *simNode) int {
	o := n.peer
	switch {
	case o.s.Role == proto.Primary:
		return peerPrimary
	case o.s.Disk == proto.Inconsistent:
		return peerInconsistent
	case o.s.Disk < proto.Inconsistent: // the real one works on the metadata of a node that is down
		if o.md.Flags&MDWasUpToDate == 0 || o.s.Disk != proto.Diskless {
			return 0
		}
		o.md.Flags &^= MDWasUpToDate
		return peerOutdated
	case o.s.Conn >= proto.WFReportParams || o.do(Outdate{}) != nil:
		return 0
	default:
		return peerOutdated
	}
}

// do feeds one event and carries out the effects.
func (n *simNode) do(ev Event) error {
	old := n.s
	s, fx, err := Step(n.s, ev)
	if err != nil {
		if s != old || fx != nil {
			n.fail("%s: refused %T (%v) but changed state or has effects", n.name, ev, err)
		}
		if _, ok := err.(*Refusal); !ok {
			n.fail("%s: error of %T is not a Refusal: %v", n.name, ev, err)
		}
		return err
	}
	n.s = s
	if n.trace != nil {
		n.trace("%s: %T%+v\n    %s\n    %T%+v", n.name, ev, ev, changes(old, s), fx, fx)
	}
	if msg := invariants(old, s, fx, ev); msg != "" {
		n.fail("%s: %T%+v: %s\n old %+v\n new %+v\n effects %+v", n.name, ev, ev, msg, old, s, fx)
	}
	for _, f := range fx {
		n.effect(f)
	}
	return nil
}

func (n *simNode) send(sock int, p any) {
	if n.link {
		n.out[sock] = append(n.out[sock], p)
	}
}

func (n *simNode) effect(f Effect) {
	switch e := f.(type) {
	case PersistMD:
		n.md = e
	case SetAllBits:
		for i := range simBlocks {
			n.bits[i] = true
		}
	case ClearAllBits:
		n.bits = map[int]bool{}
	case ReleaseDisk:
		n.md.Flags &^= e.Clear
		n.todo = append(n.todo, DiskReleased{})
	case CloseLink:
		n.closeLink()
		n.todo = append(n.todo, LinkClosed{})
	case StartConnecting:
		n.wantLink = true
	case FencePeer:
		n.todo = append(n.todo, FencePeerDone{Exit: n.fence(n)})
	case SendSizes:
		sizes := drbd.Sizes{Disk: n.s.OwnSize, Current: n.s.Size}
		if e.Ask {
			sizes.Current = 0
		}
		if e.NoResync {
			sizes.Flags = drbd.SizesNoResync
		}
		n.send(0, sizes)
	case SendUUIDs:
		u := e.UUIDs
		if n.told = uint64(len(n.bits)); e.Counted {
			n.told = e.Bits
		}
		n.send(0, drbd.UUIDs{Current: u.Current, Bitmap: u.Bitmap, History0: u.History0, History1: u.History1,
			Bits: n.told, Flags: e.Flags})
	case SendState, SendSyncUUID, SendChangeReq:
		n.send(0, f)
	case SendChangeReply:
		n.send(1, f)
	case SendBitmap:
		b := bitmapPacket{}
		for k := range n.bits {
			b[k] = true
		}
		n.send(0, b)
	case AnswerCommand:
		if _, ok := n.answers[e.ID]; ok {
			n.fail("%s: command %d answered twice", n.name, e.ID)
		}
		n.answers[e.ID] = e.Err
	case RunHandler:
		n.notes = append(n.notes, "handler "+e.Name+"\n")
	case Notify:
		n.notes = append(n.notes, e.Text)
	}
}

// closeLink closes this end; what was sent still arrives, the peer then sees the end of the stream.
func (n *simNode) closeLink() {
	n.wantLink = false
	if n.link {
		n.link = false
		n.out[0] = append(n.out[0], LinkLost{Reason: proto.BrokenPipe})
	}
}

// receive hands one packet of a socket to the state machine.
func (n *simNode) receive(p any) {
	switch e := p.(type) {
	case drbd.Sizes:
		ev := PeerSizes{Sizes: e}
		if n.s.Conn == proto.Connected && e.Disk > n.s.PeerSize && n.s.Attached() {
			ev.OwnSize = n.own
		}
		n.do(ev)
	case drbd.UUIDs:
		n.do(PeerUUIDsReceived{e})
	case SendState:
		n.do(PeerState{State: e.State, Bits: uint64(len(n.bits)), Told: n.told})
	case SendSyncUUID:
		n.do(SyncUUIDReceived{e.UUID})
	case SendChangeReq:
		n.do(PeerChangeReq{e.Change, e.ConnWide})
	case SendChangeReply:
		n.do(PeerChangeReply{e.Code})
	case bitmapPacket:
		for k := range e {
			n.bits[k] = true
		}
		n.do(BitmapReceived{})
	case outOfSync:
		n.bits[int(e)] = true
	case LinkLost:
		n.link = false
		n.wantLink = false
		n.do(e)
	}
}

// deliver moves one packet that is under way, if there is one.
func (p *simPair) deliver(r *rand.Rand) bool {
	type way struct{ from, sock int }
	var ways []way
	for i, n := range p.n {
		for s := range n.out {
			if len(n.out[s]) > 0 {
				if _, end := n.out[s][0].(LinkLost); end && len(n.out[1-s]) > 0 {
					continue // the engine reads what came before the end of either socket
				}
				ways = append(ways, way{i, s})
			}
		}
	}
	if len(ways) == 0 {
		return false
	}
	w := ways[r.IntN(len(ways))]
	from, to := p.n[w.from], p.n[1-w.from]
	pkt := from.out[w.sock][0]
	from.out[w.sock] = from.out[w.sock][1:]
	if to.link {
		to.receive(pkt)
	}
	return true
}

// housework does one thing that engines do by themselves; false if there is nothing to do.
func (p *simPair) housework(r *rand.Rand) bool {
	for _, i := range r.Perm(2) {
		n := p.n[i]
		if len(n.todo) > 0 {
			// A link counts as closed only when the other end's packets are gone.
			ev := n.todo[0]
			n.todo = n.todo[1:]
			n.do(ev)
			return true
		}
		if n.s.Conn == proto.VerifyS && n.peer.s.Conn == proto.VerifyT {
			n.compare()
			return true
		}
		if n.s.Conn == proto.SyncTarget {
			n.resyncOne()
			return true
		}
		if n.s.Conn == proto.Ahead {
			n.do(CaughtUp{})
			return true
		}
	}
	a, b := p.n[0], p.n[1]
	if p.cable && a.wantLink && b.wantLink && a.s.Conn == proto.WFConnection && b.s.Conn == proto.WFConnection {
		a.out, b.out = [2][]any{}, [2][]any{}
		a.link, b.link, a.wantLink, b.wantLink = true, true, false, false
		tie := r.IntN(2) == 0
		a.do(LinkUp{ResolveConflicts: tie, Features: a.features & b.features})
		b.do(LinkUp{ResolveConflicts: !tie, Features: a.features & b.features})
		return true
	}
	return false
}

// resyncOne copies one block from the source, without packets: both ends clear the bit together.
func (n *simNode) resyncOne() {
	for i := range simBlocks {
		if n.bits[i] {
			if c := n.peer.s.Conn; c != proto.SyncSource && c != proto.PausedSyncS {
				return
			}
			n.data[i] = n.peer.data[i]
			delete(n.bits, i)
			delete(n.peer.bits, i)
			return
		}
	}
	n.do(ResyncDone{})
}

// compare is a whole verify without packets: both ends mark what differs.
func (n *simNode) compare() {
	for i := range simBlocks {
		if n.data[i] != n.peer.data[i] {
			n.bits[i], n.peer.bits[i] = true, true
		}
	}
	n.do(VerifyDone{})
}

// write is one application write on a Primary.
func (n *simNode) write(block int, v byte) {
	if n.s.Role != proto.Primary || n.s.Disk < proto.Inconsistent || n.s.Suspended() {
		return
	}
	n.data[block] = v
	if n.link && n.s.Replicates() && n.peer.link && n.peer.s.Disk >= proto.Negotiating {
		n.peer.data[block] = v // DATA is not held back by this simulation, though the answer to a late attach may be
		return
	}
	if n.link && n.s.Conn == proto.Ahead {
		n.send(0, outOfSync(block))
	}
	n.bits[block] = true
	n.unacked = n.link && n.s.Replicates()
	if n.link && n.peer.link && n.s.Conn == proto.WFBitMapS {
		n.peer.bits[block] = true
	}
}

func (p *simPair) cut() {
	p.cable = false
	for _, n := range p.n {
		n.out = [2][]any{}
	}
	for _, n := range p.n {
		if n.link {
			n.link = false
			n.do(LinkLost{Reason: proto.NetworkFailure})
		}
	}
}

// crash loses all memory of a node and starts it again, without disk and link.
func (p *simPair) crash(i int) {
	n := p.n[i]
	if n.md.Flags&MDPrimary != 0 && n.s.Role == proto.Primary {
		for b := range simBlocks {
			n.bits[b] = true // what the activity log covers
		}
	}
	for id := CommandID(1); id <= n.next; id++ { // nobody waits any more
		n.answers[id] = nil
	}
	old := n.s
	n.s = New(IOErrorDetach, n.s.Seed+12345)
	n.s.CanVerify, n.s.Fencing, n.s.OnNoData, n.s.OnCongestion = true, old.Fencing, old.OnNoData, old.OnCongestion
	n.s.AfterSB, n.s.AlwaysASBP = old.AfterSB, old.AlwaysASBP
	n.out, n.todo, n.wantLink = [2][]any{}, nil, false
	n.link = false
	if o := p.n[1-i]; o.link {
		o.link, o.out = false, [2][]any{}
		o.do(LinkLost{Reason: proto.NetworkFailure})
	}
}

// until goes on, packets first, until cond holds.
func (p *simPair) until(t *testing.T, cond func() bool) {
	t.Helper()
	for !cond() {
		if !p.deliver(rng()) && !p.housework(rng()) {
			t.Fatalf("nothing is left to do: %v %v and %v %v\n%s", p.n[0].s.Conn, p.n[0].s.UUIDs, p.n[1].s.Conn, p.n[1].s.UUIDs, strings.Join(p.n[0].notes, "\n"))
		}
	}
}

// settle lets everything run until nothing is left to do.
func (p *simPair) settle(r *rand.Rand) {
	for range 2000 {
		if !p.deliver(r) && !p.housework(r) {
			return
		}
	}
	p.n[0].fail("does not settle:\n %+v\n %+v", p.n[0].s, p.n[1].s)
}

func (n *simNode) attach() error {
	if err := n.do(AttachStart{}); err != nil {
		return err
	}
	id := n.id()
	ev := Attached{ID: id, UUIDs: n.md.UUIDs, Flags: n.md.Flags, Size: n.md.Size, OwnSize: n.own}
	if err := n.do(ev); err != nil {
		return n.do(AttachFailed{ID: id, Err: err})
	}
	return nil
}

// command runs a command and, if it was not refused, notes that an answer is due.
func (n *simNode) command(mk func(CommandID) Event) (CommandID, error) {
	id := n.id()
	ev := mk(id)
	if _, ok := ev.(Demote); ok && n.unacked && n.link {
		n.answers[id] = nil
		return id, nil // an engine would wait here
	}
	err := n.do(ev)
	if err != nil {
		n.answers[id] = err
	}
	return id, err
}

// invariants checks what must hold after every step.
func invariants(o, s State, fx []Effect, ev Event) string {
	w := s.Word()
	switch {
	case !w.Valid():
		return "state word out of range"
	case s.Conn < proto.Connected && s.PeerRole != proto.RoleUnknown:
		return "peer's role known without a connection"
	case s.Role == proto.Primary && s.PeerRole == proto.Primary:
		return "two Primaries"
	case s.Attached() && s.UUIDs.Current != 0 && (s.UUIDs.Current&1 == 1) != (s.Role == proto.Primary):
		return "bit 0 of the current UUID does not tell the role"
	case s.Conn > proto.Connected && (s.Disk < proto.Inconsistent || s.PeerDisk < proto.Inconsistent):
		return "resync without two disks"
	case s != sanitizedOrSame(s):
		return "state is not sanitized"
	case s.Flags != s.MDFlags():
		return "flags do not follow the state"
	case s.Conn.Verifying() && (o.Disk != proto.UpToDate || o.PeerDisk != proto.UpToDate):
		return "verify of a copy that is not UpToDate"
	case s.Conn == proto.StartingSyncS || s.Conn == proto.StartingSyncT:
		return "rests in the beginning of a full resync"
	case s.EarlySyncUUID != 0 && s.Pending.Kind != PendingInvalidate && !s.GrowDue:
		return "an early sync UUID is left over"
	case s.SuspFen && !unfenced(s) && !unaware(s):
		return "I/O waits for a peer that is fenced or knows that it is behind"
	case s.Fencing == FencingAndSuspendIO && unfenced(s) && !unfenced(o) && s.Disk >= proto.Inconsistent && !s.SuspFen && s.Disk >= proto.Consistent:
		return "I/O does not wait until the peer is fenced"
	case s.SuspNoD && !noGoodCopy(s):
		return "I/O waits though there is data"
	case s.OnNoData == NoDataSuspends && noGoodCopy(s) && !noGoodCopy(o) && !s.SuspNoD:
		return "I/O does not wait for data"
	case s.UUIDDue && !s.SuspFen:
		return "a new generation is overdue"
	case s.Fence.Promote && !s.Fence.Running:
		return "a promotion waits for nothing"
	case s.Pending.Kind != PendingNone && !s.Linked():
		return "a request is pending without a link"
	}
	if o.Role != proto.Primary && s.Role == proto.Primary {
		p, direct := ev.(Promote)
		forced := direct && p.Force || !direct && (o.Pending.Forced || o.Fence.Force)
		if o.Disk == proto.Consistent && o.Fence.Promote && s.PeerDisk <= proto.Outdated {
			forced = true // fence-peer has made sure of it
		}
		if !forced && o.Disk != proto.UpToDate && !(s.Conn >= proto.Connected && s.PeerDisk == proto.UpToDate) {
			return "promoted without UpToDate data"
		}
	}
	return ordered(o, s, fx)
}

func sanitizedOrSame(s State) State { return sanitize(s) }

// ordered checks bitmap before UUIDs, persist before acknowledge before announce.
func ordered(o, s State, fx []Effect) string {
	announced, persisted := "", false
	for _, f := range fx {
		switch f.(type) {
		case WriteBitmap:
			if persisted {
				return "the UUIDs tell of the end of a resync before the bitmap does: a cut in between leaves marks for ever"
			}
		case PersistMD, SetAllBits, ClearAllBits:
			persisted = true
			if announced != "" {
				return "announced before persisted: " + announced
			}
		case SendUUIDs, SendState, SendSyncUUID, SendChangeReply, AnswerCommand, SendBitmap, SendProtocol:
			announced = fmt.Sprintf("%T", f)
		}
	}
	if s.Attached() && (o.UUIDs != s.UUIDs || o.Flags != s.Flags || o.Size != s.Size) && !persisted {
		return "metadata changed and was not persisted"
	}
	if i := slices.IndexFunc(fx, func(f Effect) bool { _, ok := f.(PersistMD); return ok }); i >= 0 && !s.Attached() {
		return "metadata written without a disk"
	}
	return ""
}
