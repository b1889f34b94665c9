package engine

import (
	"os"
	"path/filepath"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// TestDiskThereAndBack: a disk is let go of and taken into use again, while the resource stays up.
func TestDiskThereAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() (block.Device, error) { return block.Open(path, block.Options{}) }
	d, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := meta.Create(t.Context(), d, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := nativeConfig("")
	cfg.Datapath.Open = open
	n, err := NewNative(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, step := range []struct {
		what string
		do   func() error
		disk proto.DiskState
	}{
		{"up", func() error { return n.Up(ctx) }, proto.Inconsistent},
		{"detach", func() error { return n.DetachDisk(ctx) }, proto.Diskless},
		{"attach", func() error { return n.AttachDisk(ctx) }, proto.Inconsistent},
	} {
		if err := step.do(); err != nil || n.Status().DiskState != step.disk {
			t.Errorf("%s: %v, %v", step.what, n.Status().DiskState, err)
		}
	}
	if other, err := open(); err == nil {
		t.Errorf("the attached disk can be opened by others: %v", other.Close())
	}
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
