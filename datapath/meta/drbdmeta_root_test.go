//go:build root

package meta

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/santui/datapath/block"
)

// These tests need drbdmeta (package drbd-utils) and root, for it keeps notes in
// /var/lib/drbd.

func drbdmeta(t *testing.T, path string, args ...string) string {
	t.Helper()
	return drbdmetaAt(t, path, "internal", args...)
}

// drbdmetaAt runs drbdmeta on metadata of that index: "internal", "flex-external" or a slot's number.
func drbdmetaAt(t *testing.T, path, index string, args ...string) string {
	t.Helper()
	cmd := exec.Command("drbdmeta", append([]string{"--force", "0", "v08", path, index}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s(this test needs drbd-utils and root)", cmd.Args, err, &stdout, &stderr)
	}
	return stdout.String()
}

func disk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

func openDisk(t *testing.T, path string) block.Device {
	t.Helper()
	d, err := block.Open(path, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func attach(t *testing.T, d block.Device, extents int) *Metadata {
	t.Helper()
	m, err := Open(d, OpenOptions{ALExtents: extents})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What drbdmeta creates and what we create is the same, byte for byte, but for the
// number of extents noted.
func TestDrbdmetaCreate(t *testing.T) {
	for _, size := range []int64{16 << 20, 100<<20 + 3*512, 1 << 30, 5<<30 + 4096} {
		ours, theirs := disk(t, size), disk(t, size)
		drbdmeta(t, theirs, "create-md")
		d := openDisk(t, ours)
		if err := Create(ctx, d, CreateOptions{ALExtents: 257}); err != nil {
			t.Fatal(err)
		}
		if d.Size() != size {
			t.Logf("direct I/O in units of %d", d.LogicalBlockSize())
		}
		l := layout(t, size)
		n := l.MDSize()
		tail := func(path string) []byte {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := make([]byte, n)
			if _, err := f.ReadAt(p, l.BMOffset); err != nil {
				t.Fatal(err)
			}
			return p
		}
		if !bytes.Equal(tail(ours), tail(theirs)) {
			t.Errorf("%d bytes: the metadata areas differ", size)
		}
		m := attach(t, openDisk(t, theirs), 0)
		if m.Superblock().UUIDs.Current != JustCreated || m.NeedsApplyAL() {
			t.Errorf("%d bytes: drbdmeta's superblock reads %+v", size, m.Superblock())
		}
	}
}

func TestDrbdmetaReadsOurs(t *testing.T) {
	path := disk(t, 1<<30)
	d := openDisk(t, path)
	m := create(t, d, 7)
	err := m.Update(ctx, func(sb *Superblock) {
		sb.UUIDs = UUIDs{0x1111111111111111, 0x2222222222222222, [2]uint64{0x3333333333333333, 0x4444444444444444}}
		sb.Flags = FlagConsistent | FlagWasUpToDate | FlagPeerOutdated
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Bitmap().SetBits(77, 80)
	if err := m.MarkClean(ctx); err != nil {
		t.Fatal(err)
	}
	gi := drbdmeta(t, path, "get-gi")
	if !strings.HasPrefix(gi, "1111111111111111:2222222222222222:3333333333333333:4444444444444444:1:1:0:0:0:") {
		t.Errorf("get-gi: %s", gi)
	}
	dump := drbdmeta(t, path, "dump-md")
	for _, want := range []string{
		fmt.Sprintf("la-size-sect %d;", m.Layout().UsableSize/512), "0x1111111111111111; 0x2222222222222222;",
		"al-extents 7;", "al-stripes 1;", "al-stripe-size-4k 8;", "# bits-set 3;", "0x000000000000E000;"} {
		if !strings.Contains(dump, want) {
			t.Errorf("dump-md has no %q:\n%.2000s", want, dump)
		}
	}
}

// The bitmap after a crash is the same whoever applies the activity log.
func TestDrbdmetaApplyAL(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		path := disk(t, 1<<30+int64(seed)*12345*512)
		d := openDisk(t, path)
		m := create(t, d, []int{7, 64, 257, 1237, 920, 6433}[seed])
		last := (m.Layout().UsableSize - 1) / ExtentSize
		for range 150 {
			e := rnd.Int64N(last + 1)
			begin(t, m, e)
			m.Bitmap().SetRange(e*ExtentSize+rnd.Int64N(ExtentSize), 1+rnd.Int64N(100000))
			if rnd.IntN(3) > 0 || m.AL().Active() > 5 {
				end(t, m, e)
			}
		}
		if err := m.Bitmap().WriteDirty(ctx); err != nil {
			t.Fatal(err)
		}
		if seed%2 == 1 { // a torn transaction
			torn := m.Layout().ALOffset + int64(m.al.number%alBlocks)*alBlockSize
			if err := d.WriteZeroes(torn+1024, 512, false); err != nil {
				t.Fatal(err)
			}
		}
		active := len(m.AL().Extents())
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}

		copied := filepath.Join(t.TempDir(), "copy.img")
		if out, err := exec.Command("cp", "--sparse=always", path, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		drbdmeta(t, copied, "apply-al")
		ours := attach(t, openDisk(t, path), 0)
		res, err := ours.ApplyAL(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if res.Extents != active && seed%2 == 0 || res.Bits == 0 {
			t.Errorf("seed %d: %+v, %d extents were active", seed, res, active)
		}
		theirs := attach(t, openDisk(t, copied), 0)
		if theirs.NeedsApplyAL() {
			t.Errorf("seed %d: unclean after drbdmeta", seed)
		}
		if !slices.Equal(contents(ours.Bitmap()), contents(theirs.Bitmap())) {
			t.Errorf("seed %d: %d bits by us, %d by drbdmeta", seed, ours.Bitmap().Weight(), theirs.Bitmap().Weight())
		}
		if ours.Superblock() != theirs.Superblock() {
			t.Errorf("seed %d: superblocks differ:\n%+v\n%+v", seed, ours.Superblock(), theirs.Superblock())
		}
		// And each reads the other's result.
		drbdmeta(t, path, "dump-md")
	}
}

// After a move drbdmeta finds at the new end what there was, and after growing the marks of the new part; the log too.
func TestDrbdmetaMove(t *testing.T) {
	path := disk(t, 256<<20)
	d := openDisk(t, path)
	m := create(t, d, 64)
	before := m.Layout().UsableSize
	m.Bitmap().SetBits(77, 80)
	begin(t, m, 3, 50)
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	size, err := block.Grow(d)
	if err != nil || size != 1<<30 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if err := m.Move(ctx, size, forget); err != nil {
		t.Fatal(err)
	}
	dump := func(want ...string) {
		t.Helper()
		copied := filepath.Join(t.TempDir(), "copy.img")
		if out, err := exec.Command("cp", "--sparse=always", path, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		drbdmeta(t, copied, "apply-al")
		text := drbdmeta(t, copied, "dump-md")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("dump-md has no %q:\n%.1000s", w, text)
			}
		}
	}
	dump(fmt.Sprintf("la-size-sect %d;", before/512), fmt.Sprintf("# bits-set %d;", 3+2*1024), fmt.Sprintf("# md_offset %d", m.Layout().MDOffset))
	if err := m.SetAgreedSize(ctx, m.Layout().UsableSize, true); err != nil {
		t.Fatal(err)
	}
	grown := m.Layout().UsableSize - before
	dump(fmt.Sprintf("la-size-sect %d;", m.Layout().UsableSize/512), fmt.Sprintf("# bits-set %d;", 3+2*1024+grown/4096))
}

// TestDrbdmetaExternal goes through external metadata with drbdmeta, flexible and in slots: both make the same, byte for
// byte; it reads ours, in use and clean; and both apply the activity log alike.
func TestDrbdmetaExternal(t *testing.T) {
	const dataSize = 3<<30 + 512
	for _, c := range []struct {
		name, index string
		n           int
		size        int64
	}{{"flexible", "flex-external", Flexible, 8 << 20}, {"flexible and odd", "flex-external", Flexible, 1<<20 + 3*512}, {"slot 0", "0", 0, 128 << 20}, {"slot 2", "2", 2, 400 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			data := openDisk(t, disk(t, dataSize))
			ours, theirs := disk(t, c.size), disk(t, c.size)
			drbdmetaAt(t, theirs, c.index, "create-md")
			d := openDisk(t, ours)
			if err := Create(ctx, data, CreateOptions{MetaDisk: MetaDisk{d, c.n}, ALExtents: 257}); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("cmp", ours, theirs).CombinedOutput(); err != nil {
				if d.LogicalBlockSize() > 512 && c.size%4096 != 0 {
					t.Logf("direct I/O in units of %d: %s", d.LogicalBlockSize(), out)
				} else {
					t.Errorf("made by us and by drbdmeta: %s", out)
				}
			}
			m, err := Open(data, OpenOptions{MetaDisk: MetaDisk{openDisk(t, theirs), c.n}})
			if err != nil {
				t.Fatal(err)
			}
			if m.Superblock().UUIDs.Current != JustCreated || m.NeedsApplyAL() {
				t.Errorf("drbdmeta's superblock reads %+v", m.Superblock())
			}

			if m, err = Open(data, OpenOptions{ALExtents: 64, MetaDisk: MetaDisk{d, c.n}}); err != nil {
				t.Fatal(err)
			}
			if err := m.SetAgreedSize(ctx, m.Layout().UsableSize, false); err != nil {
				t.Fatal(err)
			}
			err = m.Update(ctx, func(sb *Superblock) {
				sb.UUIDs = UUIDs{0x1111111111111111, 0x2222222222222222, [2]uint64{0x3333333333333333, 0x4444444444444444}}
				sb.Flags = FlagConsistent | FlagWasUpToDate | FlagPrimary
			})
			if err != nil {
				t.Fatal(err)
			}
			begin(t, m, 3, 700)
			m.Bitmap().SetBits(77, 80)
			if err := m.Bitmap().WriteDirty(ctx); err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "copy.img")
			if out, err := exec.Command("cp", "--sparse=always", ours, copied).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			drbdmetaAt(t, copied, c.index, "apply-al")
			if gi := drbdmetaAt(t, copied, c.index, "get-gi"); !strings.HasPrefix(gi, "1111111111111111:2222222222222222:3333333333333333:4444444444444444:1:1:1:0:0:") {
				t.Errorf("get-gi: %s", gi)
			}
			dump := drbdmetaAt(t, copied, c.index, "dump-md")
			for _, want := range []string{fmt.Sprintf("la-size-sect %d;", m.Layout().UsableSize/512), fmt.Sprintf("# bits-set %d;", 3+2*1024),
				fmt.Sprintf("# md_offset %d", m.Layout().MDOffset), "al-extents 64;"} {
				if !strings.Contains(dump, want) {
					t.Errorf("dump-md has no %q:\n%.1000s", want, dump)
				}
			}
			a, err := Open(data, OpenOptions{MetaDisk: MetaDisk{d, c.n}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.ApplyAL(ctx); err != nil {
				t.Fatal(err)
			}
			b, err := Open(data, OpenOptions{MetaDisk: MetaDisk{openDisk(t, copied), c.n}})
			if err != nil {
				t.Fatal(err)
			}
			if b.NeedsApplyAL() || a.Superblock() != b.Superblock() || !slices.Equal(contents(a.Bitmap()), contents(b.Bitmap())) {
				t.Errorf("applied by us and by drbdmeta: %d and %d bits\n%+v\n%+v", a.Bitmap().Weight(), b.Bitmap().Weight(), a.Superblock(), b.Superblock())
			}
		})
	}
}

// Real signatures are recognised with their real sizes.
func TestProbeReal(t *testing.T) {
	for _, c := range []struct{ kind, tool string }{
		{"ext2/3/4", "mkfs.ext4 -q -F"}, {"XFS", "mkfs.xfs -q -f"}, {"swap", "mkswap"},
	} {
		args := strings.Fields(c.tool)
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Errorf("%s is not installed (e2fsprogs, xfsprogs, util-linux)", args[0])
			continue
		}
		path := disk(t, 512<<20)
		if out, err := exec.Command(args[0], append(args[1:], path)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c.tool, err, out)
		}
		found, err := Probe(openDisk(t, path))
		if err != nil || len(found) != 1 || !strings.Contains(found[0].Kind, c.kind) || found[0].Size != 512<<20 {
			t.Errorf("%s: %+v, %v", c.tool, found, err)
		}
	}
}
