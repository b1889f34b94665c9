//go:build lab

package lab

import (
	"context"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
)

// settled waits until both copies are good and hold the same bytes. Under protocols A and B the peer may be a little
// behind what the Primary's applications were told.
func (m *mixed) settled(what string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	for {
		err := m.kernel.WaitSynced(ctx)
		if err == nil {
			err = CompareDisks(ctx, m.theirs, m.ours, m.size)
		}
		if err == nil {
			m.t.Logf("%-34s %d MiB identical on both disks", what, m.size>>20)
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			m.t.Fatalf("%s: %v\n%s\n%s", what, err, m.ours.AgentLog(m.t.Context()), m.dmesg())
		}
	}
}

// TestProtocolsWithKernel runs protocols A and B between santui and the kernel's DRBD, each of them Primary once: full
// sync, live writes, a cut with a bitmap resync, and a planned move of the role that loses nothing.
func TestProtocolsWithKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "protocol-a-io", "switch-primaries")
	conformance.Ran(t, conformance.SantuiKernel, "protocol-a-io", "switch-primaries")
	for _, pr := range []string{"A", "B"} {
		t.Run(pr+"/kernel Primary", func(t *testing.T) {
			m := newMixedConf(t, "otter", "weasel", func(c *DRBDConf) { c.Protocol = pr })
			ctx := t.Context()
			if err := m.kernel.Primary(ctx, true); err != nil {
				t.Fatal(err)
			}
			m.settled("full resync from the kernel")
			m.workload(m.theirs, 1)
			m.settled("live writes of the kernel")
			m.cutAndHeal(m.theirs)
			m.settled("bitmap resync from the kernel")
			if err := m.kernel.Secondary(ctx); err != nil {
				t.Fatal(err)
			}
			m.metadata()
		})
		t.Run(pr+"/santui Primary", func(t *testing.T) {
			m := newMixedConf(t, "weasel", "otter", func(c *DRBDConf) { c.Protocol = pr })
			ctx := t.Context()
			m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
			m.settled("full resync to the kernel")
			m.workload(m.ours, 1)
			m.settled("live writes to the kernel")
			m.cutAndHeal(m.ours)
			m.settled("bitmap resync to the kernel")
			// Writes without a flush, then at once the demotion, which must wait for the kernel's last barrier.
			m.must(m.ours.Sh(ctx, "dd if=/dev/urandom of=/dev/drbd0 bs=4k count=2000 seek=3000 oflag=direct conv=notrunc status=none"))
			want := m.must(m.ours.Sh(ctx, "sha256sum < /dev/drbd0"))
			if err := m.ours.StopAgent(ctx); err != nil { // demotes and leaves
				t.Fatal(err)
			}
			if err := m.ours.StartAgent(ctx); err != nil {
				t.Fatal(err)
			}
			m.settled("reconnected after a restart")
			if err := m.kernel.Primary(ctx, false); err != nil {
				t.Fatalf("the kernel may not take over: %v\n%s", err, m.dmesg())
			}
			if got := m.must(m.theirs.Sh(ctx, "sha256sum < /dev/drbd0")); got != want {
				t.Errorf("the kernel reads %s, we wrote %s", got, want)
			}
			if err := m.kernel.Secondary(ctx); err != nil {
				t.Fatal(err)
			}
			m.metadata()
		})
	}
}

// TestKernelWithoutDisk lets a kernel Primary drop its disk: it reads and writes through us, and takes back no more than
// what changed when the disk returns.
func TestKernelWithoutDisk(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "toggle-disk")
	m := newMixed(t, "otter", "weasel")
	ctx := t.Context()
	if err := m.kernel.Primary(ctx, true); err != nil {
		t.Fatal(err)
	}
	m.settled("full resync from the kernel")
	m.must(m.theirs.Sh(ctx, "drbdadm detach r0"))
	m.must(m.theirs.Sh(ctx, "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=32 seek=100 oflag=direct conv=notrunc status=none"))
	want := m.must(m.theirs.Sh(ctx, "sha256sum < /dev/drbd0"))
	if got := m.must(m.ours.Sh(ctx, "head -c "+strings.TrimSpace(m.must(m.theirs.Sh(ctx, "blockdev --getsize64 /dev/drbd0")))+" /dev/ubdb | sha256sum")); got != want {
		t.Errorf("our disk has %s, the kernel reads %s", got, want)
	}
	m.must(m.theirs.Sh(ctx, "drbdadm attach r0"))
	m.settled("the disk is back")
	if got := m.must(m.theirs.Sh(ctx, "sha256sum < /dev/drbd0")); got != want {
		t.Errorf("the kernel reads %s now, it was %s", got, want)
	}
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}
