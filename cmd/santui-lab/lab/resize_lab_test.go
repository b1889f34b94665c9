//go:build lab

package lab

import (
	"fmt"
	"strings"
	"testing"

	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// onLoop puts a node's replicated disk on a loop device, which can grow.
const onLoop = "truncate -s 32M /var/lib/santui/r0.img && losetup /dev/loop6 /var/lib/santui/r0.img"

func (p *inPlace) enlarge(n *Node, mib int) {
	p.t.Helper()
	p.must(n.Sh(p.t.Context(), fmt.Sprintf("truncate -s %dM /var/lib/santui/r0.img && losetup -c /dev/loop6", mib)))
}

// grown waits until both sides have the size that disks of so many MiB allow and are in sync, and compares every byte.
func (p *inPlace) grown(what string, mib int) {
	p.t.Helper()
	ctx := p.t.Context()
	l, err := meta.LayoutFor(int64(mib) << 20)
	if err != nil {
		p.t.Fatal(err)
	}
	p.until(ctx, what, func(r proto.Resource) bool {
		return r.Size == l.UsableSize && r.Conn == proto.Connected && r.DiskState == proto.UpToDate && r.PeerDisk == proto.UpToDate && r.OutOfSync == 0
	})
	p.kernelSees(ctx, what, func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
	if got := strings.TrimSpace(p.must(p.theirs.Sh(ctx, "cat /sys/block/drbd0/size"))); got != fmt.Sprint(l.UsableSize/512) {
		p.t.Errorf("%s: the kernel's device has %s sectors, want %d", what, got, l.UsableSize/512)
	}
	sum := fmt.Sprintf("dd if=/dev/loop6 iflag=direct bs=4k count=%d status=none | sha256sum", l.UsableSize/4096)
	if a, b := p.must(p.ours.Sh(ctx, sum)), p.must(p.theirs.Sh(ctx, sum)); a != b {
		p.t.Errorf("%s: the copies differ", what)
	}
	p.t.Logf("%-44s %d bytes, identical on both disks", what, l.UsableSize)
}

// TestLongResizeWithKernel grows a device in use, asked on santui's side and on the kernel's; then on one side only, which
// changes nothing.
func TestLongResizeWithKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiKernel, "resize")
	conformance.Ran(t, conformance.KernelSantui, "resize")
	ctx := t.Context()
	conf := DRBDConf{Disk: "/dev/loop6", Secret: "lab secret", Rate: "100M", NetExtra: patience + "    connect-int 1;\n    ping-int 1;\n"}
	l := ForTest(t, Options{DRBD: []string{"weasel"}, DiskSize: 16 << 20})
	p := &inPlace{&mixed{t: t, l: l, kernel: KernelDRBD(l.Node("weasel"), conf), ours: l.Node("otter"), theirs: l.Node("weasel")}}
	var err error
	if p.config, err = l.CockpitConfig(); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		p.must(n.Sh(ctx, onLoop))
	}
	if err := l.InstallAgents(ctx, AgentOptions{Binary: built("santui-agent"), DRBDConf: conf.Text(l.Nodes()...), Nodes: []string{"otter"}, CreateMD: true}); err != nil {
		t.Fatal(err)
	}
	if err := p.kernel.Up(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := p.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.kernel.WaitConnected(ctx); err != nil {
		t.Fatalf("%v\n%s", err, p.ours.AgentLog(ctx))
	}
	p.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	p.grown("at first", 32)

	p.must(p.ours.Sh(ctx, "mkfs.ext4 -q -F -b 4096 -J size=8 /dev/drbd0; mkdir -p /mnt/w; mount /dev/drbd0 /mnt/w; dd if=/dev/urandom of=/mnt/w/a bs=1M count=8 conv=fsync status=none"))
	for _, n := range l.Nodes() {
		p.enlarge(n, 64)
	}
	p.santui("resize", "--on", "otter", "--confirm", PairName)
	p.must(p.ours.Sh(ctx, "for i in $(seq 50); do resize2fs /dev/drbd0 2>/dev/null && test $(df -k /mnt/w | awk 'END{print $2}') -gt 40000 && break; sleep 0.1; done"+
		"; dd if=/dev/urandom of=/mnt/w/b bs=1M count=30 conv=fsync status=none; umount /mnt/w; e2fsck -fn /dev/drbd0"))
	p.grown("santui asks, Primary", 64)

	if err := p.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	p.grown("after a restart of the agent", 64)
	if err := p.kernel.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		p.enlarge(n, 96)
	}
	p.must(p.theirs.Sh(ctx, "drbdadm resize r0; e2fsck -fp /dev/drbd0; resize2fs /dev/drbd0 2>/dev/null; mkdir -p /mnt/w; mount /dev/drbd0 /mnt/w; "+
		"dd if=/dev/urandom of=/mnt/w/c bs=1M count=30 conv=fsync status=none; umount /mnt/w"))
	p.grown("the kernel asks, Primary", 96)

	p.enlarge(p.theirs, 112)
	p.must(p.theirs.Sh(ctx, "drbdadm resize r0"))
	p.grown("the kernel's disk alone has grown", 96)
	if err := p.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	out := p.must(p.ours.Sh(ctx, "drbdmeta --force 0 v08 /dev/loop6 internal dump-md 2>/dev/null"))
	want, err := meta.LayoutFor(96 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, fmt.Sprintf("la-size-sect %d;", want.UsableSize/512)) || !strings.Contains(out, "# bits-set 0;") {
		t.Errorf("dump-md:\n%.900s", out)
	}
}
