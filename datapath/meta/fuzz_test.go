package meta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"example.com/santui/datapath/block/blocktest"
)

// sample is metadata of a Primary that is active in extent 0, somewhere.
type sample struct {
	index    int    // internal, or that of external metadata
	size     int64  // of the device that holds the metadata
	from     int64  // where on it that begins
	area     []byte // from there on, as far as it is worth damaging
	usable   int64
	sb, al   int64 // where in area
	external bool
}

const fuzzedData = 128 << 10

func newSample(f *testing.F, external bool, index int, size int64) *sample {
	s := &sample{index: index, size: size, external: external}
	dev, data := blocktest.NewMem(size), blocktest.NewMem(fuzzedData)
	var m *Metadata
	if external {
		m = outside(f, data, MetaDisk{dev, index}, MinALExtents)
	} else {
		m = create(f, dev, MinALExtents)
	}
	if err := m.AL().Begin(f.Context(), 4096, 8192); err != nil {
		f.Fatal(err)
	}
	l := m.Layout()
	s.from, s.usable = l.start(), l.UsableSize
	s.sb, s.al = l.MDOffset-s.from, l.ALOffset-s.from
	s.area = make([]byte, min(size-s.from, ALSize+SuperblockSize+BlockSize))
	if _, err := dev.ReadAt(s.area, s.from); err != nil {
		f.Fatal(err)
	}
	return s
}

// open opens it on another device of that size.
func (s *sample) open(dev *blocktest.Mem) (*Metadata, error) {
	if !s.external {
		return Open(dev, OpenOptions{ALExtents: MinALExtents})
	}
	return Open(blocktest.NewMem(fuzzedData), OpenOptions{ALExtents: MinALExtents, MetaDisk: MetaDisk{dev, s.index}})
}

// FuzzOpen damages the metadata of a device that was a Primary's, three bytes of place and one of content at a time;
// where says whether it is internal, flexible or in a slot, and may be another place than where it was written for.
// Opening it reads only, and either refuses with a reason or gives something that holds together; applying the activity log
// either refuses, or leaves metadata that opens clean.
func FuzzOpen(f *testing.F) {
	samples := []*sample{newSample(f, false, 0, fuzzedData), newSample(f, true, Flexible, 1<<20+512), newSample(f, true, 0, SlotSize), newSample(f, true, 1, 2*SlotSize)}
	for where, s := range samples {
		f.Add(uint8(where), []byte{})
		for _, o := range []int64{s.sb, s.sb + 36, s.sb + 44, s.sb + 60, s.sb + 64, s.al, s.al + 12, s.al + 4096} {
			f.Add(uint8(where), []byte{byte(o >> 16), byte(o >> 8), byte(o), 0xff})
			f.Add(uint8(where+16*(where+1)), []byte{byte(o >> 16), byte(o >> 8), byte(o), 0xff})
		}
	}
	f.Fuzz(func(t *testing.T, where uint8, edits []byte) {
		s := samples[int(where)%len(samples)]
		p := bytes.Clone(samples[int(where)/16%len(samples)].area)
		if where < 16 {
			p = bytes.Clone(s.area)
		}
		p = p[:min(len(p), len(s.area))]
		for ; len(edits) >= 4; edits = edits[4:] {
			p[(int(edits[0])<<16|int(edits[1])<<8|int(edits[2]))%len(p)] = edits[3]
		}
		for i := range int64(alBlocks) { // mostly valid: the fields are what matters
			if b := p[s.al+i*alBlockSize:][:alBlockSize]; len(edits)%2 == 0 {
				clear(b[8:12])
				binary.BigEndian.PutUint32(b[8:], alChecksum(b))
			}
		}
		dev := blocktest.NewMem(s.size)
		if _, err := dev.WriteAt(p, s.from); err != nil {
			t.Fatal(err)
		}
		if err := dev.Flush(); err != nil {
			t.Fatal(err)
		}
		m, err := s.open(dev)
		if dev.Unflushed() != 0 {
			t.Fatal("opening wrote to the device")
		}
		if err != nil {
			if !errors.Is(err, ErrNoMetadata) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrInvalid) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		sb := m.Superblock()
		if bm := m.Bitmap(); sb.AgreedSize > s.usable || bm.Size() != sb.AgreedSize || bm.Weight() > bm.Bits() {
			t.Fatalf("%+v with a bitmap of %d bytes, %d of %d bits", sb, bm.Size(), bm.Weight(), bm.Bits())
		}
		if l := m.Layout(); l.MDOffset != s.from+s.sb || l.start() < 0 || l.start()+l.MDSize() > dev.Size() {
			t.Fatalf("%+v on %d bytes", l, dev.Size())
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
		again, err := s.open(dev)
		if err != nil || again.NeedsApplyAL() || again.Bitmap().Weight() < weight {
			t.Fatalf("after applying: %v", err)
		}
	})
}
