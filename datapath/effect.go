package datapath

import (
	"context"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/datapath/state"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// effect carries out one effect of a step. After a failure on the own disk nobody is told of success any more.
func (o *owner) effect(e state.Effect) {
	switch e := e.(type) {
	case state.PersistMD, state.SetAllBits, state.ClearAllBits, state.WriteBitmap, state.SetSize:
		o.diskEffect(e)
	case state.StartConnecting:
		o.connect()
	case state.CloseLink:
		o.closeLink()
	case state.ReleaseDisk:
		d := o.disk
		o.disk = nil
		o.letGo(d, meta.Flags(e.Clear), func() { o.r.inbox.put(diskLetGo{d}) })
	case state.StartResync:
		o.startResync(e.Target)
	case state.StopResync:
		if o.rs != nil {
			o.rs.stop()
			o.rs = nil
		}
		if l := o.link; l != nil {
			leaves := o.st.Disk < proto.Inconsistent
			if leaves { // the peer, which is told next, need not answer then
				l.asked.drain(l)
			}
			l.asked.expire(l, leaves)
		}
		o.progress.end()
	case state.PauseResync, state.ContinueResync:
		if o.rs != nil {
			_, on := e.(state.PauseResync)
			o.rs.pause(on)
		}
	case state.StartVerify:
		o.startVerify(e.Source)
	case state.StopVerify:
		o.stopVerify()
	case state.AnswerCommand:
		o.answer(e)
	case state.Notify:
		o.notify(e)
	case state.FencePeer:
		o.fencePeer()
	case state.RunHandler:
		o.runHandler(e.Name)
	default:
		o.tellPeer(e)
	}
}

// tellPeer sends a packet of the conversation. A peer that waits for consent gets an answer even if the disk has failed: nothing
// else would end its request before the link breaks.
func (o *owner) tellPeer(e state.Effect) {
	if o.link == nil {
		return
	}
	if o.failure != nil {
		reply, ok := e.(state.SendChangeReply)
		if !ok {
			return
		}
		if reply.Code.OK() {
			reply.Code = drbd.SSNoLocalDisk
		}
		e = reply
	}
	o.send(e)
}

// diskEffect changes the metadata.
func (o *owner) diskEffect(e state.Effect) {
	d := o.disk
	if d == nil || o.failure != nil {
		return
	}
	ctx := context.Background()
	var err error
	switch e := e.(type) {
	case state.PersistMD:
		if state.MDFlags(d.md.Superblock().Flags)&^e.Flags&state.MDPrimary != 0 {
			// Without the flag nobody applies the activity log: what it covers must be on the disk before.
			o.r.traffic.awaitTracked()
			if err = d.dev.Flush(); err == nil {
				err = d.bm.WriteDirty(ctx)
			}
			if err != nil {
				break
			}
		}
		err = d.md.Update(ctx, func(sb *meta.Superblock) {
			sb.UUIDs = meta.UUIDs{Current: e.UUIDs.Current, Bitmap: e.UUIDs.Bitmap, History: [2]uint64{e.UUIDs.History0, e.UUIDs.History1}}
			sb.Flags = meta.Flags(e.Flags)
		})
	case state.SetAllBits:
		d.bm.SetAll()
		err = d.bm.WriteDirty(ctx)
	case state.ClearAllBits:
		d.bm.ClearAll()
		err = d.bm.WriteDirty(ctx)
	case state.WriteBitmap:
		// What the cleared bits stand for must be durable before the bits are.
		if err = d.dev.Flush(); err == nil {
			err = d.bm.WriteDirty(ctx)
		}
	case state.SetSize:
		err = d.md.SetAgreedSize(ctx, int64(e.Sectors)*512, e.NewBits)
	}
	if err != nil {
		o.failure = err
		o.r.diskFailed(d, true, err)
	}
}

// send queues a packet of the conversation.
func (o *owner) send(e state.Effect) {
	l, c := o.link, &o.r.cfg
	switch e := e.(type) {
	case state.SendProtocol:
		sb := c.afterSB()
		p := drbd.Protocol{Protocol: c.Protocol, IntegrityAlg: c.DataIntegrityAlg, AfterSB0P: sb[0], AfterSB1P: sb[1], AfterSB2P: sb[2]}
		if e.DiscardMyData {
			p.Flags |= drbd.ConnDiscardMyData
		}
		sendPacket(l, drbd.CmdProtocol, p)
	case state.SendSyncParam:
		sendPacket(l, drbd.CmdSyncParam89, o.r.syncParam())
	case state.SendSizes:
		p := drbd.Sizes{Disk: o.st.OwnSize, User: o.st.Limit, Current: o.st.Size, MaxBio: drbd.MaxData}
		if e.Ask {
			p.Current = 0
		}
		if e.NoResync {
			p.Flags = drbd.SizesNoResync
		}
		if o.disk == nil {
			p.Disk, p.User, p.QueueOrder = 0, 0, 0xffff // -1, as a diskless kernel says
		}
		if l.agreed.features&drbd.FeatureWSame != 0 {
			p.Limits = c.limits(o.disk)
		}
		sendPacket(l, drbd.CmdSizes, p)
	case state.SendUUIDs:
		p := drbd.UUIDs{Current: e.UUIDs.Current, Bitmap: e.UUIDs.Bitmap, History0: e.UUIDs.History0, History1: e.UUIDs.History1, Flags: e.Flags}
		switch {
		case e.Counted:
			p.Bits = e.Bits
		case o.disk != nil:
			p.Bits = o.disk.bm.Weight()
		}
		o.told = p.Bits
		sendPacket(l, drbd.CmdUUIDs, p)
	case state.SendState:
		if o.st.Disk == proto.Negotiating {
			o.r.traffic.drain(l) // whatever the peer marked for the missing disk comes before this
		}
		sendPacket(l, drbd.CmdState, e.State)
	case state.SendSyncUUID:
		sendPacket(l, drbd.CmdSyncUUID, drbd.SyncUUID(e.UUID))
	case state.SendChangeReq:
		l.awaits.Store(true)
		cmd := drbd.CmdStateChgReq
		if e.ConnWide {
			cmd = drbd.CmdConnStChgReq
		}
		sendPacket(l, cmd, e.Change)
	case state.SendChangeReply:
		cmd := drbd.CmdStateChgReply
		if e.ConnWide {
			cmd = drbd.CmdConnStChgReply
		}
		putAck(&l.acks, cmd, e.Code)
	case state.SendBitmap:
		if o.disk != nil && o.r.traffic.drain(l) {
			l.out.put(outItem{kind: outBitmap, d: o.disk})
		}
	}
}

// limits describes the disk to the peer (assign_p_sizes_qlim, drbd_main.c). It is used in sectors whatever its blocks are
// (withSectors), and a discard leaves zeroes.
func (c *Config) limits(d *disk) *drbd.QueueLimits {
	q := &drbd.QueueLimits{PhysicalBlock: block.SectorSize, LogicalBlock: block.SectorSize, IOMin: block.SectorSize}
	if d != nil {
		q.PhysicalBlock = uint32(physical(d.dev))
		q.IOMin = q.PhysicalBlock
		q.Discard, q.DiscardZeroes, q.WriteSame = true, true, !c.DisableWriteSame
	}
	return q
}

func (o *owner) answer(e state.AnswerCommand) {
	q := o.waiting[e.ID]
	delete(o.waiting, e.ID)
	if q == nil {
		return
	}
	err := e.Err
	if err == nil {
		err = o.failure
	}
	if err != nil {
		o.refused(q, err)
		return
	}
	o.widen() // whoever hears that it is done may rely on it
	o.publish()
	q.reply <- nil
}

func (o *owner) notify(e state.Notify) {
	if e.Level == proto.LevelAlert {
		o.problem = e.Text
	}
	o.r.event(e.Level, "%s", e.Text)
}

func (o *owner) startResync(target bool) {
	var weight uint64
	if o.disk != nil {
		weight = o.disk.bm.Weight()
	}
	o.progress.begin(weight * block4k)
	if o.link != nil {
		o.link.asked.forget()
	}
	if target && o.disk != nil && o.link != nil {
		// use_checksum_based_resync, drbd_worker.c
		o.link.csums.Store(o.r.csums != nil && (!o.r.cfg.CsumsAfterCrashOnly || o.st.CrashedPrimary))
		o.rs = startResync(o.link, o.disk, o.st.Conn == proto.PausedSyncT)
	}
}

// letGo gives the disk back once nothing uses it, then calls done.
func (o *owner) letGo(d *disk, clear meta.Flags, done func()) {
	r := o.r
	r.background.Add(1)
	go func() {
		defer r.background.Done()
		if d != nil {
			r.traffic.releaseDisk(d, clear, func(l proto.Level, text string) { r.event(l, "%s", text) })
		}
		done()
	}()
}

// closeLink ends the link, or the search for the peer.
func (o *owner) closeLink() {
	r, l, try, rs := o.r, o.link, o.try, o.rs
	o.link, o.try, o.rs = nil, nil, nil
	r.background.Add(1)
	go func() {
		defer r.background.Done()
		if try != nil {
			try.stop()
		}
		if rs != nil {
			rs.stop()
		}
		if l != nil {
			l.join()
			r.tellOrphans(r.traffic.giveUp(l))
		}
		r.inbox.put(linkEnded{})
	}()
}

// attempt is a search for the peer under way.
type attempt struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (a *attempt) stop() {
	a.cancel()
	<-a.done
}

func (a *attempt) wait() { <-a.done }

const (
	shortLink = 2 * time.Second // a link that ended sooner was no success
	backOff   = 100 * time.Millisecond
)

// connect looks for the peer until the link is made, the peer is refused, or the attempt is stopped.
func (o *owner) connect() {
	ctx, cancel := context.WithCancel(context.Background())
	a := &attempt{cancel: cancel, done: make(chan struct{})}
	o.try = a
	r := o.r
	var wait time.Duration
	if o.upFails > 0 && time.Since(o.lastUp) < time.Minute {
		wait = min(backOff<<o.upFails, r.cfg.ConnectInt)
	} else {
		o.upFails = 0
	}
	go func() {
		defer close(a.done)
		defer cancel()
		r.findPeer(ctx, a, wait)
	}()
}

// findPeer makes sockets and shakes hands over them, again and again.
func (r *Resource) findPeer(ctx context.Context, a *attempt, wait time.Duration) {
	lastWhy := ""
	why := func(err error) {
		if s := err.Error(); s != lastWhy && ctx.Err() == nil {
			lastWhy = s
			r.event(proto.LevelInfo, "looking for %s: %v", r.cfg.Peer, err)
		}
	}
	for ; sleep(ctx, wait); wait = min(time.Second, r.cfg.ConnectInt) {
		c := &connector{cfg: &r.cfg, report: why}
		socks, err := c.run(ctx)
		if err != nil {
			why(err)
			continue
		}
		agree, err := r.cfg.shake(ctx, socks.data)
		if err == nil {
			r.inbox.put(linkMade{a, socks, agree})
			return
		}
		socks.close()
		le := asLinkError(err)
		if le.kind == proto.ProtocolError {
			r.traffic.badPackets.Add(1)
		}
		if le.fatal {
			r.inbox.put(linkRefused{a, le})
			return
		}
		why(err)
	}
}

// sleep reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
