package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"example.com/santui/datapath/block"
)

func TestMemSuite(t *testing.T) {
	Suite(t, func(*testing.T) block.Device { return NewMem(8 << 20) })
}

func TestFaultsSuite(t *testing.T) {
	Suite(t, func(*testing.T) block.Device { return NewFaults(NewMem(8 << 20)) })
}

func TestCrashClone(t *testing.T) {
	m := NewMem(1 << 20)
	old, young := bytes.Repeat([]byte{1}, 64<<10), bytes.Repeat([]byte{2}, 64<<10)
	mustWrite(t, m, old, 0)
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, m, young, 0)
	if got := mustRead(t, m.CrashClone(1, 0), 64<<10, 0); !bytes.Equal(got, old) {
		t.Error("with no survivors flushed data must be back")
	}
	if got := mustRead(t, m.CrashClone(1, 100), 64<<10, 0); !bytes.Equal(got, young) {
		t.Error("with all survivors the new data must be there")
	}
	got := mustRead(t, m.CrashClone(1, 50), 64<<10, 0)
	kept := 0
	for i := 0; i < len(got); i += sector {
		if s := got[i : i+sector]; bytes.Equal(s, young[:sector]) {
			kept++
		} else if !bytes.Equal(s, old[:sector]) {
			t.Fatalf("sector %d is torn", i/sector)
		}
	}
	if kept == 0 || kept == 128 {
		t.Errorf("%d of 128 sectors survived half a crash", kept)
	}
	if again := mustRead(t, m.CrashClone(1, 50), 64<<10, 0); !bytes.Equal(got, again) {
		t.Error("the same seed gave another disk")
	}
	if got := mustRead(t, m.Clone(), 64<<10, 0); !bytes.Equal(got, young) {
		t.Error("Clone must read like the original")
	}
	if m.Unflushed() != 128 {
		t.Errorf("%d sectors unflushed", m.Unflushed())
	}
}

// TestAfterPowerCut: what was flushed, and every content since.
func TestAfterPowerCut(t *testing.T) {
	m := NewMem(1 << 20)
	mustWrite(t, m, bytes.Repeat([]byte{1}, 1024), 512)
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, m, bytes.Repeat([]byte{2}, 512), 1024)
	mustWrite(t, m, bytes.Repeat([]byte{3}, 512), 1024)
	got := ""
	err := m.AfterPowerCut(0, 2048, func(off int64, content []byte) error {
		if !bytes.Equal(content, bytes.Repeat(content[:1], 512)) {
			t.Errorf("content at %d is mixed", off)
		}
		got += fmt.Sprint(off, ":", content[0], " ")
		return nil
	})
	if want := "0:0 512:1 1024:1 1024:2 1024:3 1536:0 "; got != want || err != nil {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if err := m.AfterPowerCut(1<<20, 512, nil); !errors.Is(err, block.ErrRange) {
		t.Error(err)
	}
}

func TestDiffer(t *testing.T) {
	a, b := NewMem(1<<20), NewMem(1<<20)
	mustWrite(t, a, make([]byte, 8192), 0) // zeroes are no difference to nothing
	mustWrite(t, a, bytes.Repeat([]byte{1}, 8192), 16<<10)
	mustWrite(t, b, bytes.Repeat([]byte{1}, 4096), 16<<10)
	mustWrite(t, b, bytes.Repeat([]byte{1}, 512), 40<<10+512)
	for size, want := range map[int64][]int64{1 << 20: {5, 10}, 40<<10 + 1024: {5, 10}, 40<<10 + 512: {5}, 16 << 10: nil} {
		if got := a.Differ(b, size); !slices.Equal(got, want) || !slices.Equal(b.Differ(a, size), want) {
			t.Errorf("up to %d: %v, want %v", size, got, want)
		}
	}
}

func TestFaultRules(t *testing.T) {
	m := NewMem(1 << 20)
	f := NewFaults(m)
	data := pattern(8192, 3)
	remove := f.Inject(Rule{Ops: OpWrite, From: 4096, To: 8192, Skip: 1, Times: 1, Short: 4096})
	mustWrite(t, f, data[:4096], 0) // outside
	mustWrite(t, f, data, 0)        // skipped
	clear(data)
	if n, err := f.WriteAt(data, 0); n != 4096 || !errors.Is(err, ErrInjected) {
		t.Errorf("short write: %d, %v", n, err)
	}
	if got := mustRead(t, m, 8192, 0); !bytes.Equal(got[:4096], data[:4096]) || bytes.Equal(got[4096:], data[4096:]) {
		t.Error("a short write must write its first half and no more")
	}
	mustWrite(t, f, data, 0) // used up
	remove()
	defer f.Inject(Rule{Ops: OpRead, FlipBit: 10})()
	if got := mustRead(t, f, 512, 0); got[1] != 2 {
		t.Errorf("bit 9 not flipped: % x", got[:4])
	}
	mine := errors.New("mine")
	defer f.Inject(Rule{Ops: OpFlush, Err: mine})()
	if err := f.Flush(); !errors.Is(err, mine) {
		t.Errorf("flush: %v", err)
	}
	if f.Calls(OpWrite) != 4 {
		t.Errorf("%d writes counted", f.Calls(OpWrite))
	}
}
