//go:build lab

package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"
)

// kernelPair boots two nodes with the kernel's DRBD and syncs a fresh resource from otter.
func kernelPair(t *testing.T, conf DRBDConf, size int64) (*Lab, *DRBD, *DRBD) {
	t.Helper()
	l := ForTest(t, Options{DRBD: []string{"otter", "weasel"}, DiskSize: size})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	a, b := KernelDRBD(l.Node("otter"), conf), KernelDRBD(l.Node("weasel"), conf)
	if _, err := l.Node("otter").Sh(ctx, "dd if=/dev/urandom of=/dev/ubdb bs=1M count=16 seek=4 conv=notrunc status=none"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*DRBD{a, b} {
		if err := d.Up(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := a.Primary(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("full sync of %d MiB took %.1f s", size>>20, time.Since(began).Seconds())
	return l, a, b
}

// TestKernelPair shows that the judge works: two kernels' DRBD hold the same bytes, and the comparison sees a byte
// that is wrong. Then the volume runbook, by hand: stack on otter, move, the same files on weasel.
func TestKernelPair(t *testing.T) {
	t.Parallel()
	l, a, b := kernelPair(t, DRBDConf{Secret: "lab secret"}, 64<<20)
	otter, weasel := l.Node("otter"), l.Node("weasel")
	ctx := t.Context()
	size, err := a.Size(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := CompareDisks(ctx, otter, weasel, size); err != nil {
		t.Fatal(err)
	}
	stack := `
pvcreate -q /dev/drbd0; vgcreate -q storage /dev/drbd0; lvcreate -q -y -L 24M -n test storage
mkfs.ext4 -q /dev/storage/test; mkdir -p /mnt/test; mount /dev/storage/test /mnt/test`
	began := time.Now()
	if _, err := otter.Sh(ctx, stack); err != nil {
		t.Fatal(err)
	}
	t.Logf("the stack took %.1f s", time.Since(began).Seconds())
	data := make([]byte, 3<<20)
	rand.Read(data)
	if err := otter.WriteFile(ctx, "/mnt/test/folder/file", data, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := a.Secondary(ctx); err == nil {
		t.Error("the module demoted a device with a mounted file system")
	}
	began = time.Now()
	if _, err := otter.Sh(ctx, "umount /mnt/test; vgchange -an storage"); err != nil {
		t.Fatal(err)
	}
	if err := a.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	if _, err := weasel.Sh(ctx, "vgchange -ay storage; mkdir -p /mnt/test; mount /dev/storage/test /mnt/test"); err != nil {
		t.Fatal(err)
	}
	t.Logf("the move took %.1f s", time.Since(began).Seconds())
	if got, err := weasel.ReadFile(ctx, "/mnt/test/folder/file"); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("file on weasel: %d bytes, want the %d written on otter: %v", len(got), len(data), err)
	}
	if _, err := weasel.Sh(ctx, "umount /mnt/test; vgchange -an storage"); err != nil {
		t.Fatal(err)
	}
	judge(t, l, a, b, size)
}

// judge takes the pair down and compares; then it spoils one byte behind DRBD's back and must see it.
func judge(t *testing.T, l *Lab, a, b *DRBD, size int64) {
	t.Helper()
	ctx := t.Context()
	otter, weasel := l.Node("otter"), l.Node("weasel")
	for _, d := range []*DRBD{b, a} {
		if err := d.Down(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := CompareDisks(ctx, otter, weasel, size); err != nil {
		t.Error(err)
	}
	sumA, errA := SumDisk(otter, 0, size)
	sumB, errB := SumDisk(weasel, 0, size)
	if errA != nil || errB != nil || sumA != sumB {
		t.Errorf("sums %s %v, %s %v", sumA, errA, sumB, errB)
	}
	if _, err := weasel.Sh(ctx, "printf x | dd of=/dev/ubdb bs=1 seek=30000000 conv=notrunc,fsync status=none"); err != nil {
		t.Fatal(err)
	}
	err := CompareDisks(ctx, otter, weasel, size)
	if err == nil || !strings.Contains(err.Error(), "byte 29999104") {
		t.Errorf("comparison after a spoilt byte: %v", err)
	}
}

// TestCutHeal: a cut passes nothing, commands go on, and DRBD finds its way back by a bitmap resync.
func TestCutHeal(t *testing.T) {
	t.Parallel()
	l, a, b := kernelPair(t, DRBDConf{NetExtra: "    ping-int 1;\n    ping-timeout 5;\n    timeout 20;\n    connect-int 1;\n"}, 64<<20)
	otter, weasel := l.Node("otter"), l.Node("weasel")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := l.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := otter.Run(ctx, "busybox", "ping", "-c", "1", "-W", "1", "weasel"); err == nil {
		t.Error("a ping went through a cut cable")
	}
	began := time.Now()
	for _, d := range []*DRBD{a, b} {
		if _, err := d.Wait(ctx, "the loss of the peer", func(s DRBDStatus) bool { return s.Conn == "WFConnection" }); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the cut was noticed after %.1f s", time.Since(began).Seconds())
	if _, err := otter.Sh(ctx, "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=16 seek=100 oflag=direct conv=notrunc status=none"); err != nil {
		t.Fatal(err)
	}
	if st, err := a.Status(ctx); err != nil || st.OutOfSync != 1<<20 {
		t.Errorf("out of sync %d bytes, want 1 MiB: %v", st.OutOfSync, err)
	}
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	size, err := a.Size(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := CompareDisks(ctx, otter, weasel, size); err != nil {
		t.Error(err)
	}
}

// TestPowerCut: what was acknowledged is on the disk, what was synced to the system disk too, and the node comes back.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	l := ForTest(t, Options{DiskSize: 64 << 20})
	weasel := l.Node("weasel")
	ctx := t.Context()
	if _, err := weasel.Sh(ctx, "echo kept >/var/lib/santui/note; echo kept >/etc/note; sync; echo kept >/run/note; "+
		"printf acknowledged | dd of=/dev/ubdb bs=512 seek=7 conv=sync,fsync status=none"); err != nil {
		t.Fatal(err)
	}
	first := weasel.proc()
	if err := weasel.Kill(); err != nil {
		t.Fatal(err)
	}
	if weasel.Running() || len(first.members()) != 0 {
		t.Errorf("processes %v outlived the power cut", first.members())
	}
	if _, err := weasel.Run(ctx, "true"); err == nil {
		t.Error("a dead node ran a command")
	}
	if err := weasel.Start(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := weasel.Sh(ctx, "cat /var/lib/santui/note /etc/note; test ! -e /run/note; dd if=/dev/ubdb bs=512 skip=7 count=1 status=none | tr -d '\\0'")
	if err != nil || got != "kept\nkept\nacknowledged" {
		t.Errorf("after the power cut: %q, %v", got, err)
	}
	if err := weasel.Stop(ctx); err != nil {
		t.Error(err)
	}
	if _, err := l.Node("otter").Run(ctx, "true"); err != nil {
		t.Error(err)
	}
}
