package drbd

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// BitmapWords gives how many 64-bit words a bitmap of n bits has on the wire.
func BitmapWords(n uint64) uint64 { return n/64 + min(n%64, 1) }

// plainChunk is how many words a plain packet holds, unless fewer are left.
const plainChunk = (MaxBitmapPacket - HeaderSizeH100) / 8

// maxCode is the room for code bits in a compressed packet, in bytes.
const maxCode = MaxBitmapPacket - HeaderSizeH100 - SizeCompressed

// BitmapSource is the bitmap that an encoder reads: bit n stands for the 4096 bytes at n*4096, and set means out of
// sync. It must not change while it is sent.
type BitmapSource interface {
	// Len is the number of bits.
	Len() uint64
	// NextSet and NextClear give the first such bit at or behind from, or Len.
	NextSet(from uint64) uint64
	NextClear(from uint64) uint64
	// Word gives bits 64*i to 64*i+63, bit 64*i lowest; 0 beyond Len.
	Word(i uint64) uint64
}

// Words is a BitmapSource of N bits in memory; bits beyond N are ignored.
type Words struct {
	W []uint64
	N uint64
}

// Len is the number of bits.
func (w Words) Len() uint64 { return w.N }

// Word gives bits 64*i to 64*i+63.
func (w Words) Word(i uint64) uint64 {
	if i >= uint64(len(w.W)) || i*64 >= w.N {
		return 0
	}
	v := w.W[i]
	if left := w.N - i*64; left < 64 {
		v &= 1<<left - 1
	}
	return v
}

// NextSet gives the first set bit at or behind from, or Len.
func (w Words) NextSet(from uint64) uint64 { return w.next(from, 0) }

// NextClear gives the first clear bit at or behind from, or Len.
func (w Words) NextClear(from uint64) uint64 { return w.next(from, ^uint64(0)) }

func (w Words) next(from, flip uint64) uint64 {
	for i := from / 64; i*64 < w.N; i++ {
		v := w.Word(i) ^ flip
		if i == from/64 {
			v &= ^uint64(0) << (from % 64)
		}
		if v != 0 {
			return min(i*64+uint64(bits.TrailingZeros64(v)), w.N)
		}
	}
	return w.N
}

// BitmapEncoder cuts a bitmap into packets for a connection framed H100.
type BitmapEncoder struct {
	src   BitmapSource
	plain bool
	pos   uint64
	done  bool
}

// NewBitmapEncoder starts an encoder. With plain set it never compresses, as a peer without use-rle expects.
func NewBitmapEncoder(src BitmapSource, plain bool) *BitmapEncoder {
	return &BitmapEncoder{src: src, plain: plain}
}

// Next appends the payload of the next packet to dst and names its command: CmdBitmap or CmdCompressedBitmap. ok is
// false when the bitmap has been sent. A bitmap whose last chunk is plain ends with an empty CmdBitmap.
func (e *BitmapEncoder) Next(dst []byte) (payload []byte, cmd Cmd, ok bool) {
	if e.done {
		return dst, 0, false
	}
	if !e.plain && e.pos < e.src.Len() {
		if out, next := AppendRuns(dst, e.src, e.pos); next > e.pos {
			e.pos = next
			e.done = next == e.src.Len()
			return out, CmdCompressedBitmap, true
		}
	}
	first := e.pos / 64
	n := min(plainChunk, BitmapWords(e.src.Len())-min(first, BitmapWords(e.src.Len())))
	if e.pos == e.src.Len() {
		n = 0
	}
	for i := range n {
		dst = binary.LittleEndian.AppendUint64(dst, e.src.Word(first+i))
	}
	e.pos = min((first+n)*64, e.src.Len())
	e.done = n == 0
	return dst, CmdBitmap, true
}

// AppendRuns encodes the bitmap from bit pos on as one compressed payload and returns the position behind it. If the
// code would be longer than the bits themselves it returns dst and pos unchanged.
func AppendRuns(dst []byte, src BitmapSource, pos uint64) ([]byte, uint64) {
	start, at := len(dst), pos
	set := src.NextSet(pos) == pos && pos < src.Len()
	enc := byte(rleVLIBits)
	if set {
		enc |= 0x80
	}
	w := bitWriter{dst: append(dst, enc), limit: start + SizeCompressed + maxCode}
	for at < src.Len() {
		end := src.NextSet(at)
		if set {
			end = src.NextClear(at)
		}
		if end <= at || !w.putRun(end-at) {
			break
		}
		at, set = end, !set
	}
	code := len(w.dst) - start - SizeCompressed
	if at == pos || at-pos < uint64(code)*8 {
		return dst, pos
	}
	w.dst[start] |= byte(w.pad()) << 4
	return w.dst, at
}

// BitmapDecoder puts the packets of a bitmap together.
type BitmapDecoder struct {
	bits uint64
	pos  uint64
	set  func(first, last uint64)
	done bool
}

// NewBitmapDecoder starts a decoder for a bitmap of n bits. set is called for runs of set bits, in rising order, with
// the first and the last bit; the last one is always below n. A plain chunk behind a compressed one may repeat up to
// 63 bits.
func NewBitmapDecoder(n uint64, set func(first, last uint64)) *BitmapDecoder {
	return &BitmapDecoder{bits: n, set: set}
}

// Bits is the length of the bitmap; Pos how much of it has arrived.
func (d *BitmapDecoder) Bits() uint64 { return d.bits }

// Pos is the first bit that has not arrived yet.
func (d *BitmapDecoder) Pos() uint64 { return d.pos }

// Add takes the payload of one packet, CmdBitmap or CmdCompressedBitmap. done is true with the packet that ends the
// bitmap. The error is a *PacketError; what came before it may have been reported to set.
func (d *BitmapDecoder) Add(cmd Cmd, payload []byte) (done bool, err error) {
	if d.done {
		return true, wrong(cmd, payload, "bitmap packet behind the end of the bitmap")
	}
	switch cmd {
	case CmdBitmap:
		d.done, err = d.plain(payload)
	case CmdCompressedBitmap:
		err = d.runs(payload)
		d.done = err == nil && d.pos == d.bits
	default:
		err = wrong(cmd, payload, "not a bitmap packet")
	}
	return d.done, err
}

// plain takes whole words; exactly as many as fit a packet or are left.
func (d *BitmapDecoder) plain(b []byte) (bool, error) {
	first := d.pos / 64
	n := min(plainChunk, BitmapWords(d.bits)-first)
	if d.pos == d.bits {
		n = 0
	}
	if uint64(len(b)) != n*8 {
		return false, wrong(CmdBitmap, b, "plain chunk at bit %d of %d has %d bytes instead of %d", d.pos, d.bits, len(b), n*8)
	}
	if n == 0 {
		return true, nil
	}
	end := min((first+n)*64, d.bits)
	at := first * 64
	word := func(i uint64) uint64 { return binary.LittleEndian.Uint64(b[(i-first)*8:]) }
	for at < end {
		at = nextIn(word, at, end, 0)
		if at >= end {
			break
		}
		stop := nextIn(word, at, end, ^uint64(0))
		d.set(at, stop-1)
		at = stop
	}
	d.pos = end
	return false, nil
}

func nextIn(word func(uint64) uint64, from, end, flip uint64) uint64 {
	for i := from / 64; i*64 < end; i++ {
		v := word(i) ^ flip
		if i == from/64 {
			v &= ^uint64(0) << (from % 64)
		}
		if v != 0 {
			return min(i*64+uint64(bits.TrailingZeros64(v)), end)
		}
	}
	return end
}

func (d *BitmapDecoder) runs(b []byte) error {
	if len(b) < SizeCompressed {
		return short(CmdCompressedBitmap, b, SizeCompressed)
	}
	if b[0]&0x0f != rleVLIBits {
		return wrong(CmdCompressedBitmap, b, "unknown encoding %d", b[0]&0x0f)
	}
	set := b[0]&0x80 != 0
	r := bitReader{b: b[1:], n: (len(b) - 1) * 8}
	r.n -= int(b[0] >> 4 & 7)
	if r.n <= 0 {
		return wrong(CmdCompressedBitmap, b, "no code")
	}
	for r.at < r.n {
		run, ok := r.run()
		if !ok {
			return wrong(CmdCompressedBitmap, b, "code is cut off at bit %d", r.at)
		}
		if run > d.bits-d.pos {
			return wrong(CmdCompressedBitmap, b, "run of %d bits at bit %d reaches beyond the end, %d", run, d.pos, d.bits)
		}
		if set {
			d.set(d.pos, d.pos+run-1)
		}
		d.pos += run
		set = !set
	}
	return nil
}

// rleVLIBits is the only encoding of compressed bitmaps (enum drbd_bitmap_code, drbd_protocol.h).
const rleVLIBits = 2

// vliLevel is one row of the code for run lengths (VLI_L_1_1, drbd_vli.h): the codes of total bits whose low prefix
// bits are value, and the first length they stand for.
type vliLevel struct {
	total, prefix uint
	value, base   uint64
}

var vliLevels = func() [10]vliLevel {
	t := [10]vliLevel{
		{total: 2, prefix: 1, value: 0x00}, {total: 3, prefix: 2, value: 0x01}, {total: 5, prefix: 3, value: 0x03},
		{total: 7, prefix: 4, value: 0x07}, {total: 10, prefix: 5, value: 0x0f}, {total: 14, prefix: 6, value: 0x1f},
		{total: 21, prefix: 8, value: 0x3f}, {total: 29, prefix: 8, value: 0x7f}, {total: 42, prefix: 8, value: 0xbf},
		{total: 64, prefix: 8, value: 0xff},
	}
	base := uint64(1)
	for i := range t {
		t[i].base = base
		base += 1 << (t[i].total - t[i].prefix)
	}
	return t
}()

type bitWriter struct {
	dst   []byte
	used  uint // bits used of the last byte; 0 means it is full, or that there is none
	limit int  // largest len(dst)
}

// pad is how many bits of the last byte are unused.
func (w *bitWriter) pad() uint { return (8 - w.used) & 7 }

// putRun encodes a run length; false if it does not fit.
func (w *bitWriter) putRun(n uint64) bool {
	for _, l := range vliLevels {
		if n-l.base < 1<<(l.total-l.prefix) {
			return w.put((n-l.base)<<l.prefix|l.value, l.total)
		}
	}
	return false
}

func (w *bitWriter) put(v uint64, n uint) bool {
	free := uint(w.limit-len(w.dst)) * 8
	if n > free+w.pad() {
		return false
	}
	for n > 0 {
		if w.used == 0 {
			w.dst = append(w.dst, 0)
		}
		take := min(8-w.used, n)
		w.dst[len(w.dst)-1] |= byte(v&(1<<take-1)) << w.used
		v >>= take
		n -= take
		w.used = (w.used + take) & 7
	}
	return true
}

type bitReader struct {
	b  []byte
	at int // next bit
	n  int // valid bits
}

// peek gives up to 64 bits from the current position on, zero beyond the end.
func (r *bitReader) peek() uint64 {
	i, s := r.at/8, uint(r.at%8)
	var v uint64
	for k := range 8 {
		if i+k < len(r.b) {
			v |= uint64(r.b[i+k]) << (8 * k)
		}
	}
	v >>= s
	if s > 0 && i+8 < len(r.b) {
		v |= uint64(r.b[i+8]) << (64 - s)
	}
	return v
}

// run decodes one run length; false if the code ends first.
func (r *bitReader) run() (uint64, bool) {
	v := r.peek()
	for _, l := range vliLevels {
		if v&(1<<l.prefix-1) != l.value {
			continue
		}
		if r.at+int(l.total) > r.n {
			return 0, false
		}
		r.at += int(l.total)
		if l.total < 64 {
			v &= 1<<l.total - 1
		}
		return v>>l.prefix + l.base, true
	}
	return 0, false
}

// String describes how far the decoder has come.
func (d *BitmapDecoder) String() string { return fmt.Sprintf("bitmap: %d of %d bits", d.pos, d.bits) }
