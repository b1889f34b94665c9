package datapath

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto/drbd"
)

// SyncControl are the bounds in which the rate of a resync is found while it runs (c-plan-ahead and so on). Zero values
// of single fields mean DRBD's defaults (linux/drbd_limits.h), except where they say otherwise.
type SyncControl struct {
	PlanAhead   time.Duration // over how long a difference is made good, 100 ms to 30 s; 2 s
	DelayTarget time.Duration // if FillTarget is 0: how long an answer may take, 100 ms to 10 s; 1 s
	FillTarget  int64         // bytes that shall be under way; 0: DelayTarget counts
	MaxRate     int64         // bytes a second, 100 MiB
	MinRate     int64         // bytes a second that are asked for at the least, as long as less is under way than should be
}

// withDefaults fills in what is not set. FillTarget and MinRate mean something when 0.
func (c SyncControl) withDefaults() SyncControl {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.PlanAhead, 2*time.Second)
	def(&c.DelayTarget, time.Second)
	if c.MaxRate <= 0 {
		c.MaxRate = 100 << 20
	}
	return c
}

// syncRate is the rate of a resource's resync and verify, in bytes a second.
type syncRate struct {
	control *SyncControl // nil: the rate is fixed
	fixed   atomic.Int64 // what the configuration or the operator says; control begins with it
	found   atomic.Int64 // what control came to
	steered atomic.Bool  // the operator took over from control
}

func (r *syncRate) controlled() bool { return r.control != nil && !r.steered.Load() }

// limit is the rate of now.
func (r *syncRate) limit() int64 {
	if n := r.found.Load(); n > 0 && r.controlled() {
		return n
	}
	return r.fixed.Load()
}

func (r *syncRate) steer(rate int64) {
	r.fixed.Store(rate)
	r.steered.Store(true)
}

// ticksPerSecond is how often a controller decides (SLEEP_TIME, drbd_worker.c).
const (
	tick           = 100 * time.Millisecond
	ticksPerSecond = int64(time.Second / tick)
	maxPlan        = 300 // ticks: C_PLAN_AHEAD_MAX, linux/drbd_limits.h
)

// controller decides how much a resync may ask for in the coming tick. It answers each tick with what arrived in the last
// one, and spreads the difference between what is under way and what should be over the ticks to come; what it has
// planned for them already does not count as missing (drbd_rs_controller, drbd_worker.c). It knows no clock.
type controller struct {
	start, least, most int64 // bytes a tick
	fill               int64 // bytes that shall be under way, 0: delay counts
	delay              int64 // ticks
	plan               []int64
	at                 int
	planned            int64 // sum of plan
}

// newController starts with rate bytes a second.
func newController(c SyncControl, rate int64) *controller {
	return &controller{
		start: rate / ticksPerSecond, least: min(c.MinRate, c.MaxRate) / ticksPerSecond, most: c.MaxRate / ticksPerSecond,
		fill: c.FillTarget, delay: max(1, int64(c.DelayTarget/tick)), plan: make([]int64, min(max(1, int64(c.PlanAhead/tick)), maxPlan)),
	}
}

// step gives the bytes to ask for. arrived came since the last step, inFlight was asked for and has not come. While less
// is under way than should be, it gives least or more.
func (c *controller) step(arrived, inFlight int64) int64 {
	n, want := int64(len(c.plan)), c.fill
	switch {
	case arrived == 0 && inFlight == 0:
		want = c.start * n
	case c.fill == 0:
		want = arrived * c.delay
	}
	each := (want - inFlight - c.planned) / n
	for i := range c.plan {
		c.plan[i] += each
	}
	c.planned += each*n - c.plan[c.at]
	ask := max(0, arrived+c.plan[c.at])
	c.plan[c.at] = 0
	c.at = (c.at + 1) % len(c.plan)
	if inFlight < want {
		ask = max(ask, c.least)
	}
	return min(ask, c.most)
}

// pacer spreads requests such that their bytes keep to a rate, which may change at any time. A request goes out when its
// bytes have been earned, so that no more than the rate goes out from the first moment on.
type pacer struct {
	of  *syncRate
	ctl *controller // nil: the rate is fixed
	// flow says how many bytes came since some moment, and how many are under way.
	flow func() (came, inFlight int64)

	earned   float64 // bytes that may be asked for
	since    time.Time
	decided  time.Time // when ctl was asked last
	cameThen int64
}

// newPacer makes the pacer of a resync or verify that begins now.
func newPacer(r *syncRate, flow func() (came, inFlight int64)) pacer {
	p := pacer{of: r, flow: flow, since: time.Now()}
	if r.controlled() {
		p.ctl = newController(*r.control, r.fixed.Load())
	}
	return p
}

// maxBurst is how much is made up for after a pause.
const maxBurst = 100 * time.Millisecond

// wait returns when n more bytes fit the rate; false if ctx ended first.
func (p *pacer) wait(ctx context.Context, n int64) bool {
	for {
		now := time.Now()
		rate := float64(p.rate(now))
		p.earned = min(p.earned+rate*now.Sub(p.since).Seconds(), max(float64(n), rate*maxBurst.Seconds()))
		p.since = now
		missing := float64(n) - p.earned
		if missing <= 0 {
			p.earned = -missing
			return ctx.Err() == nil
		}
		d := tick // the rate may change
		if s := missing / rate; s < tick.Seconds() {
			d = max(time.Duration(s*float64(time.Second)), time.Microsecond)
		}
		if !sleep(ctx, d) {
			return false
		}
	}
}

// restart forgets what was earned while nothing was to be asked for.
func (p *pacer) restart() { p.earned, p.since = 0, time.Now() }

// rate is how many bytes may be asked for in a second, as of now.
func (p *pacer) rate(now time.Time) int64 {
	if p.ctl == nil || !p.of.controlled() {
		return p.of.fixed.Load()
	}
	if d := now.Sub(p.decided); d >= tick {
		came, inFlight := p.flow()
		arrived := came - p.cameThen
		if !p.decided.IsZero() {
			arrived = int64(float64(arrived) * float64(tick) / float64(d))
		}
		p.of.found.Store(p.ctl.step(arrived, inFlight) * ticksPerSecond)
		p.decided, p.cameThen = now, came
	}
	return p.of.found.Load()
}

// syncParam tells the peer of the rate; a kernel takes it for its own.
func (r *Resource) syncParam() drbd.SyncParam {
	p := drbd.SyncParam{Rate: kib(r.rate.fixed.Load()), VerifyAlg: r.cfg.VerifyAlg, CSumsAlg: r.cfg.CsumsAlg}
	if c := r.rate.control; r.rate.controlled() {
		p.PlanAhead, p.DelayTarget = uint32(c.PlanAhead/tick), uint32(c.DelayTarget/tick)
		p.FillTarget, p.MaxRate = uint32(min(c.FillTarget/block.SectorSize, math.MaxInt32)), kib(c.MaxRate)
	}
	return p
}

func kib(n int64) uint32 { return uint32(min(n>>10, math.MaxInt32)) }

// yielder makes a resync give way to applications: while they use the disk, no more than the least rate of the resync's
// reads is served (drbd_rs_should_slow_down, drbd_receiver.c). Applications count as busy for a moment after each of
// their requests. It knows no clock.
type yielder struct {
	least  int64 // bytes a second; 0: it does not yield
	seen   int64 // requests of applications, when it looked last
	busy   time.Time
	earned float64
	since  time.Time
}

// busyTime is how long after a request applications count as busy.
const busyTime = 2 * tick

// delay says how long n bytes have to wait before it is to be asked again, 0 if they may be read now. apps is how many
// requests applications have made so far.
func (y *yielder) delay(now time.Time, apps, n int64) time.Duration {
	quiet := y.busy.IsZero() || now.Sub(y.busy) >= busyTime
	if apps != y.seen {
		if quiet {
			y.earned, y.since = 0, now
		}
		y.seen, y.busy, quiet = apps, now, false
	}
	if y.least == 0 || quiet {
		return 0
	}
	least := float64(y.least)
	y.earned = min(y.earned+least*now.Sub(y.since).Seconds(), max(float64(n), least*tick.Seconds()))
	y.since = now
	missing := float64(n) - y.earned
	if missing <= 0 {
		y.earned = -missing
		return 0
	}
	return min(tick, max(time.Duration(missing/least*float64(time.Second)), time.Microsecond))
}

// yields says whether reads for the peer's resync or verify give way to applications here.
func (l *link) yields(k peerKind) bool {
	return l.r.cfg.YieldRate > 0 && (k == peerRSRead || k == peerThinRead || k == peerCsum || k == peerOVDigest)
}

// serveLate has the blocks read that the peer's resync or verify asked for, in order, giving way to applications. It does
// not when so many wait that the receiver would have to.
func (l *link) serveLate() error {
	if !l.yields(peerRSRead) {
		return nil
	}
	y := yielder{least: l.r.cfg.YieldRate}
	for p := l.late.get(); p != nil; p = l.late.get() {
		for {
			d := y.delay(time.Now(), l.r.traffic.appRequests(), p.n)
			if d == 0 || l.reads.halfGone() || !sleep(l.ctx, d) {
				break
			}
		}
		l.enterRead(p)
	}
	return nil
}
