//go:build lab

package lab

import (
	"strings"
	"testing"

	"example.com/santui/datapath/conformance"
)

// besideDisk is a place for metadata beside the disk: a loop device with room for two slots.
const besideDisk = "truncate -s 256M /var/lib/santui-md.img && losetup /dev/loop5 /var/lib/santui-md.img"

// TestLongExternalInPlace: santui takes over, in place, a disk whose metadata the kernel's DRBD keeps on another device, as
// Secondary and as Primary, and gives it back: nothing is resynced that did not change, and drbdmeta reads what it wrote.
// The peer keeps its metadata in a slot.
func TestLongExternalInPlace(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "disk-in-place")
	conformance.Ran(t, conformance.SantuiKernel, "disk-in-place")
	conf := DRBDConf{Secret: "lab secret", Rate: "100M", NetExtra: patience + "    connect-int 1;\n    ping-int 1;\n",
		MetaDisk: map[string]string{"otter": "/dev/loop5", "weasel": "/dev/loop5[1]"}}
	ctx := t.Context()
	l := ForTest(t, Options{DRBD: []string{"otter", "weasel"}, DiskSize: 32 << 20})
	a, b := KernelDRBD(l.Node("otter"), conf), KernelDRBD(l.Node("weasel"), conf)
	p := &inPlace{&mixed{t: t, l: l, kernel: b, ours: l.Node("otter"), theirs: l.Node("weasel")}}
	p.must(p.ours.Sh(ctx, "dd if=/dev/urandom of=/dev/ubdb bs=1M count=8 seek=4 conv=notrunc status=none"))
	for _, d := range []*DRBD{a, b} {
		p.must(d.node.Sh(ctx, besideDisk))
		if err := d.Up(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.Primary(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.size, err = a.Size(ctx); err != nil || p.size != 32<<20 {
		t.Fatalf("the device has %d bytes, its disks %d: %v", p.size, 32<<20, err)
	}
	if err := l.InstallAgents(ctx, AgentOptions{Binary: built("santui-agent"), DRBDConf: conf.Text(l.Nodes()...), Nodes: []string{"otter"}}); err != nil {
		t.Fatal(err)
	}
	dump := func(what string) {
		t.Helper()
		out := p.must(p.ours.Sh(ctx, "drbdmeta --force 0 v08 /dev/loop5 flex-external dump-md 2>&1"))
		for _, w := range []string{"la-size-sect 65536;", "# md_offset 0"} {
			if !strings.Contains(out, w) {
				t.Errorf("%s: dump-md does not say %q:\n%.900s", what, w, out)
			}
		}
	}

	// As Secondary.
	p.write(p.ours, 2, 7)
	if err := a.Down(ctx); err != nil {
		t.Fatal(err)
	}
	before := p.traffic(ctx)
	p.adopt(ctx)
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	p.rejoined(ctx, "santui after the kernel", before, 0)
	if out, err := p.ours.Sh(ctx, "santui-agent create-md --force r0 2>&1"); err == nil || !strings.Contains(out+err.Error(), "in use") {
		t.Errorf("create-md while the agent has the devices: %v\n%s", err, out)
	}
	if err := b.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	p.write(p.theirs, 1, 5)
	p.synced("live writes of the kernel")
	if err := b.Secondary(ctx); err != nil {
		t.Fatal(err)
	}

	// As Primary, then back to the kernel.
	p.primary(ctx)
	p.workload(p.ours, 1)
	p.synced("a file system of santui's")
	before = p.traffic(ctx)
	if err := p.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	dump("santui, Primary, stopped")
	// Not drbdmeta's count: the kernel leaves what it finds in memory behind the last bit, and drbdmeta counts that.
	if out := p.must(p.ours.Sh(ctx, "santui-agent dump-md r0")); !strings.Contains(out, "out of sync  0 KiB\nactivity log clean") {
		t.Errorf("santui's dump-md:\n%s", out)
	}
	p.must(p.ours.Sh(ctx, "drbdadm up r0"))
	p.rejoined(ctx, "the kernel after santui", before, 0)
	if err := a.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	p.must(p.ours.Sh(ctx, "e2fsck -fn /dev/drbd0"))

	// Metadata that santui makes, taken over by the kernel.
	if err := a.Down(ctx); err != nil {
		t.Fatal(err)
	}
	p.must(p.ours.Sh(ctx, "santui-agent create-md --force r0 && drbdadm up r0"))
	p.kernelSees(ctx, "the full sync", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
	p.synced("the kernel on santui's metadata")
}
