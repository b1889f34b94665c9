package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
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
	for _, c := range []struct {
		name  string
		off   int
		value uint32
		want  error
		text  string
	}{
		{"nothing", 60, 0, ErrNoMetadata, "byte 60"},
		{"v09", 60, magic09, ErrUnsupported, "v09"},
		{"md_size", 64, 88, ErrInvalid, "expected 80"},
		{"al_offset", 68, 0xffffffc8, ErrInvalid, "is -56, expected -64"},
		{"external", 68, 8, ErrUnsupported, "external"},
		{"bm_offset", 76, 0, ErrInvalid, "expected -72"},
		{"bytes per bit", 80, 8192, ErrInvalid, "byte 80"},
		{"stripes", 88, 2, ErrUnsupported, "2 stripes"},
		{"stripe size", 92, 16, ErrUnsupported, "16 blocks"},
		{"agreed size", 4, 32689, ErrInvalid, "at most 32688"},
		{"huge agreed size", 0, 1 << 31, ErrInvalid, "byte 0"},
	} {
		p := golden(t, "superblock-16m.hex")
		binary.BigEndian.PutUint32(p[c.off:], c.value)
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
