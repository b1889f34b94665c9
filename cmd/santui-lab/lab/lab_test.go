package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const depText = `kernel/lib/lru_cache.ko:
kernel/drivers/block/drbd/drbd.ko: kernel/lib/lru_cache.ko
kernel/drivers/md/dm-mod.ko:
kernel/drivers/md/dm-bufio.ko: kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-snapshot.ko: kernel/drivers/md/dm-bufio.ko kernel/drivers/md/dm-mod.ko
kernel/drivers/block/nbd.ko:
`

func TestModuleOrder(t *testing.T) {
	tree, err := parseModules(strings.NewReader(depText), strings.NewReader("kernel/lib/libcrc32c.ko\n"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := tree.order("nbd", "dm-snapshot", "dm_mod", "drbd", "libcrc32c")
	if err != nil {
		t.Fatal(err)
	}
	want := "kernel/drivers/block/nbd.ko nbds_max=16\nkernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-bufio.ko\n" +
		"kernel/drivers/md/dm-snapshot.ko\nkernel/lib/lru_cache.ko\nkernel/drivers/block/drbd/drbd.ko\n"
	if got := insmodList(files); got != want {
		t.Errorf("order\n%swant\n%s", got, want)
	}
	if _, err := tree.order("zfs"); !errors.Is(err, ErrNoModule) {
		t.Errorf("an unknown module: %v", err)
	}
	if _, err := parseModules(strings.NewReader("no colon"), strings.NewReader("")); err == nil {
		t.Error("a damaged modules.dep was accepted")
	}
}

func TestOptions(t *testing.T) {
	o := Options{DRBD: []string{"weasel"}}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if len(o.Nodes) != 2 || o.Nodes[0].DRBD || !o.Nodes[1].DRBD || o.DiskSize != DefaultDiskSize {
		t.Errorf("defaults: %+v", o)
	}
	for name, bad := range map[string]Options{
		"unknown DRBD node": {DRBD: []string{"badger"}},
		"upper case":        {Nodes: []NodeOptions{{Name: "Otter", Addr: "10.0.0.1"}}},
		"reserved name":     {Nodes: []NodeOptions{{Name: "share", Addr: "10.0.0.1"}}},
		"address outside":   {Nodes: []NodeOptions{{Name: "otter", Addr: "10.0.1.1"}}},
		"bridge's address":  {Nodes: []NodeOptions{{Name: "otter", Addr: bridgeAddr}}},
		"twice":             {Nodes: []NodeOptions{{Name: "otter", Addr: "10.0.0.1"}, {Name: "weasel", Addr: "10.0.0.1"}}},
		"odd disk":          {DiskSize: 1<<20 + 1},
	} {
		if err := bad.complete(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (&Options{Dir: "/var/tmp/a b"}).makeDir(); err == nil {
		t.Error("a directory with a blank was accepted: the kernel's command line cannot carry it")
	}
}

func testState(dir string) *state {
	return &state{Namespace: namespacePrefix + "test", Dir: dir, RunDir: "/tmp/slab-test", DiskSize: 1 << 20, Nodes: []nodeState{
		{Name: "otter", Addr: "10.0.0.1", Mgmt: "10.99.1.2", DRBD: true, Memory: "512M"},
		{Name: "weasel", Addr: "10.0.0.2", Mgmt: "10.99.2.2", Memory: "512M"},
	}}
}

func TestCommandLines(t *testing.T) {
	l := &Lab{state: testState("/var/tmp/lab")}
	l.attachNodes()
	args := strings.Join(l.Node("weasel").kernelArgs(), " ")
	for _, want := range []string{
		"linux.uml mem=512M rootfstype=hostfs ro ", " ubdb=/var/tmp/lab/weasel/disk.img ",
		" vec0:transport=tap,ifname=d-weasel,gro=1,mac=52:54:00:5a:00:02 ", " vec1:transport=tap,ifname=m-weasel,gro=1,",
		" init=/var/tmp/lab/weasel/init ", " umid=weasel ",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("kernel arguments lack %q:\n%s", want, args)
		}
	}
	net := networkScript(l.state.Nodes)
	for _, want := range []string{"link set d-otter master br0 up\n", "addr add 10.99.2.1/24 dev m-weasel\n"} {
		if !strings.Contains(net, want) {
			t.Errorf("network script lacks %q:\n%s", want, net)
		}
	}
	tree := &moduleTree{path: map[string]string{"overlay": "kernel/overlay.ko", "drbd": "kernel/drbd.ko"}}
	env := l.Node("otter").environment(tree, "/mods", "/usr/sbin/sshd")
	for _, want := range []string{"LAB_ADDR=10.0.0.1/24\n", "LAB_DRBD=yes\n", "LAB_OVERLAY=/mods/kernel/overlay.ko\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("environment lacks %q:\n%s", want, env)
		}
	}
	if got := sshConfig(l.state); !strings.Contains(got, "Host weasel\n  HostName 10.99.2.2\n") || !strings.Contains(got, "ip netns exec santui-lab-test /bin/busybox nc") {
		t.Errorf("ssh configuration:\n%s", got)
	}
	if l.Node("badger") != nil {
		t.Error("a node that is not there")
	}
}

func TestShellWords(t *testing.T) {
	words := []string{"echo", "a  b", "", "it's", "$HOME", "*", "a\nb", `\`}
	out, err := exec.Command("sh", "-c", "printf '%s|' "+shellWords(words)).Output()
	if want := strings.Join(words, "|") + "|"; err != nil || string(out) != want {
		t.Errorf("the shell read %q, want %q (%v)", out, want, err)
	}
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, stateFile)
	for text, want := range map[string]string{
		`{"namespace":"santui-lab-1","dir":"/d","run_dir":"/r","nodes":[{"name":"otter","proc":{"pid":7,"start":9}}]}`: "",
		`{"namespace":"other","dir":"/d","run_dir":"/r"}`:                                                              "not a lab's",
		`{"namespace":"santui-lab-1","dir":"d","run_dir":"/r"}`:                                                        "not a lab's",
		`{"namespace":"santui-lab-1","dir":"/d","run_dir":"/r","no`:                                                    "damaged",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readState(file)
		switch {
		case want == "" && (err != nil || s.Nodes[0].Proc != proc{PID: 7, Start: 9}):
			t.Errorf("good record: %+v, %v", s, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := Peek(t.TempDir()); !errors.Is(err, ErrNoLab) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestAbandoned(t *testing.T) {
	self, err := findProc(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	reused := proc{PID: self.PID, Start: self.Start + 1}
	for _, c := range []struct {
		s    state
		want bool
	}{
		{state{Owner: self}, false},
		{state{Owner: reused}, true},
		{state{Owner: proc{}}, true},
		{state{Owner: reused, Persistent: true}, false},
	} {
		if got := c.s.abandoned(); got != c.want {
			t.Errorf("owner %+v, persistent %v: abandoned %v", c.s.Owner, c.s.Persistent, got)
		}
	}
}

func TestRemoveKeepsStrangersFiles(t *testing.T) {
	dir := t.TempDir()
	s := testState(dir)
	for _, name := range []string{"otter/disk.img", "weasel/disk.img", "share/x", stateFile, lockName, "mine.txt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLabFiles(s); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || !slices.Equal(left, []string{filepath.Join(dir, "mine.txt")}) {
		t.Errorf("left %v, %v", left, err)
	}
	if err := os.Remove(left[0]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(removeLabFiles(s), removeLabFiles(s)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty directory stays: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	f, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("second lock: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestParseStat(t *testing.T) {
	st, err := parseStat([]byte("42 (a) b (c)) S 1 41 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 1 2"))
	if err != nil || st != (procStat{state: 'S', session: 40, start: 12345}) {
		t.Errorf("%+v, %v", st, err)
	}
	for _, bad := range []string{"", "42 (x) S 1", "42 x S 1 2 3"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// A session is killed with all it started, and a number that now belongs to another process is left alone.
func TestKillSession(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & sleep 60 & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := findProc(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); len(p.members()) < 3 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	members := p.members()
	if len(members) != 3 {
		t.Errorf("session of %d has members %v, want three", p.PID, members)
	}
	if err := (proc{PID: p.PID, Start: p.Start + 1}).killSession(time.Second); err != nil || !p.alive() {
		t.Errorf("a stranger's session was touched: %v", err)
	}
	if err := p.killSession(5 * time.Second); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	if p.alive() || len(p.members()) != 0 {
		t.Errorf("left: %v", p.members())
	}
}

const procDRBD = `version: 8.4.11 (api:1/proto:86-101)
srcversion: 000000000000000000000000
 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----
    ns:10 nr:0 dw:1 dr:20 al:1 bm:0 lo:0 pe:2 ua:0 ap:0 ep:1 wo:f oos:128
	[=====>..............] sync'ed: 30.0% (128/138)K
 1: cs:Unconfigured
 2: cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate C r-----
    ns:0 nr:7 dw:7 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
`

func TestParseStatus(t *testing.T) {
	zero := parseStatus(procDRBD, 0)
	if zero.Conn != "SyncSource" || zero.Role != "Primary" || zero.PeerDisk != "Inconsistent" || zero.OutOfSync != 128<<10 || zero.Sent != 10<<10 || zero.InSync() {
		t.Errorf("minor 0: %+v", zero)
	}
	if two := parseStatus(procDRBD, 2); !two.InSync() || two.Received != 7<<10 || strings.Contains(two.Text, "SyncSource") {
		t.Errorf("minor 2: %+v", two)
	}
	for _, minor := range []int{1, 3} {
		if st := parseStatus(procDRBD, minor); st.Conn != "Unconfigured" || st.InSync() {
			t.Errorf("minor %d: %+v", minor, st)
		}
	}
}

func TestDRBDConf(t *testing.T) {
	l := &Lab{state: testState("/d")}
	l.attachNodes()
	text := DRBDConf{Secret: "s", Rate: "4M"}.Text(l.nodes...)
	for _, want := range []string{"resource r0 {", `shared-secret "s";`, "resync-rate 4M;", "c-plan-ahead 0;", "al-extents 67;", "address 10.0.0.2:7788;"} {
		if !strings.Contains(text, want) {
			t.Errorf("configuration lacks %q:\n%s", want, text)
		}
	}
	if strings.Count(text, "{") != strings.Count(text, "}") {
		t.Errorf("unbalanced:\n%s", text)
	}
}

func TestFirstDifference(t *testing.T) {
	a := bytes.Repeat([]byte{1}, 3<<20+4096)
	b := bytes.Clone(a)
	size := int64(len(a))
	if at, err := firstDifference(context.Background(), bytes.NewReader(a), bytes.NewReader(b), size); at != -1 || err != nil {
		t.Errorf("equal: %d, %v", at, err)
	}
	b[size-1] = 2
	if at, err := firstDifference(context.Background(), bytes.NewReader(a), bytes.NewReader(b), size); at != size-4096 || err != nil {
		t.Errorf("last byte: %d, %v", at, err)
	}
	if _, err := firstDifference(context.Background(), bytes.NewReader(a), bytes.NewReader(b[:5000]), size); err == nil {
		t.Error("a short disk passed")
	}
}

func TestFindBinary(t *testing.T) {
	if _, err := FindBinary(t.TempDir(), "santui"); !errors.Is(err, ErrNoBinary) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("%v", err)
	}
}
