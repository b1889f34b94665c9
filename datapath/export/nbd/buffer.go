package nbd

import (
	"math/bits"
	"sync"
	"unsafe"
)

const (
	bufferAlign = 4096
	minShift    = 12 // 4 KiB, the smallest class
	maxShift    = 25 // 32 MiB, MaxRequest
)

// buffer is pooled memory that starts at a 4096-byte boundary, as O_DIRECT
// wants it.
type buffer struct {
	mem   []byte
	class int
}

var pools [maxShift - minShift + 1]sync.Pool

// getBuffer returns a buffer of at least n bytes; n <= MaxRequest.
func getBuffer(n int) *buffer {
	class := 0
	if n > 1<<minShift {
		class = bits.Len(uint(n-1)) - minShift
	}
	if b, ok := pools[class].Get().(*buffer); ok {
		return b
	}
	size := 1 << (class + minShift)
	mem := make([]byte, size+bufferAlign)
	skip := -int(uintptr(unsafe.Pointer(&mem[0]))) & (bufferAlign - 1)
	return &buffer{mem: mem[skip : skip+size : skip+size], class: class}
}

func putBuffer(b *buffer) {
	if b != nil {
		pools[b.class].Put(b)
	}
}
