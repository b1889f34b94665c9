//go:build lab

package lab

import (
	"testing"

	"example.com/santui/proto"
)

// counters are those of the node with an agent.
func (m *mixed) counters() proto.Counters {
	m.t.Helper()
	var doc struct {
		Nodes []struct {
			Node     string         `json:"node"`
			Snapshot proto.Snapshot `json:"snapshot"`
		} `json:"nodes"`
	}
	if err := m.says(&doc, "status"); err != nil {
		m.t.Fatal(err)
	}
	for _, n := range doc.Nodes {
		if n.Node == m.ours.Name() && len(n.Snapshot.Resources) == 1 {
			return n.Snapshot.Resources[0].Counters
		}
	}
	m.t.Fatalf("%s says nothing of its resource: %+v", m.ours.Name(), doc)
	return proto.Counters{}
}

// TestLongThinWithKernel: what the Primary zeroed while its peer was away comes to the peer's disk, which held something else
// there, without travelling.
func TestLongThinWithKernel(t *testing.T) {
	t.Parallel()
	conf := func(c *DRBDConf) {
		c.NetExtra += patience
		c.DiskEnd += "    rs-discard-granularity 65536;\n"
	}
	const zeroed = 16 << 20
	fill := func(with string) string {
		return "dd if=/dev/" + with + " of=/dev/drbd0 bs=64k count=256 seek=100 oflag=direct conv=notrunc status=none"
	}
	// thin plays it; travelled gives what santui sent or received.
	thin := func(m *mixed, primary *Node, leave, back func(), travelled func(proto.Counters) int64) {
		m.must(primary.Sh(t.Context(), fill("urandom")))
		m.settled("blocks that hold something")
		leave()
		m.must(primary.Sh(t.Context(), fill("zero")))
		before := travelled(m.counters())
		back()
		m.settled("thin resync")
		n := travelled(m.counters()) - before
		m.t.Logf("%d KiB travelled for %d MiB of zeroes", n>>10, zeroed>>20)
		if n > zeroed/8 {
			m.t.Errorf("%d bytes travelled\n%s", n, m.dmesg())
		}
	}
	t.Run("kernel Primary", func(t *testing.T) {
		m := newMixedConf(t, "otter", "weasel", conf)
		if err := m.kernel.Primary(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		m.settled("full resync from the kernel")
		thin(m, m.theirs, func() { m.santui("disconnect", "--on", m.ours.Name()) }, func() { m.santui("connect", "--on", m.ours.Name()) },
			func(c proto.Counters) int64 { return c.Received })
	})
	t.Run("santui Primary", func(t *testing.T) {
		m := newMixedConf(t, "weasel", "otter", conf)
		m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
		m.settled("full resync to the kernel")
		adm := func(verb string) func() {
			return func() {
				if err := m.kernel.Adm(t.Context(), verb); err != nil {
					t.Fatalf("%s: %v\n%s", verb, err, m.dmesg())
				}
			}
		}
		thin(m, m.ours, adm("disconnect"), adm("connect"), func(c proto.Counters) int64 { return c.Sent })
	})
}
