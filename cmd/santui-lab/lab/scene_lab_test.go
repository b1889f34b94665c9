//go:build lab

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// stage is a lab in which one pair after the other plays a scenario: otter runs santui, weasel the kernel's DRBD. Their
// disks are linear maps over /dev/ubdb, so that they can fail.
type stage struct {
	l       *Lab
	config  string
	spoiled bool // a scenario failed: the nodes lose power before the next one
}

// backing is the disk of both nodes, of sceneMiB if a script says nothing else, of mostMiB at most.
const (
	backing  = "/dev/mapper/back"
	sceneMiB = 32
	mostMiB  = 512
)

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{l: ForTest(t, Options{DRBD: []string{"weasel"}, DiskSize: mostMiB << 20, Modules: []string{"sch_prio", "cls_u32", "tcp_diag"}})}
	var err error
	if s.config, err = s.l.CockpitConfig(); err != nil {
		t.Fatal(err)
	}
	if err := s.l.InstallAgents(t.Context(), AgentOptions{Binary: built("santui-agent"), Nodes: []string{"otter"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// script is what a scenario begins with.
type script struct {
	name  string
	conf  func(c *DRBDConf)
	fresh bool     // no first sync: both copies are Inconsistent
	mib   [2]int64 // the Primary's disk and the Secondary's
	short string   // with this engine as Primary it is in the short form
	play  func(s *scene)
}

// scene is a pair of which one node is to be Primary.
type scene struct {
	*inPlace
	primary, secondary *end
}

// scene makes a new pair, connects it and, unless it is to be fresh, brings it to two good copies.
func (st *stage) scene(t *testing.T, primary string, sc script) *scene {
	t.Helper()
	ctx := t.Context()
	conf := DRBDConf{Disk: backing, Secret: "lab secret", Rate: "200M", NetExtra: "    connect-int 1;\n    ping-int 1;\n    ping-timeout 20;\n    timeout 60;\n"}
	if sc.conf != nil {
		sc.conf(&conf)
	}
	p := &inPlace{&mixed{t: t, l: st.l, kernel: KernelDRBD(st.l.Node("weasel"), conf), ours: st.l.Node("otter"), theirs: st.l.Node("weasel"), config: st.config}}
	s := &scene{inPlace: p, primary: &end{p: p, n: p.ours}, secondary: &end{p: p, n: p.theirs, kernel: true}}
	if primary == p.theirs.Name() {
		s.primary, s.secondary = s.secondary, s.primary
	}
	t.Cleanup(func() {
		for _, e := range []*end{s.primary, s.secondary} {
			defer e.hangUp()
		}
		if t.Failed() {
			st.spoiled = true
			t.Logf("%s\n%s", p.ours.AgentLog(context.WithoutCancel(ctx)), s.say(context.WithoutCancel(ctx)))
		}
	})
	st.clear(t)
	for i, e := range []*end{s.primary, s.secondary} {
		e.mib = cmp.Or(sc.mib[i], sceneMiB)
		e.linear(e.mib)
		p.must(e.n.Sh(ctx, fencer))
	}
	p.size = usableOf(t, min(s.primary.mib, s.secondary.mib))
	p.must("", p.ours.WriteFile(ctx, "/etc/drbd.conf", []byte(conf.Text(st.l.Nodes()...)), 0o600))
	p.must(p.ours.Sh(ctx, "santui-agent create-md --force r0"))
	p.must("", p.kernel.Up(ctx, true))
	p.must("", p.ours.StartAgent(ctx))
	for _, e := range []*end{s.primary, s.secondary} {
		e.sees("the first connection", func(v view) bool { return v.Conn == "Connected" })
	}
	if !sc.fresh {
		s.ok("the first sync", s.primary.force())
		s.synced("the first sync")
	}
	return s
}

// clear ends the pair of the scenario before.
func (st *stage) clear(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	if err := st.l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if st.spoiled {
		st.spoiled = false
		for _, n := range st.l.Nodes() {
			if err := errors.Join(n.Kill(), n.Start(ctx)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n, down := range map[string]string{
		"otter":  "test ! -e /run/santui-agent.pid || { p=$(cat /run/santui-agent.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.05; done; rm /run/santui-agent.pid; }",
		"weasel": "! grep -q cs: /proc/drbd || drbdsetup down r0",
	} {
		if out, err := st.l.Node(n).Sh(ctx, down+"; rm -f /run/verdict /run/fenced; export DM_DISABLE_UDEV=1; ! dmsetup info back >/dev/null 2>&1 || dmsetup remove back"); err != nil {
			t.Fatalf("%s: %v\n%s", n, err, out)
		}
	}
}

// fencer writes /run/fence, which notes that it was called, waits until there is a verdict, and gives that.
const fencer = `cat >/run/fence <<'END'
#!/bin/sh
echo "$DRBD_RESOURCE" >>/run/fenced
while [ ! -e /run/verdict ]; do sleep 0.1; done
exit $(cat /run/verdict)
END
chmod 755 /run/fence; : >/run/fenced`

func usableOf(t *testing.T, mib int64) int64 {
	t.Helper()
	l, err := meta.LayoutFor(mib << 20)
	if err != nil {
		t.Fatal(err)
	}
	return l.UsableSize
}

// end is one node of the pair, worked with the same words whichever engine it runs.
type end struct {
	p      *inPlace
	n      *Node
	kernel bool
	mib    int64 // of its disk

	mu    sync.Mutex
	agent *session.Session // nil: none yet, or it broke
}

// ask is a request of the agent, over a session that lasts until it breaks.
func (e *end) ask(ctx context.Context, method proto.Method, in, out any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.agent == nil {
		s, err := e.p.l.cockpit(ctx, e.n)
		if err != nil {
			return err
		}
		e.agent = s
	}
	err := e.agent.Call(ctx, method, in, out)
	if err != nil {
		_ = e.agent.Close()
		e.agent = nil
	}
	return err
}

// hangUp ends the session.
func (e *end) hangUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.agent != nil {
		_ = e.agent.Close()
		e.agent = nil
	}
}

// view is how a node sees the pair.
type view struct {
	Conn, Role, PeerRole, Disk, PeerDisk string
	OutOfSync, Sent, Received            int64
	ALWrites                             int64
	Suspended                            bool
	Text                                 string
}

func (v view) inSync() bool {
	return v.Conn == "Connected" && v.Disk == "UpToDate" && v.PeerDisk == "UpToDate" && v.OutOfSync == 0
}

var (
	suspendedFlag = regexp.MustCompile(` [ABC] s`)
	alWrites      = regexp.MustCompile(`\bal:(\d+)`)
)

func (e *end) view(ctx context.Context) (view, error) {
	if e.kernel {
		s, err := e.p.kernel.Status(ctx)
		var al int64
		if m := alWrites.FindStringSubmatch(s.Text); m != nil {
			al, _ = strconv.ParseInt(m[1], 10, 64) // digits only
		}
		return view{s.Conn, s.Role, s.PeerRole, s.Disk, s.PeerDisk, s.OutOfSync, s.Sent, s.Received, al, suspendedFlag.MatchString(s.Text), s.Text}, err
	}
	var snap proto.Snapshot
	if err := e.ask(ctx, proto.MethodSnapshot, nil, &snap); err != nil {
		return view{}, err
	}
	if len(snap.Resources) != 1 {
		return view{}, fmt.Errorf("%d resources", len(snap.Resources))
	}
	r := snap.Resources[0]
	return view{r.Conn.String(), r.Role.String(), r.PeerRole.String(), r.DiskState.String(), r.PeerDisk.String(), r.OutOfSync, r.Counters.Sent, r.Counters.Received,
		r.Counters.ALWrites, r.Suspended,
		fmt.Sprintf("%v %v/%v %v/%v oos %d suspended %v: %s", r.Conn, r.Role, r.PeerRole, r.DiskState, r.PeerDisk, r.OutOfSync, r.Suspended, r.Problem)}, nil
}

// now is the view at this moment.
func (e *end) now() view {
	e.p.t.Helper()
	v, err := e.view(e.p.t.Context())
	e.ok("status", err)
	return v
}

// sees waits until a node sees something.
func (e *end) sees(what string, cond func(view) bool) view {
	e.p.t.Helper()
	ctx, cancel := context.WithTimeout(e.p.t.Context(), 40*time.Second)
	defer cancel()
	for {
		v, err := e.view(ctx)
		if err == nil && cond(v) {
			return v
		}
		select {
		case <-ctx.Done():
			e.p.t.Fatalf("%s: waited for %s: %v; last seen: %s", e.n.Name(), what, err, v.Text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (e *end) ok(what string, err error) {
	e.p.t.Helper()
	if err != nil {
		e.p.t.Fatalf("%s: %s: %v", e.n.Name(), what, err)
	}
}

func (e *end) sh(script string) string {
	e.p.t.Helper()
	out, err := e.n.Sh(e.p.t.Context(), script)
	if err != nil {
		e.p.t.Fatalf("%s: %v\n%s", e.n.Name(), err, out)
	}
	return out
}

// do asks the engine of a node: the words are drbdadm's, the agent's where it has others.
func (e *end) do(words ...string) error {
	ctx, cancel := context.WithTimeout(e.p.t.Context(), time.Minute)
	defer cancel()
	if e.kernel {
		return e.p.kernel.Adm(ctx, words...)
	}
	sync := proto.SyncRequest{Resource: "r0", By: "test", Confirm: PairName}
	switch words[0] {
	case "pause-sync":
		sync.Action = proto.SyncPause
	case "resume-sync":
		sync.Action = proto.SyncResume
	case "invalidate-remote":
		sync.Action = proto.SyncStart
	default:
		req := proto.ResourceRequest{Resource: "r0", Action: proto.ResourceAction(words[0]), By: "test", Confirm: PairName, DiscardMyData: len(words) > 1 && words[1] == "--discard-my-data"}
		return e.ask(ctx, proto.MethodResource, req, nil)
	}
	return e.ask(ctx, proto.MethodSync, sync, nil)
}

// must is do, which has to go well.
func (e *end) must(words ...string) {
	e.p.t.Helper()
	e.ok(strings.Join(words, " "), e.do(words...))
}

// force declares this copy the good one.
func (e *end) force() error {
	if e.kernel {
		return e.do("primary", "--force")
	}
	return e.do("invalidate-remote")
}

// linear makes the node's disk one of so many MiB, or grows it.
func (e *end) linear(mib int64) {
	e.p.t.Helper()
	e.mib = mib
	e.table(fmt.Sprintf("0 %d linear /dev/ubdb 0", mib<<11))
}

// table puts a device-mapper table under the node's disk.
func (e *end) table(table string) {
	e.p.t.Helper()
	e.sh(fmt.Sprintf(`export DM_DISABLE_UDEV=1
dmsetup info back >/dev/null 2>&1 || { dmsetup create back --table '%[1]s'; exit; }
dmsetup suspend --noflush --nolockfs back; dmsetup load back --table '%[1]s'; dmsetup resume back`, table))
}

// fails lets every access to the node's disk fail; heals is linear.
func (e *end) fails() { e.table(fmt.Sprintf("0 %d error", e.mib<<11)) }

// leave ends the node's engine in order, and come starts it again.
func (e *end) leave() {
	e.p.t.Helper()
	if e.kernel {
		e.ok("down", e.p.kernel.Down(e.p.t.Context()))
		return
	}
	e.hangUp()
	e.ok("stop the agent", e.n.StopAgent(e.p.t.Context()))
}

func (e *end) come() {
	e.p.t.Helper()
	if e.kernel {
		e.must("up")
		return
	}
	e.ok("start the agent", e.n.StartAgent(e.p.t.Context()))
}

// blank makes new metadata. The engine must have left.
func (e *end) blank() {
	e.p.t.Helper()
	if e.kernel {
		e.must("create-md", "--force")
		return
	}
	e.sh("santui-agent create-md --force r0")
}

// powerOff cuts the node's power, and powerOn brings the node back with its disk; the engine is not started.
func (e *end) powerOff() {
	e.p.t.Helper()
	e.hangUp()
	e.ok("power cut", e.n.Kill())
}

func (e *end) powerOn() {
	e.p.t.Helper()
	e.ok("start", e.n.Start(e.p.t.Context()))
	e.linear(e.mib)
	e.sh(fencer)
}

// size is that of the node's replicated device, bytes.
func (e *end) size() int64 {
	e.p.t.Helper()
	if e.kernel { // as a Secondary it cannot be opened
		sectors, err := strconv.ParseInt(strings.TrimSpace(e.sh("cat /sys/block/drbd0/size")), 10, 64)
		e.ok("size", err)
		return sectors * 512
	}
	var snap proto.Snapshot
	if err := e.ask(e.p.t.Context(), proto.MethodSnapshot, nil, &snap); err != nil || len(snap.Resources) != 1 {
		e.p.t.Fatalf("%s: size: %v, %d resources", e.n.Name(), err, len(snap.Resources))
	}
	return snap.Resources[0].Size
}

// copyOf is a file on the node for a copy of its disk.
const copyOf = "/var/lib/santui/copy"

// keep copies the node's disk, whose writes stand still or do not matter; revert puts the copy back.
func (e *end) keep() {
	e.p.t.Helper()
	e.sh(fmt.Sprintf("dd if=/dev/ubdb of=%s bs=1M count=%d iflag=direct status=none", copyOf, e.mib))
}

func (e *end) revert() {
	e.p.t.Helper()
	e.sh(fmt.Sprintf("dd if=%[1]s of=%[2]s bs=1M oflag=direct conv=notrunc status=none; rm %[1]s", copyOf, backing))
}

// freeze holds back every access to the node's disk until thaw.
func (e *end) freeze() {
	e.p.t.Helper()
	e.sh("export DM_DISABLE_UDEV=1; dmsetup suspend --noflush --nolockfs back")
}

func (e *end) thaw() {
	e.p.t.Helper()
	e.sh("export DM_DISABLE_UDEV=1; dmsetup resume back")
}

// write writes random bytes on the node's device, KiB.
func (e *end) write(at, length int) {
	e.p.t.Helper()
	e.sh(e.dd(at, length))
}

func (e *end) dd(at, length int) string {
	return fmt.Sprintf("dd if=/dev/urandom of=/dev/drbd0 bs=4k seek=%d count=%d oflag=direct conv=notrunc status=none", at/4, length/4)
}

// raw is a digest of what a range of the node's disk holds, KiB.
func (e *end) raw(at, length int64) string {
	e.p.t.Helper()
	sum, err := SumDisk(e.n, at<<10, length<<10)
	e.ok("read the disk", err)
	return sum
}

// going runs a shell script on the node meanwhile; the channel has its end.
func (e *end) going(script string) <-chan error {
	done := make(chan error, 1)
	ctx := e.p.t.Context()
	go func() {
		out, err := e.n.Sh(ctx, script)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		done <- err
	}()
	return done
}

// fio is a load of scattered small writes all over the device, for so many seconds.
func fio(seconds int) string {
	return fmt.Sprintf("fio --name=w --filename=/dev/drbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8 --time_based --runtime=%d "+
		"--randrepeat=0 --refill_buffers --eta=never --output=/dev/null", seconds)
}

// end waits for what going began.
func (s *scene) end(what string, done <-chan error) {
	s.t.Helper()
	select {
	case err := <-done:
		s.ok(what, err)
	case <-time.After(time.Minute):
		s.t.Fatalf("%s does not end", what)
	}
}

// waits makes sure that something that began does not end yet.
func (s *scene) waits(what string, done <-chan error) {
	s.t.Helper()
	select {
	case err := <-done:
		s.t.Fatalf("%s did not wait: %v", what, err)
	case <-time.After(time.Second):
	}
}

func (s *scene) ok(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// say is how both nodes see the pair, and what the kernel said.
func (s *scene) say(ctx context.Context) string {
	var b strings.Builder
	for _, e := range []*end{s.primary, s.secondary} {
		v, err := e.view(ctx)
		fmt.Fprintf(&b, "%s: %s %v\n", e.n.Name(), v.Text, err)
	}
	out, _ := s.theirs.Sh(ctx, "dmesg | grep -i drbd | tail -n 40")
	return b.String() + out
}

// synced waits until both nodes call both copies good and equal, then compares every byte.
func (s *scene) synced(what string) {
	s.t.Helper()
	began := time.Now()
	for _, e := range []*end{s.primary, s.secondary} {
		e.sees(what, view.inSync)
	}
	s.ok(what, CompareDisks(s.t.Context(), s.ours, s.theirs, s.size))
	s.t.Logf("%-44s %4.1f s, %d MiB identical on both disks", what, time.Since(began).Seconds(), s.size>>20)
}

// cut cuts the cable, and returns when both nodes know.
func (s *scene) cut() {
	s.t.Helper()
	s.ok("cut", s.l.Cut(s.t.Context()))
	for _, e := range []*end{s.primary, s.secondary} {
		e.sees("the loss of the peer", func(v view) bool { return v.Conn == "WFConnection" })
	}
}

func (s *scene) heal() {
	s.t.Helper()
	s.ok("heal", s.l.Heal(s.t.Context()))
}

// both waits until both nodes see something.
func (s *scene) both(what string, cond func(view) bool) {
	s.t.Helper()
	for _, e := range []*end{s.primary, s.secondary} {
		e.sees(what, cond)
	}
}

// apart waits until a split brain is seen. Who sees it first drops the connection: one that has not read the histories by
// then knows of a lost link only and looks for its peer again, until an operator ends that.
func (s *scene) apart() {
	s.t.Helper()
	alone := func(v view) bool { return v.Conn == "StandAlone" }
	for _, e := range []*end{s.primary, s.secondary} {
		other := s.primary
		if e == other {
			other = s.secondary
		}
		e.sees("the split brain", func(v view) bool { return alone(v) || v.Conn == "WFConnection" && alone(other.now()) })
	}
	for _, e := range []*end{s.primary, s.secondary} {
		if !alone(e.now()) {
			e.must("disconnect")
		}
	}
	s.both("StandAlone", alone)
}

// judged ends santui's engine and lets drbdmeta read what it left on its disk: clean metadata without marks.
func (s *scene) judged() {
	s.t.Helper()
	ours := s.primary
	if ours.kernel {
		ours = s.secondary
	}
	ours.leave()
	out := ours.sh("drbdmeta --force 0 v08 " + backing + " internal dump-md 2>&1")
	for _, want := range []string{`version "v08";`, fmt.Sprintf("la-size-sect %d;", s.size/512), "# bits-set 0;"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("dump-md does not say %q:\n%.900s", want, out)
		}
	}
	if strings.Contains(out, "unclean") {
		s.t.Errorf("dump-md calls the metadata unclean:\n%.900s", out)
	}
}

// travelled is what the Primary has sent so far, bytes: the kernel counts data, santui all that goes over the link.
func (s *scene) travelled() int64 {
	s.t.Helper()
	for n := s.primary.now().Sent; ; {
		time.Sleep(3 * time.Second) // what an agent says while nothing happens may be a second or two old
		now := s.primary.now().Sent
		if now < n+4096 { // santui counts pings too
			return now
		}
		n = now
	}
}

// resynced is synced, and between least and most bytes of data travelled since the count before.
func (s *scene) resynced(what string, before, least, most int64) {
	s.t.Helper()
	s.synced(what)
	n := s.travelled() - before
	if !s.primary.kernel {
		most += most/64 + 64<<10 // a handshake, a bitmap, headers
	}
	if n < least || n > most {
		s.t.Errorf("%s: %d KiB travelled, expected were %d to %d", what, n>>10, least>>10, most>>10)
	}
}

// play runs the short scenes, or the others, on one stage, each node being Primary in turn.
func play(t *testing.T, short bool) {
	t.Parallel()
	st := newStage(t)
	for _, sc := range scenes {
		for _, c := range []struct {
			name, primary string
			pairing       conformance.Pairing
		}{{"santui", "otter", conformance.SantuiKernel}, {"kernel", "weasel", conformance.KernelSantui}} {
			if short != (sc.short == c.name) {
				continue
			}
			t.Run(sc.name+", "+c.name+" Primary", func(t *testing.T) {
				name, _, _ := strings.Cut(sc.name, " ")
				conformance.Ran(t, c.pairing, name)
				began := time.Now()
				s := st.scene(t, c.primary, sc)
				sc.play(s)
				s.judged()
				t.Logf("%.0f s in all", time.Since(began).Seconds())
			})
		}
	}
}
