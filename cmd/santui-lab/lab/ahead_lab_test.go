//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
)

// narrow lets a node send no more than so much over the replication link, for example "16mbit"; "" ends it.
func (m *mixed) narrow(n *Node, rate string) {
	m.t.Helper()
	script := "dev=$(ip -o addr show to " + n.Addr() + " | awk '{ print $2; exit }'); tc qdisc "
	if rate == "" {
		script += "del dev $dev root"
	} else {
		script += "replace dev $dev root netem rate " + rate
	}
	m.must(n.Sh(m.t.Context(), script))
}

// hurry writes more at a node than its link takes, in blocks that a peer left behind only hears of.
func (m *mixed) hurry(n *Node) {
	m.t.Helper()
	began := time.Now()
	m.must(n.Sh(m.t.Context(), "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=256 seek=100 oflag=direct conv=notrunc status=none"))
	m.t.Logf("16 MiB written in %.1f s", time.Since(began).Seconds())
}

// TestLongAheadWithKernel: under protocol A each side once runs Ahead of a slow link, the other one is Behind meanwhile, and a
// resync without an exchange of bitmaps makes them equal again.
func TestLongAheadWithKernel(t *testing.T) {
	t.Parallel()
	conf := func(c *DRBDConf) {
		c.Protocol = "A"
		c.NetExtra += patience + "    on-congestion pull-ahead;\n    congestion-fill 128k;\n"
	}
	t.Run("kernel Primary", func(t *testing.T) {
		conformance.Ran(t, conformance.KernelSantui, "ahead-behind")
		m := newMixedConf(t, "otter", "weasel", conf)
		if err := m.kernel.Primary(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		m.settled("full resync from the kernel")
		m.narrow(m.theirs, "24mbit")
		m.hurry(m.theirs)
		m.narrow(m.theirs, "")
		m.settled("resync from the kernel")
		m.wereApart([]string{"Connected -> Ahead", "Ahead -> SyncSource"}, []string{"Connected -> Behind", "Behind -> SyncTarget"})
	})
	t.Run("santui Primary", func(t *testing.T) {
		conformance.Ran(t, conformance.SantuiKernel, "ahead-behind")
		m := newMixedConf(t, "weasel", "otter", conf)
		m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
		m.settled("full resync to the kernel")
		m.narrow(m.ours, "24mbit")
		m.hurry(m.ours)
		m.narrow(m.ours, "")
		m.settled("resync to the kernel")
		m.wereApart([]string{"Connected -> Behind", "Behind -> SyncTarget"}, []string{"Connected -> Ahead", "Ahead -> SyncSource"})
	})
}

// wereApart checks what both sides say of it afterwards, and that the kernel found nothing odd.
func (m *mixed) wereApart(kernel, ours []string) {
	m.t.Helper()
	dmesg, log := m.dmesg(), m.ours.AgentLog(m.t.Context())
	for _, want := range kernel {
		if !strings.Contains(dmesg, want) {
			m.t.Errorf("the kernel does not say %q", want)
		}
	}
	for _, want := range ours {
		if !strings.Contains(log, want) {
			m.t.Errorf("ours does not say %q", want)
		}
	}
	if strings.Contains(dmesg, "ASSERT") || strings.Contains(log, "ProtocolError") || strings.Contains(log, "link is lost") {
		m.t.Error("something went wrong on the way")
	}
	if m.t.Failed() {
		m.t.Logf("%s\n%s", log, dmesg)
	}
}
