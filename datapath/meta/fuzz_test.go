package meta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"example.com/santui/datapath/block/blocktest"
)

// FuzzOpen damages the metadata of a device that was a Primary's, three bytes of place and one of content at a time.
// Opening it reads only, and either refuses with a reason or gives something that holds together; applying the activity log
// either refuses, or leaves metadata that opens clean.
func FuzzOpen(f *testing.F) {
	const size = 128 << 10
	good := blocktest.NewMem(size)
	m := create(f, good, MinALExtents)
	if err := m.AL().Begin(f.Context(), 4096, 8192); err != nil {
		f.Fatal(err)
	}
	image := make([]byte, size)
	if _, err := good.ReadAt(image, 0); err != nil {
		f.Fatal(err)
	}
	l := m.Layout()
	area := size - l.UsableSize
	f.Add([]byte{})
	for _, at := range []int64{l.MDOffset, l.MDOffset + 36, l.MDOffset + 44, l.MDOffset + 60, l.ALOffset, l.ALOffset + 12, l.ALOffset + 4096, l.BMOffset} {
		o := at - l.UsableSize
		f.Add([]byte{byte(o >> 16), byte(o >> 8), byte(o), 0xff})
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		p := bytes.Clone(image)
		for ; len(edits) >= 4; edits = edits[4:] {
			o := (int64(edits[0])<<16 | int64(edits[1])<<8 | int64(edits[2])) % area
			p[l.UsableSize+o] = edits[3]
		}
		for i := range alBlocks { // mostly valid: the fields are what matters
			if b := p[l.ALOffset+int64(i)*alBlockSize:][:alBlockSize]; len(edits)%2 == 0 {
				clear(b[8:12])
				binary.BigEndian.PutUint32(b[8:], alChecksum(b))
			}
		}
		dev := blocktest.NewMem(size)
		if _, err := dev.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		m, err := Open(dev, OpenOptions{ALExtents: MinALExtents})
		after := make([]byte, size)
		if _, err := dev.ReadAt(after, 0); err != nil || !bytes.Equal(p, after) {
			t.Fatalf("opening wrote to the device, %v", err)
		}
		if err != nil {
			if !errors.Is(err, ErrNoMetadata) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrInvalid) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		sb := m.Superblock()
		if bm := m.Bitmap(); sb.AgreedSize > l.UsableSize || bm.Size() != sb.AgreedSize || bm.Weight() > bm.Bits() {
			t.Fatalf("%+v with a bitmap of %d bytes, %d of %d bits", sb, bm.Size(), bm.Weight(), bm.Bits())
		}
		weight := m.Bitmap().Weight()
		if _, err := m.ApplyAL(context.Background()); err != nil {
			if !errors.Is(err, ErrALUnreadable) && !errors.Is(err, ErrInvalid) {
				t.Fatalf("apply the activity log: %v", err)
			}
			return
		}
		if m.Bitmap().Weight() < weight {
			t.Fatal("applying the activity log took marks away")
		}
		again, err := Open(dev, OpenOptions{ALExtents: MinALExtents})
		if err != nil || again.NeedsApplyAL() || again.Bitmap().Weight() < weight {
			t.Fatalf("after applying: %v", err)
		}
	})
}
