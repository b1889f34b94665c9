package torture

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed only")
	seedsFlag = flag.Uint64("seeds", 0, "run so many seeds, from -from on")
	fromFlag  = flag.Uint64("from", 1000, "the first seed of -seeds")
	stepsFlag = flag.Int("steps", 120, "steps of the operator in a run")
	failFlag  = flag.Int("failures", 5, "stop after so many failed seeds")
	traceFlag = flag.Bool("trace", false, "print all that happens")
	linesFlag = flag.Int("lines", 400, "lines of the trace that a failure prints")
)

// defaultSeeds: 5, 7 and 14 found something once, 1385 leaves a Primary with neither disk nor peer, 1405 promotes by force, a
// Primary of 1437 attaches while connected, 1455 has a bitmap that is longer compressed; the rest is three of each kind, which
// together meet all that is expected.
var defaultSeeds = func() []uint64 {
	seeds := []uint64{5, 7, 9, 12, 14, 1385, 1405, 1437, 1455}
	for seed := uint64(1300); seed < 1339; seed++ {
		seeds = append(seeds, seed)
	}
	return seeds
}()

func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1) // fewer ways in which goroutines can overtake each other
	os.Exit(m.Run())
}

func TestTorture(t *testing.T) {
	seeds := defaultSeeds
	switch {
	case *seedFlag > 0:
		seeds = []uint64{*seedFlag}
	case *seedsFlag > 0:
		seeds = nil
		for seed := *fromFlag; seed < *fromFlag+*seedsFlag; seed++ {
			seeds = append(seeds, seed)
		}
	}
	began, total := time.Now(), totals{}
	failed := 0
	for _, seed := range seeds {
		ok := t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			run(t, seed, &total)
		})
		if !ok {
			if failed++; failed >= *failFlag {
				break
			}
		}
	}
	t.Logf("%d seeds in %v: %+v%s", len(seeds), time.Since(began).Round(time.Millisecond), total.stats, total.seen.table())
	if *seedFlag == 0 && *seedsFlag == 0 && failed < *failFlag {
		for _, kind := range total.seen.missing(expected) {
			t.Errorf("never drawn: %s", kind)
		}
	}
}

// TestRepeatable: a seed is of use only if it leads to the same life again.
func TestRepeatable(t *testing.T) {
	var total totals
	first, second := run(t, 7, &total), run(t, 7, &total)
	for i := range min(len(first), len(second)) {
		if first[i] != second[i] {
			t.Fatalf("line %d of %d differs:\n%s\n%s", i, len(first), first[i], second[i])
		}
	}
}

// run is one seed in a bubble of its own.
func run(t *testing.T, seed uint64, total *totals) (trace []string) {
	// Objects that the engine pools have channels of the bubble that made them.
	runtime.GC()
	runtime.GC()
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(options{seed: seed, steps: *stepsFlag, quiet: 40, log: *traceFlag})
		err := w.run()
		total.add(w.stats)
		total.seen.add(&w.seen)
		trace = w.lines
		if err != nil {
			t.Errorf("seed %d: %v\nrepeat with: go test ./datapath/torture -run TestTorture -seed %d -steps %d\n%s",
				seed, err, seed, *stepsFlag, strings.Join(w.trace(*linesFlag), "\n"))
		}
	})
	return trace
}

// totals are of several runs.
type totals struct {
	stats
	seen coverage
}

func (s *stats) add(o stats) {
	s.cuts += o.cuts
	s.writes += o.writes
	s.reads += o.reads
	s.flushes += o.flushes
	s.heals += o.heals
	s.promotes += o.promotes
	s.virtual += o.virtual
	s.splits += o.splits
	s.verifies += o.verifies
	s.forks += o.forks
	s.discards += o.discards
}
