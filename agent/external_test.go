package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// TestExternalMetadata: two resources have their metadata in slots of one device, a third one has its own. All are made
// with the devices that drbd.conf names, attach side by side, and are in use until they are down.
func TestExternalMetadata(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	slots, own := file("slots", 3*meta.SlotSize), file("own", 1<<20)
	var text strings.Builder
	for i, where := range []string{slots + "[0]", slots + "[2]", own} {
		fmt.Fprintf(&text, `resource r%d {
  on otter  { device /dev/drbd%d; disk %s; meta-disk %s; address 10.0.0.1:%d; }
  on weasel { device /dev/drbd%d; disk /dev/sda%d; meta-disk internal; address 10.0.0.2:%d; }
}
`, i, i, file(fmt.Sprint("disk", i), 16<<20), where, 7788+i, i, i, 7788+i)
	}
	conf := file("drbd.conf", 0)
	if err := os.WriteFile(conf, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Node: "otter", DRBDConf: conf}
	lines, err := Describe(cfg)
	if said := strings.Join(lines, "\n"); err != nil || !strings.Contains(said, "metadata is on "+slots+"[2]") || !strings.Contains(said, "metadata is on "+own) {
		t.Errorf("%v\n%s", err, said)
	}
	ctx := context.Background()
	for i := range 3 {
		b, err := BackingOf(cfg, fmt.Sprint("r", i))
		if err == nil {
			err = b.Open()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(meta.Create(ctx, b.Disk, meta.CreateOptions{MetaDisk: b.MetaDisk}), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
	confs, err := loadResources(cfg)
	if err != nil {
		t.Fatal(err)
	}
	up := attachAll(t, confs)
	for _, path := range []string{slots, own} {
		if _, err := block.Open(path, block.Options{}); !errors.Is(err, block.ErrInUse) {
			t.Errorf("%s while it is used: %v", path, err)
		}
	}
	again, err := BackingOf(cfg, "r1")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Open(); !errors.Is(err, block.ErrInUse) {
		t.Errorf("r1 while it is up: %v", err)
	}
	for _, r := range up {
		if s := r.Status(); s.Disk != proto.Inconsistent || s.Size != 16<<20 {
			t.Errorf("%+v", s)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if d, err := block.Open(slots, block.Options{}); err != nil {
		t.Errorf("afterwards: %v", err)
	} else if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// attachAll attaches the resources.
func attachAll(t *testing.T, confs []resourceConf) (up []*datapath.Resource) {
	t.Helper()
	for _, c := range confs {
		r, err := datapath.New(c.datapath)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		if err := r.Attach(context.Background()); err != nil {
			t.Fatal(err)
		}
		up = append(up, r)
	}
	return up
}
