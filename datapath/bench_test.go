package datapath

import (
	"sync"
	"sync/atomic"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// ram is a disk of plain memory: as little work as a disk can do.
type ram struct{ b []byte }

func (r ram) ReadAt(p []byte, off int64) (int, error)  { return copy(p, r.b[off:]), nil }
func (r ram) WriteAt(p []byte, off int64) (int, error) { return copy(r.b[off:], p), nil }
func (r ram) Flush() error                             { return nil }
func (r ram) Discard(off, n int64) error               { clear(r.b[off : off+n]); return nil }
func (r ram) WriteZeroes(off, n int64, _ bool) error   { clear(r.b[off : off+n]); return nil }
func (r ram) Size() int64                              { return int64(len(r.b)) }
func (r ram) LogicalBlockSize() int                    { return block.SectorSize }
func (r ram) Close() error                             { return nil }

func benchPair(b testing.TB) *node {
	b.Helper()
	p := &pair{t: b, cable: &cable{}, addr: [2]string{freePort(b), freePort(b)}}
	for i := range p.node {
		d := ram{make([]byte, 64<<20)}
		if err := meta.Create(bg(), d, meta.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		p.boot(i, d)
	}
	b.Cleanup(func() {
		for _, n := range p.node {
			_ = n.Close()
		}
	})
	p.synced()
	return p.node[0]
}

func benchWrite(b *testing.B, depth, size int) {
	n := benchPair(b)
	blocks := n.Size() / int64(size)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for range depth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := block.Buffer(size)
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := n.WriteAt(buf, (i*7919)%blocks*int64(size)); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

func BenchmarkWrite4kQD1(b *testing.B)  { benchWrite(b, 1, 4096) }
func BenchmarkWrite4kQD32(b *testing.B) { benchWrite(b, 32, 4096) }
func BenchmarkWrite1M(b *testing.B)     { benchWrite(b, 4, 1<<20) }

func BenchmarkFullSync(b *testing.B) {
	for range b.N {
		b.StopTimer()
		p := newPair(b, testSize, testSize, nil)
		p.up()
		p.await("connection", connected)
		b.StartTimer()
		p.node[0].ok("promote", p.node[0].Promote(bg(), true))
		p.await("the sync", func(s *Status) bool { return s.Conn == proto.Connected && s.PeerDisk == proto.UpToDate })
	}
}
