//go:build lab

package lab

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

var benchRounds = flag.Int("lab-rounds", 3, "how often BenchmarkBesideKernel measures the kernel's DRBD and santui in turn; the median ratio counts")

// contest measures two engines on the same disks of the same two nodes, in turn.
type contest struct {
	testing.TB
	l             *Lab
	otter, weasel *Node
	size          int64 // bytes of the replicated device
}

// entrant is an engine in the contest. begin puts it on fresh disks, connected; sync makes otter Primary and returns when
// both copies are good.
type entrant interface {
	begin(ctx context.Context) error
	sync(ctx context.Context) error
	end(ctx context.Context) error
}

// kernelEntrant is the kernel's DRBD on both nodes.
type kernelEntrant [2]*DRBD

func (k kernelEntrant) begin(ctx context.Context) error {
	for _, d := range k {
		if err := d.Up(ctx, true); err != nil {
			return err
		}
	}
	return k[0].WaitConnected(ctx)
}

func (k kernelEntrant) sync(ctx context.Context) error {
	if err := k[0].Primary(ctx, true); err != nil {
		return err
	}
	return k[0].WaitSynced(ctx)
}

func (k kernelEntrant) end(ctx context.Context) error {
	for _, d := range []*DRBD{k[1], k[0]} {
		if err := d.Down(ctx); err != nil {
			return err
		}
	}
	return nil
}

// santuiEntrant is santui's agent on both nodes, with the nbd front end.
type santuiEntrant struct {
	*contest
	otterSays *session.Session
}

func (s *santuiEntrant) begin(ctx context.Context) error {
	for _, n := range s.l.Nodes() {
		if _, err := n.Run(ctx, "santui-agent", "create-md", "--force", "r0"); err != nil {
			return err
		}
		if err := n.StartAgent(ctx); err != nil {
			return err
		}
	}
	for {
		var err error
		if s.otterSays, err = s.l.cockpit(ctx, s.otter); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w\n%s", ctx.Err(), err, s.otter.AgentLog(context.WithoutCancel(ctx)))
		case <-time.After(200 * time.Millisecond):
		}
	}
	return s.until(ctx, func(r proto.Resource) bool { return r.Conn == proto.Connected })
}

// sync asks again when the link broke meanwhile: an agent that was just started may make it twice.
func (s *santuiEntrant) sync(ctx context.Context) error {
	start := proto.SyncRequest{Resource: "r0", Action: proto.SyncStart, Confirm: PairName, By: "bench"}
	for err := s.otterSays.Call(ctx, proto.MethodSync, start, nil); err != nil; err = s.otterSays.Call(ctx, proto.MethodSync, start, nil) {
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return s.until(ctx, func(r proto.Resource) bool {
		return r.Conn == proto.Connected && r.DiskState == proto.UpToDate && r.PeerDisk == proto.UpToDate
	})
}

func (s *santuiEntrant) until(ctx context.Context, ok func(proto.Resource) bool) error {
	for {
		var snap proto.Snapshot
		err := s.otterSays.Call(ctx, proto.MethodSnapshot, nil, &snap)
		if err == nil && len(snap.Resources) == 1 && ok(snap.Resources[0]) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w, %+v\n%s", ctx.Err(), err, snap.Resources, s.otter.AgentLog(context.WithoutCancel(ctx)))
		case <-time.After(100 * time.Millisecond): // as often as the kernel is asked
		}
	}
}

func (s *santuiEntrant) end(ctx context.Context) error {
	err := s.otterSays.Close()
	for _, n := range []*Node{s.weasel, s.otter} {
		if err := n.StopAgent(ctx); err != nil {
			return err
		}
	}
	return err
}

// figures are an engine's of one round: writes a second at queue depth 1 and 32, bytes a second of the full sync.
type figures [3]float64

func (c *contest) round(name string, e entrant) figures {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 3*time.Minute)
	defer cancel()
	must := func(what string, err error) {
		if err != nil {
			c.Fatalf("%s: %s: %v", name, what, err)
		}
	}
	must("start", e.begin(ctx))
	began := time.Now()
	must("full sync", e.sync(ctx))
	f := figures{2: float64(c.size) / time.Since(began).Seconds()}
	for i, depth := range []int{1, 32} {
		var err error
		f[i], err = fioWrites(ctx, c.otter, depth)
		must("fio", err)
	}
	must("stop", e.end(ctx))
	must("compare", CompareDisks(ctx, c.otter, c.weasel, c.size))
	return f
}

// fioWrites is how many random 4k writes a second a node's /dev/drbd0 takes.
func fioWrites(ctx context.Context, n *Node, depth int) (float64, error) {
	out, err := n.Sh(ctx, fmt.Sprintf("for i in $(seq 100); do blockdev --getsize64 /dev/drbd0 >/dev/null 2>&1 && break; sleep 0.1; done\n"+
		"fio --name=w --filename=/dev/drbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=%d --gtod_reduce=1 "+
		"--ramp_time=1 --time_based --runtime=4 --output-format=json", depth))
	if err != nil {
		return 0, err
	}
	var said struct {
		Jobs []struct {
			Error int
			Write struct{ IOPS float64 }
		}
	}
	if err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "{")):]), &said); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	if len(said.Jobs) != 1 || said.Jobs[0].Error != 0 || said.Jobs[0].Write.IOPS == 0 {
		return 0, fmt.Errorf("fio wrote nothing: %s", out)
	}
	return said.Jobs[0].Write.IOPS, nil
}

// BenchmarkBesideKernel measures santui's agents with the nbd front end against the kernel's DRBD, on the same disks in
// one run: 4k writes on /dev/drbd0 and a full sync. It prints ratios and judges nobody, but for copies that differ.
func BenchmarkBesideKernel(b *testing.B) {
	const diskSize = 256 << 20
	conf := DRBDConf{Secret: "lab secret", NetExtra: patience + "    connect-int 1;\n    ping-int 1;\n"}
	l := ForTest(b, Options{DRBD: []string{"otter", "weasel"}, DiskSize: diskSize})
	c := &contest{TB: b, l: l, otter: l.Node("otter"), weasel: l.Node("weasel")}
	layout, err := meta.LayoutFor(diskSize)
	if err != nil {
		b.Fatal(err)
	}
	c.size = layout.UsableSize
	if err := l.InstallAgents(b.Context(), AgentOptions{Binary: built("santui-agent"), DRBDConf: conf.Text(l.Nodes()...)}); err != nil {
		b.Fatal(err)
	}
	kernel, ours := kernelEntrant{KernelDRBD(c.otter, conf), KernelDRBD(c.weasel, conf)}, &santuiEntrant{contest: c}
	var ratios, theirs, santui [3][]float64
	for range *benchRounds {
		k, s := c.round("the kernel's DRBD", kernel), c.round("santui", ours)
		for i := range k {
			ratios[i], theirs[i], santui[i] = append(ratios[i], s[i]/k[i]), append(theirs[i], k[i]), append(santui[i], s[i])
		}
	}
	for i, what := range []struct {
		name, unit string
		scale      float64
		target     float64
	}{{"4k random writes, QD1", "/s", 1, 0.5}, {"4k random writes, QD32", "/s", 1, 0.5}, {"full sync", " MB/s", 1e-6, 1}} {
		verdict, ratio := "missed", median(ratios[i])
		if ratio >= what.target {
			verdict = "met"
		}
		b.Logf("%-24s kernel %6.0f%s, santui %6.0f%s, ratio %.2f (%.2f-%.2f), target %.2f %s", what.name, median(theirs[i])*what.scale, what.unit,
			median(santui[i])*what.scale, what.unit, ratio, slices.Min(ratios[i]), slices.Max(ratios[i]), what.target, verdict)
	}
}
