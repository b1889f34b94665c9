package lvmops

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree writes files below a new folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestMountProblems: file systems that reach beyond the device, and mounts that come back by themselves.
func TestMountProblems(t *testing.T) {
	t.Parallel()
	sys := tree(t, map[string]string{
		"fs/btrfs/one/devices/nbd0": "", "fs/btrfs/two/devices/dm-3": "", "fs/btrfs/two/devices/sdc": "",
		"fs/btrfs/three/devices/dm-4": "", "fs/btrfs/three/devices/dm-5": "",
		"class/block/nbd0/dev": "43:0\n", "class/block/dm-3/dev": "253:3\n", "class/block/sdc/dev": "8:32\n",
		"class/block/dm-4/dev": "253:4\n", "class/block/dm-5/dev": "253:5\n",
	})
	o, err := New(Options{Runner: &Exec{}, Sys: sys, Proc: t.TempDir(), DeviceNumber: func(path string) (uint32, uint32, error) {
		return map[string]uint32{"/dev/storage/log": 253, "/dev/sdd": 8}[path], map[string]uint32{"/dev/storage/log": 5, "/dev/sdd": 48}[path], nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	f := &family{o: o, node: "/dev/nbd0", root: devno{43, 0}, paths: map[string]devno{}, devices: map[devno]*device{
		{43, 0}: {no: devno{43, 0}, name: "nbd0"}, {253, 3}: {no: devno{253, 3}, name: "dm-3"}, {253, 4}: {no: devno{253, 4}, name: "dm-4"},
		{253, 5}: {no: devno{253, 5}, name: "dm-5"}, {43, 1}: {no: devno{43, 1}, name: "nbd0p1", kind: "part", shown: "/dev/nbd0p1"},
	}}
	table := []mount{{id: 1, target: "/", fstype: "ext4"}, {id: 2, parent: 1, target: "/srv/auto", fstype: "autofs", source: "systemd-1"}}
	for _, c := range []struct {
		m    mount
		want string // "" for none
	}{
		{mount{no: devno{43, 0}, fstype: "btrfs", parent: 1}, ""},
		{mount{no: devno{253, 3}, fstype: "btrfs", parent: 1}, "its btrfs needs /dev/sdc too"},
		{mount{no: devno{253, 4}, fstype: "btrfs", parent: 1}, ""},
		{mount{no: devno{253, 3}, fstype: "xfs", super: "rw,logdev=/dev/storage/log", parent: 1}, ""},
		{mount{no: devno{253, 3}, fstype: "xfs", super: "rw,logdev=/dev/sdd,rtdev=/dev/storage/log", parent: 1}, "its xfs needs /dev/sdd too"},
		{mount{no: devno{253, 3}, fstype: "xfs", parent: 2, target: "/srv/auto"}, "an automounter (systemd-1)"},
		{mount{no: devno{43, 1}, fstype: "xfs", parent: 1}, "/dev/nbd0p1, a partition"},
	} {
		got := o.problem(t.Context(), f, append(table, c.m), c.m)
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.m, got, c.want)
		}
	}
}

// TestNested tells volumes of the device's own group, layers included, from those of a group inside one of its volumes.
func TestNested(t *testing.T) {
	t.Parallel()
	own, other := "LVM-"+strings.Repeat("a", 32), "LVM-"+strings.Repeat("b", 32)
	lv := strings.Repeat("c", 32)
	add := func(f *family, minor uint32, name, uuid, below string) *device {
		d := &device{no: devno{253, minor}, name: name, kind: "dm", dmUUID: uuid, below: below}
		f.devices[d.no] = d
		return d
	}
	f := &family{root: devno{43, 0}, devices: map[devno]*device{{43, 0}: {no: devno{43, 0}, name: "nbd0"}, {43, 1}: {no: devno{43, 1}, name: "nbd0p1", kind: "part"}}}
	for _, c := range []struct {
		d    *device
		want bool
	}{
		{add(f, 1, "dm-1", own+lv, "nbd0"), false},
		{add(f, 2, "dm-2", own+lv+"-tpool", "dm-1"), false},
		{add(f, 3, "dm-3", other+lv, "dm-1"), true},
		{add(f, 4, "dm-4", other+lv, "nbd0p1"), true},
		{add(f, 5, "dm-5", "CRYPT-LUKS2-x", "dm-1"), false}, // a user under its own name
	} {
		if got := f.nested(c.d); got != c.want {
			t.Errorf("%s on %s: %v", c.d.name, c.d.below, got)
		}
	}
	o := &Ops{opt: Options{Sys: t.TempDir(), Proc: t.TempDir()}}
	users, _ := o.kernelUsers(f, nil, nil, true)
	var got []string
	for _, u := range users {
		got = append(got, u.Kind+" "+u.Path+" "+u.How)
	}
	want := "dm /dev/dm-3 " + howNested + "; dm /dev/dm-4 " + howNested + "; dm /dev/dm-5 holder"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("users: %s\nwant   %s", s, want)
	}
}
