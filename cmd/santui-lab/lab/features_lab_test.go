//go:build lab

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
)

// spoil changes a node's disk behind the back of whoever replicates it. The engine holds it exclusively, dd does not ask.
func (m *mixed) spoil(n *Node, off int64, bytes int) {
	m.t.Helper()
	m.must(n.Sh(m.t.Context(), fmt.Sprintf("dd if=/dev/urandom of=/dev/ubdb bs=512 seek=%d count=%d conv=notrunc oflag=direct status=none && sync", off/512, bytes/512)))
}

// verifyLine is one node's part of santui verify status --json.
type verifyLine struct {
	Node string          `json:"node"`
	Conn proto.ConnState `json:"conn"`
	Left int64           `json:"out_of_sync"`
	Last *proto.Verify   `json:"last"`
}

// outcome waits until our side has the outcome of a verify that began after the one before.
func (m *mixed) outcome(before *proto.Verify) proto.Verify {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		l, err := m.verifyStatus()
		if err == nil && l.Last != nil && l.Conn == proto.Connected && (before == nil || !before.Started.Equal(l.Last.Started)) {
			return *l.Last
		}
		if time.Now().After(end) {
			m.t.Fatalf("the verify does not end: %+v, %v\n%s\n%s", l, err, m.ours.AgentLog(m.t.Context()), m.dmesg())
		}
	}
}

// says decodes what a command prints. The other node has no agent, so the command fails in the end; what it prints of ours is
// what counts.
func (m *mixed) says(doc any, args ...string) error {
	cmd := exec.CommandContext(m.t.Context(), built("santui"), append([]string{"--config", m.config}, append(args, "--json")...)...)
	out, _ := cmd.Output()
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(doc); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (m *mixed) verifyStatus() (verifyLine, error) {
	var doc struct {
		Verify []verifyLine `json:"verify"`
	}
	if err := m.says(&doc, "verify", "status"); err != nil {
		return verifyLine{}, err
	}
	if len(doc.Verify) != 1 {
		return verifyLine{}, fmt.Errorf("verify status: %+v", doc)
	}
	return doc.Verify[0], nil
}

// patience keeps a host that is busy with other things from breaking the link.
const patience = "    ping-timeout 50;\n    timeout 120;\n"

func withVerify(alg string) func(*DRBDConf) {
	return func(c *DRBDConf) { c.NetExtra += patience + "    verify-alg " + alg + ";\n" }
}

// planted spoils three places, one of them on the kernel's side, and returns what a verify must find.
func (m *mixed) planted() []proto.Extent {
	m.t.Helper()
	last := (m.size - 512) &^ 4095
	m.spoil(m.ours, 1<<20, 512)
	m.spoil(m.theirs, 33<<20+8192, 12288)
	m.spoil(m.ours, m.size-512, 512)
	return []proto.Extent{{Offset: 1 << 20, Length: 4096}, {Offset: 33<<20 + 8192, Length: 12288}, {Offset: last, Length: m.size - last}}
}

func sum(e []proto.Extent) (n int64) {
	for _, x := range e {
		n += x.Length
	}
	return n
}

// found compares an outcome, and the kernel's own count, with what was planted.
func (m *mixed) found(what string, v proto.Verify, by string, want []proto.Extent) {
	m.t.Helper()
	if d := cmp.Diff(want, v.Ranges); d != "" || v.Differ != sum(want) || !v.Complete || v.Checked != m.size || v.By != by {
		m.t.Errorf("%s: %+v\n%s", what, v, d)
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	blocks := (sum(want) + 4095) / 4096 * 4096 // the kernel counts whole blocks
	if _, err := m.kernel.Wait(ctx, "the same marks", func(s DRBDStatus) bool { return s.Conn == "Connected" && s.OutOfSync == blocks }); err != nil {
		m.t.Errorf("%s: %v", what, err)
	}
	m.t.Logf("%-34s %5.1f s, %d KiB in %d ranges differ", what, v.Ended.Sub(v.Started).Seconds(), v.Differ>>10, len(v.Ranges))
}

func (m *mixed) kernelVerify() {
	m.t.Helper()
	if err := m.kernel.Adm(m.t.Context(), "verify"); err != nil {
		m.t.Fatalf("drbdadm verify: %v\n%s", err, m.dmesg())
	}
}

// TestVerifyUnderKernelPrimary: the kernel is Primary. Each side compares once; both find exactly what was planted. A
// reconnection repairs from the Primary. Then the kernel invalidates us, and we invalidate ourselves by way of santui.
func TestVerifyUnderKernelPrimary(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "verify", "invalidate")
	m := newMixedConf(t, "otter", "weasel", withVerify("sha1"))
	ctx := t.Context()
	if err := m.kernel.Primary(ctx, true); err != nil {
		t.Fatal(err)
	}
	m.synced("full resync from the kernel")
	m.workload(m.theirs, 1)
	want := m.planted()
	m.santui("verify", "start", "--on", "weasel")
	v := m.outcome(nil)
	m.found("santui compares, sha1", v, "weasel", want)

	if err := m.kernel.Adm(ctx, "disconnect"); err != nil {
		t.Fatal(err)
	}
	if err := m.kernel.Adm(ctx, "connect"); err != nil {
		t.Fatal(err)
	}
	m.repaired("repair by reconnection")

	want = m.planted()
	m.kernelVerify()
	v2 := m.outcome(&v)
	m.found("the kernel compares, sha1", v2, "otter", want)

	// A full resync, asked for by the kernel, over what differs.
	if err := m.kernel.Adm(ctx, "invalidate-remote"); err != nil {
		t.Fatalf("invalidate-remote: %v\n%s", err, m.dmesg())
	}
	m.repaired("the kernel: invalidate-remote")
	m.kernelVerify()
	if v := m.outcome(&v2); v.Differ != 0 || !v.Complete {
		t.Errorf("after a full resync: %+v", v)
	}
	if err := m.kernel.Adm(ctx, "invalidate"); err == nil {
		t.Error("the kernel, Primary, let itself be invalidated")
	}
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}

// repaired waits until nothing is marked any more and compares the disks.
func (m *mixed) repaired(what string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	if _, err := m.kernel.Wait(ctx, what, func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 }); err != nil {
		m.t.Fatalf("%s: %v\n%s", what, err, m.ours.AgentLog(m.t.Context()))
	}
	m.synced(what)
}

// TestVerifyOverKernelSecondary is the mirror: santui is Primary, with crc32c. The repair is santui's own, and so are the
// full resyncs.
func TestVerifyOverKernelSecondary(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiKernel, "verify", "invalidate")
	m := newMixedConf(t, "weasel", "otter", withVerify("crc32c"))
	ctx := t.Context()
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	m.synced("full resync to the kernel")
	m.workload(m.ours, 1)
	want := m.planted()
	m.kernelVerify()
	v := m.outcome(nil)
	m.found("the kernel compares, crc32c", v, "weasel", want)
	m.santui("verify", "repair", "--from", "otter", "--confirm", PairName)
	m.repaired("santui verify repair")

	want = m.planted()
	m.santui("verify", "start", "--on", "otter")
	v2 := m.outcome(&v)
	m.found("santui compares, crc32c", v2, "otter", want)

	// The outcome outlives the agent. Then both are Secondary: the repair borrows the role.
	if err := m.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	m.synced2("reconnected")
	if kept := m.outcome(nil); !kept.Started.Equal(v2.Started) {
		t.Errorf("after a restart of the agent: %+v", kept)
	}

	want = m.planted()
	m.kernelVerify()
	v3 := m.outcome(&v2)
	if v3.Differ < sum(want) {
		t.Errorf("%+v", v3)
	}
	m.santui("verify", "repair", "--from", "otter", "--confirm", PairName)
	m.repaired("repair between two Secondaries")

	m.spoil(m.ours, 5<<20, 1<<20)
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	m.repaired("santui overwrites the kernel's copy")
	m.spoil(m.theirs, 6<<20, 1<<20)
	if err := m.kernel.Adm(ctx, "invalidate"); err != nil {
		t.Fatalf("invalidate: %v\n%s", err, m.dmesg())
	}
	m.repaired("the kernel: invalidate")
	m.metadata()
}

// synced2 waits for a connection without a comparison of disks that are known to differ.
func (m *mixed) synced2(what string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	if _, err := m.kernel.Wait(ctx, what, func(s DRBDStatus) bool { return s.InSync() }); err != nil {
		m.t.Fatalf("%s: %v\n%s", what, err, m.ours.AgentLog(m.t.Context()))
	}
}

// TestChecksumResyncWithKernel: both ways, a full resync of copies of which little differs moves little.
func TestChecksumResyncWithKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "checksum-resync")
	conformance.Ran(t, conformance.SantuiKernel, "checksum-resync")
	m := newMixedConf(t, "weasel", "otter", func(c *DRBDConf) { c.NetExtra += patience + "    csums-alg sha1;\n" })
	ctx := t.Context()
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	m.synced("full resync to the kernel")
	m.workload(m.ours, 1)
	for _, c := range []struct {
		what  string
		bad   *Node
		start func()
	}{
		{"santui is the source", m.theirs, func() { m.santui("sync", "start", "--from", "otter", "--confirm", PairName) }},
		{"the kernel is the source", m.ours, func() {
			if err := m.ours.StopAgent(ctx); err != nil { // demotes
				t.Fatal(err)
			}
			if err := m.ours.StartAgent(ctx); err != nil {
				t.Fatal(err)
			}
			m.synced2("reconnected")
			if err := m.kernel.Adm(ctx, "invalidate-remote"); err != nil {
				t.Fatalf("invalidate-remote: %v\n%s", err, m.dmesg())
			}
		}},
	} {
		m.spoil(c.bad, 11<<20, 8192)
		m.spoil(c.bad, 50<<20, 512)
		before, err := m.kernel.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c.start()
		m.repaired(c.what)
		after, err := m.kernel.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		moved := after.Sent - before.Sent + after.Received - before.Received
		if moved > 4<<20 {
			t.Errorf("%s: %d KiB of %d moved", c.what, moved>>10, m.size>>10)
		}
		t.Logf("%s: %d KiB of %d moved", c.what, moved>>10, m.size>>10)
	}
	m.metadata()
}

// TestIntegrityWithKernel: digests on every block, both ways, with live writes, discards and resyncs; neither side finds
// one wrong, and the disks are equal.
func TestIntegrityWithKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "integrity")
	conformance.Ran(t, conformance.SantuiKernel, "integrity")
	m := newMixedConf(t, "weasel", "otter", func(c *DRBDConf) { c.NetExtra += patience + "    data-integrity-alg sha1;\n" })
	ctx := t.Context()
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	m.synced("full resync to the kernel")
	m.workload(m.ours, 1)
	m.synced("live writes to the kernel")
	if err := m.ours.StopAgent(ctx); err != nil { // demotes and leaves
		t.Fatal(err)
	}
	if err := m.kernel.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	m.must(m.theirs.Sh(ctx, "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=5 seek=20 oflag=direct conv=notrunc status=none"))
	if err := m.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	m.synced("bitmap resync from the kernel")
	m.workload(m.theirs, 2)
	m.synced("live writes of the kernel")
	if out := m.must(m.theirs.Sh(ctx, "dmesg | grep -c -i 'digest' || true")); strings.TrimSpace(out) != "0" {
		t.Errorf("the kernel speaks of digests:\n%s", m.dmesg())
	}
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}

// TestSkipInitialSyncWithKernel: santui declares two fresh disks to be the same, then, over metadata made anew, the kernel
// does. Nothing is copied, what differs stays so, and what is written afterwards is on both.
func TestSkipInitialSyncWithKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "skip-initial-sync")
	m := newMixed(t, "weasel", "otter")
	ctx := t.Context()
	for _, c := range []struct {
		what string
		skip func()
	}{
		{"santui skips", func() { m.santui("sync", "skip", "--confirm", PairName) }},
		{"the kernel skips", func() {
			if err := m.kernel.Secondary(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.ours.StopAgent(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.kernel.Down(ctx); err != nil {
				t.Fatal(err)
			}
			m.must(m.ours.Sh(ctx, "santui-agent create-md --force r0"))
			if err := m.kernel.Up(ctx, true); err != nil {
				t.Fatal(err)
			}
			if err := m.ours.StartAgent(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.kernel.WaitConnected(ctx); err != nil {
				t.Fatal(err)
			}
			m.must(m.theirs.Sh(ctx, "drbdadm new-current-uuid --clear-bitmap r0/0"))
		}},
	} {
		m.spoil(m.ours, 11<<20, 8192) // once more: the second round begins with equal disks
		c.skip()
		m.synced2(c.what)
		s, err := m.kernel.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.OutOfSync != 0 || s.Sent+s.Received > 0 {
			t.Errorf("%s: something was copied: %s", c.what, s.Text)
		}
		if err := CompareDisks(ctx, m.theirs, m.ours, m.size); err == nil {
			t.Errorf("%s: the disks, filled with different things, are equal", c.what)
		}
		if err := m.kernel.Primary(ctx, false); err != nil {
			t.Fatalf("%s: %v\n%s", c.what, err, m.dmesg())
		}
		m.must(m.theirs.Sh(ctx, fmt.Sprintf("dd if=/dev/urandom of=/dev/drbd0 bs=512 count=%d status=none conv=fsync", m.size/512)))
		m.synced(c.what + ", written in full")
		m.cutAndHeal(m.theirs)
		m.synced(c.what + ", cut and healed")
	}
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}
