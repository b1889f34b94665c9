package drbd

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func decodeAll(t testing.TB, src Words, plain bool) ([]uint64, int) {
	got := make([]uint64, len(src.W))
	next := uint64(0)
	d := NewBitmapDecoder(src.N, func(first, last uint64) {
		if last >= src.N || last < first || first+63 < next {
			t.Fatalf("set(%d, %d) of %d bits", first, last, src.N)
		}
		next = last + 1
		for i := first; i <= last; i++ {
			got[i/64] |= 1 << (i % 64)
		}
	})
	e := NewBitmapEncoder(src, plain)
	packets := 0
	done := false
	for {
		p, cmd, ok := e.Next(nil)
		if !ok {
			break
		}
		packets++
		if len(p) > MaxBitmapPacket-HeaderSizeH100 {
			t.Fatalf("%v of %d bytes", cmd, len(p))
		}
		if err := Check(SocketData, Header{Cmd: cmd, Length: uint32(len(p))}); err != nil {
			t.Fatal(err)
		}
		if done {
			t.Fatal("decoder was done before the encoder")
		}
		var err error
		if done, err = d.Add(cmd, p); err != nil {
			t.Fatal(err)
		}
	}
	if !done {
		t.Fatalf("decoder is not done: %v", d)
	}
	return got, packets
}

func equal(t testing.TB, src Words, got []uint64) {
	for i := range src.W {
		if src.Word(uint64(i)) != got[i] {
			t.Fatalf("word %d of %d: %#x became %#x", i, len(got), src.Word(uint64(i)), got[i])
		}
	}
}

func TestBitmapGolden(t *testing.T) {
	all := Words{W: make([]uint64, 64), N: 4086}
	for i := range all.W {
		all.W[i] = ^uint64(0)
	}
	p, next := AppendRuns(nil, all, 0)
	if hex.EncodeToString(p) != "b23fc50e" || next != 4086 {
		t.Errorf("all set: % x, position %d", p, next)
	}
	b, err := hex.DecodeString("52df7e7f6acecf4b01")
	if err != nil {
		t.Fatal(err)
	}
	got := Words{W: make([]uint64, 64), N: 4086}
	count := uint64(0)
	d := NewBitmapDecoder(4086, func(first, last uint64) {
		count += last - first + 1
		for i := first; i <= last; i++ {
			got.W[i/64] |= 1 << (i % 64)
		}
	})
	if done, err := d.Add(CmdCompressedBitmap, b); err != nil || !done {
		t.Fatalf("done %v: %v", done, err)
	}
	if count != 1636 {
		t.Errorf("%d bits set, want 1636", count)
	}
	if again, _ := AppendRuns(nil, got, 0); hex.EncodeToString(again) != hex.EncodeToString(b) {
		t.Errorf("encoded again: % x", again)
	}
}

func TestBitmapRoundTrip(t *testing.T) {
	for _, n := range []uint64{0, 1, 63, 64, 65, 510 * 64, 510*64 + 1, 511 * 64, 300000} {
		for _, plain := range []bool{false, true} {
			for _, fill := range []uint64{0, ^uint64(0), 0x5555555555555555, 0x00ff000000000001} {
				src := Words{W: make([]uint64, BitmapWords(n)), N: n}
				for i := range src.W {
					src.W[i] = fill
				}
				got, _ := decodeAll(t, src, plain)
				equal(t, src, got)
			}
		}
	}
}

// TestBitmapMixed makes a bitmap whose middle is incompressible, so plain chunks lie between compressed ones.
func TestBitmapMixed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	src := Words{W: make([]uint64, 4000), N: 4000*64 - 7}
	for i := 1000; i < 2500; i++ {
		src.W[i] = r.Uint64()
	}
	kinds := map[Cmd]int{}
	e := NewBitmapEncoder(src, false)
	for {
		_, cmd, ok := e.Next(nil)
		if !ok {
			break
		}
		kinds[cmd]++
	}
	if kinds[CmdBitmap] == 0 || kinds[CmdCompressedBitmap] == 0 {
		t.Errorf("not mixed: %v", kinds)
	}
	got, _ := decodeAll(t, src, false)
	equal(t, src, got)
}

func TestBitmapProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		runs := rapid.SliceOfN(rapid.Uint64Range(1, 5000), 0, 60).Draw(rt, "runs")
		dense := rapid.SliceOfN(rapid.Uint64(), 0, 20).Draw(rt, "dense")
		var n uint64
		for _, r := range runs {
			n += r
		}
		at := n / 64
		n = (at+1)*64 + uint64(len(dense))*64
		src := Words{W: make([]uint64, BitmapWords(n)), N: n - rapid.Uint64Range(0, 63).Draw(rt, "tail")}
		pos, set := uint64(0), rapid.Bool().Draw(rt, "first")
		for _, r := range runs {
			for i := pos; set && i < pos+r; i++ {
				src.W[i/64] |= 1 << (i % 64)
			}
			pos, set = pos+r, !set
		}
		copy(src.W[at+1:], dense)
		got, _ := decodeAll(t, src, rapid.Bool().Draw(rt, "plain"))
		for i := range src.W {
			if src.Word(uint64(i)) != got[i] {
				rt.Fatalf("word %d: %#x became %#x", i, src.Word(uint64(i)), got[i])
			}
		}
	})
}

func TestBitmapRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		cmd Cmd
		hex string
	}{
		"beyond the end":   {CmdCompressedBitmap, "b23fc50e"},
		"no code":          {CmdCompressedBitmap, "02"},
		"empty":            {CmdCompressedBitmap, ""},
		"unknown encoding": {CmdCompressedBitmap, "03ff"},
		"cut off":          {CmdCompressedBitmap, "02ff"},
		"plain too short":  {CmdBitmap, "00"},
		"plain empty":      {CmdBitmap, ""},
		"other":            {CmdData, ""},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		d := NewBitmapDecoder(100, func(first, last uint64) {
			if last >= 100 {
				t.Errorf("%s: set(%d, %d)", name, first, last)
			}
		})
		if done, err := d.Add(c.cmd, b); err == nil || done {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzRLE(f *testing.F) {
	f.Add(uint16(4086), []byte{0xb2, 0x3f, 0xc5, 0x0e})
	f.Add(uint16(4086), []byte{0x52, 0xdf, 0x7e, 0x7f, 0x6a, 0xce, 0xcf, 0x4b, 0x01})
	f.Add(uint16(64), []byte{0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, n uint16, b []byte) {
		src := Words{W: make([]uint64, BitmapWords(uint64(n))), N: uint64(n)}
		d := NewBitmapDecoder(src.N, func(first, last uint64) {
			if last >= src.N || last < first {
				t.Fatalf("set(%d, %d) of %d", first, last, src.N)
			}
			for i := first; i <= last; i++ {
				src.W[i/64] |= 1 << (i % 64)
			}
		})
		for _, cmd := range []Cmd{CmdCompressedBitmap, CmdBitmap} {
			if _, err := d.Add(cmd, b); err != nil {
				break
			}
		}
		got, _ := decodeAll(t, src, false)
		equal(t, src, got)
	})
}
