package lvmops_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/lvmops"
	"example.com/santui/lvmops/lvmtest"
	"example.com/santui/proto"
)

const (
	vgUUID = "B0i9OX-3Zkf-oHel-b6uG-pIXS-7Hzq-TYsMke"
	lvUUID = "3K9Fgw-0123-4567-89ab-cdef-0123-456789"
)

// backing is an Ops whose disk /dev/disks/r0 is device 253:7 with the dm uuid given.
func backing(t *testing.T, uuid string, runs ...lvmtest.Run) (*lvmops.Ops, *lvmtest.Transcript) {
	t.Helper()
	sys := t.TempDir()
	dir := filepath.Join(sys, "dev/block/253:7/dm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "uuid"), []byte(uuid+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := lvmtest.NewTranscript(runs...)
	o, err := lvmops.New(lvmops.Options{Runner: tr, Node: "otter", Sys: sys, DeviceNumber: func(string) (uint32, uint32, error) { return 253, 7, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return o, tr
}

var lvsArgv = strings.Fields("lvs --reportformat json --units b --nosuffix -o vg_uuid,lv_uuid,vg_name,lv_name,origin,segtype,lv_size,vg_free,vg_extent_size")

func lvs(rows ...string) lvmtest.Run {
	return lvmtest.Run{Argv: lvsArgv, Stdout: `{"report":[{"lv":[` + strings.Join(rows, ",") + `]}]}`}
}

const (
	r0Row   = `{"vg_uuid":"` + vgUUID + `","lv_uuid":"` + lvUUID + `","vg_name":"disks","lv_name":"r0","origin":"","segtype":"linear","lv_size":"1073741824","vg_free":"2147483648","vg_extent_size":"4194304"}`
	snapRow = `{"vg_uuid":"` + vgUUID + `","lv_uuid":"x","vg_name":"disks","lv_name":"santui-r0-1","origin":"r0","segtype":"linear","lv_size":"1073741824","vg_free":"0","vg_extent_size":"4194304"}`
	alien   = `{"vg_uuid":"y","lv_uuid":"z","vg_name":"other","lv_name":"santui-r0-1","origin":"r0","segtype":"linear","lv_size":"x","vg_free":"0","vg_extent_size":"4194304"}`
)

func dmUUID() string { return "LVM-" + strings.ReplaceAll(vgUUID+lvUUID, "-", "") }

func TestBackingLV(t *testing.T) {
	o, _ := backing(t, dmUUID(), lvs(alien, snapRow, r0Row))
	got, err := o.BackingLV(t.Context(), "/dev/disks/r0")
	if want := (proto.BackingLV{VG: "disks", LV: "r0", Type: "linear", Size: 1 << 30, Free: 2 << 30, Extent: 4 << 20}); err != nil || got == nil || *got != want {
		t.Errorf("%+v, %v", got, err)
	}
	o, _ = backing(t, "CRYPT-LUKS2-abc") // no lvm is run for it
	if got, err := o.BackingLV(t.Context(), "/dev/mapper/x"); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for name, run := range map[string]lvmtest.Run{
		"not listed": lvs(alien),
		"no JSON":    {Argv: lvsArgv, Stdout: "WARNING: no"},
		"fails":      {Argv: lvsArgv, Exit: 5, Stderr: "no"},
		"no number":  lvs(strings.Replace(r0Row, "4194304", "4m", 1)),
	} {
		o, _ := backing(t, dmUUID(), run)
		if got, err := o.BackingLV(t.Context(), "/dev/disks/r0"); got != nil || err == nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestSnapshot(t *testing.T) {
	s := proto.LVSnapshot{VG: "disks", Origin: "r0", Name: "santui-r0-1", Size: 1 << 30}
	create := lvmtest.Run{Argv: lvmops.SnapshotArgv(s)}
	o, tr := backing(t, dmUUID(), lvs(alien, r0Row), create, lvs(r0Row, snapRow))
	if out, err := o.Snapshot(t.Context(), "/dev/disks/r0", s); err != nil || out.Already || len(out.Commands) != 3 || len(tr.Left()) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	o, _ = backing(t, dmUUID(), lvs(r0Row, snapRow))
	if out, err := o.Snapshot(t.Context(), "/dev/disks/r0", s); err != nil || !out.Already {
		t.Errorf("a second time: %+v, %v", out, err)
	}
	o, _ = backing(t, dmUUID(), lvs(r0Row), create, lvs(r0Row))
	if _, err := o.Snapshot(t.Context(), "/dev/disks/r0", s); err == nil || !strings.Contains(err.Error(), "has no snapshot") {
		t.Errorf("one that did not appear: %v", err)
	}
	for name, change := range map[string]func(*proto.LVSnapshot){
		"other origin": func(s *proto.LVSnapshot) { s.Origin = "root" },
		"other group":  func(s *proto.LVSnapshot) { s.VG = "system" },
		"name":         func(s *proto.LVSnapshot) { s.Name = "--force" },
		"size":         func(s *proto.LVSnapshot) { s.Size = 17 },
	} {
		bad := s
		change(&bad)
		o, _ := backing(t, dmUUID(), lvs(r0Row)) // lvcreate is not in the transcript
		if _, err := o.Snapshot(t.Context(), "/dev/disks/r0", bad); err == nil || strings.Contains(err.Error(), "transcript") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
