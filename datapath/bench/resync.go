package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
)

// copyLoop copies a device in blocks of 1 MiB, depth of them under way: one reader and so many writers. With depth 1 that
// is what "dd bs=1M iflag=direct | dd bs=1M oflag=direct" does. It gives bytes a second.
func copyLoop(from, to block.Device, size int64, depth int) (float64, error) {
	type part struct {
		buf []byte
		off int64
	}
	full, empty := make(chan part), make(chan []byte, depth+1)
	for range depth + 1 {
		empty <- block.Buffer(1 << 20)
	}
	began := time.Now()
	errs := make(chan error, depth+1)
	go func() {
		defer close(full)
		for off := int64(0); off < size; {
			b := <-empty
			b = b[:min(int64(cap(b)), size-off)]
			if _, err := from.ReadAt(b, off); err != nil {
				errs <- err
				return
			}
			full <- part{b, off}
			off += int64(len(b))
		}
		errs <- nil
	}()
	for range depth {
		go func() {
			var err error
			for p := range full {
				if err == nil {
					_, err = to.WriteAt(p.buf, p.off)
				}
				empty <- p.buf
			}
			errs <- err
		}()
	}
	var err error
	for range depth + 1 {
		err = errors.Join(err, <-errs)
	}
	if err = errors.Join(err, to.Flush()); err != nil {
		return 0, err
	}
	return float64(size) / time.Since(began).Seconds(), nil
}

// deepCopy is how many blocks the second baseline of a full sync has under way.
const deepCopy = 8

// benchFullSync compares a full sync with copies between the same two files: the first ratio is the target's, the second
// says what the disk allows that both files lie on.
func benchFullSync(s *settings) ([]result, error) {
	var open [2]opener
	for i, name := range []string{"source", "target"} {
		var err error
		if open[i], err = s.fileDisk(name); err != nil {
			return nil, err
		}
	}
	var ratios, deepRatios, base, deep, got []float64
	for range max(1, s.rounds/3) { // each takes seconds
		b, err := s.copied(open, 1)
		if err != nil {
			return nil, err
		}
		d, err := s.copied(open, deepCopy)
		if err != nil {
			return nil, err
		}
		g, err := fullSync(open)
		if err != nil {
			return nil, err
		}
		base, deep, got = append(base, b), append(deep, d), append(got, g)
		ratios, deepRatios = append(ratios, g/b), append(deepRatios, g/d)
	}
	const mb = 1e6
	name, rate := "full sync", fmt.Sprintf("%.0f MB/s", median(got)/mb)
	return []result{
		{name: name, got: rate, baseline: fmt.Sprintf("dd|dd bs=1M direct %.0f MB/s", median(base)/mb),
			ratio: median(ratios), spread: spread(ratios), target: ">= 1.50", met: median(ratios) >= 1.5},
		{name: name, got: rate, baseline: fmt.Sprintf("copy, %d writers %.0f MB/s", deepCopy, median(deep)/mb),
			ratio: median(deepRatios), spread: spread(deepRatios)},
	}, nil
}

func (s *settings) copied(open [2]opener, depth int) (float64, error) {
	from, err := open[0]()
	if err != nil {
		return 0, err
	}
	defer func() { _ = from.Close() }()
	to, err := open[1]()
	if err != nil {
		return 0, err
	}
	defer func() { _ = to.Close() }()
	return copyLoop(from, to, s.size, depth)
}

// fullSync syncs a fresh pair; the time runs from the connection on, the handshake of which is not a matter of bytes.
func fullSync(open [2]opener) (float64, error) {
	for _, d := range open {
		if err := format(d, false); err != nil {
			return 0, err
		}
	}
	p, err := newPair(open, nil)
	if err != nil {
		return 0, err
	}
	defer p.close()
	if err := p.up(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := p.await("the full sync", inSync); err != nil {
		return 0, err
	}
	return float64(p.node[0].Size()) / time.Since(began).Seconds(), nil
}

const (
	hugeDisk    = 1 << 40
	dirtyBlocks = 1000
)

// benchSparse lets a pair of 1 TiB resync 1,000 blocks.
func benchSparse(s *settings) ([]result, error) {
	var open [2]opener
	for i, name := range []string{"huge-otter", "huge-weasel"} {
		path := filepath.Join(s.dir, name)
		if err := sparse(path, hugeDisk); err != nil {
			return nil, err
		}
		open[i] = func() (block.Device, error) { return block.Open(path, block.Options{}) }
	}
	for _, d := range open {
		if err := format(d, true); err != nil {
			return nil, err
		}
	}
	before := memory()
	p, err := newPair(open, nil)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := errors.Join(p.up(), p.await("both copies", inSync)); err != nil {
		return nil, err
	}
	took, peak, err := p.dirtyResync()
	if err != nil {
		return nil, err
	}
	each := float64(int64(peak)-int64(before)) / 2 / (1 << 20)
	return []result{
		{name: fmt.Sprintf("1 TiB, resync of %d blocks, from connect", dirtyBlocks), got: fmt.Sprintf("%.2f s", took.Seconds()), target: "< 2 s", met: took < 2*time.Second},
		{name: "1 TiB, memory of one node", got: fmt.Sprintf("%.0f MiB", each), target: "<= 64 MiB", met: each <= 64},
	}, nil
}

// dirtyResync writes while the peer is away and measures how long its return takes, and the memory used meanwhile.
func (p *pair) dirtyResync() (time.Duration, uint64, error) {
	ctx, a, b := context.Background(), p.node[0], p.node[1]
	if err := b.Disconnect(ctx, false); err != nil {
		return 0, 0, err
	}
	r, buf := rand.New(rand.NewPCG(1, 2)), block.Buffer(4096)
	for range dirtyBlocks {
		if _, err := a.WriteAt(buf, r.Int64N(a.Size()/4096)*4096); err != nil {
			return 0, 0, err
		}
	}
	began := time.Now()
	if err := b.Connect(ctx, false); err != nil {
		return 0, 0, err
	}
	peak := make(chan uint64)
	stop := make(chan struct{})
	go func() {
		var most uint64
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapInuse+m.StackInuse)
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	err := p.await("the resync", func(s *datapath.Status) bool { return inSync(s) && s.PeerRole != proto.RoleUnknown })
	took := time.Since(began)
	close(stop)
	return took, <-peak, err
}

// memory in use after everything unused was given back.
func memory() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
