//go:build lab

package lab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// two is a pair of nodes with two resources, r1 to be resynced after r0 where a node is told so.
type two struct {
	t      *testing.T
	st     *stage
	kernel [2]*DRBD
	agent  *session.Session
	size   int64
}

const twoMiB = 16 // of each disk; that of r1 is twoMiB behind the begin of /dev/ubdb

// newTwo makes both resources anew. The node that waits has resync-after in its drbd.conf, the other one has not.
func newTwo(t *testing.T, st *stage, waits string) *two {
	t.Helper()
	ctx := t.Context()
	p := &two{t: t, st: st, size: usableOf(t, twoMiB)}
	st.clear(t)
	for _, n := range st.l.Nodes() {
		text := ""
		for i := range 2 {
			c := DRBDConf{Resource: fmt.Sprint("r", i), Minor: i, Port: 7788 + i, Disk: fmt.Sprint("/dev/mapper/two", i), Rate: [2]string{"500K", "3M"}[i], NetExtra: "    connect-int 1;\n"}
			if i == 1 && n.Name() == waits {
				c.DiskEnd = "    resync-after r0;\n"
			}
			_, section, _ := strings.Cut(c.Text(st.l.Nodes()...), "resource ")
			text += "resource " + section
			if n.Name() == "weasel" {
				p.kernel[i] = KernelDRBD(n, c)
			}
			p.sh(n, fmt.Sprintf("export DM_DISABLE_UDEV=1; ! dmsetup info two%[1]d >/dev/null 2>&1 || dmsetup remove two%[1]d; "+
				"dmsetup create two%[1]d --table '0 %[2]d linear /dev/ubdb %[3]d'", i, twoMiB<<11, i*twoMiB<<11))
		}
		if err := n.WriteFile(ctx, "/etc/drbd.conf", []byte("global {\n  usage-count no;\n}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.sh(st.l.Node("otter"), "dd if=/dev/urandom of=/dev/ubdb bs=1M count=32 oflag=direct conv=notrunc status=none; santui-agent create-md --force r0; santui-agent create-md --force r1")
	for _, k := range p.kernel {
		for _, words := range [][]string{{"create-md", "--force"}, {"up"}} {
			if err := k.Adm(ctx, words...); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := st.l.Node("otter").StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	var err error
	for end := time.Now().Add(20 * time.Second); p.agent == nil; time.Sleep(100 * time.Millisecond) { // it has just been started
		if p.agent, err = st.l.cockpit(ctx, st.l.Node("otter")); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	return p
}

// end leaves the nodes as a scene expects them.
func (p *two) end() {
	ctx := context.WithoutCancel(p.t.Context())
	if p.t.Failed() {
		out, _ := p.st.l.Node("weasel").Sh(ctx, "cat /proc/drbd; dmesg | grep -i drbd | tail -n 60")
		p.t.Logf("%s\n%s", p.st.l.Node("otter").AgentLog(ctx), out)
	}
	if p.agent != nil {
		_ = p.agent.Close()
	}
	_ = p.st.l.Node("otter").StopAgent(ctx)
	for _, k := range p.kernel {
		_ = k.Down(ctx)
	}
	for _, n := range p.st.l.Nodes() {
		_, _ = n.Sh(ctx, "export DM_DISABLE_UDEV=1; for i in 0 1; do dmsetup remove two$i; done")
	}
}

func (p *two) sh(n *Node, script string) {
	p.t.Helper()
	if out, err := n.Sh(p.t.Context(), script); err != nil {
		p.t.Fatalf("%s: %v\n%s", n.Name(), err, out)
	}
}

// ours is what santui says of a resource, theirs what the kernel says.
func (p *two) ours(i int) proto.Resource {
	p.t.Helper()
	var snap proto.Snapshot
	if err := p.agent.Call(p.t.Context(), proto.MethodSnapshot, nil, &snap); err != nil {
		p.t.Fatal(err)
	}
	for _, r := range snap.Resources {
		if r.Name == fmt.Sprint("r", i) {
			return r
		}
	}
	p.t.Fatalf("no r%d among %d resources", i, len(snap.Resources))
	return proto.Resource{}
}

func (p *two) theirs(i int) DRBDStatus {
	p.t.Helper()
	s, err := p.kernel[i].Status(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// until waits for a condition of both nodes.
func (p *two) until(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(90 * time.Second); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited for %s: santui %v %v, kernel %s %s", what, p.ours(0).Conn, p.ours(1).Conn, p.theirs(0).Conn, p.theirs(1).Conn)
		}
	}
}

// resync lets a node overwrite the other one's copy.
func (p *two) resync(i int, santui bool) {
	p.t.Helper()
	var err error
	if santui {
		err = p.agent.Call(p.t.Context(), proto.MethodSync, proto.SyncRequest{Resource: fmt.Sprint("r", i), Action: proto.SyncStart, By: "test", Confirm: PairName}, nil)
	} else {
		err = p.kernel[i].Primary(p.t.Context(), true)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// TestLongResyncAfterWithKernel: the resync of r1 waits for that of r0 and goes on by itself, with either engine as the source,
// and whichever of the nodes it is whose drbd.conf says so.
func TestLongResyncAfterWithKernel(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	for _, c := range []struct {
		source  string
		pairing conformance.Pairing
	}{{"otter", conformance.SantuiKernel}, {"weasel", conformance.KernelSantui}} {
		for _, waits := range []string{"otter", "weasel"} {
			t.Run(c.source+" is the source, "+waits+" waits", func(t *testing.T) {
				conformance.Ran(t, c.pairing, "resync-after")
				p, santui := newTwo(t, st, waits), c.source == "otter"
				p.until("connections", func() bool {
					return p.ours(0).Conn == proto.Connected && p.ours(1).Conn == proto.Connected && p.theirs(0).Conn == "Connected" && p.theirs(1).Conn == "Connected"
				})
				source, target, paused, theirs := proto.SyncSource, "SyncTarget", proto.PausedSyncS, "PausedSyncT"
				if !santui {
					source, target, paused, theirs = proto.SyncTarget, "SyncSource", proto.PausedSyncT, "PausedSyncS"
				}
				p.resync(0, santui)
				p.until("the first resync", func() bool { return p.ours(0).Conn == source && p.theirs(0).Conn == target })
				p.resync(1, santui)
				p.until("the second one waits", func() bool { return p.ours(1).Conn == paused && p.theirs(1).Conn == theirs })
				left := p.theirs(1).OutOfSync
				time.Sleep(2 * time.Second)
				now, by := p.theirs(1).OutOfSync, p.ours(1).Sync
				if c := p.ours(0).Conn; c != source || left-now > 1<<20 {
					t.Errorf("while r0 is %v, r1 went from %d to %d bytes out of sync", c, left, now)
				}
				if by == nil || !by.Paused || waits == "otter" && by.By != "resync-after r0" || waits == "weasel" && by.By != "weasel" {
					t.Errorf("santui says of the pause: %+v", by)
				}
				p.until("the first one is over", func() bool { return p.theirs(0).InSync() && p.theirs(0).OutOfSync == 0 })
				p.until("the second one goes on and ends", func() bool { return p.theirs(1).InSync() && p.theirs(1).OutOfSync == 0 && p.ours(1).OutOfSync == 0 })
				for i := range 2 {
					var sums [2]string
					for k, n := range st.l.Nodes() {
						sum, err := SumDisk(n, int64(i)*twoMiB<<20, p.size)
						if err != nil {
							t.Fatal(err)
						}
						sums[k] = sum
					}
					if sums[0] != sums[1] {
						t.Errorf("r%d: the disks differ", i)
					}
				}
			})
		}
	}
}
