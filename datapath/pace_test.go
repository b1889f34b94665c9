package datapath

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestControllerSteps(t *testing.T) {
	type in struct{ arrived, inFlight, want int64 }
	for _, c := range []struct {
		name    string
		control SyncControl
		rate    int64
		steps   []in
	}{
		{"it begins with the rate", SyncControl{PlanAhead: time.Second, DelayTarget: time.Second, FillTarget: 1000, MaxRate: 1 << 20}, 50_000,
			[]in{{0, 0, 5000}}},
		{"and with no more than the most", SyncControl{PlanAhead: time.Second, DelayTarget: time.Second, FillTarget: 1000, MaxRate: 40_000}, 50_000,
			[]in{{0, 0, 4000}}},
		{"what is missing is spread", SyncControl{PlanAhead: time.Second, DelayTarget: time.Second, FillTarget: 1000, MaxRate: 1 << 20}, 1,
			[]in{{300, 500, 350}, {300, 550, 350}, {300, 600, 350}}},
		{"what is too much is taken back", SyncControl{PlanAhead: time.Second, DelayTarget: time.Second, FillTarget: 1000, MaxRate: 1 << 20}, 1,
			[]in{{300, 2000, 200}, {100, 3000, 0}}},
		{"but not below nothing", SyncControl{PlanAhead: tick, DelayTarget: time.Second, FillTarget: 1000, MaxRate: 1 << 20}, 1,
			[]in{{10, 1 << 20, 0}}},
		{"the delay counts", SyncControl{PlanAhead: time.Second, DelayTarget: 500 * time.Millisecond, MaxRate: 1 << 20}, 1,
			[]in{{200, 0, 300}, {200, 300, 280}, {200, 2000, 118}}},
		{"at least the least, while less is under way than should be", SyncControl{PlanAhead: time.Second, DelayTarget: time.Second, FillTarget: 1000, MaxRate: 1 << 20, MinRate: 7000}, 1,
			[]in{{10, 100, 700}, {10, 2000, 0}}},
	} {
		ctl := newController(c.control.withDefaults(), c.rate)
		for i, s := range c.steps {
			if got := ctl.step(s.arrived, s.inFlight); got != s.want {
				t.Errorf("%s: step %d gives %d, want %d", c.name, i, got, s.want)
			}
		}
	}
}

// wire is a link that carries so much a tick, with a delay of so many ticks.
type wire struct {
	capacity int64
	travel   []int64 // what arrives in the coming ticks
	queue    int64
	inFlight int64
}

func (w *wire) tick(ask int64) (arrived int64) {
	w.queue += ask
	w.inFlight += ask
	sent := min(w.queue, w.capacity)
	w.queue -= sent
	w.travel = append(w.travel, sent)
	arrived, w.travel = w.travel[0], w.travel[1:]
	w.inFlight -= arrived
	return arrived
}

// TestControllerOnALink: on a link that carries less than the most, what is under way comes to the fill target, and the
// link is used in full. Nowhere is more asked for than the most, nor less than the least while less is under way than should be.
func TestControllerOnALink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(4<<10, 4<<20).Draw(t, "capacity")
		delay := rapid.IntRange(0, 5).Draw(t, "delay")
		c := SyncControl{
			PlanAhead:  time.Duration(rapid.IntRange(10, 50).Draw(t, "plan-ahead")) * tick,
			FillTarget: capacity * int64(delay+1) * rapid.Int64Range(2, 6).Draw(t, "fill-target"),
			MaxRate:    capacity * ticksPerSecond * rapid.Int64Range(2, 5).Draw(t, "max-rate"),
			MinRate:    capacity * ticksPerSecond / rapid.Int64Range(2, 20).Draw(t, "min-rate"),
		}.withDefaults()
		ctl := newController(c, rapid.Int64Range(1<<10, 64<<20).Draw(t, "resync-rate"))
		w := wire{capacity: capacity, travel: make([]int64, delay)}
		var arrived, carried, under int64
		settle, watch := 40*len(ctl.plan), 10*len(ctl.plan)
		for i := range settle + watch {
			ask := ctl.step(arrived, w.inFlight)
			if ask > ctl.most || ask < 0 {
				t.Fatalf("tick %d: asks for %d, the most is %d", i, ask, ctl.most)
			}
			if w.inFlight < c.FillTarget && arrived+w.inFlight > 0 && ask < ctl.least {
				t.Fatalf("tick %d: asks for %d, the least is %d, with %d of %d under way", i, ask, ctl.least, w.inFlight, c.FillTarget)
			}
			if arrived = w.tick(ask); i >= settle {
				carried += arrived
				under += w.inFlight
			}
		}
		if carried < int64(watch)*capacity*9/10 {
			t.Errorf("%d bytes a tick of %d are used", carried/int64(watch), capacity)
		}
		if mean := under / int64(watch); mean < c.FillTarget*7/10 || mean > c.FillTarget*13/10 {
			t.Errorf("%d under way, the target is %d", mean, c.FillTarget)
		}
	})
}

// TestControllerBounds: whatever it is told, it stays in its bounds.
func TestControllerBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := SyncControl{
			PlanAhead: time.Duration(rapid.IntRange(0, 400).Draw(t, "plan-ahead")) * tick, FillTarget: rapid.Int64Range(0, 1<<30).Draw(t, "fill-target"),
			MaxRate: rapid.Int64Range(1, 1<<32).Draw(t, "max-rate"), MinRate: rapid.Int64Range(0, 1<<32).Draw(t, "min-rate"),
		}.withDefaults()
		ctl := newController(c, rapid.Int64Range(0, 1<<32).Draw(t, "resync-rate"))
		for range 200 {
			arrived, inFlight := rapid.Int64Range(0, 1<<32).Draw(t, "arrived"), rapid.Int64Range(0, 1<<32).Draw(t, "in flight")
			if ask := ctl.step(arrived, inFlight); ask < 0 || ask > c.MaxRate/ticksPerSecond {
				t.Fatalf("asks for %d", ask)
			}
		}
	})
}

// TestPacerKeepsTheRate: from its first moment on, whatever the size of the requests and the pauses between them, no more
// goes out than the rate, but for what a pause is made good by; and no less if nobody is late.
func TestPacerKeepsTheRate(t *testing.T) {
	for _, rate := range []int64{4 << 10, 250 << 10, 30 << 20, 1 << 30} {
		synctest.Test(t, func(t *testing.T) {
			var r syncRate
			r.fixed.Store(rate)
			p := newPacer(&r, func() (int64, int64) { return 0, 0 })
			began, total := time.Now(), int64(0)
			for i := range 200 {
				n := max(block4k, rate/16>>(i%3))
				if !p.wait(t.Context(), n) {
					t.Fatal("it gave up")
				}
				total += n
				if earned := float64(rate) * time.Since(began).Seconds(); float64(total) > earned*1.0001+1 {
					t.Fatalf("rate %d: %d bytes after %v, which earn %.0f", rate, total, time.Since(began), earned)
				}
			}
			if earned := float64(rate) * time.Since(began).Seconds(); float64(total) < 0.99*earned {
				t.Errorf("rate %d: only %d bytes after %v", rate, total, time.Since(began))
			}
			time.Sleep(time.Hour)
			before, n := time.Now(), max(block4k, rate/16)
			for range 20 {
				p.wait(t.Context(), n)
			}
			if least := float64(19*n)/float64(rate) - maxBurst.Seconds(); time.Since(before).Seconds() < least-0.001 {
				t.Errorf("rate %d: after a pause %d bytes in %v", rate, 20*n, time.Since(before))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if p.wait(ctx, 100*rate) {
				t.Error("did not give up")
			}
		})
	}
}

// TestPacerIsSteered: a rate that the operator sets counts at once, also over a controller.
func TestPacerIsSteered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := SyncControl{MaxRate: 1 << 20}.withDefaults()
		r := syncRate{control: &c}
		r.fixed.Store(64 << 10)
		came := int64(0)
		p := newPacer(&r, func() (int64, int64) { return came, 0 })
		var rates []int64
		for range 100 {
			p.wait(t.Context(), block4k)
			came += block4k
			rates = append(rates, r.limit())
		}
		if rates[0] != 64<<10/ticksPerSecond*ticksPerSecond || slices.Max(rates) > 1<<20 || slices.Max(rates) < 128<<10 {
			t.Errorf("rates of a link without delay: %v", rates)
		}
		r.steer(8 << 10)
		began := time.Now()
		p.wait(t.Context(), 64<<10)
		if d := time.Since(began); d < 7*time.Second || d > 9*time.Second || r.limit() != 8<<10 {
			t.Errorf("64 KiB at 8 KiB/s took %v", d)
		}
	})
}

// TestYielder: with busy applications the least rate is served, no more and no less; without, everything at once.
func TestYielder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.Int64Range(16<<10, 64<<20).Draw(t, "c-min-rate")
		y := yielder{least: least}
		now, apps := time.Unix(1_000_000, 0), int64(0)
		var served int64
		var waited time.Duration
		for range rapid.IntRange(1, 300).Draw(t, "requests") {
			n := rapid.Int64Range(1, 256).Draw(t, "blocks") * block4k
			for {
				apps++ // applications never rest
				d := y.delay(now, apps, n)
				if d == 0 {
					break
				}
				if d < 0 || d > tick {
					t.Fatalf("waits for %v", d)
				}
				now, waited = now.Add(d), waited+d
			}
			served += n
		}
		if earned := float64(least) * waited.Seconds(); float64(served) > earned*1.001+4096 || float64(served) < earned*0.99-float64(least)/float64(ticksPerSecond)-1<<20 {
			t.Fatalf("%d bytes in %v, the rate is %d", served, waited, least)
		}
		now = now.Add(busyTime)
		for range 10 {
			if d := y.delay(now, apps, 1<<20); d != 0 {
				t.Fatalf("applications are quiet, and it waits %v", d)
			}
		}
	})
}
