package torture

import (
	"context"
	"flag"
	"runtime"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"example.com/santui/datapath/block"
)

var strideFlag = flag.Int("stride", 3, "TestSweep cuts the power at every so-many-th call; 1 is exhaustive")

// sweepSeed is one with whole disks, protocol C and nothing besides.
const sweepSeed = 6

// TestSweep lives a short fixed life again and again, and takes the power from one node at each of its calls of disk and
// network in turn.
func TestSweep(t *testing.T) {
	lives := 0
	for i := range names {
		for _, kind := range []string{"disk", "net"} {
			k := 1
			for ; sweep(t, i, kind, k); k += *strideFlag {
				lives++
			}
			if k < 20 {
				t.Errorf("%s makes only %d calls of %s", names[i], k, kind)
			}
		}
	}
	t.Logf("%d lives", lives)
}

// sweep says whether node i made k calls of that kind.
func sweep(t *testing.T, i int, kind string, k int) (reached bool) {
	runtime.GC()
	runtime.GC()
	cryptotest.SetGlobalRandom(t, sweepSeed)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(options{seed: sweepSeed, log: *traceFlag})
		err := w.within(func() error { return w.short(i, kind, k) })
		reached = w.stats.cuts > 0
		if err != nil {
			t.Fatalf("power of %s cut after call %d of %s: %v\n%s", names[i], k, kind, err, strings.Join(w.trace(*linesFlag), "\n"))
		}
	})
	return reached
}

// short is the life: connect, writes, a flush, writes alone, a resync with writes, demotion.
func (w *world) short(i int, kind string, k int) error {
	inc := w.nodes[i].inc
	inc.mu.Lock()
	inc.trigger[kind] = k
	inc.mu.Unlock()
	win := w.model.windows[0]
	write := func(n int64) {
		app := w.running()
		if app == nil {
			return
		}
		for j := range int64(3) {
			off := win.off + j*n
			w.write(app, off, n, func(id uint32) error {
				p := block.Buffer(int(n))
				fill(p, id, off)
				_, err := app.res.WriteAt(p, off)
				return err
			}, false)
		}
	}
	time.Sleep(3 * time.Second)
	for n := range names { // the other one if the first has no power
		if w.incOf(n) != nil {
			w.failover(n)
			break
		}
	}
	time.Sleep(3 * time.Second)
	write(4096)
	if app := w.running(); app != nil {
		w.flush(app)
	}
	write(512)
	if inc := w.incOf(1); inc != nil {
		w.command(inc, "disconnect", func(ctx context.Context) error { return inc.res.Disconnect(ctx, true) })
	}
	time.Sleep(3 * time.Second)
	write(4096)
	for _, n := range w.nodes {
		if w.incOf(n.i) == nil {
			if err := w.powerOn(n); err != nil {
				return err
			}
		}
		w.join(w.incOf(n.i))
	}
	time.Sleep(3 * time.Second)
	write(512)
	if err := w.virtualCut(); err != nil {
		return err
	}
	if app := w.running(); app != nil {
		w.demote(app)
	}
	time.Sleep(3 * time.Second)
	return w.heal()
}
