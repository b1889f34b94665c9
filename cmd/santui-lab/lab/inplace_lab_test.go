//go:build lab

package lab

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
)

// inPlace is a pair of the kernel's DRBD, of which otter is taken over by santui and given back, on the same disks.
type inPlace struct{ *mixed }

const inPlaceSize = 128 << 20

// judged is what drbdmeta says of a node's disk: the generations and flags of get-gi, and the bits that are set when its
// own apply-al has run.
type judged struct {
	gi      string
	uuids   string
	primary bool // was Primary when it was last written
	crashed bool // went down as Primary and has not seen its peer since
	unclean bool // needs apply-al
	bits    int64
	agreed  int64 // la-size-sect
}

var bitsSet = regexp.MustCompile(`# bits-set (\d+);`)
var laSize = regexp.MustCompile(`la-size-sect (\d+);`)

// judge has drbdmeta read a copy of the disk as it is at this moment.
func (p *inPlace) judge(what string, n *Node) judged {
	p.t.Helper()
	ctx := p.t.Context()
	image := filepath.Join(p.t.TempDir(), "judged.img")
	if err := hostRun(ctx, "", "cp", "--sparse=always", n.DiskImage(), image); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	drbdmeta := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "drbdmeta", append([]string{"--force", "0", "v08", image, "internal"}, args...)...).Output()
		if err != nil {
			p.t.Fatalf("%s: drbdmeta %v: %v: %s", what, args, err, out)
		}
		return string(out)
	}
	number := func(re *regexp.Regexp, text string) int64 {
		m := re.FindStringSubmatch(text)
		if m == nil {
			p.t.Fatalf("%s: no %v in dump-md:\n%.800s", what, re, text)
		}
		v, _ := strconv.ParseInt(m[1], 10, 64) // digits only
		return v
	}
	j := judged{}
	j.gi = strings.TrimSpace(drbdmeta("get-gi"))
	// Four UUIDs, then consistent, was-up-to-date, primary, connected, full-sync, peer-outdated, crashed (drbdmeta show-gi).
	f := strings.Split(j.gi[strings.LastIndex(j.gi, "\n")+1:], ":")
	if len(f) != 11 {
		p.t.Fatalf("%s: get-gi says %q", what, j.gi)
	}
	j.uuids, j.primary, j.crashed = strings.Join(f[:4], ":"), f[6] == "1", f[10] == "1"
	j.unclean = strings.Contains(drbdmeta("dump-md"), "unclean_meta_data_dump")
	drbdmeta("apply-al")
	dump := drbdmeta("dump-md")
	j.bits, j.agreed = number(bitsSet, dump), number(laSize, dump)
	p.t.Logf("%-44s %s, %d bits after apply-al, unclean %v", what, j.gi, j.bits, j.unclean)
	return j
}

// adopt starts santui on otter, on the disk that the kernel's DRBD has let go of, with the cable cut, so that the disk can
// be looked at before the peer has a say.
func (p *inPlace) adopt(ctx context.Context) {
	p.t.Helper()
	if err := p.l.Cut(ctx); err != nil {
		p.t.Fatal(err)
	}
	if err := p.ours.StartAgent(ctx); err != nil {
		p.t.Fatal(err)
	}
	p.until(ctx, "the disk is attached", func(r proto.Resource) bool { return r.DiskState >= proto.Outdated })
}

// call makes a request of otter's agent, as the cockpit does.
func (p *inPlace) call(ctx context.Context, method proto.Method, in, out any) error {
	s, err := p.l.cockpit(ctx, p.ours)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	return s.Call(ctx, method, in, out)
}

// primary makes otter, without its peer's agent, Primary.
func (p *inPlace) primary(ctx context.Context) {
	p.t.Helper()
	if err := p.call(ctx, proto.MethodResource, proto.ResourceRequest{Resource: "r0", Action: proto.ResourcePrimary, By: "test"}, nil); err != nil {
		p.t.Fatal(err)
	}
}

func (p *inPlace) until(ctx context.Context, what string, ok func(proto.Resource) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var s proto.Snapshot
		err := p.call(ctx, proto.MethodSnapshot, nil, &s)
		if err == nil && len(s.Resources) == 1 && ok(s.Resources[0]) {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("waited until %s: %v, %+v\n%s", what, err, s.Resources, p.ours.AgentLog(p.t.Context()))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// traffic is what the kernel on weasel has sent and received of the device, bytes.
func (p *inPlace) traffic(ctx context.Context) int64 {
	p.t.Helper()
	s, err := p.kernel.Status(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return s.Sent + s.Received
}

// rejoined waits until both copies are good, compares them, and demands that no more than bits blocks travelled since
// the count before.
func (p *inPlace) rejoined(ctx context.Context, what string, before, bits int64) {
	p.t.Helper()
	p.kernelSees(ctx, what, func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
	p.synced(what)
	if moved := p.traffic(ctx) - before; moved != bits*4096 {
		p.t.Errorf("%s: %d KiB travelled, %d blocks differ by drbdmeta's account", what, moved>>10, bits)
	}
}

// write writes on a node's device, once in each of the 4 MiB extents named.
func (p *inPlace) write(n *Node, extents ...int) {
	p.t.Helper()
	for _, e := range extents {
		p.must(n.Sh(p.t.Context(), "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=3 seek="+strconv.Itoa(e*64+5)+" oflag=direct conv=notrunc status=none"))
	}
}

// TestDiskInPlace: santui takes over a disk that the kernel's DRBD wrote, after a power cut and after a clean end, as
// Secondary and as Primary, and gives it back after a clean end and after a kill -9. At each stage drbdmeta reads the
// disk, and what is resynced is to the block what its apply-al finds.
func TestDiskInPlace(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.KernelSantui, "disk-in-place")
	conformance.Ran(t, conformance.SantuiKernel, "disk-in-place")
	conf := DRBDConf{Secret: "lab secret", Rate: "100M", NetExtra: patience + "    connect-int 1;\n    ping-int 1;\n"}
	ctx := t.Context()
	l, a, b := kernelPair(t, conf, inPlaceSize)
	size, err := a.Size(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &inPlace{&mixed{t: t, l: l, kernel: b, ours: l.Node("otter"), theirs: l.Node("weasel"), size: size}}
	if err := l.InstallAgents(ctx, AgentOptions{Binary: built("santui-agent"), DRBDConf: conf.Text(l.Nodes()...), Nodes: []string{"otter"}}); err != nil {
		t.Fatal(err)
	}

	// The kernel's Primary loses its power.
	p.write(p.ours, 2, 7, 20)
	was := p.judge("the kernel's Primary, running", p.ours)
	before := p.traffic(ctx)
	if err := p.ours.Kill(); err != nil {
		t.Fatal(err)
	}
	left := p.judge("the kernel's Primary, after a power cut", p.ours)
	if !left.primary || !left.unclean || left.bits == 0 || left.uuids != was.uuids || left.bits%1024 != 0 {
		t.Errorf("after the power cut: %+v, before it %+v", left, was)
	}
	if err := p.ours.Start(ctx); err != nil {
		t.Fatal(err)
	}
	p.adopt(ctx)
	ours := p.judge("santui, attached, no peer yet", p.ours)
	if ours.bits != left.bits || !ours.crashed || ours.agreed != left.agreed || ours.uuids[:15] != left.uuids[:15] {
		t.Errorf("santui made %+v of %+v", ours, left)
	}
	p.kernelSees(ctx, "the loss of the peer", func(s DRBDStatus) bool { return s.Conn == "WFConnection" })
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	p.rejoined(ctx, "santui after the kernel's power cut", before, left.bits)

	// As Secondary, then back to the kernel.
	if err := b.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	p.write(p.theirs, 1, 9)
	p.synced("live writes of the kernel")
	if err := b.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	before = p.traffic(ctx)
	if err := p.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if j := p.judge("santui, a Secondary, detached", p.ours); j.unclean || j.primary || j.bits != 0 {
		t.Errorf("detached: %+v", j)
	}
	p.must(p.ours.Sh(ctx, "drbdadm up r0"))
	p.rejoined(ctx, "the kernel after santui as Secondary", before, 0)

	// As Primary, alone and then with the peer; the agent is killed.
	if err := a.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if j := p.judge("the kernel, a Secondary, down", p.ours); j.primary || j.bits != 0 {
		t.Errorf("down: %+v", j)
	}
	p.adopt(ctx)
	p.primary(ctx)
	p.write(p.ours, 3, 11, 30)
	alone := p.judge("santui, Primary, alone", p.ours)
	if !alone.primary || !alone.unclean || alone.bits != 3*1024 {
		t.Errorf("Primary, alone: %+v", alone)
	}
	before = p.traffic(ctx)
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	p.rejoined(ctx, "the kernel follows santui", before, 3*48) // 192 KiB each: the bitmap knows better than the log
	p.write(p.ours, 5, 6)
	p.synced("live writes to the kernel")
	before = p.traffic(ctx)
	p.must(p.ours.Sh(ctx, "kill -9 $(cat /run/santui-agent.pid); while kill -0 $(cat /run/santui-agent.pid) 2>/dev/null; do sleep 0.05; done; rm /run/santui-agent.pid"))
	killed := p.judge("santui, Primary, killed", p.ours)
	if !killed.primary || !killed.unclean || killed.bits != 5*1024 {
		t.Errorf("killed: %+v", killed)
	}
	p.kernelSees(ctx, "the loss of the peer", func(s DRBDStatus) bool { return s.Conn == "WFConnection" })
	p.must(p.ours.Sh(ctx, "drbdadm up r0"))
	p.rejoined(ctx, "the kernel after santui's kill -9", before, killed.bits)

	// As Primary once more, ended in order.
	if err := a.Down(ctx); err != nil {
		t.Fatal(err)
	}
	p.adopt(ctx)
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	p.kernelSees(ctx, "connected", DRBDStatus.InSync)
	p.primary(ctx)
	p.workload(p.ours, 1)
	p.synced("a file system of santui's")
	before = p.traffic(ctx)
	if err := p.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if j := p.judge("santui, Primary, stopped", p.ours); j.unclean || j.primary || j.bits != 0 {
		t.Errorf("stopped: %+v", j)
	}
	p.must(p.ours.Sh(ctx, "drbdadm up r0"))
	p.rejoined(ctx, "the kernel after santui as Primary", before, 0)
	if err := a.Primary(ctx, false); err != nil {
		t.Fatal(err)
	}
	p.must(p.ours.Sh(ctx, "e2fsck -fn /dev/drbd0"))
}
