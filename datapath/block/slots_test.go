package block_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"example.com/santui/datapath/block"
)

// TestSlots: one process shares a device by slots, each once, by whatever name; to everybody else it is in use until the
// last one is closed.
func TestSlots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "md.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	var s block.Slots
	open := func(path string, n int, want error) block.Device {
		t.Helper()
		d, err := s.Open(path, n)
		if !errors.Is(err, want) {
			t.Fatalf("slot %d of %s: %v, want %v", n, path, err, want)
		}
		return d
	}
	a, b := open(path, 0, nil), open(link, 2, nil)
	open(link, 0, block.ErrInUse)
	open(path, 2, block.ErrInUse)
	open(path+".none", 0, block.ErrMissing)
	claimed := func(want error) {
		t.Helper()
		d, err := block.Open(path, block.Options{})
		if !errors.Is(err, want) {
			t.Fatalf("from elsewhere: %v, want %v", err, want)
		}
		if err == nil {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	claimed(block.ErrInUse)
	for range 2 { // a second Close does nothing
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	claimed(block.ErrInUse)
	a = open(path, 0, nil)
	if _, err := a.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	claimed(nil)
}
