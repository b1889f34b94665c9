//go:build lab

package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
)

var powerRounds = flag.Int("power-rounds", 20, "power cuts of TestLongPowerCuts")

// area is a file system on /dev/drbd0 with a file that fio writes to. Each load owns every loads'th block of the file, so
// that nothing of an earlier one is ever written again and what was acknowledged then stays checkable.
type area struct {
	t     *testing.T
	size  int64           // of the file, bytes
	loads int             // at most
	acked map[int][]int64 // by load: offsets in the file that fio was told are durable, in order
}

const areaBlock = 4096

// make puts the file system on the Primary's device and mounts it.
func (a *area) make(n *Node) {
	a.t.Helper()
	a.sh(n, fmt.Sprintf(`for i in $(seq 100); do blockdev --getsize64 /dev/drbd0 >/dev/null 2>&1 && break; sleep 0.1; done
mkfs.ext4 -q -F /dev/drbd0; mkdir -p /mnt/w; sync; mount /dev/drbd0 /mnt/w
dd if=/dev/zero of=/mnt/w/area bs=1M count=%d conv=fsync status=none`, a.size>>20))
}

func (a *area) mount(n *Node) {
	a.t.Helper()
	a.sh(n, "mkdir -p /mnt/w; mountpoint -q /mnt/w || mount /dev/drbd0 /mnt/w")
}

func (a *area) sh(n *Node, script string) {
	a.t.Helper()
	if out, err := n.Sh(a.t.Context(), script); err != nil {
		a.t.Fatalf("%s: %v\n%s", n.Name(), err, out)
	}
}

// pattern is what fio fills a block with: the round, and the block's offset.
func pattern(round int) string { return fmt.Sprintf("--verify_pattern=0xd0d0%04x%%o", round) }

// load is fio at work in a node.
type load struct {
	round int
	cmd   *exec.Cmd
	log   string // on the host: what fio says of every request, as it happens
	done  chan error
}

// write starts fio for a round, with other files coming and going beside it. Each write is O_DSYNC, so what fio calls
// complete was promised to survive any one power cut; fio says so on its standard output, which is on the host at once.
func (a *area) write(n *Node, round int, d time.Duration) *load {
	a.t.Helper()
	fio := fmt.Sprintf("stdbuf -oL fio --name=w --debug=io --eta=never --filename=area --filesize=%d --rw=randwrite --bs=4k --blockalign=%d --offset=%d "+
		"--direct=1 --sync=dsync --ioengine=libaio --iodepth=8 --randseed=%d --time_based --runtime=%d --do_verify=0 --verify=pattern %s "+
		"--verify_state_save=0", a.size, a.loads*areaBlock, round*areaBlock, round+1, int(d.Seconds()), pattern(round))
	script := fmt.Sprintf(`cd /mnt/w
( i=0; while mkdir -p m%[1]d-$i && dd if=/dev/zero of=m%[1]d-$i/f bs=16k count=4 conv=fsync; do rm -rf m%[1]d-$((i-8)); i=$((i+1)); done ) >/dev/null 2>&1 & churn=$!
rc=0; %[2]s || rc=$?
kill $churn; wait $churn || true
exit $rc`, round, fio)
	l := &load{round: round, log: filepath.Join(a.t.TempDir(), "fio.log"), done: make(chan error, 1)}
	out, err := os.Create(l.log)
	if err != nil {
		a.t.Fatal(err)
	}
	l.cmd = n.Command(context.WithoutCancel(a.t.Context()), "bash", "-c", script)
	l.cmd.Stdout, l.cmd.Stderr = out, out
	if err := l.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() {
		err := l.cmd.Wait()
		_ = out.Close()
		l.done <- err
	}()
	for end := time.Now().Add(20 * time.Second); len(l.completed(a.t)) < 10; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatalf("fio writes nothing on %s:\n%s", n.Name(), l.tail())
		}
	}
	return l
}

var fioComplete = regexp.MustCompile(`(?m) complete: io_u \S+ off=0x([0-9a-f]+),len=0x1000,ddir=1,file=area$`)

// completed is the offsets that fio was told are written, each once, in order.
func (l *load) completed(t *testing.T) []int64 {
	t.Helper()
	text, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	var offs []int64
	for _, m := range fioComplete.FindAllSubmatch(text[:strings.LastIndexByte(string(text), '\n')+1], -1) {
		off, err := strconv.ParseInt(string(m[1]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		offs = append(offs, off)
	}
	slices.Sort(offs)
	return slices.Compact(offs)
}

// tail is what fio said last, without the requests.
func (l *load) tail() string {
	text, _ := os.ReadFile(l.log)
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(s string) bool { return strings.HasPrefix(s, "io  ") })
	return lastLines(strings.Join(lines, "\n"), 40)
}

// end waits for fio's end and keeps what was acknowledged. Cut: its node lost power, else it must have gone well.
func (a *area) end(l *load, cut bool) {
	a.t.Helper()
	select {
	case err := <-l.done:
		if !cut && err != nil {
			a.t.Fatalf("fio of round %d: %v\n%s", l.round, err, l.tail())
		}
	case <-time.After(time.Minute):
		_ = l.cmd.Process.Kill()
		a.t.Fatalf("fio of round %d does not end:\n%s", l.round, l.tail())
	}
	if strings.Contains(l.tail(), "error=") {
		a.t.Fatalf("fio of round %d met an error:\n%s", l.round, l.tail())
	}
	a.acked[l.round] = l.completed(a.t)
	if len(a.acked[l.round]) < 10 {
		a.t.Fatalf("fio of round %d wrote next to nothing", l.round)
	}
}

// verify lets fio read every acknowledged block of a round from the mounted file system, and compare.
func (a *area) verify(n *Node, round int) {
	a.t.Helper()
	ctx := a.t.Context()
	var log strings.Builder
	log.WriteString("fio version 2 iolog\narea add\narea open\n")
	for _, off := range a.acked[round] {
		fmt.Fprintf(&log, "area read %d %d\n", off, areaBlock)
	}
	log.WriteString("area close\n")
	if err := n.WriteFile(ctx, "/tmp/verify.log", []byte(log.String()), 0o600); err != nil {
		a.t.Fatal(err)
	}
	res, err := n.Run(ctx, "sh", "-c", "cd /mnt/w && exec fio --name=v --eta=never --read_iolog=/tmp/verify.log --replay_no_stall=1 --bs=4k --direct=1 --ioengine=psync "+
		"--verify=pattern --verify_fatal=1 --verify_state_save=0 "+pattern(round)+" 2>&1")
	if err != nil || !strings.Contains(res.Stdout, fmt.Sprintf("issued rwts: total=%d,0,0,0", len(a.acked[round]))) {
		a.t.Fatalf("round %d, read on %s: of %d acknowledged blocks not all are as written: %v\n%s", round, n.Name(), len(a.acked[round]), err, res.Stdout)
	}
}

// fsck checks the file system, without changing anything, and mounts it again.
func (a *area) fsck(n *Node, between func()) {
	a.t.Helper()
	if out, err := n.Sh(a.t.Context(), "umount /mnt/w && e2fsck -f -n /dev/drbd0 2>&1"); err != nil {
		a.t.Fatalf("e2fsck on %s: %v\n%s", n.Name(), err, out)
	}
	between()
	a.mount(n)
}

// cutRound is what happens in a round.
type cutRound struct {
	primary  bool // the Primary loses power, else the Secondary
	takeover bool // then the other node becomes Primary at once, else the first one again when it is back
	again    bool // the node loses power a second time as soon as it resyncs
}

func (r cutRound) String() string {
	s := "Secondary cut"
	if r.primary {
		s = "Primary cut"
	}
	if r.takeover {
		s += ", takeover"
	}
	if r.again {
		s += ", cut again during the resync"
	}
	return s
}

// powerPair is two santui nodes that lose power in turn.
type powerPair struct {
	*pair
	*area
	primary, other *Node
}

func newPowerPair(t *testing.T, disk, file int64, rounds int) *powerPair {
	t.Helper()
	conf := DRBDConf{NetExtra: "    connect-int 1;\n    ping-int 1;\n" + patience}
	l := &Lab{state: testState("")}
	l.attachNodes()
	p := newPair(t, Options{DiskSize: disk}, AgentOptions{DRBDConf: conf.Text(&Node{lab: l, name: "otter"}, &Node{lab: l, name: "weasel", index: 1})})
	pp := &powerPair{pair: p, area: &area{t: t, size: file, loads: 2 * rounds, acked: map[int][]int64{}}, primary: p.otter, other: p.weasel}
	p.sh(p.weasel, "mkdir -p /mnt/w; sync") // a takeover mounts where the other node did
	pp.make(pp.primary)
	p.synced("weasel")
	return pp
}

// round cuts the power once while fio writes, and checks everything when both nodes are back.
func (p *powerPair) round(nr int, r cutRound) {
	t, began := p.pair.t, time.Now()
	l := p.write(p.primary, nr, 8*time.Second)
	time.Sleep(time.Second + rand.N(3*time.Second))
	victim := p.other
	if r.primary {
		victim = p.primary
	}
	p.kill(victim)
	p.end(l, r.primary)
	if r.takeover {
		p.takeover(nr)
	}
	p.back(victim)
	if r.again {
		p.until("the resync runs", 30*time.Second, func() (string, bool) {
			out, _ := p.santui("status")
			return out, strings.Contains(out, "Sync")
		})
		p.kill(victim)
		p.back(victim)
	}
	p.synced(p.other.Name())
	if r.primary && !r.takeover {
		p.failover(p.primary.Name())
	}
	p.mount(p.primary)
	p.verify(p.primary, nr)
	p.fsck(p.primary, func() {
		if err := CompareDisks(t.Context(), p.otter, p.weasel, p.usable); err != nil {
			t.Fatalf("round %d, %v: %v\n%s", nr, r, err, p.logs())
		}
	})
	t.Logf("round %2d, %-20s %5d writes acknowledged, all there; file system sound, disks equal; %.0f s", nr, r, len(p.acked[nr]), time.Since(began).Seconds())
}

func (p *powerPair) kill(n *Node) {
	p.pair.t.Helper()
	if err := n.Kill(); err != nil {
		p.pair.t.Fatal(err)
	}
}

// back switches a node on again.
func (p *powerPair) back(n *Node) {
	p.pair.t.Helper()
	if err := n.Start(p.pair.t.Context()); err != nil {
		p.pair.t.Fatal(err)
	}
	if err := n.StartAgent(p.pair.t.Context()); err != nil {
		p.pair.t.Fatal(err)
	}
}

// takeover makes the survivor Primary and lets it write on its own for a while.
func (p *powerPair) takeover(nr int) {
	t := p.pair.t
	t.Helper()
	p.until("the dead node counts as gone", time.Minute, func() (string, bool) {
		out, code := p.santui("check", "--to", p.other.Name(), "--verb", "takeover")
		return out, code == 0
	})
	p.do("takeover", "--to", p.other.Name(), "--confirm", PairName, "--peer-is-off", "its power was cut")
	p.primary, p.other = p.other, p.primary
	p.mount(p.primary)
	p.verify(p.primary, nr)
	alone := nr + p.loads/2
	p.end(p.write(p.primary, alone, 2*time.Second), false)
	p.verify(p.primary, alone)
}

// rest reads again what was acknowledged in any round, and compares the disks once nobody can write any more.
func (p *powerPair) rest() {
	total := 0
	for round, offs := range p.acked {
		p.verify(p.primary, round)
		total += len(offs)
	}
	p.pair.t.Logf("%d acknowledged writes of %d loads, all there", total, len(p.acked))
	p.area.sh(p.primary, "umount /mnt/w")
	p.identical()
}

// TestLongPowerCuts cuts the power of a whole node, again and again: of the Primary and of the Secondary in turn, while fio
// writes. Nothing that fio was told is durable may be lost, the file system must be sound, and both disks equal in the end.
func TestLongPowerCuts(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiSantui, "power-cut")
	p := newPowerPair(t, 320<<20, 256<<20, *powerRounds)
	for nr := range *powerRounds {
		// A Primary that was cut brings its whole activity log back: a resync long enough to be cut, of its source in round
		// 2, 10, 18, of its target in round 4 and 12.
		p.round(nr, cutRound{primary: nr%2 == 0, takeover: nr%4 == 0, again: nr%8 == 2 || nr%8 == 4})
	}
	p.rest()
}

// TestTwoPowerCuts is the short form.
func TestTwoPowerCuts(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiSantui, "power-cut")
	p := newPowerPair(t, 64<<20, 32<<20, 2)
	p.round(0, cutRound{primary: true})
	p.round(1, cutRound{})
	p.rest()
}

// TestLongPowerCutsBesideKernel cuts the power of santui's node while the kernel's DRBD is its peer: as Primary, when the
// kernel takes over or waits, and as Secondary.
func TestLongPowerCutsBesideKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiKernel, "power-cut")
	conformance.Ran(t, conformance.KernelSantui, "power-cut")
	m := newMixedConf(t, "weasel", "otter", func(c *DRBDConf) { c.NetExtra += patience })
	ctx := t.Context()
	a := &area{t: t, size: 32 << 20, loads: 5, acked: map[int][]int64{}}
	if err := m.ours.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	// A takeover asks since when the other agent is silent, so there must be one in the settings.
	conf := DRBDConf{Secret: "lab secret", Rate: "100M", NetExtra: "    connect-int 1;\n    ping-int 1;\n" + patience}
	if err := m.l.InstallAgents(ctx, AgentOptions{Binary: built("santui-agent"), DRBDConf: conf.Text(m.l.Nodes()...)}); err != nil {
		t.Fatal(err)
	}
	if err := m.ours.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
	m.kernelSees(ctx, "our agent again", func(s DRBDStatus) bool { return s.Conn == "Connected" })
	m.santui("sync", "start", "--from", "otter", "--confirm", PairName)
	a.make(m.ours)
	m.synced("full resync to the kernel")
	check := func(n *Node, nr int, what string) {
		t.Helper()
		m.kernelSees(ctx, "resynced", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
		for round := range a.acked {
			a.verify(n, round)
		}
		a.fsck(n, func() { m.synced(fmt.Sprintf("round %d, %s, %d writes", nr, what, len(a.acked[nr]))) })
	}
	cut := func(l *load, primary bool) {
		t.Helper()
		time.Sleep(time.Second + rand.N(2*time.Second))
		if err := m.ours.Kill(); err != nil {
			t.Fatal(err)
		}
		a.end(l, primary)
		m.kernelSees(ctx, "the loss of the peer", func(s DRBDStatus) bool { return s.Conn == "WFConnection" })
	}
	back := func() {
		t.Helper()
		if err := m.ours.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.ours.StartAgent(ctx); err != nil {
			t.Fatal(err)
		}
	}
	kernelPrimary := func() {
		t.Helper()
		if err := m.kernel.Primary(ctx, false); err != nil {
			t.Fatalf("%v\n%s", err, m.dmesg())
		}
		a.mount(m.theirs)
	}

	cut(a.write(m.ours, 0, 8*time.Second), true)
	kernelPrimary() // takes over
	a.verify(m.theirs, 0)
	a.end(a.write(m.theirs, 1, 2*time.Second), false) // alone
	back()
	check(m.theirs, 0, "santui Primary, kernel takes over")

	for nr := 2; nr < 4; nr++ {
		cut(a.write(m.theirs, nr, 8*time.Second), false)
		back()
		check(m.theirs, nr, "santui Secondary")
	}

	a.sh(m.theirs, "umount /mnt/w")
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.ourTurn()
	a.mount(m.ours)
	check(m.ours, 3, "the role moved to santui")
	cut(a.write(m.ours, 4, 8*time.Second), true)
	back()
	m.kernelSees(ctx, "resynced", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
	kernelPrimary()
	check(m.theirs, 4, "santui Primary, kernel waits")
	a.sh(m.theirs, "umount /mnt/w")
	if err := m.kernel.Secondary(ctx); err != nil {
		t.Fatal(err)
	}
	m.metadata()
}

// TestLongPowerCutsOfKernel cuts the power of the node that runs the kernel's DRBD: as Primary, when santui takes over or
// waits, and as Secondary under santui's writes, a second time while it is resynced.
func TestLongPowerCutsOfKernel(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiKernel, "power-cut")
	conformance.Ran(t, conformance.KernelSantui, "power-cut")
	p := &inPlace{newMixedConf(t, "weasel", "otter", func(c *DRBDConf) { c.NetExtra += patience })}
	ctx := t.Context()
	a := &area{t: t, size: 32 << 20, loads: 5, acked: map[int][]int64{}}
	if err := p.kernel.Primary(ctx, true); err != nil {
		t.Fatal(err)
	}
	p.synced("full resync from the kernel")
	a.make(p.theirs)
	a.sh(p.theirs, "sync")
	off := func() {
		t.Helper()
		if err := p.theirs.Kill(); err != nil {
			t.Fatal(err)
		}
		p.until(ctx, "the loss of the peer", func(r proto.Resource) bool { return r.Conn == proto.WFConnection })
	}
	on := func() {
		t.Helper()
		if err := p.theirs.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := p.kernel.Up(ctx, false); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(l *load, kernelPrimary bool) {
		t.Helper()
		time.Sleep(time.Second + rand.N(2*time.Second))
		off()
		a.end(l, kernelPrimary)
	}
	check := func(n *Node, nr int, what string) {
		t.Helper()
		p.kernelSees(ctx, "resynced", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
		a.mount(n)
		for round := range a.acked {
			a.verify(n, round)
		}
		a.fsck(n, func() { p.synced(fmt.Sprintf("round %d, %s, %d writes", nr, what, len(a.acked[nr]))) })
	}

	cut(a.write(p.theirs, 0, 8*time.Second), true)
	p.primary(ctx) // takes over
	a.mount(p.ours)
	a.verify(p.ours, 0)
	a.end(a.write(p.ours, 1, 2*time.Second), false) // alone
	on()
	check(p.ours, 0, "kernel Primary, santui takes over")

	for nr := 2; nr < 4; nr++ {
		cut(a.write(p.ours, nr, 8*time.Second), false)
		on()
		if nr == 3 {
			p.kernelSees(ctx, "the resync", func(s DRBDStatus) bool { return s.Conn == "SyncTarget" || s.InSync() })
			off()
			on()
		}
		check(p.ours, nr, "kernel Secondary")
	}

	a.sh(p.ours, "umount /mnt/w")
	p.must("", p.call(ctx, proto.MethodResource, proto.ResourceRequest{Resource: "r0", Action: proto.ResourceSecondary, By: "test"}, nil))
	if err := p.kernel.Primary(ctx, false); err != nil {
		t.Fatalf("%v\n%s", err, p.dmesg())
	}
	a.mount(p.theirs)
	cut(a.write(p.theirs, 4, 8*time.Second), true)
	on()
	p.kernelSees(ctx, "resynced", func(s DRBDStatus) bool { return s.InSync() && s.OutOfSync == 0 })
	p.synced("kernel Primary, santui waits")
	p.primary(ctx)
	check(p.ours, 4, "kernel Primary, santui waits")
	a.sh(p.ours, "umount /mnt/w")
	p.metadata()
}

// ourTurn makes our node Primary. Without an agent on the kernel's node there is no failover, so this is a takeover
// behind a cut cable.
func (m *mixed) ourTurn() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 90*time.Second)
	defer cancel()
	if err := m.l.Cut(ctx); err != nil {
		m.t.Fatal(err)
	}
	takeover := []string{"--config", m.config, "takeover", "--to", m.ours.Name(), "--confirm", PairName, "--peer-is-off", "the cable is cut"}
	for {
		out, err := exec.CommandContext(ctx, built("santui"), takeover...).CombinedOutput()
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || ctx.Err() != nil {
			m.t.Fatalf("takeover: %v: %s\n%s", err, out, m.ours.AgentLog(m.t.Context()))
		}
		time.Sleep(time.Second)
	}
	m.kernelSees(ctx, "the loss of the peer", func(s DRBDStatus) bool { return s.Conn == "WFConnection" })
	if err := m.l.Heal(ctx); err != nil {
		m.t.Fatal(err)
	}
	m.kernelSees(ctx, "us as Primary", func(s DRBDStatus) bool { return s.InSync() && s.PeerRole == proto.Primary.String() })
}
