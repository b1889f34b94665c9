package meta

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestLayoutFor(t *testing.T) {
	for _, c := range []struct {
		size, md, bm, usable int64
	}{
		// 32768 sectors: md_offset 32760, al -64, bm -72, usable 32688.
		{16 << 20, 32760 * 512, 4096, 32688 * 512},
		{16<<20 + 3*512, 32760 * 512, 4096, 32688 * 512},
		{1 << 30, 1<<30 - 4096, 32 << 10, 1<<30 - 4096 - 32768 - 32768},
		{1 << 40, 1<<40 - 4096, 32 << 20, 1<<40 - 4096 - 32768 - 32<<20},
	} {
		l, err := LayoutFor(c.size)
		if err != nil {
			t.Fatalf("LayoutFor(%d): %v", c.size, err)
		}
		if l.MDOffset != c.md || l.BMSize != c.bm || l.UsableSize != c.usable || l.BMOffset != c.usable {
			t.Errorf("LayoutFor(%d) = %+v", c.size, l)
		}
	}
	for size, want := range map[int64]error{-1: ErrTooSmall, 0: ErrTooSmall, minDevice - 1: ErrTooSmall, maxDevice + 1: ErrTooLarge} {
		if _, err := LayoutFor(size); !errors.Is(err, want) {
			t.Errorf("LayoutFor(%d): %v, want %v", size, err, want)
		}
	}
}

// The parts follow each other without overlap and the bitmap covers the data.
func TestLayoutProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(minDevice, maxDevice).Draw(t, "size")
		l, err := LayoutFor(size)
		if err != nil {
			t.Fatal(err)
		}
		end := l.MDOffset + SuperblockSize
		if end > size || size-end >= BlockSize || l.ALOffset+l.ALSize != l.MDOffset || l.BMOffset+l.BMSize != l.ALOffset {
			t.Fatalf("%+v", l)
		}
		if l.UsableSize <= 0 || l.UsableSize%BlockSize != 0 || l.BMSize*8*BlockSize < l.UsableSize {
			t.Fatalf("%+v", l)
		}
	})
}
