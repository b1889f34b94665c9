package meta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ext = ExtentSize

// tb is what helpers need, of testing.T, testing.B and rapid.T alike.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// create makes metadata on dev, agrees on the full size and opens it as Primary.
func create(t tb, dev block.Device, extents int) *Metadata {
	t.Helper()
	return outside(t, dev, MetaDisk{}, extents)
}

func begin(t tb, m *Metadata, extents ...int64) {
	t.Helper()
	for _, e := range extents {
		if err := m.AL().Begin(context.Background(), e*ext, 512); err != nil {
			t.Fatalf("Begin(%d): %v", e, err)
		}
	}
}

func end(t tb, m *Metadata, extents ...int64) {
	t.Helper()
	for _, e := range extents {
		if err := m.AL().End(e*ext, 512); err != nil {
			t.Fatalf("End(%d): %v", e, err)
		}
	}
}

// replayed is what a reader of the disk takes for active after a crash that loses
// all that was not flushed.
func replayed(t tb, mem *blocktest.Mem) []uint32 {
	t.Helper()
	m := &Metadata{dev: mem.CrashClone(0, 0), layout: layout(t, mem.Size())}
	r, err := m.readRing()
	if err != nil {
		t.Fatal(err)
	}
	extents, err := r.extents()
	if err != nil {
		t.Fatal(err)
	}
	return extents
}

func TestALChecksum(t *testing.T) {
	p := make([]byte, alBlockSize)
	if err := (&alBlock{Type: alTypeInitialized}).marshal(p); err != nil {
		t.Fatal(err)
	}
	// As written by drbdmeta 9.22 create-md.
	want := append([]byte{0x69, 0xcb, 0x65, 0xa2, 0, 0, 0, 0, 0x70, 0x9c, 0xc6, 0x51, 0xff, 0xff}, make([]byte, alBlockSize-14)...)
	if !bytes.Equal(p, want) {
		t.Errorf("initialised block begins % x", p[:16])
	}
}

// al-update.hex is a block that drbdmeta apply-al reads as it should (see the tests
// with tag root, which write the same).
func TestALGolden(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 7)
	begin(t, m, 3, 0, 200)
	got := make([]byte, alBlockSize)
	last := int64(m.al.number-1) % alBlocks
	if _, err := mem.ReadAt(got, m.Layout().ALOffset+last*alBlockSize); err != nil {
		t.Fatal(err)
	}
	if want := golden(t, "al-update.hex"); !bytes.Equal(got, want) {
		t.Errorf("block differs:\n% x\n% x", got[:64], want[:64])
	}
	var b alBlock
	if !b.unmarshal(got) {
		t.Fatal("not valid")
	}
	if b.Number != 10 || b.ContextSize != 7 || b.ContextStart != 0 || len(b.Updates) != 1 || b.Updates[0] != (alUpdate{2, 200}) ||
		!slices.Equal(b.Context[:4], []uint32{3, 0, freeExtent, freeExtent}) {
		t.Errorf("decoded: %d %d %d %v %v", b.Number, b.ContextSize, b.ContextStart, b.Updates, b.Context[:4])
	}
	got[100] ^= 1
	if b.unmarshal(got) {
		t.Error("a damaged block was taken")
	}
}

func TestALHitsAndEviction(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 7)
	al, base := m.AL(), m.Stats().ALWrites
	begin(t, m, 0, 1, 2, 3, 4, 5, 6)
	if w := m.Stats().ALWrites - base; w != 7 {
		t.Errorf("%d transactions for 7 cold extents", w)
	}
	if !al.TryBegin(3*ext, 2*ext) || al.TryBegin(6*ext, 2*ext) {
		t.Error("TryBegin must take what is active and nothing else")
	}
	if err := al.End(3*ext, 2*ext); err != nil {
		t.Error(err)
	}
	end(t, m, 5, 0, 1, 2, 3, 4, 6)
	begin(t, m, 5) // used again: now the last to go
	end(t, m, 5)
	if m.Stats().ALWrites-base != 7 {
		t.Error("a hit wrote")
	}
	m.Bitmap().SetRange(0, 4096) // in extent 0, which goes first
	begin(t, m, 20)
	if got, want := al.Extents(), []uint32{1, 2, 3, 4, 5, 6, 20}; !slices.Equal(got, want) {
		t.Errorf("active %v, want %v", got, want)
	}
	if got := replayed(t, mem); !slices.Equal(got, al.Extents()) {
		t.Errorf("on disk %v", got)
	}
	if m.Bitmap().Dirty() != 0 {
		t.Error("the bitmap page of an evicted extent must be written first")
	}
	if err := al.End(0, 512); !errors.Is(err, ErrNotActive) {
		t.Errorf("End without Begin: %v", err)
	}
	if err := al.End(5*ext, 512); !errors.Is(err, ErrNotActive) {
		t.Errorf("End of an idle extent: %v", err)
	}
}

func TestALRefuses(t *testing.T) {
	m := create(t, blocktest.NewMem(1<<30), 7)
	ctx := context.Background()
	for _, c := range []struct {
		off, n int64
		want   error
	}{{0, 8 * ext, ErrRangeTooLarge}, {ext / 2, 7 * ext, ErrRangeTooLarge}, {-512, 512, block.ErrRange}, {0, -1, block.ErrRange},
		{m.Layout().UsableSize, 512, block.ErrRange}, {512, 1<<63 - 1, block.ErrRange}} {
		if err := m.AL().Begin(ctx, c.off, c.n); !errors.Is(err, c.want) {
			t.Errorf("Begin(%d, %d): %v, want %v", c.off, c.n, err, c.want)
		}
	}
	if err := m.AL().Begin(ctx, 0, 7*ext); err != nil {
		t.Errorf("the whole log in one range: %v", err)
	}
	if err := m.AL().End(0, 7*ext); err != nil {
		t.Error(err)
	}
	if err := m.AL().Begin(ctx, 0, 0); err != nil || m.AL().End(0, 0) != nil {
		t.Errorf("nothing: %v", err)
	}
}

// A range of more extents than one transaction holds takes several.
func TestALWideRange(t *testing.T) {
	mem := blocktest.NewMem(2 << 30)
	m := create(t, mem, 1237)
	base := m.Stats().ALWrites
	if err := m.AL().Begin(context.Background(), 0, 200*ext); err != nil {
		t.Fatal(err)
	}
	if w := m.Stats().ALWrites - base; w != 4 {
		t.Errorf("%d transactions for 200 extents, want 4", w)
	}
	if got := replayed(t, mem); len(got) != 200 {
		t.Errorf("%d extents on disk", len(got))
	}
}

// The state outlives the ring: every slot is repeated before its update is lost.
func TestALContextCycles(t *testing.T) {
	mem := blocktest.NewMem(64 << 30)
	m := create(t, mem, MaxALExtents)
	if err := m.AL().Begin(context.Background(), 0, 6000*ext); err != nil {
		t.Fatal(err)
	}
	for e := int64(6001); e < 6050; e++ {
		begin(t, m, e)
		if got := replayed(t, mem); len(got) != 6000+int(e-6000) {
			t.Fatalf("after extent %d the disk knows %d", e, len(got))
		}
	}
}

// waitFor polls for a condition that other goroutines bring about.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (a *ActivityLog) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sleepers
}

func TestALBatches(t *testing.T) {
	f := blocktest.NewFaults(blocktest.NewMem(1 << 30))
	m := create(t, f, 100)
	gate := make(chan struct{})
	remove := f.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Times: 1, Block: gate})
	defer remove()
	base := m.Stats().ALWrites
	var wg sync.WaitGroup
	for e := range int64(40) {
		wg.Go(func() {
			if err := m.AL().Begin(context.Background(), e*ext, 512); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, "39 sleepers", func() bool { return m.AL().waiting() == 39 })
	close(gate)
	wg.Wait()
	if w := m.Stats().ALWrites - base; w != 2 {
		t.Errorf("%d transactions, want 2: the first one's, and one for all who came meanwhile", w)
	}
}

func TestALWaitsForSlots(t *testing.T) {
	m := create(t, blocktest.NewMem(1<<30), 7)
	begin(t, m, 0, 1, 2, 3, 4, 5, 6)
	results := make(chan error, 2)
	go func() { results <- m.AL().Begin(context.Background(), 10*ext, 3*ext) }()
	waitFor(t, "the wide one", func() bool { return m.AL().waiting() == 1 })
	end(t, m, 6)
	// A narrow one that would fit must not overtake it, not even a hit.
	go func() { results <- m.AL().Begin(context.Background(), 0, 512) }()
	waitFor(t, "both", func() bool { return m.AL().waiting() == 2 })
	end(t, m, 5)
	select {
	case err := <-results:
		t.Fatalf("served too early: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	end(t, m, 4)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if got, want := m.AL().Extents(), []uint32{0, 1, 2, 3, 10, 11, 12}; !slices.Equal(got, want) {
		t.Errorf("active %v, want %v", got, want)
	}
}

func TestALCancel(t *testing.T) {
	f := blocktest.NewFaults(blocktest.NewMem(1 << 30))
	m := create(t, f, 7)
	gate := make(chan struct{})
	remove := f.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Times: 1, Block: gate})
	results := make(chan error, 3)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { results <- m.AL().Begin(context.Background(), 0, 6*ext) }() // writes
	waitFor(t, "the writer", func() bool { return m.AL().Active() == 6 })
	go func() { results <- m.AL().Begin(ctx, 6*ext, 512) }() // has a slot, waits for the transaction
	waitFor(t, "one sleeper", func() bool { return m.AL().waiting() == 1 })
	go func() { results <- m.AL().Begin(ctx, 20*ext, 512) }() // waits for a slot
	waitFor(t, "two sleepers", func() bool { return m.AL().waiting() == 2 })
	cancel()
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled Begin: %v", err)
		}
	}
	close(gate)
	if err := <-results; err != nil {
		t.Error(err)
	}
	remove()
	// The slot of the cancelled one comes back into use.
	begin(t, m, 30)
	if got := m.AL().Extents(); !slices.Contains(got, 30) || slices.Contains(got, 6) {
		t.Errorf("active %v", got)
	}
}

func TestALFailureIsFinal(t *testing.T) {
	for _, op := range []blocktest.Op{blocktest.OpWrite, blocktest.OpFlush} {
		f := blocktest.NewFaults(blocktest.NewMem(1 << 30))
		m := create(t, f, 7)
		begin(t, m, 0)
		f.Inject(blocktest.Rule{Ops: op, Times: 1, Fail: true})
		for range 2 {
			if err := m.AL().Begin(context.Background(), ext, 512); !errors.Is(err, ErrMetaIO) || !errors.Is(err, blocktest.ErrInjected) {
				t.Errorf("%v: %v", op, err)
			}
		}
		if err := m.AL().Begin(context.Background(), 0, 512); !errors.Is(err, ErrMetaIO) {
			t.Errorf("a hit after the failure: %v", err)
		}
		end(t, m, 0)
	}
}

func TestALClose(t *testing.T) {
	m := create(t, blocktest.NewMem(1<<30), 7)
	begin(t, m, 0, 1, 2, 3, 4, 5, 6)
	result := make(chan error)
	go func() { result <- m.AL().Begin(context.Background(), 10*ext, 512) }()
	waitFor(t, "the sleeper", func() bool { return m.AL().waiting() == 1 })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("waiting Begin: %v", err)
	}
	if err := m.Update(context.Background(), func(*Superblock) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("Update: %v", err)
	}
}

// At every moment a crash leaves marks for all writes that had begun and all bits
// that had been set when their write ended.
func TestALCrashSafety(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := blocktest.NewMem(1 << 30)
		m := create(t, mem, rapid.IntRange(7, 12).Draw(t, "capacity"))
		ctx := context.Background()
		running := map[int][2]int64{}
		var marked [][2]int64
		next := 0
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				if len(running) > 2 { // at most two extents each, so that none waits
					t.Skip("busy")
				}
				off := rapid.Int64Range(0, m.Layout().UsableSize/512-2048).Draw(t, "off") * 512
				n := rapid.Int64Range(1, 2048).Draw(t, "n") * 512
				if err := m.AL().Begin(ctx, off, n); err != nil {
					t.Fatal(err)
				}
				running[next] = [2]int64{off, n}
				next++
			},
			"end": func(t *rapid.T) {
				for id, r := range running {
					if rapid.Bool().Draw(t, "out of sync") {
						m.Bitmap().SetRange(r[0], r[1])
						marked = append(marked, r)
					}
					if err := m.AL().End(r[0], r[1]); err != nil {
						t.Fatal(err)
					}
					delete(running, id)
					return
				}
			},
			"write": func(t *rapid.T) {
				if err := m.Bitmap().WriteDirty(ctx); err != nil {
					t.Fatal(err)
				}
			},
			"crash": func(t *rapid.T) {
				clone := mem.CrashClone(rapid.Uint64().Draw(t, "seed"), rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "survive"))
				want := slices.Clone(marked)
				for _, r := range running {
					want = append(want, [2]int64{r[0] &^ (ext - 1), ext})
				}
				if err := covered(clone, want); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// covered attaches a crashed disk and checks that all of the ranges are marked.
func covered(dev block.Device, want [][2]int64) error {
	m, err := Open(dev, OpenOptions{ALExtents: 7})
	if err != nil {
		return err
	}
	if !m.NeedsApplyAL() {
		return errors.New("the crashed disk is not marked unclean")
	}
	if _, err := m.ApplyAL(context.Background()); err != nil {
		return err
	}
	if m, err = Open(dev, OpenOptions{}); err != nil || m.NeedsApplyAL() {
		return fmt.Errorf("after ApplyAL: unclean, or %w", err)
	}
	for _, r := range want {
		end := min(r[0]+r[1], m.Bitmap().Size())
		blocks := uint64((end+BlockSize-1)/BlockSize - r[0]/BlockSize)
		if got := m.Bitmap().CountRange(r[0], end-r[0]); got != blocks {
			return fmt.Errorf("of [%d,+%d) %d of %d blocks are marked", r[0], r[1], got, blocks)
		}
	}
	return nil
}

// The same with many writers at once and crashes in the middle of everything.
func TestALCrashConcurrent(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 9)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	must := map[[2]int64]bool{} // grows only: what has to be marked from now on
	running := map[int][2]int64{}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 2))
			for i := 0; ctx.Err() == nil; i++ {
				off, n := rnd.Int64N(m.Layout().UsableSize/4096-300)*4096, 4096*(1+rnd.Int64N(256))
				if m.AL().Begin(ctx, off, n) != nil {
					return
				}
				mu.Lock()
				running[w] = [2]int64{off, n}
				mu.Unlock()
				mark := rnd.IntN(4) == 0
				if mark {
					m.Bitmap().SetRange(off, n)
				}
				mu.Lock()
				delete(running, w)
				if mark {
					must[[2]int64{off, n}] = true
				}
				mu.Unlock()
				if err := m.AL().End(off, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for seed := range uint64(60) {
		mu.Lock()
		var want [][2]int64
		for r := range must {
			want = append(want, r)
		}
		for _, r := range running {
			want = append(want, [2]int64{r[0], r[1]})
		}
		// The clone is taken under the lock: what runs now has not ended.
		clone := mem.CrashClone(seed, int(seed%3)*50)
		mu.Unlock()
		if err := covered(clone, want); err != nil {
			t.Errorf("crash %d: %v", seed, err)
			break
		}
	}
	cancel()
	wg.Wait()
}

// TestALDamage flips a byte in each block of a log in use. Where the rest still holds every slot, all that was active is
// marked and the damage is told; where it may not, nothing is applied. The block that the next transaction goes to may be
// torn by any power cut.
func TestALDamage(t *testing.T) {
	for capacity, contexts := range map[int]int{7: 1, 919: 1, 1237: 2, 6433: 7} { // transactions that hold every slot
		for age := range alBlocks { // of the flipped block: 0 the newest transaction, 7 the one that goes next
			mem := blocktest.NewMem(64 << 30)
			m := create(t, mem, capacity)
			for e := range int64(30) {
				begin(t, m, 3*e)
				if e < 25 {
					end(t, m, 3*e)
				}
			}
			at := m.Layout().ALOffset + (int64(m.al.number)-1-int64(age))%alBlocks*alBlockSize
			p := make([]byte, 512)
			if _, err := mem.ReadAt(p, at); err != nil {
				t.Fatal(err)
			}
			p[100] ^= 1
			if _, err := mem.WriteAt(p, at); err != nil {
				t.Fatal(err)
			}
			a, err := Open(mem, OpenOptions{ALExtents: capacity})
			if err != nil {
				t.Fatal(err)
			}
			// A damaged newest transaction looks like one that a power cut tore.
			torn := age == 0 || age == alBlocks-1
			if told := strings.Contains(a.Damage(), fmt.Sprintf("at %d the checksum is", at)); told == torn {
				t.Errorf("%d extents, age %d: %q", capacity, age, a.Damage())
			}
			_, err = a.ApplyAL(ctx)
			if !torn && age < contexts {
				if !errors.Is(err, ErrALUnreadable) || !strings.Contains(err.Error(), fmt.Sprint(at)) || a.Bitmap().Weight() != 0 {
					t.Errorf("%d extents, age %d: %v", capacity, age, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%d extents, age %d: %v", capacity, age, err)
			}
			for _, e := range m.AL().Extents() {
				if age > 0 && a.Bitmap().CountRange(int64(e)*ext, ext) != 1024 {
					t.Errorf("%d extents, age %d: extent %d is not marked", capacity, age, e)
				}
			}
		}
	}
}

func TestALNoAllocs(t *testing.T) {
	m := create(t, blocktest.NewMem(1<<30), 7)
	begin(t, m, 3, 4)
	end(t, m, 3, 4)
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		if m.AL().Begin(ctx, 4*ext-4096, 8192) != nil || m.AL().End(4*ext-4096, 8192) != nil {
			t.Error("not a hit")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// fuzzStride is how much of each block is fuzzed: header, updates, some context.
const fuzzStride = alContextOff + 16

func FuzzALBlock(f *testing.F) {
	var seed []byte
	f.Add(seed)
	p := make([]byte, alBlockSize)
	for i := range alBlocks {
		b := alBlock{Number: uint32(i) - 3, ContextSize: 7, Updates: []alUpdate{{uint16(i), uint32(i)}}}
		if i == 5 {
			b.Type = alTypeInitialized
		}
		if err := b.marshal(p); err != nil {
			f.Fatal(err)
		}
		seed = append(seed, p[:fuzzStride]...)
		f.Add(slices.Clone(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		buf := make([]byte, ALSize)
		for i := range alBlocks {
			b := buf[i*alBlockSize:][:alBlockSize]
			n := copy(b[:fuzzStride], p)
			if p = p[n:]; i%3 != 2 { // mostly valid: the fields are what matters
				clear(b[8:12])
				binary.BigEndian.PutUint32(b[8:], alChecksum(b))
			}
		}
		r := readRing(buf, 0)
		extents, err := r.extents()
		if err != nil && !errors.Is(err, ErrALUnreadable) {
			t.Fatal(err)
		}
		if !slices.IsSorted(extents) || slices.Contains(extents, freeExtent) {
			t.Fatalf("extents %v", extents)
		}
		for _, i := range r.updates {
			if len(r.blocks[i].Updates) > alUpdates {
				t.Fatal("too many updates")
			}
		}
	})
}

func BenchmarkALHit(b *testing.B) {
	m := create(b, blocktest.NewMem(1<<30), 1237)
	begin(b, m, 3)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if err := m.AL().Begin(ctx, 3*ext, 4096); err != nil {
			b.Fatal(err)
		}
		if err := m.AL().End(3*ext, 4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkALMiss(b *testing.B) {
	m := create(b, blocktest.NewMem(8<<30), 1237)
	ctx := context.Background()
	b.ReportAllocs()
	e := int64(0)
	for b.Loop() {
		if err := m.AL().Begin(ctx, e*ext, 4096); err != nil {
			b.Fatal(err)
		}
		if err := m.AL().End(e*ext, 4096); err != nil {
			b.Fatal(err)
		}
		e = (e + 1) % 2000
	}
}

// Cut at every write and flush of an eviction: the bits of the extents that go must
// be on disk before the log forgets them.
func TestALEvictionCrash(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	f := blocktest.NewFaults(mem)
	m := create(t, f, 7)
	var want [][2]int64
	for e := range int64(7) {
		begin(t, m, e*30)
		m.Bitmap().SetRange(e*30*ext, 8192)
		want = append(want, [2]int64{e * 30 * ext, 8192})
		end(t, m, e*30)
	}
	var clones []*blocktest.Mem
	f.Inject(blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpFlush, Hook: func(blocktest.Op, int64, int64) {
		for seed := range uint64(40) {
			clones = append(clones, mem.CrashClone(seed, 50))
		}
	}})
	if err := m.AL().Begin(context.Background(), 4*ext, 5*ext); err != nil {
		t.Fatal(err)
	}
	if len(clones) < 4*40 {
		t.Fatalf("%d clones", len(clones))
	}
	for i, c := range clones {
		if err := covered(c, want); err != nil {
			t.Fatalf("clone %d: %v", i, err)
		}
	}
}
