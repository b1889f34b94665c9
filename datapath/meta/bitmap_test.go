package meta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

func newBitmap(t tb, size int64) *Bitmap {
	t.Helper()
	b, err := NewBitmap(size)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// contents lists the set bits.
func contents(b *Bitmap) []uint64 {
	var out []uint64
	for bit, ok := b.NextSet(0); ok; bit, ok = b.NextSet(bit + 1) {
		out = append(out, bit)
	}
	return out
}

func TestBitmapRounding(t *testing.T) {
	b := newBitmap(t, 10*BlockSize+512)
	if b.Bits() != 11 || b.NumWords() != 1 {
		t.Fatalf("%d bits, %d words", b.Bits(), b.NumWords())
	}
	for _, c := range []struct {
		set    bool
		off, n int64
		want   uint64
		weight uint64
	}{
		{true, 512, 512, 1, 1},
		{true, 4096 - 512, 1024, 1, 2},
		{true, 0, 8192, 0, 2},
		{false, 512, 8192, 1, 1}, // block 1 only
		{false, 0, 4095, 0, 1},
		{true, 0, 1 << 40, 10, 11},
		{false, 10 * BlockSize, 512, 1, 10}, // the short last block
		{false, 9*BlockSize + 1, BlockSize - 1, 0, 10},
		{true, -512, 4096, 0, 10},
		{true, 0, 0, 0, 10},
		{false, 0, 1<<63 - 1, 10, 0},
		{true, 1 << 40, 4096, 0, 0},
	} {
		do := b.ClearRange
		if c.set {
			do = b.SetRange
		}
		if got := do(c.off, c.n); got != c.want || b.Weight() != c.weight {
			t.Errorf("set=%v [%d,+%d): changed %d weight %d, want %d and %d", c.set, c.off, c.n, got, b.Weight(), c.want, c.weight)
		}
	}
}

// bitmapModel runs random operations on a Bitmap and on a map.
type bitmapModel struct {
	b     *Bitmap
	size  int64
	model map[uint64]bool
}

func (m *bitmapModel) nbits() uint64 { return (uint64(m.size) + BlockSize - 1) / BlockSize }

func (m *bitmapModel) fill(first, end uint64, set bool) (changed uint64) {
	for bit := first; bit < min(end, m.nbits()); bit++ {
		if m.model[bit] != set {
			changed++
			m.model[bit] = set
		}
	}
	return changed
}

func TestBitmapModel(t *testing.T) {
	const maxSize = 2 * pageBits * BlockSize
	size := rapid.Int64Range(0, maxSize/512)
	rapid.Check(t, func(t *rapid.T) {
		m := &bitmapModel{size: size.Draw(t, "size") * 512, model: map[uint64]bool{}}
		b, err := NewBitmap(m.size)
		if err != nil {
			t.Fatal(err)
		}
		m.b = b
		bit := rapid.OneOf(rapid.Uint64Range(0, 2*pageBits), rapid.Just(uint64(pageBits)), rapid.Just(m.nbits()), rapid.Uint64Range(pageBits-70, pageBits+70))
		check := func(t *rapid.T, what string, got, want uint64) {
			if got != want {
				t.Fatalf("%s changed %d, want %d", what, got, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				first, end := bit.Draw(t, "first"), bit.Draw(t, "end")
				check(t, "set", b.SetBits(first, end), m.fill(first, end, true))
			},
			"clear": func(t *rapid.T) {
				first, end := bit.Draw(t, "first"), bit.Draw(t, "end")
				check(t, "clear", b.ClearBits(first, end), m.fill(first, end, false))
			},
			"setall":   func(t *rapid.T) { check(t, "set all", b.SetAll(), m.fill(0, m.nbits(), true)) },
			"clearall": func(t *rapid.T) { check(t, "clear all", b.ClearAll(), m.fill(0, m.nbits(), false)) },
			"or":       func(t *rapid.T) { m.or(t) },
			"resize": func(t *rapid.T) {
				old, setNew := m.nbits(), rapid.Bool().Draw(t, "setNew")
				m.size = size.Draw(t, "size") * 512
				if err := b.resize(m.size, setNew); err != nil {
					t.Fatal(err)
				}
				for bit := range m.model {
					if bit >= m.nbits() {
						delete(m.model, bit)
					}
				}
				if setNew {
					m.fill(old, m.nbits(), true)
				}
			},
			"": func(t *rapid.T) { m.compare(t) },
		})
	})
}

func (m *bitmapModel) or(t *rapid.T) {
	words := (m.nbits() + 63) / 64
	if words == 0 {
		return
	}
	start := rapid.Uint64Range(0, words-1).Draw(t, "start")
	p := make([]byte, 8*rapid.Uint64Range(0, min(words-start, 9)).Draw(t, "n"))
	for i := range p {
		p[i] = rapid.Byte().Draw(t, "byte")
	}
	changed, err := m.b.OrWords(start, p)
	if err != nil {
		t.Fatal(err)
	}
	want := uint64(0)
	for i := range uint64(len(p)) * 8 {
		if p[i/8]>>(i%8)&1 == 1 {
			want += m.fill(start*64+i, start*64+i+1, true)
		}
	}
	if changed != want {
		t.Fatalf("or changed %d, want %d", changed, want)
	}
}

// compare reads the bitmap in every way there is.
func (m *bitmapModel) compare(t *rapid.T) {
	var want []uint64
	for bit, set := range m.model {
		if set {
			want = append(want, bit)
		}
	}
	slices.Sort(want)
	b := m.b
	if b.Weight() != uint64(len(want)) || b.Bits() != m.nbits() {
		t.Fatalf("weight %d, %d bits; want %d, %d", b.Weight(), b.Bits(), len(want), m.nbits())
	}
	var runs []uint64
	pos := uint64(0)
	for {
		n, set := b.Run(pos)
		if n == 0 {
			break
		}
		if set {
			for bit := pos; bit < pos+n; bit++ {
				runs = append(runs, bit)
			}
		}
		pos += n
	}
	if pos != m.nbits() || !slices.Equal(runs, want) {
		t.Fatalf("runs end at %d with %d bits, want %d with %d", pos, len(runs), m.nbits(), len(want))
	}
	p := make([]byte, b.NumWords()*8+8)
	if n := b.ReadWords(0, p); n != len(p)-8 {
		t.Fatalf("ReadWords gave %d bytes of %d", n, len(p)-8)
	}
	total := 0
	for k, v := range p {
		for i := uint64(k) * 8; v != 0; i, v = i+1, v>>1 {
			if v&1 == 0 {
				continue
			}
			total++
			if total < len(want) && want[total-1] != i || !b.Test(i) {
				t.Fatalf("bit %d is in the words but not in the model", i)
			}
		}
	}
	if total != len(want) {
		t.Fatalf("%d bits in the words, want %d", total, len(want))
	}
	if len(want) > 0 {
		off := int64(want[len(want)/2]) * BlockSize
		if n := b.CountRange(off, m.size); n != uint64(len(want)-len(want)/2) {
			t.Fatalf("CountRange from %d: %d", off, n)
		}
	}
}

func TestBitmapOrWordsRefuses(t *testing.T) {
	b := newBitmap(t, 100*BlockSize)
	for _, c := range []struct {
		start uint64
		n     int
	}{{0, 7}, {0, 24}, {2, 8}, {3, 0}, {1 << 63, 8}} {
		if _, err := b.OrWords(c.start, make([]byte, c.n)); !errors.Is(err, ErrInvalid) {
			t.Errorf("OrWords(%d, %d bytes): %v", c.start, c.n, err)
		}
	}
	if n, err := b.OrWords(1, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}); n != 4 || err != nil {
		t.Errorf("bits behind the last must be dropped: %d, %v", n, err)
	}
	if _, err := NewBitmap(maxDevice + 512); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := b.WriteDirty(context.Background()); !errors.Is(err, ErrNoMetadata) {
		t.Errorf("write of a bitmap in memory: %v", err)
	}
}

// A large bitmap costs little memory while its pages are all alike.
func TestBitmapHuge(t *testing.T) {
	b := newBitmap(t, 1<<40)
	if n := b.SetAll(); n != 1<<28 {
		t.Errorf("%d bits", n)
	}
	b.ClearRange(1<<39, 1<<20)
	if bit, ok := b.NextClear(0); !ok || bit != 1<<27 {
		t.Errorf("NextClear = %d, %v", bit, ok)
	}
	if len(b.pages) != 8192 || b.pages[4096] == fullPage || b.pages[4097] != fullPage {
		t.Error("exactly one page should have been copied")
	}
	if n, set := b.Run(0); n != 1<<27 || !set {
		t.Errorf("Run(0) = %d, %v", n, set)
	}
	b.SetRange(1<<39, 1<<20)
	if b.pages[4096] != fullPage || fullPage[0] != ^uint64(0) {
		t.Error("a full page should be shared again")
	}
}

// memBitmap is a bitmap over a fresh memory disk that is zero.
func memBitmap(t *testing.T, dev block.Device) *Bitmap {
	t.Helper()
	l := layout(t, dev.Size())
	b, err := openBitmap(dev, dev, l, l.UsableSize)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBitmapWriteDirty(t *testing.T) {
	ctx := context.Background()
	mem := blocktest.NewMem(64 << 30)
	f := blocktest.NewFaults(mem)
	b := memBitmap(t, f)
	b.SetRange(0, 4096)
	b.SetRange(1<<27, 1<<27) // page 1, full
	b.SetRange(40<<30, 512)
	if b.Dirty() != 3 {
		t.Fatalf("%d pages dirty", b.Dirty())
	}
	if err := b.WriteDirty(ctx); err != nil {
		t.Fatal(err)
	}
	if b.Dirty() != 0 || b.Writes() != 3 || f.Calls(blocktest.OpWrite) != 2 || f.Calls(blocktest.OpFlush) != 2 {
		t.Errorf("dirty %d, pages %d, writes %d, flushes %d", b.Dirty(), b.Writes(), f.Calls(blocktest.OpWrite), f.Calls(blocktest.OpFlush))
	}
	again := memBitmap(t, mem.CrashClone(1, 0))
	if !slices.Equal(contents(again), contents(b)) || again.Dirty() != 0 {
		t.Error("read back it differs")
	}
	if err := b.WriteDirty(ctx); err != nil || f.Calls(blocktest.OpFlush) != 2 {
		t.Error("with nothing dirty nothing should be written")
	}
	if err := b.WriteAll(ctx); err != nil || b.Writes() != 3+uint64(len(b.pages)) {
		t.Errorf("WriteAll: %v, %d pages", err, b.Writes())
	}

	for _, op := range []blocktest.Op{blocktest.OpWrite, blocktest.OpFlush} {
		b.SetBits(uint64(op)*100, uint64(op)*100+5)
		remove := f.Inject(blocktest.Rule{Ops: op, Fail: true})
		if err := b.WriteDirty(ctx); !errors.Is(err, ErrMetaIO) || !errors.Is(err, blocktest.ErrInjected) {
			t.Errorf("%v: %v", op, err)
		}
		if b.Dirty() == 0 {
			t.Error("after a failure the pages must still be dirty")
		}
		remove()
		if err := b.WriteDirty(ctx); err != nil || b.Dirty() != 0 {
			t.Errorf("retry: %v", err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.WriteDirty(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Bits set before WriteDirty was called are on disk when it returns, whoever else
// sets, clears and writes meanwhile.
func TestBitmapConcurrent(t *testing.T) {
	mem := blocktest.NewMem(2 << 30)
	b := memBitmap(t, mem)
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 1))
			for i := range 200 {
				bit := rnd.Uint64N(b.Bits()/4)*4 + w // each has bits of its own
				b.SetBits(bit, bit+1)
				if i%20 == 0 {
					if err := b.WriteDirty(context.Background()); err != nil {
						t.Error(err)
					}
					p := make([]byte, 1)
					sect := make([]byte, 512)
					off := b.off + int64(bit/8)
					if _, err := mem.CrashClone(w, 0).ReadAt(sect, off&^511); err != nil {
						t.Error(err)
					}
					if p[0] = sect[off%512]; p[0]>>(bit%8)&1 == 0 {
						t.Errorf("bit %d is not on disk", bit)
					}
				}
				if i%3 == 0 {
					b.ClearBits(bit, bit+1)
				}
				b.NextSet(bit)
			}
		})
	}
	wg.Wait()
}

func TestBitmapNoAllocs(t *testing.T) {
	b := newBitmap(t, 1<<34)
	b.SetRange(1<<33, 8192)
	if n := testing.AllocsPerRun(1000, func() {
		b.SetRange(1<<33+1<<20, 1<<16)
		b.ClearRange(1<<33+1<<20, 1<<16)
		b.NextSet(0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// A page that empties and fills again uses the spare.
	if n := testing.AllocsPerRun(1000, func() { b.SetRange(0, 4096); b.ClearRange(0, 4096) }); n != 0 {
		t.Errorf("%v allocations for a page that comes and goes", n)
	}
}

func FuzzBitmap(f *testing.F) {
	f.Add(uint64(100), uint64(0), []byte{0xff, 0, 0, 0, 0, 0, 0, 0x80})
	f.Add(uint64(32768), uint64(511), []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(uint64(1), uint64(1), []byte{})
	f.Fuzz(func(t *testing.T, bits, start uint64, p []byte) {
		bits %= 1 << 18
		b, err := NewBitmap(int64(bits) * BlockSize)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := b.OrWords(start, p)
		if err != nil {
			if b.Weight() != 0 {
				t.Fatal("a refused packet changed bits")
			}
			return
		}
		if changed != b.Weight() || changed > bits {
			t.Fatalf("changed %d, weight %d of %d", changed, b.Weight(), bits)
		}
		q := make([]byte, len(p))
		if n := b.ReadWords(start, q); n != len(p) {
			t.Fatalf("%d of %d bytes read back", n, len(p))
		}
		for i := 0; i+8 <= len(p); i += 8 {
			if got, sent := binary.LittleEndian.Uint64(q[i:]), binary.LittleEndian.Uint64(p[i:]); got&^sent != 0 {
				t.Fatalf("word %d: %x from %x", i/8, got, sent)
			}
		}
		if b.ClearAll() != changed || b.Weight() != 0 {
			t.Fatal("not empty after ClearAll")
		}
	})
}

func BenchmarkBitmapSetClear(b *testing.B) {
	bm := newBitmap(b, 1<<40)
	bm.SetBits(1<<20, 1<<20+1)
	b.ReportAllocs()
	for b.Loop() {
		bm.SetRange(1<<32+8192, 4096)
		bm.ClearRange(1<<32+8192, 4096)
	}
}

func BenchmarkBitmapScanEmpty(b *testing.B) {
	bm := newBitmap(b, 1<<40)
	b.ReportAllocs()
	for b.Loop() {
		bm.NextSet(0)
	}
}

// onFlush is a disk that does something after each flush.
type onFlush struct {
	*blocktest.Mem
	do func(n int)
	n  int
}

func (d *onFlush) Flush() error {
	if err := d.Mem.Flush(); err != nil {
		return err
	}
	d.n++
	d.do(d.n)
	return nil
}

// WriteAt shows the disk as it is right after the write.
func (d *onFlush) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.Mem.WriteAt(p, off)
	d.do(-1)
	return n, err
}

// TestNoBitIsClearBeforeItsData: a resync goes on while the bitmap is written, because the node is demoted or the activity log
// needs room. Whatever the disk's cache loses, a bit that is clear on the disk stands for data that is on it.
func TestNoBitIsClearBeforeItsData(t *testing.T) {
	const blk = 5
	for name, write := range map[string]func(m *Metadata) error{
		"demotion": func(m *Metadata) error {
			if err := m.data.Flush(); err != nil {
				return err
			}
			return m.Bitmap().WriteDirty(context.Background())
		},
		"log": func(m *Metadata) error {
			for e := range int64(MinALExtents + 1) {
				if err := m.AL().Begin(context.Background(), e*ExtentSize, 512); err != nil {
					return err
				}
				_ = m.AL().End(e*ExtentSize, 512)
			}
			return nil
		},
	} {
		d := &onFlush{Mem: blocktest.NewMem(64 << 20), do: func(int) {}}
		if err := Create(context.Background(), d, CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		m, err := Open(d, OpenOptions{ALExtents: MinALExtents})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.SetAgreedSize(context.Background(), 40<<20, true); err != nil {
			t.Fatal(err)
		}
		m.Bitmap().ClearBits(9, 10) // so that there is something to write
		data := bytes.Repeat([]byte{7}, BlockSize)
		began, busy := false, false
		d.do = func(int) {
			if busy {
				return
			}
			busy = true
			defer func() { busy = false }()
			if !began { // a block of the resync arrives
				began = true
				if _, err := d.Mem.WriteAt(data, blk*BlockSize); err != nil {
					t.Fatal(err)
				}
				m.Bitmap().ClearBits(blk, blk+1)
			}
			for seed := range uint64(16) {
				left := d.CrashClone(seed, 50)
				l, err := Open(left, OpenOptions{ALExtents: MinALExtents})
				if err != nil {
					continue // a superblock that is torn is another test's
				}
				got := make([]byte, BlockSize)
				if _, err := left.ReadAt(got, blk*BlockSize); err != nil {
					t.Fatal(err)
				}
				if !l.Bitmap().Test(blk) && !bytes.Equal(got, data) {
					t.Fatalf("%s: the bit is clear on the disk, the data was in its cache", name)
				}
			}
		}
		if err := write(m); err != nil {
			t.Fatal(err)
		}
		if !began {
			t.Fatalf("%s: no flush", name)
		}
	}
}
