package blocktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"example.com/santui/datapath/block"
)

// Suite checks that what open returns keeps the contract of block.Device. Each call
// of open must give a fresh device of zeroes of at least 4 MiB; Suite closes it.
func Suite(t *testing.T, open func(t *testing.T) block.Device) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(t *testing.T, d block.Device)
	}{
		{"Geometry", testGeometry},
		{"ReadBack", testReadBack},
		{"Unaligned", testUnaligned},
		{"Bounds", testBounds},
		{"Zero", testZero},
		{"Discard", testDiscard},
		{"Concurrent", testConcurrent},
		{"Closed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			t.Cleanup(func() { _ = d.Close() }) // a second Close may fail, not panic
			c.test(t, d)
		})
	}
}

func pattern(n int, seed uint64) []byte {
	p := block.Buffer(n)
	rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rnd.Read(p) // never fails
	return p
}

func mustWrite(t *testing.T, d block.Device, p []byte, off int64) {
	t.Helper()
	if n, err := d.WriteAt(p, off); err != nil || n != len(p) {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

func mustRead(t *testing.T, d block.Device, n int, off int64) []byte {
	t.Helper()
	p := block.Buffer(n)
	if got, err := d.ReadAt(p, off); err != nil || got != n {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
	}
	return p
}

func testGeometry(t *testing.T, d block.Device) {
	lbs := d.LogicalBlockSize()
	if lbs != 512 && lbs != 4096 {
		t.Errorf("logical block size %d", lbs)
	}
	if d.Size() < 4<<20 || d.Size()%int64(lbs) != 0 {
		t.Errorf("size %d with logical blocks of %d", d.Size(), lbs)
	}
}

func testReadBack(t *testing.T, d block.Device) {
	lbs := int64(d.LogicalBlockSize())
	for i, c := range []struct{ off, n int64 }{{0, lbs}, {d.Size() - lbs, lbs}, {3 * lbs, 5 * lbs}, {1 << 20, 1<<20 + 4096}} {
		want := pattern(int(c.n), uint64(i))
		mustWrite(t, d, want, c.off)
		if err := d.Flush(); err != nil {
			t.Fatalf("Flush: %v", err)
		}
		if got := mustRead(t, d, int(c.n), c.off); !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d read back differently", c.n, c.off)
		}
	}
	if got := mustRead(t, d, int(lbs), 2*lbs); !bytes.Equal(got, make([]byte, lbs)) {
		t.Error("a write changed its neighbour")
	}
	if n, err := d.WriteAt(nil, 0); n != 0 || err != nil {
		t.Errorf("empty write: %d, %v", n, err)
	}
}

// testUnaligned uses slices that do not begin where O_DIRECT wants them.
func testUnaligned(t *testing.T, d block.Device) {
	for _, n := range []int{4096, 1<<20 + 4096, 2<<20 + 8192} {
		want := pattern(n+1, uint64(n))[1:]
		mustWrite(t, d, want, 8192)
		got := make([]byte, n+3)[3:]
		if k, err := d.ReadAt(got, 8192); err != nil || k != n {
			t.Fatalf("ReadAt = %d, %v", k, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes through unaligned memory differ", n)
		}
	}
}

func testBounds(t *testing.T, d block.Device) {
	lbs := int64(d.LogicalBlockSize())
	p := block.Buffer(int(2 * lbs))
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := d.WriteAt(p, d.Size()-lbs)
	check("write over the end", err, block.ErrRange)
	_, err = d.ReadAt(p, d.Size())
	check("read behind the end", err, block.ErrRange)
	_, err = d.ReadAt(p, -lbs)
	check("read before the start", err, block.ErrRange)
	check("discard over the end", d.Discard(d.Size()-lbs, 2*lbs), block.ErrRange)
	check("zero over the end", d.WriteZeroes(d.Size()-lbs, 2*lbs, false), block.ErrRange)
	check("zero of a negative length", d.WriteZeroes(lbs, -lbs, false), block.ErrRange)
	check("zero with an overflow", d.WriteZeroes(lbs, 1<<63-512, false), block.ErrRange)
	_, err = d.ReadAt(p[:100], 0)
	check("read of 100 bytes", err, block.ErrAlignment)
	_, err = d.WriteAt(p[:lbs], 100)
	check("write at 100", err, block.ErrAlignment)
}

func testZero(t *testing.T, d block.Device) {
	const n = 3 << 20
	lbs := int64(d.LogicalBlockSize())
	for _, unmap := range []bool{false, true} {
		data := pattern(n, 7)
		mustWrite(t, d, data, 0)
		off, length := 5*lbs, int64(2<<20)+3*lbs
		if err := d.WriteZeroes(off, length, unmap); err != nil {
			t.Fatalf("WriteZeroes(unmap %v): %v", unmap, err)
		}
		clear(data[off : off+length])
		if !bytes.Equal(mustRead(t, d, n, 0), data) {
			t.Errorf("after WriteZeroes(unmap %v) the content differs", unmap)
		}
	}
}

func testDiscard(t *testing.T, d block.Device) {
	data := pattern(1<<20, 9)
	mustWrite(t, d, data, 0)
	err := d.Discard(256<<10, 512<<10)
	if err != nil && !errors.Is(err, block.ErrUnsupported) {
		t.Fatalf("Discard: %v", err)
	}
	got := mustRead(t, d, 1<<20, 0)
	if !bytes.Equal(got[:256<<10], data[:256<<10]) || !bytes.Equal(got[768<<10:], data[768<<10:]) {
		t.Error("a discard changed data outside its range")
	}
}

func testConcurrent(t *testing.T, d block.Device) {
	const workers, each = 8, 64 << 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			want := pattern(each, uint64(w))
			for range 8 {
				if _, err := d.WriteAt(want, int64(w)*each); err != nil {
					t.Errorf("write: %v", err)
				}
				if err := d.Flush(); err != nil {
					t.Errorf("flush: %v", err)
				}
				got := block.GetBuffer(each)
				if _, err := d.ReadAt(got, int64(w)*each); err != nil || !bytes.Equal(got, want) {
					t.Errorf("worker %d read something else: %v", w, err)
				}
				block.PutBuffer(got)
			}
		})
	}
	wg.Wait()
}

func testClosed(t *testing.T, d block.Device) {
	if err := d.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	p := block.Buffer(d.LogicalBlockSize())
	_, rerr := d.ReadAt(p, 0)
	_, werr := d.WriteAt(p, 0)
	for what, err := range map[string]error{"read": rerr, "write": werr, "flush": d.Flush(), "close": d.Close(),
		"zero": d.WriteZeroes(0, 4096, false)} {
		if !errors.Is(err, block.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
}
