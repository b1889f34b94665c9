package block_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

func image(t *testing.T, dir string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileSuite(t *testing.T) {
	for name, opts := range map[string]block.Options{"Direct": {}, "Buffered": {Buffered: true}} {
		t.Run(name, func(t *testing.T) {
			blocktest.Suite(t, func(t *testing.T) block.Device {
				d, err := block.Open(image(t, t.TempDir(), 8<<20), opts)
				if err != nil {
					t.Fatal(err)
				}
				info := d.(block.Informer).Info()
				if info.Block || info.Size != 8<<20 || info.Direct && opts.Buffered {
					t.Errorf("info %+v", info)
				}
				return d
			})
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	path := image(t, dir, 1<<20)
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		} else if !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the error does not name the path: %v", what, err)
		}
	}
	_, err := block.Open(filepath.Join(dir, "none"), block.Options{})
	check("missing", err, block.ErrMissing)
	_, err = block.Open(dir, block.Options{})
	check("folder", err, block.ErrNotDevice)
	_, err = block.Open(path, block.Options{MinSize: 2 << 20})
	check("small", err, block.ErrTooSmall)

	d, err := block.Open(path, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = block.Open(path, block.Options{})
	check("second opener", err, block.ErrInUse)
	if s, err := block.Open(path, block.Options{Shared: true, ReadOnly: true}); err != nil {
		t.Errorf("a shared reader was refused: %v", err)
	} else {
		s.Close()
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := block.Open(path, block.Options{ReadOnly: true})
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	defer r.Close()
	_, err = r.WriteAt(block.Buffer(512), 0)
	check("write to a reader", err, block.ErrReadOnly)
	check("discard by a reader", r.Discard(0, 512), block.ErrReadOnly)
}

func TestOddSize(t *testing.T) {
	d, err := block.Open(image(t, t.TempDir(), 1<<20+700), block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if want := int64(1<<20+700) / int64(d.LogicalBlockSize()) * int64(d.LogicalBlockSize()); d.Size() != want {
		t.Errorf("size %d, want %d", d.Size(), want)
	}
}

func TestBuffers(t *testing.T) {
	for _, n := range []int{1, 512, 4096, 4097, 65536, 1 << 20, 1<<20 + 1, 1<<20 + 4096, 1<<20 + 4097, 8 << 20} {
		for range 2 {
			b := block.GetBuffer(n)
			if len(b) != n || uintptr(unsafe.Pointer(&b[0]))%4096 != 0 {
				t.Fatalf("GetBuffer(%d): len %d at %p", n, len(b), &b[0])
			}
			b[n-1] = 1
			block.PutBuffer(b)
		}
	}
	if block.Buffer(0) != nil || len(block.GetBuffer(0)) != 0 {
		t.Error("a buffer of nothing is not empty")
	}
	block.PutBuffer(nil)
	block.PutBuffer(block.Buffer(8192)[512:]) // not ours: must not enter the pool
	if b := block.GetBuffer(8192); uintptr(unsafe.Pointer(&b[0]))%4096 != 0 {
		t.Error("the pool took an unaligned buffer")
	}
}

func BenchmarkBuffer(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		block.PutBuffer(block.GetBuffer(65536))
	}
}
