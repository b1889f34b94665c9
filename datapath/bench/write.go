package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

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

// benchWrites compares writes through a pair with writes to a file beside its disks, and with a bare pair: the first
// ratio is the target's, the second says how much of what is missing is the engine's.
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

// compare measures, round by round, one disk, a bare pair of disks, and the engine.
func (s *settings) compare(n *datapath.Resource, raw, rawPeer block.Device, depth int) ([]result, error) {
	pair, err := newBare(raw, rawPeer, depth)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pair.close() }()
	size := min(n.Size(), raw.Size()) &^ 4095
	var rates [3][]float64
	var ofRaw, ofBare []float64
	for range s.rounds {
		var rate [3]float64
		for i, write := range []func([]byte, int64) (int, error){raw.WriteAt, pair.WriteAt, n.WriteAt} {
			if rate[i], err = load(write, size, 4096, depth, s.each); err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], rate[i])
		}
		ofRaw, ofBare = append(ofRaw, rate[2]/rate[0]), append(ofBare, rate[2]/rate[1])
	}
	name, got := fmt.Sprintf("protocol C, 4k random writes, QD%d", depth), fmt.Sprintf("%.0f/s", median(rates[2]))
	return []result{
		{name: name, got: got, baseline: fmt.Sprintf("raw %.0f/s", median(rates[0])), ratio: median(ofRaw), spread: spread(ofRaw)},
		{name: name, got: got, baseline: fmt.Sprintf("bare pair %.0f/s", median(rates[1])), ratio: median(ofBare), spread: spread(ofBare)},
	}, nil
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
