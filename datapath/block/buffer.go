package block

import (
	"math/bits"
	"sync"
	"unsafe"
)

const (
	bufferAlign = 4096
	minClass    = 12                  // 4 KiB
	maxClass    = 20                  // 1 MiB
	largeSize   = 1<<20 + bufferAlign // a full write together with one page of head room
	numClasses  = maxClass - minClass + 2
)

// The pools hold pointers to the first byte: a pointer goes into an interface
// without an allocation, a slice header would not.
var pools [numClasses]sync.Pool

// Buffer returns n zero bytes whose first byte lies on a 4096-byte boundary, as
// O_DIRECT wants it.
func Buffer(n int) []byte {
	if n <= 0 {
		return nil
	}
	if b := make([]byte, n); aligned(b, bufferAlign) {
		return b
	}
	b := make([]byte, n+bufferAlign-1)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (bufferAlign - 1))
	return b[skip : skip+n : skip+n]
}

// GetBuffer returns n bytes, 4096-aligned, of undefined content. Sizes up to
// 1 MiB + 4 KiB come from a pool; give them back with PutBuffer.
func GetBuffer(n int) []byte {
	c, size := classFor(n)
	if c < 0 {
		return Buffer(n)
	}
	if p, ok := pools[c].Get().(*byte); ok {
		return unsafe.Slice(p, size)[:n:size]
	}
	return Buffer(size)[:n:size]
}

// PutBuffer gives back a buffer from GetBuffer, which must not be used
// afterwards. Resliced buffers are taken as long as they begin where GetBuffer
// made them begin; anything else is left to the garbage collector.
func PutBuffer(b []byte) {
	size := cap(b)
	c, want := classFor(size)
	if c < 0 || want != size {
		return
	}
	b = b[:size]
	if aligned(b, bufferAlign) {
		pools[c].Put(&b[0])
	}
}

// classFor returns the pool for n bytes and the size of its buffers, or -1.
func classFor(n int) (class, size int) {
	switch {
	case n <= 0 || n > largeSize:
		return -1, 0
	case n > 1<<maxClass:
		return numClasses - 1, largeSize
	}
	b := max(bits.Len(uint(n-1)), minClass)
	return b - minClass, 1 << b
}

func aligned(b []byte, to uintptr) bool {
	return len(b) == 0 || uintptr(unsafe.Pointer(&b[0]))&(to-1) == 0
}
