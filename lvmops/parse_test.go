package lvmops

import (
	"embed"
	"encoding/json"
	"strings"
	"testing"
)

// recordings travel inside the test binary: it also runs in a node of the lab.
//
//go:embed testdata/*.json
var recordings embed.FS

// TestRecordedReports parses what LVM 2.03.16 printed in the lab.
func TestRecordedReports(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"guide": "storage da-ta=/dev/storage/da-ta test=/dev/storage/test",
		"thin": "storage da-ta=/dev/storage/da-ta [lvol0_pmspare]= pool= [pool_tdata]= [pool_tmeta]= snap=/dev/storage/snap " +
			"test=/dev/storage/test thin=/dev/storage/thin thinsnap=/dev/storage/thinsnap",
	} {
		b, err := recordings.ReadFile("testdata/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var runs []struct {
			Argv   []string
			Stdout string
		}
		if err := json.Unmarshal(b, &runs); err != nil {
			t.Fatal(err)
		}
		var last lvmReport
		n := 0
		for _, r := range runs {
			if r.Argv[0] != "lvm" {
				continue
			}
			n++
			if last, err = parseReport([]byte(r.Stdout)); err != nil {
				t.Errorf("%s, report %d: %v", file, n, err)
			}
		}
		if n == 0 || len(last.vgs) != 1 {
			t.Fatalf("%s: %d reports, last %+v", file, n, last)
		}
		got := last.vgs[0].Name
		for _, lv := range last.vgs[0].LVs {
			got += " " + lv.Name + "=" + lv.Path
		}
		if got != want {
			t.Errorf("%s: %s\nwant %s", file, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"storage", "a", "0", "vg+1_x.y-z", ".hidden", "..."} {
		if err := CheckVGName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-f", "--help", ".", "..", "a b", "a/b", "a\n", "\u00e4", "a;b", "$(x)", strings.Repeat("x", 128)} {
		if CheckVGName(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
	for _, bad := range []string{"snapshot1", "pvmove0", "x_tmeta", "a_rimage_0"} {
		if CheckLVName(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "x", "-o", "/a/../b", "/a//b", "/a/", "/a\x00b", "/" + strings.Repeat("x", 5000)} {
		if validPath(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
	for _, d := range []struct{ name, uuid, want string }{
		{"storage-test", "LVM-" + strings.Repeat("a", 64), "/dev/storage/test"},
		{"my--vg-my--lv", "LVM-" + strings.Repeat("a", 64), "/dev/my-vg/my-lv"},
		{"storage-test-real", "LVM-" + strings.Repeat("a", 64) + "-real", ""},
		{"storage-test-real", "LVM-" + strings.Repeat("a", 64), ""},
		{"crypt", "CRYPT-x", ""},
		{"-", "LVM-" + strings.Repeat("a", 64), ""},
	} {
		if got := lvPath(&device{dmName: d.name, dmUUID: d.uuid}); got != d.want {
			t.Errorf("%s: %q, want %q", d.name, got, d.want)
		}
	}
}

func TestMountTable(t *testing.T) {
	t.Parallel()
	table := []mount{{id: 1, target: "/"}, {id: 2, parent: 1, target: "/a"}, {id: 3, parent: 2, target: "/a"}, {id: 4, parent: 3, target: "/a/b"},
		{id: 7, parent: 8, target: "/c"}, {id: 8, parent: 7, target: "/c"}}
	setDepths(table)
	if m := covering(table, "/a/x"); m == nil || m.id != 3 {
		t.Errorf("%+v", m)
	}
	if m := covering(table, "/ab"); m == nil || m.id != 1 {
		t.Errorf("%+v", m)
	}
	if m := topmost(table, "/a"); m == nil || m.id != 3 || countAt(table, "/a") != 2 {
		t.Errorf("%+v", m)
	}
	for _, c := range []struct {
		m    mount
		want string
	}{
		{mount{root: "/", vfs: "rw,noatime", super: "rw,seclabel,stripe=64"}, "rw,noatime,stripe=64"},
		{mount{root: "/", vfs: "rw,relatime", super: "ro,errors=remount-ro"}, "ro,relatime,errors=remount-ro"},
		{mount{root: "/", vfs: "rw,relatime", super: "rw,attr2,inode64,logbufs=8,logbsize=32k,noquota"}, "rw,relatime"},
		{mount{root: "/@x", fstype: "btrfs", vfs: "rw", super: "rw,ssd,space_cache=v2,subvolid=256,subvol=/@x"}, "rw,ssd,subvol=/@x"},
		{mount{root: "/sub", vfs: "ro,relatime", super: "rw,stripe=64"}, "ro,relatime"},
	} {
		if got := c.m.options(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if s := unescape(`/a\040b\134\012c\9`); s != "/a b\\\nc\\9" {
		t.Errorf("%q", s)
	}
}

func FuzzHead(f *testing.F) {
	pv := make([]byte, 4096+512)
	copy(pv[512:], "LABELONE")
	pv[512+20] = 32
	copy(pv[512+24:], "LVM2 001")
	pv[512+32+40+8] = 1     // one data area
	pv[512+32+40+32+1] = 16 // metadata at 4096
	pv[512+32+40+40] = 1
	f.Add(pv)
	f.Add([]byte("XFSB"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, head []byte) {
		l := pvLabel(head)
		if (l != nil) != (sniff(head) == kindPV) {
			t.Error("label and sniff disagree")
		}
		if l != nil && l.mark != nil && len(l.mark) != 512 {
			t.Errorf("mark of %d bytes", len(l.mark))
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"report":[{"vg":[{"vg_name":"s"}],"lv":[{"lv_name":"[x]"}]}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseReport(b) })
}

func TestUnitOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0::/system.slice/smbd.service\n":                                         "smbd.service",
		"0::/system.slice/system-foo.slice/foo@1.service/sub/other.service":       "foo@1.service",
		"4:memory:/x.service\n1:name=systemd:/user.slice/session-2.scope\n0::/\n": "session-2.scope",
		"9:name=systemd:/\n8:pids:/y.service\n":                                   "",
		"":                                                                        "", "nonsense\n::\n": "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
