package lvmops

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/santui/proto"
)

// fstabOf reads a text as fstab.
func fstabOf(t rapid.TB, dir, text string) ([]proto.FstabEntry, error) {
	if err := os.WriteFile(filepath.Join(dir, "fstab"), []byte(text), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	return (&Ops{opt: Options{Etc: dir}}).Fstab()
}

// TestMountUnits: an administrator's mount units count like lines of fstab; enabled ones mount at boot.
func TestMountUnits(t *testing.T) {
	const unit = "[Unit]\nDescription=x\n[Mount]\nWhat=/dev/storage/%s\nWhere = /srv/%s\nType=xfs\n"
	dir := tree(t, map[string]string{
		"systemd/system/srv-a.mount": fmt.Sprintf(unit, "a", "a") + "Options=ro\n", "systemd/system/srv-b.mount": fmt.Sprintf(unit, "b", "b"),
		"systemd/system/srv-c.mount": fmt.Sprintf(unit, "c", "c"), "systemd/system/srv-c.automount": "[Automount]\nWhere=/srv/c\n",
		"systemd/system/multi-user.target.wants/srv-a.mount": "", "systemd/system/local-fs.target.requires/srv-c.automount": "",
		"systemd/system/bad.mount": "\x00\xff", "systemd/system/x.service": "What=/dev/x\nWhere=/srv/x\n",
	})
	got, err := (&Ops{opt: Options{Etc: dir}}).Fstab()
	want := []proto.FstabEntry{
		{Source: "/dev/storage/a", Target: "/srv/a", FSType: "xfs", Options: "ro", Unit: "srv-a.mount"},
		{Source: "/dev/storage/b", Target: "/srv/b", FSType: "xfs", Options: "defaults,noauto", Unit: "srv-b.mount"},
		{Source: "/dev/storage/c", Target: "/srv/c", FSType: "xfs", Options: "defaults,noauto,x-systemd.automount", Unit: "srv-c.mount"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
	}
}

// TestFstabGarbage: what makes sense is read, whatever stands around it; what is too long is refused, not cut.
func TestFstabGarbage(t *testing.T) {
	dir := t.TempDir()
	text := strings.Join([]string{
		"# a comment", "", "\x00\x01\x02\xff\xfe", "one", "two /mnt", "\t \t", "/dev/a relative ext4 defaults", "none none swap sw 0 0",
		`UUID="12 3" /mnt/x ext4`, `/dev/mapper/storage-test /mnt/a\040b\011\134040 ext4 noauto,ro 0 2`, "/dev/b /mnt/short xfs",
		"LABEL=é /mnt/é ext4 defaults 0 0 and more # of it", strings.Repeat("x", 5000) + " /mnt/long ext4 defaults", "/dev/c /mnt/last ext4 rw\r",
		`/dev/bad\9 /mnt/\7 ext4 x`,
	}, "\n")
	got, err := fstabOf(t, dir, text)
	want := []proto.FstabEntry{
		{Source: "/dev/mapper/storage-test", Target: "/mnt/a b\t\\040", FSType: "ext4", Options: "noauto,ro"},
		{Source: "/dev/b", Target: "/mnt/short", FSType: "xfs", Options: "defaults"},
		{Source: "LABEL=é", Target: "/mnt/é", FSType: "ext4", Options: "defaults"},
		{Source: "/dev/c", Target: "/mnt/last", FSType: "ext4", Options: "rw"},
		{Source: `/dev/bad\9`, Target: `/mnt/\7`, FSType: "ext4", Options: "x"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
	}
	var many strings.Builder
	for i := range proto.MaxFstab + 10 {
		fmt.Fprintf(&many, "/dev/x%d /mnt/%d ext4 defaults\n", i, i)
	}
	if got, err := fstabOf(t, dir, many.String()); err != nil || len(got) != proto.MaxFstab {
		t.Errorf("%d entries, %v", len(got), err)
	}
	if got, err := fstabOf(t, dir, strings.Repeat("# long\n", 64<<10)); err == nil || got != nil {
		t.Errorf("half a megabyte: %d entries, %v", len(got), err)
	}
	if err := os.Remove(filepath.Join(dir, "fstab")); err != nil {
		t.Fatal(err)
	}
	if got, err := (&Ops{opt: Options{Etc: dir}}).Fstab(); err != nil || got != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		entries, err := fstabOf(t, dir, rapid.String().Draw(t, "fstab"))
		for _, e := range entries {
			if err != nil || !strings.HasPrefix(e.Target, "/") || e.FSType == "" || e.Options == "" {
				t.Fatalf("%+v, %v", e, err)
			}
		}
	})
}
