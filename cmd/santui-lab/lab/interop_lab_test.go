//go:build lab

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
)

// mixed is a pair of which one node runs the kernel's DRBD, the other santui's agent.
type mixed struct {
	t      *testing.T
	l      *Lab
	kernel *DRBD
	ours   *Node
	theirs *Node
	config string
	size   int64
}

const mixedSize = 64 << 20

func newMixed(t *testing.T, kernel, ours string) *mixed {
	t.Helper()
	return newMixedConf(t, kernel, ours, func(*DRBDConf) {})
}

// newMixedConf is newMixed with a configuration that tweak changes.
func newMixedConf(t *testing.T, kernel, ours string, tweak func(*DRBDConf)) *mixed {
	t.Helper()
	ctx := t.Context()
	l := ForTest(t, Options{DRBD: []string{kernel}, DiskSize: mixedSize})
	conf := DRBDConf{Secret: "lab secret", Rate: "100M", NetExtra: "    connect-int 1;\n    ping-int 1;\n"}
	tweak(&conf)
	m := &mixed{t: t, l: l, kernel: KernelDRBD(l.Node(kernel), conf), ours: l.Node(ours), theirs: l.Node(kernel)}
	var err error
	if m.config, err = l.CockpitConfig(); err != nil {
		t.Fatal(err)
	}
	m.must(m.theirs.Sh(ctx, "dd if=/dev/urandom of=/dev/ubdb bs=1M count=16 seek=4 conv=notrunc status=none"))
	m.must(m.ours.Sh(ctx, "dd if=/dev/urandom of=/dev/ubdb bs=1M count=16 seek=9 conv=notrunc status=none"))
	if err := l.InstallAgents(ctx, AgentOptions{Binary: built("santui-agent"), DRBDConf: conf.Text(l.Nodes()...), Nodes: []string{ours}, CreateMD: true}); err != nil {
		t.Fatal(err)
	}
	if err := m.kernel.Up(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := m.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.kernel.WaitConnected(ctx); err != nil {
		t.Fatalf("%v\n%s", err, m.ours.AgentLog(ctx))
	}
	layout, err := meta.LayoutFor(mixedSize)
	if err != nil {
		t.Fatal(err)
	}
	m.size = layout.UsableSize
	return m
}

func (m *mixed) must(out string, err error) string {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%v\n%s\n%s", err, m.ours.AgentLog(m.t.Context()), m.dmesg())
	}
	return out
}

func (m *mixed) dmesg() string {
	out, err := m.theirs.Sh(m.t.Context(), "dmesg | grep -i 'drbd' | tail -n 30")
	if err != nil {
		return err.Error()
	}
	return out
}

// synced waits until the kernel says that both copies are good, then compares every byte of them.
func (m *mixed) synced(what string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	if err := m.kernel.WaitSynced(ctx); err != nil {
		m.t.Fatalf("%s: %v\n%s\n%s", what, err, m.ours.AgentLog(m.t.Context()), m.dmesg())
	}
	took := time.Since(began)
	if err := CompareDisks(ctx, m.theirs, m.ours, m.size); err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
	m.t.Logf("%-34s %5.1f s, %d MiB identical on both disks", what, took.Seconds(), m.size>>20)
}

// workload writes on a node's /dev/drbd0: a file system with files, flushes and discards.
func (m *mixed) workload(n *Node, round int) {
	m.t.Helper()
	m.must(n.Sh(m.t.Context(), fmt.Sprintf(`
mkfs.ext4 -q -F /dev/drbd0
mkdir -p /mnt/w; mount /dev/drbd0 /mnt/w
for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/mnt/w/r%d-$i bs=64k count=40 status=none conv=fsync; done
rm /mnt/w/r%d-2; fstrim /mnt/w || true
dd if=/dev/urandom of=/mnt/w/direct bs=4k count=500 oflag=direct status=none
sync; umount /mnt/w`, round, round)))
}

// cutAndHeal cuts the cable, writes on one side, heals when the kernel has noticed the cut, and waits until both sides
// are equal again by their own account. A kernel that is not waited for may still call the old connection good.
func (m *mixed) cutAndHeal(writer *Node) {
	m.t.Helper()
	m.cutAndWrite(writer)
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	m.kernelSees(ctx, "the loss of the peer", func(s DRBDStatus) bool { return s.Conn == "WFConnection" })
	if err := m.l.Heal(ctx); err != nil {
		m.t.Fatal(err)
	}
	m.kernelSees(ctx, "resynced", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
}

// cutAndWrite cuts the cable and writes on one side. The write returns when that side has given up the peer.
func (m *mixed) cutAndWrite(writer *Node) {
	m.t.Helper()
	ctx := m.t.Context()
	if err := m.l.Cut(ctx); err != nil {
		m.t.Fatal(err)
	}
	m.must(writer.Sh(ctx, "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=7 seek=20 oflag=direct conv=notrunc status=none"))
	if err := CompareDisks(ctx, m.theirs, m.ours, m.size); err == nil {
		m.t.Error("the cable was cut and the disks are still equal")
	}
}

func (m *mixed) kernelSees(ctx context.Context, what string, ok func(DRBDStatus) bool) {
	m.t.Helper()
	if _, err := m.kernel.Wait(ctx, what, ok); err != nil {
		m.t.Fatalf("%v\n%s\n%s", err, m.ours.AgentLog(m.t.Context()), m.dmesg())
	}
}

// metadata asks the reference tool what our engine left on the disk.
func (m *mixed) metadata() {
	m.t.Helper()
	ctx := m.t.Context()
	if err := m.ours.StopAgent(ctx); err != nil {
		m.t.Fatal(err)
	}
	out := m.must(m.ours.Sh(ctx, "drbdmeta --force 0 v08 /dev/ubdb internal dump-md 2>&1"))
	for _, want := range []string{`version "v08";`, "la-size-sect " + fmt.Sprint(m.size/512), "uuid {"} {
		if !strings.Contains(out, want) {
			m.t.Errorf("dump-md does not say %q:\n%.600s", want, out)
		}
	}
	if strings.Contains(out, "need") {
		m.t.Errorf("dump-md complains:\n%.600s", out)
	}
}

// TestSecondaryUnderKernelPrimary runs santui as Secondary under the kernel's DRBD: handshake with a secret, full
// resync, live writes, a cut and a bitmap resync; after each the two disks hold the same bytes.
func TestSecondaryUnderKernelPrimary(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "resync-initial", "resync-bitmap", "unusual-bios")
	m := newMixed(t, "otter", "weasel")
	ctx := t.Context()
	if err := m.kernel.Primary(ctx, true); err != nil {
		t.Fatal(err)
	}
	m.synced("full resync from the kernel")
	m.workload(m.theirs, 1)
	m.synced("live writes of the kernel")
	m.cutAndHeal(m.theirs)
	m.synced("bitmap resync from the kernel")
	if out, err := m.ours.Sh(ctx, "dd if=/dev/drbd0 of=/dev/null bs=4k count=1"); err == nil {
		t.Errorf("the Secondary's device can be read: %s", out)
	}
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}

// TestPrimaryOverKernelSecondary is the mirror: santui is Primary and source of the sync, the kernel follows; then the
// roles change sides twice.
func TestPrimaryOverKernelSecondary(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiKernel, "resync-initial", "resync-bitmap", "unusual-bios", "switch-primaries")
	m := newMixed(t, "weasel", "otter")
	ctx := t.Context()
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	m.synced("full resync to the kernel")
	m.workload(m.ours, 1)
	m.synced("live writes to the kernel")
	m.cutAndHeal(m.ours)
	m.synced("bitmap resync to the kernel")
	want := m.must(m.ours.Sh(ctx, "sha256sum < /dev/drbd0"))

	if err := m.ours.StopAgent(ctx); err != nil { // demotes and leaves
		t.Fatal(err)
	}
	if err := m.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	m.synced("reconnected after a restart of the agent")
	if err := m.kernel.Primary(ctx, false); err != nil {
		t.Fatalf("the kernel may not take over: %v\n%s", err, m.dmesg())
	}
	if got := m.must(m.theirs.Sh(ctx, "sha256sum < /dev/drbd0")); got != want {
		t.Errorf("the kernel reads %s, we wrote %s", got, want)
	}
	m.workload(m.theirs, 2)
	m.synced("live writes of the kernel")
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}

// TestCutUnseenByKernel: the cable is whole again before the kernel missed us. Its old connection still counts as good
// when we come back with changed blocks; it must let go of it and take them.
func TestCutUnseenByKernel(t *testing.T) {
	t.Parallel()
	m := newMixed(t, "weasel", "otter")
	m.must(m.theirs.Sh(t.Context(), "drbdsetup net-options ipv4:10.0.0.2:7788 ipv4:10.0.0.1:7788 --ping-int=60"))
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	m.synced("full resync to the kernel")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	before := m.cutUnseen(ctx)
	if err := m.l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	m.kernelSees(ctx, "the resync", func(s DRBDStatus) bool {
		return s.InSync() && s.OutOfSync == 0 && s.Received >= before.Received+7<<20
	})
	m.synced("bitmap resync to the kernel")
}

// cutUnseen cuts the cable and writes on our side, while the kernel still calls us connected: once a minute it asks, and
// a cut that its question falls into is tried again.
func (m *mixed) cutUnseen(ctx context.Context) DRBDStatus {
	m.t.Helper()
	for range 4 {
		m.cutAndWrite(m.ours)
		s, err := m.kernel.Status(ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if s.Conn == "Connected" {
			return s
		}
		if err := m.l.Heal(ctx); err != nil {
			m.t.Fatal(err)
		}
		m.kernelSees(ctx, "resynced", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
	}
	m.t.Fatal("the kernel noticed every cut at once")
	return DRBDStatus{}
}

// santui runs the command line on this host over the lab's agents.
func (m *mixed) santui(args ...string) string {
	m.t.Helper()
	out, err := exec.CommandContext(m.t.Context(), built("santui"), append([]string{"--config", m.config}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("santui %s: %v: %s\n%s", strings.Join(args, " "), err, out, m.ours.AgentLog(m.t.Context()))
	}
	return string(out)
}
