package datapath

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"example.com/santui/datapath/state"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Messages to the owner, besides commands.
type (
	// fromPeer is a packet of the conversation. The receiver waits if wait is set.
	fromPeer struct {
		l    *link
		ev   state.Event
		wait bool
	}
	linkLost struct {
		l     *link
		cause *linkError
	}
	linkMade struct {
		try   *attempt
		socks *sockets
		agree agreement
	}
	linkRefused struct {
		try *attempt
		err *linkError
	}
	linkEnded   struct{}
	diskOpened  struct{ found *found }
	diskRefused struct{ err error }
	diskLetGo   struct{ d *disk }
	diskFault   struct {
		d    *disk
		meta bool
		err  error
	}
	resyncFinished struct {
		rs     *resync
		failed uint64
	}
	drained        struct{ q *request } // for this demotion or detach
	verifyFinished struct{ v *verify }  // all that was asked for is compared
	verifyClosed   struct{ v *proto.Verify }
	congestion     struct { // writes to a link are more than configured
		l    *link
		text string
	}
	handlerEnded struct{ then func() }
)

// owner is the state of the owner goroutine. Nothing else touches it.
type owner struct {
	r    *Resource
	st   state.State
	link *link
	try  *attempt
	disk *disk
	rs   *resync

	ov       *verify       // nil unless this node compares
	ovFrom   int64         // of the verify that was asked for
	ovStops  []*request    // wait for its end
	verified *proto.Verify // the last outcome

	id        state.CommandID
	waiting   map[state.CommandID]*request
	retries   []*request
	attach    state.CommandID // the attach under way
	asked     time.Time       // since when the peer is silent about a disk that was attached; zero: it is not
	demote    *request        // waits until writes are drained
	parting   *request        // a detach that does
	resending bool            // what was kept is being written again
	closing   *request
	open      int
	failure   error // a disk effect of the present step failed

	waits string // resources whose resync goes first

	degraded bool // see Status

	handlers handlers
	told     uint64    // bits announced with the last UUIDs
	calm     time.Time // since when, as Ahead, nothing is under way

	lastUp   time.Time // of the last link, and how many in a row did not last
	upFails  int
	progress progress
	problem  string
	inSync   time.Time
}

// retryTime is how long a command that the state machine refuses for the moment is tried again.
const retryTime = 5 * time.Second

// own is the owner goroutine: it alone decides, one event after the other.
func (r *Resource) own() {
	defer close(r.gone)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails since Go 1.24
	o := &owner{r: r, st: r.cfg.initial(binary.NativeEndian.Uint64(seed[:])), waiting: map[state.CommandID]*request{}}
	o.handlers.ctx = ctx
	tick := time.NewTimer(time.Second)
	defer tick.Stop()
	var batch []any
	for !o.finished() {
		select {
		case <-r.inbox.wake:
		case <-tick.C:
			o.tick()
			tick.Reset(o.pace())
		}
		batch = r.inbox.take(batch)
		for i, m := range batch {
			o.handle(m)
			batch[i] = nil
		}
		if len(batch) > 0 && o.pace() < time.Second {
			tick.Reset(o.pace())
		}
	}
	if s := r.cfg.SyncOrder; s != nil {
		s.leave(r.cfg.Resource)
	}
	o.leave()
}

// pace is how often the owner looks at what changes without telling it.
func (o *owner) pace() time.Duration {
	if len(o.retries) > 0 {
		return 50 * time.Millisecond
	}
	if o.st.Conn.Syncing() || o.st.Conn.Verifying() || o.st.Conn == proto.Ahead {
		return 250 * time.Millisecond
	}
	return time.Second
}

func (o *owner) finished() bool {
	return o.closing != nil && o.st.Conn == proto.StandAlone && o.st.Disk == proto.Diskless
}

// leave answers everybody who still waits.
func (o *owner) leave() {
	for _, m := range o.r.inbox.close() {
		switch m := m.(type) {
		case *request:
			m.reply <- ErrClosed
		case linkMade:
			m.socks.close()
		}
	}
	for _, q := range o.waiting {
		q.reply <- ErrClosed
	}
	for _, q := range append(o.retries, o.ovStops...) {
		q.reply <- ErrClosed
	}
	o.closing.reply <- nil
}

func (o *owner) handle(m any) {
	switch m := m.(type) {
	case *request:
		o.command(m)
	case fromPeer:
		if !o.handledFirst(m) {
			o.deliver(m)
		}
	case handlerEnded:
		m.then()
	case linkLost:
		o.linkLost(m)
	case linkMade:
		o.linkMade(m)
	case linkRefused:
		if m.try == o.try {
			_ = o.step(state.PeerRejected{Text: m.err.Error()})
		}
	case linkEnded:
		_ = o.step(state.LinkClosed{})
	case diskOpened:
		o.diskOpened(m.found)
	case diskRefused:
		_ = o.step(state.AttachFailed{ID: o.attach, Err: m.err})
	case diskLetGo:
		_ = o.step(state.DiskReleased{})
	case diskFault:
		o.diskFault(&m)
	case resyncFinished:
		if m.rs == o.rs {
			_ = o.step(state.ResyncDone{Failed: m.failed})
		}
	case verifyFinished:
		if m.v == o.ov {
			_ = o.step(state.VerifyDone{})
		}
	case verifyClosed:
		o.verifyOutcome(m.v)
	case congestion:
		o.congested(m)
	case syncTurn:
		o.waits = m.waits
		o.takeTurn()
	case resent:
		o.resent(m)
	case drained:
		switch m.q {
		case o.demote:
			o.demoteNow()
		case o.parting:
			o.detachNow()
		}
	}
}

// deliver hands a packet to the state machine and lets its receiver go on.
func (o *owner) deliver(m fromPeer) {
	if m.l == o.link {
		o.fromPeer(m.ev)
	}
	if m.wait {
		select {
		case m.l.answered <- struct{}{}:
		default: // the link died and its receiver did not wait
		}
	}
}

// fromPeer adds to a packet what the state machine must know besides.
func (o *owner) fromPeer(ev state.Event) {
	if e, ok := ev.(state.PeerState); ok {
		if o.disk != nil {
			e.Bits, e.Failed = o.disk.bm.Weight(), o.link.asked.bad(o.disk.bm)
		}
		e.UnderWay = o.r.traffic.underWay()
		e.Told = o.told
		ev = e
	}
	if e, ok := ev.(state.PeerSizes); ok && o.st.Conn == proto.Connected && e.Sizes.Disk > o.st.PeerSize && o.disk != nil {
		own, err := o.grown() // the operator has enlarged both disks and asks on one node
		if err != nil {
			o.r.event(proto.LevelWarn, "%s has grown to %d MiB, which this node cannot follow: %v", o.r.cfg.Peer, e.Sizes.Disk>>11, err)
		}
		e.OwnSize = own
		ev = e
	}
	_ = o.step(ev)
}

func (o *owner) linkLost(m linkLost) {
	if m.l != o.link {
		return
	}
	if m.cause.kind == proto.ProtocolError {
		o.r.traffic.badPackets.Add(1)
	}
	if breaks(m.cause.kind) {
		o.r.broken.Add(1)
	}
	if time.Since(o.lastUp) < shortLink {
		o.upFails++
	}
	if m.cause.fatal {
		_ = o.step(state.PeerRejected{Text: m.cause.Error()})
		return
	}
	_ = o.step(state.LinkLost{Reason: m.cause.kind, Text: m.cause.Error()})
}

func (o *owner) linkMade(m linkMade) {
	if m.try != o.try || o.st.Conn != proto.WFConnection {
		m.socks.close()
		return
	}
	o.try.wait()
	o.try = nil
	if o.lastUp = time.Now(); o.upFails > 8 {
		o.upFails = 8
	}
	o.link = newLink(o.r, m.socks, m.agree)
	_ = o.step(state.LinkUp{ResolveConflicts: m.socks.resolve(), Features: m.agree.features, DRBD9: m.agree.nine})
	if o.link != nil {
		o.r.linked.Store(o.link)
		o.link.start()
	}
}

func (o *owner) diskOpened(f *found) {
	o.disk = f.disk
	for _, n := range f.notes {
		o.r.event(n.level, "%s", n.text)
	}
	sb := f.disk.md.Superblock()
	ev := state.Attached{
		ID:    o.attach,
		UUIDs: state.UUIDs{Current: sb.UUIDs.Current, Bitmap: sb.UUIDs.Bitmap, History0: sb.UUIDs.History[0], History1: sb.UUIDs.History[1]},
		Flags: state.MDFlags(sb.Flags) & mdFlags,
		Size:  uint64(sb.AgreedSize / 512), OwnSize: uint64(f.disk.md.Layout().UsableSize / 512),
	}
	o.degraded = ev.Flags&(state.MDPrimary|state.MDConnected) == state.MDPrimary
	if err := o.step(ev); err != nil {
		// A handshake is under way; the disk waits for its end.
		q := o.waiting[o.attach]
		delete(o.waiting, o.attach)
		d := o.disk
		o.disk = nil
		_ = o.step(state.AttachFailed{Err: err})
		o.letGo(d, 0, func() {})
		if q != nil {
			o.refused(q, err)
		}
	}
}

// mdFlags are the flags of the superblock that the state machine knows.
const mdFlags = state.MDConsistent | state.MDPrimary | state.MDConnected | state.MDFullSync | state.MDWasUpToDate |
	state.MDPeerOutdated | state.MDCrashedPrimary | state.MDALDisabled

func (o *owner) diskFault(m *diskFault) {
	if m.d == o.disk {
		_ = o.step(state.DiskError{Meta: m.meta, Text: fmt.Sprintf("%s: %v", o.r.cfg.DiskPath, m.err)})
	}
}

// noticed sees to it that nothing is decided with a disk that has failed: a demotion would leave it as clean, and let a flush
// succeed. The message may be behind the event.
func (o *owner) noticed(ev state.Event) {
	if d := o.disk; d != nil && o.st.Disk >= proto.Negotiating && d.failed.Load() {
		if _, is := ev.(state.DiskError); !is {
			o.diskFault(d.fault.Load())
		}
	}
}

// step runs an event through the state machine and carries its effects out. The refusal of an event that is no command is
// for nobody; callers drop it.
func (o *owner) step(ev state.Event) error {
	o.noticed(ev)
	old := o.st
	st, effects, err := state.Step(old, ev)
	if err != nil {
		return err
	}
	o.st = st
	if st != old {
		o.r.cfg.Logger.Debug("state", "event", fmt.Sprintf("%T", ev), "state", st.Word())
	}
	o.narrow(old)
	o.failure = nil
	for _, e := range effects {
		o.effect(e)
	}
	o.widen()
	o.publish()
	if old.Role == proto.Primary && st.Role != proto.Primary {
		o.forgetKept()
	}
	if st != old {
		if s := o.r.cfg.SyncOrder; s != nil {
			s.report(o.r.cfg.Resource, goesFirst(&o.st))
		}
		o.again()
		o.takeTurn()
	}
	return nil
}

// narrow publishes what the new state no longer allows, before anything else happens.
func (o *owner) narrow(old state.State) {
	if o.link != nil {
		if c := int32(o.st.Conn); o.link.conn.Swap(c) != c {
			o.link.turn.Store(since0(time.Now()))
		}
	}
	g := o.gate()
	g.primary = g.primary && old.Role == proto.Primary
	g.size = min(g.size, int64(old.Size)*512)
	if old.Disk >= proto.Inconsistent && g.disk == nil && o.link != nil {
		g.frozen = true // until the peer, which is to keep the marks from now on, has been told
	}
	if o.r.traffic.wouldLink(g.link) {
		g.link, g.frozen = nil, true
	}
	switch {
	case o.link == nil:
	case old.Conn != proto.Ahead && o.st.Conn == proto.Ahead:
		g.link, g.behind, g.frozen = o.link, nil, true // the peer hears of it before what is marked is announced
	case old.Conn == proto.Ahead && o.st.Conn.Syncing():
		g.behind = o.link
	}
	if old.Role == proto.Primary && o.st.Role == proto.Primary &&
		(old.Conn >= proto.Connected && o.st.Conn < proto.Connected || old.UUIDs.Current != o.st.UUIDs.Current) {
		g.frozen = true // nothing is confirmed alone before the generation that it belongs to is on the disk
	}
	o.r.traffic.setGate(g)
	if old.Conn == proto.Ahead && g.behind != nil && g.frozen {
		o.r.traffic.drain(o.link) // all that was marked is announced before the resync begins
	}
}

// widen publishes all that the new state allows, once it is safe on the disk.
func (o *owner) widen() {
	g := o.gate()
	o.r.traffic.setGate(g)
	o.resendNow(&g)
}

// gate translates the state for the I/O path.
func (o *owner) gate() gate {
	st := &o.st
	g := gate{
		primary: st.Role == proto.Primary && o.closing == nil,
		size:    int64(st.Size) * 512,
		good:    st.Disk == proto.UpToDate,
		serve:   st.Disk == proto.UpToDate && st.Conn >= proto.Connected,
		linked:  st.Conn >= proto.Connected,
		tracks:  st.PeerRole == proto.Primary && st.PeerDisk < proto.Inconsistent && st.Conn >= proto.Connected,
		syncing: st.Conn.Syncing(),
		// After a failure of the metadata nothing is confirmed that relies on what was not written, until the disk is let go.
		frozen: o.demote != nil || o.parting != nil || o.failure != nil,

		suspended: st.Suspended(),
	}
	switch st.Conn {
	case proto.StartingSyncS, proto.StartingSyncT, proto.WFBitMapS, proto.WFBitMapT, proto.WFSyncUUID:
		g.frozen = true
	}
	if st.Disk == proto.Negotiating && o.link != nil {
		g.frozen = true // the peer keeps no marks for a disk that is about to take part
	}
	if st.Disk >= proto.Inconsistent {
		g.disk = o.disk
	}
	if o.link != nil && st.Conn >= proto.Connected {
		if st.Replicates() {
			g.link = o.link
		}
		if st.PeerDisk == proto.UpToDate {
			g.peer = o.link
		}
		if st.Conn == proto.Ahead {
			g.behind = o.link
		}
	}
	g.access = g.good && g.disk != nil || g.peer != nil
	if _, owes := o.r.traffic.owes(); owes && g.access {
		g.suspended = true // until that is written again
	}
	return g
}

// again tries the commands that were refused for the moment.
func (o *owner) again() {
	todo := o.retries
	o.retries = nil
	for _, q := range todo {
		o.command(q)
	}
}

func (o *owner) tick() {
	if len(o.retries) > 0 {
		o.again()
	}
	o.catchUp()
	o.takeTurn()
	if l := o.link; l != nil {
		l.refusals.tell(l, false, o.st.PeerDisk < proto.Inconsistent)
	}
	o.askedLong()
	for _, w := range []struct {
		q    **request
		what string
	}{{&o.demote, "demote"}, {&o.parting, "detach"}} {
		if q := *w.q; q != nil && q.ctx.Err() != nil {
			*w.q = nil // writes go on
			o.widen()
			q.reply <- o.r.explain(q.cmd, fmt.Errorf("%s: the peer has not confirmed all writes: %w", w.what, q.ctx.Err()))
		}
	}
	g := o.gate()
	o.resendNow(&g)
	o.publish()
}

// askedLong gives up a late attach about which the peer is silent.
func (o *owner) askedLong() {
	limit := o.r.cfg.patience()
	switch {
	case o.st.Disk != proto.Negotiating || o.st.PeerDisk < proto.Inconsistent || o.link == nil || o.link.held.Load() || limit == 0:
		o.asked = time.Time{}
	case o.asked.IsZero():
		o.asked = time.Now()
	case time.Since(o.asked) > limit:
		o.asked = time.Time{}
		_ = o.step(state.AttachUnanswered{})
	}
}

// command starts a command. Its answer comes from an effect, now or later, or from a refusal.
func (o *owner) command(q *request) {
	if o.closing != nil {
		q.reply <- ErrClosed
		return
	}
	if err := q.ctx.Err(); err != nil {
		q.reply <- err
		return
	}
	switch c := q.cmd.(type) {
	case cmdOpen, cmdCloseDev, cmdRate:
		q.reply <- o.local(c)
		return
	case cmdVerifyStop:
		o.haltVerify(q)
		return
	case cmdAttach:
		o.startAttach(q)
		return
	case cmdPromote:
		if o.linkEnding() {
			o.retries = append(o.retries, q)
			return
		}
	case cmdDetach:
		if o.startDetach(q) {
			return
		}
	case cmdDemote:
		if o.resending {
			o.retries = append(o.retries, q)
			return
		}
		o.startDemote(q)
		return
	case cmdResize:
		o.resize(q, c.assumeClean)
		return
	case cmdClose:
		o.startClose(q)
		return
	}
	o.stepFor(q)
}

// stepFor lets the state machine decide about a command.
func (o *owner) stepFor(q *request) {
	if err := o.unfit(q.cmd); err != nil {
		q.reply <- err
		return
	}
	o.id++
	o.waiting[o.id] = q
	id := o.id
	err := o.step(stateCommand(q.cmd, id))
	if c, ok := q.cmd.(cmdVerify); ok && err == nil {
		o.ovFrom = c.from - c.from%verifyBlock
	}
	if err != nil {
		delete(o.waiting, id)
		o.refused(q, err)
	}
}

// linkEnding says that what the peer sent last may not be on the disk yet. Under protocol B the peer's applications were
// told that it is safe, so nobody may be Primary here before.
func (o *owner) linkEnding() bool {
	c := o.st.Conn
	return c == proto.Disconnecting || c >= proto.Timeout && c <= proto.TearDown
}

func stateCommand(cmd any, id state.CommandID) state.Event {
	switch c := cmd.(type) {
	case cmdDetach:
		return state.Detach{ID: id}
	case cmdConnect:
		return state.Connect{ID: id, DiscardMyData: c.discard}
	case cmdDisconnect:
		return state.Disconnect{ID: id, Force: c.force}
	case cmdPromote:
		return state.Promote{ID: id, Force: c.force}
	case cmdVerify:
		return state.Verify{ID: id}
	case cmdOutdate:
		return state.Outdate{ID: id}
	case cmdSuspend:
		if c.on {
			return state.SuspendIO{ID: id}
		}
		return state.ResumeIO{ID: id}
	case cmdInvalidate:
		return state.Invalidate{ID: id, Peer: c.peer}
	case cmdSkipSync:
		return state.SkipInitialSync{ID: id}
	case cmdPause:
		if c.on {
			return state.PauseSync{ID: id}
		}
		return state.ResumeSync{ID: id}
	}
	return nil
}

// refused answers a command with the state machine's refusal, or keeps it for another try.
func (o *owner) refused(q *request, err error) {
	var ref *state.Refusal
	wait := retryTime
	if errors.As(err, &ref) && ref.Code == drbd.SSTwoPrimaries && isPromote(q.cmd) {
		wait, ref.Retry = o.r.cfg.PingTimeout, true // the peer's demotion may be on its way (drbd_set_role, drbd_nl.c)
	}
	if ref != nil && ref.Retry && time.Since(q.since) < wait {
		o.retries = append(o.retries, q)
		return
	}
	q.reply <- o.r.explain(q.cmd, err)
}

func isPromote(cmd any) bool {
	_, ok := cmd.(cmdPromote)
	return ok
}

// explain makes an error for operators: which resource on which node.
func (r *Resource) explain(cmd any, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s on %s: %w", r.cfg.Resource, r.cfg.Node, err)
}

// local carries out what the state machine need not know.
func (o *owner) local(cmd any) error {
	switch c := cmd.(type) {
	case cmdOpen:
		if o.st.Role != proto.Primary || o.demote != nil {
			return fmt.Errorf("open %s of %s: %w", o.r.cfg.Device, o.r.cfg.Resource, ErrNotPrimary)
		}
		o.open++
	case cmdCloseDev:
		if o.open == 0 {
			return proto.Errorf(proto.CodeState, "close %s of %s: it is not open", o.r.cfg.Device, o.r.cfg.Resource)
		}
		o.open--
	case cmdRate:
		if c.rate <= 0 {
			return proto.Errorf(proto.CodeInvalid, "resync rate %d: must be more than 0 bytes a second", c.rate)
		}
		o.r.rate.steer(c.rate)
		o.r.event(proto.LevelInfo, "resync rate is %d bytes a second now", c.rate)
	}
	o.publish()
	return nil
}

func (o *owner) startAttach(q *request) {
	if err := o.step(state.AttachStart{}); err != nil {
		o.refused(q, err)
		return
	}
	o.id++
	o.waiting[o.id], o.attach = q, o.id
	r := o.r
	r.background.Add(1)
	go func() {
		defer r.background.Done()
		f, err := r.cfg.openDisk(context.Background())
		if err != nil {
			r.inbox.put(diskRefused{err})
			return
		}
		r.inbox.put(diskOpened{f})
	}()
}

// startDemote holds new writes back and waits for those under way.
func (o *owner) startDemote(q *request) {
	switch {
	case o.open > 0:
		q.reply <- o.r.explain(q.cmd, fmt.Errorf("demote: held open %d times: %w", o.open, ErrInUse))
		return
	case o.st.Role != proto.Primary:
		q.reply <- nil
		return
	case o.demote != nil:
		q.reply <- o.r.explain(q.cmd, errors.New("demote: already under way"))
		return
	}
	o.demote = q
	o.widen()
	o.r.background.Add(1)
	o.r.traffic.idle(func() {
		defer o.r.background.Done()
		o.r.inbox.put(drained{q})
	})
}

func (o *owner) demoteNow() {
	q := o.demote
	o.demote = nil
	if q == nil {
		return
	}
	o.id++
	o.waiting[o.id] = q
	id := o.id
	if err := o.step(state.Demote{ID: id, InUse: o.open > 0}); err != nil {
		delete(o.waiting, id)
		o.widen()
		o.refused(q, err)
	}
}

// startDetach holds new writes back and waits until the peer has confirmed those before: this disk goes, and with it what the
// peer may not have on its own yet (drbd_adm_detach, drbd_nl.c, lets writes come to their end too). It reports false if
// there is nothing to wait for.
func (o *owner) startDetach(q *request) bool {
	_, _, err := state.Step(o.st, state.Detach{})
	if err != nil || o.st.Role != proto.Primary || o.parting != nil || o.demote != nil {
		return false
	}
	o.parting = q
	o.widen()
	o.r.background.Add(1)
	o.r.traffic.idle(func() {
		defer o.r.background.Done()
		o.r.inbox.put(drained{q})
	})
	return true
}

func (o *owner) detachNow() {
	q := o.parting
	o.parting = nil
	o.stepFor(q)
	o.widen()
}

// startClose gives everything up; what could be done in an orderly way was done before.
func (o *owner) startClose(q *request) {
	o.closing = q
	o.widen()
	if o.st.Conn != proto.StandAlone {
		_ = o.step(state.Disconnect{Force: true})
	}
	if o.st.Disk != proto.Diskless {
		_ = o.step(state.Detach{Force: true})
	}
	o.publish()
}
