package datapath

import (
	"context"
	"fmt"
	"time"

	"example.com/santui/proto"
)

// unfit refuses what the state machine cannot judge.
func (o *owner) unfit(cmd any) error {
	if c, ok := cmd.(cmdVerify); ok && (c.from < 0 || c.from >= max(int64(o.st.Size)*512, 1)) {
		return proto.Errorf(proto.CodeInvalid, "%s: a verify cannot begin at byte %d of %d", o.r.cfg.Resource, c.from, int64(o.st.Size)*512).
			On(o.r.cfg.Node)
	}
	return nil
}

// startVerify begins this node's part of an online verify.
func (o *owner) startVerify(compares bool) {
	l, size := o.link, int64(o.st.Size)*512
	if l == nil || o.disk == nil {
		return
	}
	from, by := int64(-1), o.r.cfg.Peer
	if compares {
		from, by = o.ovFrom, o.r.cfg.Node
	}
	l.ov.begin(size, from)
	o.progress.begin(uint64(size))
	if compares {
		o.ov = startVerify(l, o.disk, from, size)
	}
	o.r.event(proto.LevelInfo, "online verify begins, %s compares", by)
}

// haltVerify stops asking for more; the verify ends when what was asked for is compared.
func (o *owner) haltVerify(q *request) {
	switch {
	case o.ov != nil:
		o.ov.halt()
		o.ovStops = append(o.ovStops, q)
	case o.st.Conn == proto.VerifyT:
		q.reply <- proto.Errorf(proto.CodeState, "%s: %s drives the verify", o.r.cfg.Resource, o.r.cfg.Peer).On(o.r.cfg.Node).
			WithRemedy("stop it there, or disconnect")
	default:
		q.reply <- proto.Errorf(proto.CodeState, "%s: no verify is running", o.r.cfg.Resource).On(o.r.cfg.Node)
	}
}

// stopVerify ends this node's part, and tells the outcome once the peer's last verdicts are in.
func (o *owner) stopVerify() {
	l, ov := o.link, o.ov
	o.ov = nil
	o.progress.end()
	for _, q := range o.ovStops {
		q.reply <- nil
	}
	o.ovStops = nil
	if l == nil {
		return
	}
	v := &proto.Verify{By: o.r.cfg.Peer, Alg: o.r.cfg.VerifyAlg}
	if ov != nil {
		v.By = o.r.cfg.Node
	}
	r := o.r
	r.background.Add(1)
	go func() {
		defer r.background.Done()
		if ov != nil {
			ov.stop()
		} else {
			ctx, cancel := context.WithTimeout(l.ctx, r.cfg.Timeout)
			l.roundTrip(ctx)
			cancel()
		}
		l.ov.outcome(v)
		switch {
		case v.Complete:
		case l.isDead():
			v.Why = "the link to " + r.cfg.Peer + " was lost"
		case v.Failed > 0:
			v.Why = fmt.Sprintf("%d KiB could not be read", v.Failed>>10)
		case v.From > 0 && v.Checked >= v.Size-v.From:
			v.Why = fmt.Sprintf("it began at %d MiB", v.From>>20)
		default:
			v.Why = "it was stopped"
		}
		r.inbox.put(verifyClosed{v})
	}()
}

func (o *owner) verifyOutcome(v *proto.Verify) {
	o.verified = v
	level, text := proto.LevelInfo, fmt.Sprintf("online verify: %d KiB compared, no difference", v.Checked>>10)
	if v.Differ > 0 {
		level = proto.LevelAlert
		text = fmt.Sprintf("online verify: %d KiB in %d ranges differ between the copies, of %d KiB compared. They are marked out of sync; "+
			"nothing is repaired until you decide whose copy is good", v.Differ>>10, len(v.Ranges), v.Checked>>10)
	}
	if v.Why != "" {
		text += " (" + v.Why + ")"
	}
	o.r.event(level, "%s", text)
	if v.Differ > 0 {
		o.runHandler("out-of-sync")
	}
	o.r.cfg.Verified(v)
	o.publish()
}

func (o *owner) verifyStatus(now time.Time) *proto.Sync {
	c, p := &o.r.cfg, &o.progress
	started, total, checked, differ := o.link.ov.soFar()
	y := &proto.Sync{
		Kind: "verify", Source: c.Node, Target: c.Peer, Started: started, Total: total, Left: max(total-checked, 0), Differ: differ,
		Rate: p.note(now, total-checked), Limit: o.r.rate.limit(), Finish: -1,
	}
	if o.st.Conn == proto.VerifyT {
		y.Source, y.Target = c.Peer, c.Node
	}
	if d := now.Sub(started).Seconds(); d > 0 {
		y.Mean = int64(float64(checked) / d)
	}
	if y.Rate > 0 {
		y.Finish = float64(y.Left) / float64(y.Rate)
	} else if now.Sub(started) > stallTime {
		y.Stalled = true
	}
	return y
}
