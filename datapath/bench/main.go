package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// settings are the flags.
type settings struct {
	dir    string
	size   int64
	rounds int
	each   time.Duration
	only   string
}

// result is one line of the table.
type result struct {
	name     string
	got      string // the engine's figure
	baseline string
	ratio    float64 // the median over the rounds; 0: none
	spread   string
	target   string
	met      bool
}

// measurement is one thing to measure.
type measurement struct {
	name string
	run  func(s *settings) ([]result, error)
}

var measurements = []measurement{
	{"write", benchWrites},
	{"memory", benchMemory},
	{"allocs", benchAllocs},
	{"fullsync", benchFullSync},
	{"sparse", benchSparse},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	s := &settings{}
	flag.StringVar(&s.dir, "dir", "", "folder on the disk to measure (default: the system's folder for temporary files)")
	flag.Int64Var(&s.size, "size", 512<<20, "bytes of each disk of files")
	flag.IntVar(&s.rounds, "rounds", 15, "how often baseline and engine are measured in turn; the median ratio counts")
	flag.DurationVar(&s.each, "time", 200*time.Millisecond, "length of each measurement of writes")
	flag.StringVar(&s.only, "only", "", "measurements whose name contains this: write, memory, allocs, fullsync, sparse")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the run to this file")
	flag.Parse()
	dir, err := os.MkdirTemp(s.dir, "santui-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s.dir = dir
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var all []result
	for _, m := range measurements {
		if !strings.Contains(m.name, s.only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", m.name)
		rs, err := m.run(s)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		all = append(all, rs...)
	}
	return table(all)
}

func table(all []result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tengine\tbaseline\tratio\trounds\ttarget\t")
	for _, r := range all {
		ratio, verdict := "", "missed"
		if r.ratio > 0 {
			ratio = fmt.Sprintf("%.2f", r.ratio)
		}
		if r.met {
			verdict = "met"
		}
		if r.target == "" {
			verdict = ""
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.got, r.baseline, ratio, r.spread, r.target, verdict)
	}
	return w.Flush()
}

// median of a non-empty list.
func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

func spread(v []float64) string {
	return fmt.Sprintf("%.2f-%.2f", slices.Min(v), slices.Max(v))
}
