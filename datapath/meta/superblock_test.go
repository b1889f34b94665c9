package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden reads testdata/name: bytes in hex, padded with zeroes to a block.
func golden(t tb, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return append(p, make([]byte, 4096-len(p))...)
}

func layout(t tb, size int64) Layout {
	t.Helper()
	l, err := LayoutFor(size)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// superblock-16m.hex is what drbdmeta 9.22 create-md wrote on a file of 16 MiB.
func TestSuperblockGolden(t *testing.T) {
	l, want := layout(t, 16<<20), golden(t, "superblock-16m.hex")
	var sb Superblock
	if err := sb.Unmarshal(l, want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Superblock{UUIDs: UUIDs{Current: JustCreated}, Flags: FlagALClean, ALExtents: 257}, sb); diff != "" {
		t.Error(diff)
	}
	got := make([]byte, SuperblockSize)
	if err := sb.Marshal(l, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("encoded again it differs:\n%s\n%s", hex.Dump(got[:96]), hex.Dump(want[:96]))
	}
}

func TestSuperblockRoundTrip(t *testing.T) {
	l := layout(t, 1<<30)
	want := Superblock{AgreedSize: 512 << 20, UUIDs: UUIDs{1, 2, [2]uint64{3, 1<<64 - 1}}, DeviceUUID: 5,
		Flags: FlagConsistent | FlagPrimary | FlagALDisabled, Unclean: true, ALExtents: 1237, PeerMaxBIO: 1 << 20}
	p := make([]byte, SuperblockSize)
	if err := want.Marshal(l, p); err != nil {
		t.Fatal(err)
	}
	var got Superblock
	if err := got.Unmarshal(l, p); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if binary.BigEndian.Uint32(p[60:]) != 0x8374026c {
		t.Error("an unclean superblock must carry the 8.4 magic")
	}
	want.AgreedSize = l.UsableSize + 512
	if err := want.Marshal(l, p); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large an agreed size: %v", err)
	}
	want.AgreedSize = 100
	if err := want.Marshal(l, p); !errors.Is(err, ErrInvalid) {
		t.Errorf("odd agreed size: %v", err)
	}
}

func TestSuperblockChecks(t *testing.T) {
	l := layout(t, 16<<20)
	type put struct {
		off   int
		value uint32
	}
	for _, c := range []struct {
		name string
		puts []put
		want error
		text string
	}{
		{"nothing", []put{{60, 0}, {64, 0}}, ErrNoMetadata, "byte 60"},
		{"v09", []put{{60, magic09}, {64, 0}}, ErrUnsupported, "v09"},
		{"no magic", []put{{60, 0}}, ErrInvalid, "expected 0x8374026b"},
		{"md_size", []put{{64, 88}}, ErrInvalid, "expected 80"},
		{"al_offset", []put{{68, 0xffffffc8}}, ErrInvalid, "is -56, expected -64"},
		{"external", []put{{68, 8}, {76, 72}}, ErrUnsupported, "external"},
		{"external by half", []put{{68, 8}}, ErrInvalid, "al_offset at byte 68 of the superblock is 8, expected -64"},
		{"bm_offset", []put{{76, 0}}, ErrInvalid, "expected -72"},
		{"bytes per bit", []put{{80, 8192}}, ErrInvalid, "byte 80"},
		{"stripes", []put{{88, 2}, {68, 0xffffff80}}, ErrUnsupported, "2 stripes"},
		{"stripe size", []put{{92, 16}, {68, 0xffffff80}}, ErrUnsupported, "16 blocks"},
		{"stripes only", []put{{88, 2}}, ErrInvalid, "al_stripes at byte 88 of the superblock is 2, expected 1"},
		{"stripes that overflow", []put{{88, 1 << 31}, {92, 1 << 31}}, ErrInvalid, "byte 88"},
		{"agreed size", []put{{4, 32689}}, ErrInvalid, "at most 32688"},
		{"huge agreed size", []put{{0, 1 << 31}}, ErrInvalid, "byte 0"},
	} {
		p := golden(t, "superblock-16m.hex")
		for _, x := range c.puts {
			binary.BigEndian.PutUint32(p[x.off:], x.value)
		}
		var sb Superblock
		if err := sb.Unmarshal(l, p); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.want, c.text)
		}
	}
	p := make([]byte, 4096)
	binary.BigEndian.PutUint32(p[28:], magic07)
	if err := new(Superblock).Unmarshal(l, p); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "v07") {
		t.Errorf("v07: %v", err)
	}
	p = golden(t, "superblock-16m.hex")
	clear(p[88:96]) // before striping existed
	if err := new(Superblock).Unmarshal(l, p); err != nil {
		t.Errorf("stripes 0 and 0: %v", err)
	}
	if err := new(Superblock).Unmarshal(l, p[:100]); !errors.Is(err, ErrInvalid) {
		t.Errorf("short: %v", err)
	}
}

// TestFlippedByte turns over one bit of every byte of a superblock in use. What the format can tell is told, with the place
// and what was expected; the rest has no second copy anywhere and no checksum.
func TestFlippedByte(t *testing.T) {
	l := layout(t, 16<<20)
	sb := Superblock{AgreedSize: l.UsableSize, UUIDs: UUIDs{0x1122334455667788, 0x99, [2]uint64{0xaa, 0xbb}}, DeviceUUID: 0xcc,
		Flags: FlagConsistent | FlagWasUpToDate, Unclean: true, ALExtents: 1237, PeerMaxBIO: 1 << 20}
	whole := make([]byte, SuperblockSize)
	if err := sb.Marshal(l, whole); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name            string
		off, size, told int // bytes, bytes, flipped bits that are told
		says            string
	}{
		{"la_size_sect", 0, 8, 54, "la_size_sect at byte 0"}, // unless it becomes smaller: 32688 has ten bits set
		{"current UUID", 8, 8, 0, ""}, {"bitmap UUID", 16, 8, 0, ""}, {"history 0", 24, 8, 0, ""}, {"history 1", 32, 8, 0, ""}, {"device UUID", 40, 8, 0, ""},
		{"reserved", 48, 8, 64, "which is reserved"},
		{"flags", 56, 4, 23, "flags at byte 56"}, // unless one that has a meaning
		{"magic", 60, 4, 32, "magic number at byte 60"},
		{"md_size_sect", 64, 4, 32, "md_size_sect at byte 64"},
		{"al_offset", 68, 4, 32, "al_offset at byte 68"},
		{"al_nr_extents", 72, 4, 16, "al_nr_extents at byte 72"}, // unless it stays possible
		{"bm_offset", 76, 4, 32, "bm_offset at byte 76"},
		{"bm_bytes_per_bit", 80, 4, 32, "bm_bytes_per_bit at byte 80"},
		{"la_peer_max_bio_size", 84, 4, 0, ""},
		{"al_stripes", 88, 4, 32, "al_stripes at byte 88"},
		{"al_stripe_size_4k", 92, 4, 32, "al_stripe_size_4k at byte 92"},
		{"reserved", 96, 4000, 32000, "which is reserved"},
	} {
		told := 0
		for i := f.off; i < f.off+f.size; i++ {
			for bit := range 8 {
				p := slices.Clone(whole)
				p[i] ^= 1 << bit
				var got Superblock
				err := got.Unmarshal(l, p)
				switch {
				case err == nil && got == sb:
					t.Errorf("%s: bit %d of byte %d is read as if nothing were wrong", f.name, bit, i)
				case err == nil:
				case f.says == "" || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), "expected"):
					t.Errorf("%s: bit %d of byte %d: %v", f.name, bit, i, err)
				default:
					told++
				}
			}
		}
		t.Logf("%-22s %5d of %5d flipped bits are told", f.name, told, 8*f.size)
		if told != f.told {
			t.Errorf("%s: %d flipped bits of %d are told, want %d", f.name, told, 8*f.size, f.told)
		}
	}
}

func TestFlagsString(t *testing.T) {
	for f, want := range map[Flags]string{0: "none", FlagConsistent | FlagALClean: "Consistent|ALClean", FlagPrimary | 1<<20: "Primary|0x100000"} {
		if f.String() != want {
			t.Errorf("%#x: %s, want %s", uint32(f), f, want)
		}
	}
}

// What is accepted is encoded again to something that decodes to the same.
func FuzzSuperblock(f *testing.F) {
	f.Add(golden(f, "superblock-16m.hex"))
	f.Add(make([]byte, 4096))
	f.Add([]byte{1})
	l := layout(f, 16<<20)
	f.Fuzz(func(t *testing.T, p []byte) {
		var a, b Superblock
		if a.Unmarshal(l, p) != nil {
			return
		}
		q := make([]byte, SuperblockSize)
		if err := a.Marshal(l, q); err != nil {
			t.Fatal(err)
		}
		if err := b.Unmarshal(l, q); err != nil || a != b {
			t.Fatalf("%+v became %+v: %v", a, b, err)
		}
	})
}
