package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
)

// load writes blocks of n bytes at random places of a device for a time, depth at once, and tells how many a second.
func load(write func(p []byte, off int64) (int, error), size int64, n, depth int, d time.Duration) (float64, error) {
	var (
		wg    sync.WaitGroup
		stop  atomic.Bool
		total atomic.Int64
		once  sync.Once
		fault error
	)
	began := time.Now()
	for lane := range depth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(lane), 42))
			buf, done := block.Buffer(n), int64(0)
			for !stop.Load() {
				_, err := write(buf, r.Int64N(size/int64(n))*int64(n))
				if err != nil {
					failed := err // the loop's own must stay off the heap
					once.Do(func() { fault = failed })
					return
				}
				done++
			}
			total.Add(done)
		}()
	}
	time.Sleep(d)
	stop.Store(true)
	wg.Wait()
	if fault != nil {
		return 0, fault
	}
	return float64(total.Load()) / time.Since(began).Seconds(), nil
}

// benchWrites compares writes through a pair with writes to a file beside its disks, to two, and with a bare pair: the first
// ratio is the target's, the others say how much of what is missing is the disk's, the sockets', the engine's.
func benchWrites(s *settings) ([]result, error) {
	var open [4]opener
	for i, name := range []string{"otter", "weasel", "raw", "raw-peer"} {
		var err error
		if open[i], err = s.fileDisk(name); err != nil {
			return nil, err
		}
	}
	raw, err := open[2]()
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	rawPeer, err := open[3]()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rawPeer.Close() }()
	p, err := synced([2]opener{open[0], open[1]}, func(c *datapath.Config) { c.Protocol = proto.ProtocolC })
	if err != nil {
		return nil, err
	}
	defer p.close()
	var out []result
	for _, c := range []struct {
		depth  int
		target float64
	}{{1, 0.60}, {32, 0.40}} {
		rs, err := s.compare(p.node[0], raw, rawPeer, c.depth)
		if err != nil {
			return nil, err
		}
		rs[0].target, rs[0].met = fmt.Sprintf(">= %.2f", c.target), rs[0].ratio >= c.target
		out = append(out, rs...)
	}
	return out, nil
}

// compare measures, round by round, one disk, both disks without a network between, a bare pair, and the engine.
func (s *settings) compare(n *datapath.Resource, raw, rawPeer block.Device, depth int) ([]result, error) {
	pair, err := newBare(raw, rawPeer, depth)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pair.close() }()
	size := min(n.Size(), raw.Size()) &^ 4095
	both := newBoth(raw, rawPeer, depth)
	defer both.close()
	var rates, cpu, switches, of [4][]float64
	for range s.rounds {
		var rate [4]float64
		for i, write := range []func([]byte, int64) (int, error){raw.WriteAt, both.WriteAt, pair.WriteAt, n.WriteAt} {
			before, began := spent(), time.Now()
			if rate[i], err = load(write, size, 4096, depth, s.each); err != nil {
				return nil, err
			}
			after, writes := spent(), rate[i]*time.Since(began).Seconds()
			cpu[i] = append(cpu[i], float64((after.cpu-before.cpu).Microseconds())/writes)
			switches[i] = append(switches[i], float64(after.switches-before.switches)/writes)
			rates[i] = append(rates[i], rate[i])
		}
		for i, r := range rate {
			of[i] = append(of[i], rate[3]/r)
		}
	}
	name, got := fmt.Sprintf("protocol C, 4k random writes, QD%d", depth), fmt.Sprintf("%.0f/s", median(rates[3]))
	var out []result
	for i, baseline := range []string{"raw", "both disks", "bare pair"} {
		out = append(out, result{name: name, got: got, baseline: fmt.Sprintf("%s %.0f/s", baseline, median(rates[i])), ratio: median(of[i]), spread: spread(of[i])})
	}
	return append(out,
		result{name: name + ", CPU time of both nodes", got: fmt.Sprintf("%.0f us", median(cpu[3])), baseline: fmt.Sprintf("bare pair %.0f us", median(cpu[2]))},
		result{name: name + ", the kernel's switches", got: fmt.Sprintf("%.1f", median(switches[3])), baseline: fmt.Sprintf("bare pair %.1f", median(switches[2]))}), nil
}

// usage is what this process has cost so far.
type usage struct {
	cpu      time.Duration
	switches int64 // threads that waited or were pushed aside
}

// spent is how load-independent a figure can be on a machine that is busy with other things.
func spent() usage {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // fails only for a bad address
	return usage{time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Nvcsw + u.Nivcsw}
}

func memoryPair() (*pair, error) {
	return synced([2]opener{ramDisk(128 << 20), ramDisk(128 << 20)}, nil)
}

// benchMemory writes to disks that cost nothing, so that what is left is the engine.
func benchMemory(s *settings) ([]result, error) {
	p, err := memoryPair()
	if err != nil {
		return nil, err
	}
	defer p.close()
	var out []result
	for _, c := range []struct {
		depth  int
		target float64
	}{{1, 0}, {32, 100_000}} {
		var got []float64
		for range s.rounds {
			g, err := load(p.node[0].WriteAt, p.node[0].Size()&^4095, 4096, c.depth, s.each)
			if err != nil {
				return nil, err
			}
			got = append(got, g)
		}
		r := result{name: fmt.Sprintf("memory disks, protocol C, 4k random writes, QD%d", c.depth), got: fmt.Sprintf("%.0f/s", median(got))}
		if c.target > 0 {
			r.target, r.met = fmt.Sprintf(">= %.0f/s", c.target), median(got) >= c.target
		}
		out = append(out, r)
	}
	return out, nil
}

// benchAllocs counts what both nodes together allocate for a write.
func benchAllocs(s *settings) ([]result, error) {
	p, err := memoryPair()
	if err != nil {
		return nil, err
	}
	defer p.close()
	write, size := p.node[0].WriteAt, p.node[0].Size()&^4095
	if _, err := load(write, size, 4096, 32, max(s.each, time.Second)); err != nil { // pools fill, the activity log is warm
		return nil, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	rate, err := load(write, size, 4096, 32, max(s.each, time.Second))
	if err != nil {
		return nil, err
	}
	writes := rate * time.Since(began).Seconds()
	runtime.ReadMemStats(&after)
	n := float64(after.Mallocs-before.Mallocs) / writes
	return []result{{name: "allocations per write, both nodes", got: fmt.Sprintf("%.4f", n), target: "0 (< 0.05)", met: n < 0.05}}, nil
}
