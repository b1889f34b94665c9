package meta

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"example.com/santui/datapath/block"
)

const (
	pageWords = BlockSize / 8
	pageBits  = BlockSize * 8
	// sparePages is how many emptied pages are kept for the next bits set.
	sparePages = 64
)

type page [pageWords]uint64

// fullPage stands for every page whose bits are all set. It is never written to:
// own makes a copy first.
var fullPage = func() *page {
	p := new(page)
	for i := range p {
		p[i] = ^uint64(0)
	}
	return p
}()

// Bitmap has one bit per 4 KiB of data: bit n for bytes 4096n to 4096n+4095, set
// where the two copies may differ. It is safe for concurrent use; an operation
// over many pages (128 MiB of data each) is atomic per page only. Changes reach
// the disk by WriteDirty.
//
// Pages that are all zero or all one take no memory. Setting and clearing
// allocates only when a page first becomes mixed.
type Bitmap struct {
	mu      sync.Mutex
	size    int64  // bytes of data
	nbits   uint64 // ceil(size / BlockSize)
	pages   []*page
	weights []uint16 // bits set per page
	weight  uint64
	dirty   []uint64 // bit set of pages not on disk
	spare   []*page

	// The disk side; dev is nil for a bitmap in memory only.
	data   block.Device // that of the data, which may be the same one
	dev    block.Device
	off    int64         // of the bitmap on the device
	room   int64         // bytes for it on the device
	io     chan struct{} // token: one writer of pages at a time, held until its flush
	writes atomic.Uint64
}

// NewBitmap makes a bitmap of zeroes for size bytes of data, in memory only:
// writing it to disk fails.
func NewBitmap(size int64) (*Bitmap, error) {
	b := &Bitmap{room: maxDevice, spare: make([]*page, 0, sparePages)}
	if err := b.resize(size, false); err != nil {
		return nil, err
	}
	return b, nil
}

// Size is the number of bytes of data the bitmap covers.
func (b *Bitmap) Size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// Bits is the number of bits: the size in 4 KiB blocks, rounded up.
func (b *Bitmap) Bits() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nbits
}

// NumWords is the number of 64-bit words that hold the bits.
func (b *Bitmap) NumWords() uint64 { return (b.Bits() + 63) / 64 }

// Weight is the number of bits set.
func (b *Bitmap) Weight() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.weight
}

// SetRange sets the bit of every block that bytes [off, off+n) touch, and
// returns how many were clear. What lies outside the bitmap is ignored.
func (b *Bitmap) SetRange(off, n int64) (changed uint64) {
	if off < 0 || n <= 0 {
		return 0
	}
	end := uint64(off) + uint64(n)
	return b.SetBits(uint64(off)/BlockSize, (end+BlockSize-1)/BlockSize)
}

// ClearRange clears the bit of every block that lies wholly in bytes
// [off, off+n), and returns how many were set. A last block cut short by the end
// of the data counts as whole.
func (b *Bitmap) ClearRange(off, n int64) (changed uint64) {
	if off < 0 || n <= 0 {
		return 0
	}
	end := uint64(off) + uint64(n)
	last := end / BlockSize
	if size := b.Size(); end >= uint64(size) {
		last = (uint64(size) + BlockSize - 1) / BlockSize
	}
	return b.ClearBits((uint64(off)+BlockSize-1)/BlockSize, last)
}

// CountRange returns how many bits are set of the blocks that bytes [off, off+n)
// touch.
func (b *Bitmap) CountRange(off, n int64) (set uint64) {
	if off < 0 || n <= 0 {
		return 0
	}
	first, end := uint64(off)/BlockSize, (uint64(off)+uint64(n)+BlockSize-1)/BlockSize
	b.mu.Lock()
	defer b.mu.Unlock()
	end = min(end, b.nbits)
	for first < end {
		pi, lo := first/pageBits, first%pageBits
		hi := min(end-pi*pageBits, pageBits)
		set += uint64(b.countPage(pi, lo, hi))
		first = pi*pageBits + hi
	}
	return set
}

// SetBits sets bits [first, end) and returns how many were clear.
func (b *Bitmap) SetBits(first, end uint64) (changed uint64) { return b.fill(first, end, true) }

// ClearBits clears bits [first, end) and returns how many were set.
func (b *Bitmap) ClearBits(first, end uint64) (changed uint64) { return b.fill(first, end, false) }

// SetAll sets every bit and returns how many were clear.
func (b *Bitmap) SetAll() (changed uint64) { return b.fill(0, ^uint64(0), true) }

// ClearAll clears every bit and returns how many were set.
func (b *Bitmap) ClearAll() (changed uint64) { return b.fill(0, ^uint64(0), false) }

// Test reports whether the bit is set; false beyond the end.
func (b *Bitmap) Test(bit uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bit >= b.nbits {
		return false
	}
	p := b.pages[bit/pageBits]
	return p != nil && p[bit%pageBits/64]>>(bit%64)&1 == 1
}

// NextSet returns the first set bit at or after from.
func (b *Bitmap) NextSet(from uint64) (bit uint64, ok bool) { return b.next(from, true) }

// NextClear returns the first clear bit at or after from.
func (b *Bitmap) NextClear(from uint64) (bit uint64, ok bool) { return b.next(from, false) }

// Run returns the state of bit from and how many bits from there on share it: what
// a run-length code needs. n is 0 at the end of the bitmap. While others change
// bits the run is one that existed page by page.
func (b *Bitmap) Run(from uint64) (n uint64, set bool) {
	total := b.Bits()
	if from >= total {
		return 0, false
	}
	set = b.Test(from)
	if end, ok := b.next(from+1, !set); ok {
		return end - from, set
	}
	return total - from, set
}

// ReadWords copies words from word start on into p as little-endian bytes, the
// form of the plain bitmap packet and of the disk, and returns how many bytes it
// filled: a multiple of 8, less than len(p) only at the end of the bitmap.
func (b *Bitmap) ReadWords(start uint64, p []byte) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	total := (b.nbits + 63) / 64
	n := 0
	for w := start; w < total && n+8 <= len(p); w++ {
		var v uint64
		if pg := b.pages[w/pageWords]; pg != nil {
			v = pg[w%pageWords]
			if w == total-1 {
				v &= lastWordMask(b.nbits)
			}
		}
		binary.LittleEndian.PutUint64(p[n:], v)
		n += 8
	}
	return n
}

// OrWords sets the bits of p, little-endian words from word start on, and
// returns how many were clear. Bits behind the last are dropped. ErrInvalid
// when p is not whole words or goes beyond the bitmap.
func (b *Bitmap) OrWords(start uint64, p []byte) (changed uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	total, n := (b.nbits+63)/64, uint64(len(p)/8)
	if len(p)%8 != 0 || start > total || n > total-start {
		return 0, fmt.Errorf("%w: %d bytes of bitmap at word %d, it has %d words", ErrInvalid, len(p), start, total)
	}
	for i := range n {
		v := binary.LittleEndian.Uint64(p[i*8:])
		w := start + i
		if w == total-1 {
			v &= lastWordMask(b.nbits)
		}
		if v != 0 {
			changed += b.orWord(w, v)
		}
	}
	return changed, nil
}

// lastWordMask has the bits of the last word that are in use.
func lastWordMask(nbits uint64) uint64 {
	if nbits%64 == 0 {
		return ^uint64(0)
	}
	return 1<<(nbits%64) - 1
}

func (b *Bitmap) orWord(w, v uint64) uint64 {
	pi := w / pageWords
	if pg := b.pages[pi]; pg != nil && pg[w%pageWords]&v == v {
		return 0
	}
	pg := b.own(pi)
	old := pg[w%pageWords]
	pg[w%pageWords] = old | v
	added := uint64(bits.OnesCount64(v &^ old))
	b.account(pi, int64(added))
	return added
}

// fill sets or clears bits [first, end), taking the lock for a page at a time.
func (b *Bitmap) fill(first, end uint64, set bool) (changed uint64) {
	for {
		b.mu.Lock()
		end = min(end, b.nbits)
		if first >= end {
			b.mu.Unlock()
			return changed
		}
		pi := first / pageBits
		hi := min(end-pi*pageBits, pageBits)
		changed += b.fillPage(pi, first%pageBits, hi, set)
		b.mu.Unlock()
		first = pi*pageBits + hi
	}
}

func (b *Bitmap) fillPage(pi, lo, hi uint64, set bool) uint64 {
	have, whole := uint64(b.weights[pi]), b.bitsOfPage(pi)
	switch {
	case set && have == whole, !set && have == 0:
		return 0
	case lo == 0 && hi == whole && set && whole == pageBits:
		b.release(pi, fullPage)
		b.account(pi, int64(whole-have))
		return whole - have
	case lo == 0 && hi == whole && !set:
		b.release(pi, nil)
		b.account(pi, -int64(have))
		return have
	}
	delta := hi - lo
	if already := uint64(b.countPage(pi, lo, hi)); set {
		delta -= already
	} else {
		delta = already
	}
	if delta == 0 {
		return 0
	}
	pg := b.own(pi)
	for w := lo / 64; w*64 < hi; w++ {
		if m := wordMask(w, lo, hi); set {
			pg[w] |= m
		} else {
			pg[w] &^= m
		}
	}
	if set {
		b.account(pi, int64(delta))
	} else {
		b.account(pi, -int64(delta))
	}
	return delta
}

// wordMask has the bits of word w that lie in bits [lo, hi).
func wordMask(w, lo, hi uint64) uint64 {
	m := ^uint64(0)
	if base := w * 64; lo > base {
		m &= ^uint64(0) << (lo - base)
	}
	if top := w*64 + 64; hi < top {
		m &= ^uint64(0) >> (top - hi)
	}
	return m
}

func (b *Bitmap) countPage(pi, lo, hi uint64) int {
	pg := b.pages[pi]
	switch {
	case pg == nil:
		return 0
	case pg == fullPage:
		return int(hi - lo)
	case lo == 0 && hi == b.bitsOfPage(pi):
		return int(b.weights[pi])
	}
	n := 0
	for w := lo / 64; w*64 < hi; w++ {
		n += bits.OnesCount64(pg[w] & wordMask(w, lo, hi))
	}
	return n
}

// own returns page pi for writing.
func (b *Bitmap) own(pi uint64) *page {
	old := b.pages[pi]
	if old != nil && old != fullPage {
		return old
	}
	var pg *page
	if n := len(b.spare); n > 0 {
		pg = b.spare[n-1]
		b.spare = b.spare[:n-1]
	} else {
		pg = new(page)
	}
	if old == fullPage {
		*pg = *fullPage
	} else {
		*pg = page{}
	}
	b.pages[pi] = pg
	return pg
}

// release puts shared (nil or fullPage) in place of page pi.
func (b *Bitmap) release(pi uint64, shared *page) {
	if old := b.pages[pi]; old != nil && old != fullPage && len(b.spare) < cap(b.spare) {
		b.spare = append(b.spare, old)
	}
	b.pages[pi] = shared
}

// account notes that delta bits of page pi were set, and lets go of a page that
// has become uniform.
func (b *Bitmap) account(pi uint64, delta int64) {
	b.weights[pi] = uint16(int64(b.weights[pi]) + delta)
	b.weight = uint64(int64(b.weight) + delta)
	b.dirty[pi/64] |= 1 << (pi % 64)
	switch b.weights[pi] {
	case 0:
		b.release(pi, nil)
	case pageBits:
		b.release(pi, fullPage)
	}
}

func (b *Bitmap) bitsOfPage(pi uint64) uint64 { return min(b.nbits-pi*pageBits, pageBits) }

// next finds a bit; the lock is given up every so many pages, so that a scan of
// a large empty bitmap does not hold up writers.
func (b *Bitmap) next(from uint64, set bool) (uint64, bool) {
	const pagesPerTurn = 4096
	for {
		b.mu.Lock()
		for range pagesPerTurn {
			if from >= b.nbits {
				b.mu.Unlock()
				return 0, false
			}
			pi := from / pageBits
			if bit, ok := b.nextInPage(pi, from%pageBits, set); ok {
				b.mu.Unlock()
				return pi*pageBits + bit, true
			}
			from = (pi + 1) * pageBits
		}
		b.mu.Unlock()
	}
}

func (b *Bitmap) nextInPage(pi, lo uint64, set bool) (uint64, bool) {
	hi, pg := b.bitsOfPage(pi), b.pages[pi]
	if pg == nil || pg == fullPage {
		return lo, (pg == fullPage) == set
	}
	for w := lo / 64; w*64 < hi; w++ {
		v := pg[w]
		if !set {
			v = ^v
		}
		if v &= wordMask(w, lo, hi); v != 0 {
			return w*64 + uint64(bits.TrailingZeros64(v)), true
		}
	}
	return 0, false
}

// resize makes the bitmap cover size bytes. Bits for new data are set if setNew.
func (b *Bitmap) resize(size int64, setNew bool) error {
	nbits := (uint64(max(size, 0)) + BlockSize - 1) / BlockSize
	if size < 0 || (nbits+7)/8 > uint64(b.room) || size > maxDevice {
		return fmt.Errorf("bitmap for %d bytes of data, there is room for one of %d bytes: %w", size, b.room, ErrTooLarge)
	}
	b.mu.Lock()
	old := b.nbits
	b.mu.Unlock()
	if nbits < old {
		b.ClearBits(nbits, old)
	}
	b.mu.Lock()
	n := int((nbits + pageBits - 1) / pageBits)
	b.size, b.nbits = size, nbits
	b.pages = grow(b.pages, n)
	b.weights = grow(b.weights, n)
	b.dirty = grow(b.dirty, (n+63)/64)
	if n%64 != 0 {
		b.dirty[n/64] &= 1<<(n%64) - 1
	}
	b.mu.Unlock()
	if setNew && nbits > old {
		b.SetBits(old, nbits)
	}
	return nil
}

func grow[T any](s []T, n int) []T {
	if n <= len(s) {
		clear(s[n:])
		return s[:n]
	}
	return append(s, make([]T, n-len(s))...)
}
