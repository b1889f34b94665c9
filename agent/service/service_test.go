package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// systemctl is a faithful fake: units are files of the folder that UNITS names, their content the ActiveState. A file
// NAME.lies keeps the state as it is although the exit code says otherwise, NAME.fails leads to failed and exit code 1,
// NAME.slow passes through activating, NAME.hangs never comes back.
const systemctl = `#!/bin/sh
cd %s
case $1 in
show)
	shift 2
	gap=
	for u; do
		printf "$gap"; gap='\n'
		if [ -e $u.slow ] && [ "$(cat $u)" = activating ]; then rm $u.slow; echo active >$u; echo "LoadState=loaded
ActiveState=activating
UnitFileState=disabled"; continue; fi
		if [ -e $u ]; then echo "LoadState=loaded
ActiveState=$(cat $u)
UnitFileState=disabled"; else echo "LoadState=not-found
ActiveState=inactive
UnitFileState="; fi
	done;;
start | stop)
	[ -e $2 ] || { echo "Failed to $1 $2: Unit $2 not found." >&2; exit 5; }
	[ ! -e $2.hangs ] || sleep 1000
	[ ! -e $2.lies ] || exit 0
	[ ! -e $2.fails ] || { echo failed >$2; echo "Job for $2 failed." >&2; exit 1; }
	if [ $1 = stop ]; then echo inactive >$2; elif [ -e $2.slow ]; then echo activating >$2; else echo active >$2; fi;;
esac
`

type machine struct {
	t   *testing.T
	dir string
	net *fakeNet
	ops *Ops
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), net: &fakeNet{list: []Interface{
		{Name: "lo", Up: true, NoProbe: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		{Name: "eth1"}}}}
	for _, d := range []string{"bin", "units", "nfsd", "booted"} {
		if err := os.Mkdir(filepath.Join(m.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.program("systemctl", fmt.Sprintf(systemctl, filepath.Join(m.dir, "units")))
	m.program("exportfs", fmt.Sprintf(exportfs, filepath.Join(m.dir, "etab")))
	m.write("nfsd/threads", "8\n")
	vol, err := lvmops.New(lvmops.Options{Runner: lvmops.NewExec(), Etab: filepath.Join(m.dir, "etab")})
	if err != nil {
		t.Fatal(err)
	}
	exec := lvmops.NewExec()
	exec.Path, exec.Grace = []string{filepath.Join(m.dir, "bin"), "/usr/bin", "/bin"}, 100*time.Millisecond
	m.ops = New(Options{Runner: &withNet{exec, m.net}, Exports: vol.Exports, Node: "otter", Booted: filepath.Join(m.dir, "booted"),
		NFSD: filepath.Join(m.dir, "nfsd"), Net: m.net})
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) program(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, "bin", name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // a program
		m.t.Fatal(err)
	}
	return path
}

// exportfs keeps its table as nfs-utils does; with a file etab.lies it only claims to.
const exportfs = `#!/bin/sh
T=%s
[ ! -e $T.lies ] || exit 0
touch $T
case $1 in
-o) client=${3%%%%:*} path=${3#*:}
	grep -v "^$path	$client(" $T >$T.new; printf '%%s\t%%s(%%s,wdelay)\n' $path $client $2 >>$T.new; mv $T.new $T;;
-u) client=${2%%%%:*} path=${2#*:}
	grep -v "^$path	$client(" $T >$T.new; mv $T.new $T; true;;
esac
`

// withNet does what ip(8) would to a fakeNet and leaves the rest to an Exec.
type withNet struct {
	*lvmops.Exec
	net *fakeNet
}

func (w *withNet) Run(ctx context.Context, cmd lvmops.Cmd) (lvmops.Result, error) {
	if cmd.Argv[0] != "ip" {
		return w.Exec.Run(ctx, cmd)
	}
	res := lvmops.Result{Execution: proto.Execution{Argv: cmd.Argv}}
	if w.net.fails {
		return res, &lvmops.ExecError{Argv: cmd.Argv, Exit: 2, Cause: lvmops.ErrExit, Said: "RTNETLINK answers: Operation not permitted"}
	}
	on, p := named(w.net.list, cmd.Argv[5]), netip.MustParsePrefix(cmd.Argv[3])
	if cmd.Argv[2] == "add" {
		on.Addrs = append(slices.Clone(on.Addrs), p)
	} else {
		on.Addrs = slices.DeleteFunc(slices.Clone(on.Addrs), func(x netip.Prefix) bool { return x == p || w.net.secondaries && x.Addr() != p.Addr() })
	}
	return res, nil
}

type fakeNet struct {
	list        []Interface
	other       net.HardwareAddr // answers probes
	told        int
	fails       bool
	secondaries bool // go with the first address
}

func (n *fakeNet) Interfaces() ([]Interface, error) { return slices.Clone(n.list), nil }

func (n *fakeNet) Probe(context.Context, Interface, netip.Addr) (net.HardwareAddr, error) {
	return n.other, nil
}

func (n *fakeNet) Announce(context.Context, Interface, netip.Addr) (string, error) {
	n.told++
	return "aloud", nil
}

// ends checks a step's end: words in what is so now, or in the error.
func ends(t *testing.T, out lvmops.Outcome, err error, want, fails string) {
	t.Helper()
	switch {
	case fails != "" && (err == nil || !strings.Contains(err.Error(), fails)):
		t.Errorf("error %v, want %q", err, fails)
	case fails == "" && (err != nil || !strings.Contains(out.Now, want)):
		t.Errorf("now %q, error %v, want %q", out.Now, err, want)
	}
}

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		name, state, flag string
		start, already    bool
		want, fails       string
		limit             time.Duration
	}{
		{name: "stop", state: "active", want: "smbd.service is inactive"},
		{name: "stop again", state: "inactive", already: true, want: "smbd.service is inactive"},
		{name: "stop a failed one", state: "failed", already: true, want: "smbd.service is failed"},
		{name: "stop lies", state: "active", flag: "lies", fails: "systemd says that it is active (loaded)"},
		{name: "stop ends as failed", state: "active", flag: "fails", want: "smbd.service is failed"},
		{name: "stop hangs", state: "active", flag: "hangs", fails: "systemd says that it is active", limit: 300 * time.Millisecond},
		{name: "stop what is not there", already: true, want: "smbd.service is inactive"},
		{name: "start", start: true, state: "inactive", want: "smbd.service is active"},
		{name: "start again", start: true, state: "active", already: true, want: "smbd.service is active"},
		{name: "start slowly", start: true, state: "inactive", flag: "slow", want: "smbd.service is active"},
		{name: "start lies", start: true, state: "inactive", flag: "lies", fails: "systemd says that it is inactive"},
		{name: "start fails", start: true, state: "inactive", flag: "fails", fails: "Job for smbd.service failed"},
		{name: "start what is not there", start: true, fails: "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			if tt.state != "" {
				m.write("units/smbd.service", tt.state)
			}
			if tt.flag != "" {
				m.write("units/smbd.service."+tt.flag, "")
			}
			ctx := t.Context()
			if tt.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.limit)
				defer cancel()
			}
			do := m.ops.StopUnit
			if tt.start {
				do = m.ops.StartUnit
			}
			out, err := do(ctx, "smbd.service")
			ends(t, out, err, tt.want, tt.fails)
			if err == nil && out.Already != tt.already {
				t.Errorf("already %v", out.Already)
			}
		})
	}
	m := newMachine(t)
	if err := os.Remove(filepath.Join(m.dir, "booted")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ops.StopUnit(t.Context(), "smbd.service"); !errors.Is(err, &proto.Error{Code: proto.CodeUnsupported}) || !strings.Contains(err.Error(), "systemd does not run") {
		t.Errorf("without systemd: %v", err)
	}
}

func TestScript(t *testing.T) {
	m := newMachine(t)
	ok := m.program("ok", "#!/bin/sh\nenv | sort\necho args \"$@\"\n")
	s := proto.Script{Name: "app", Stop: []string{ok, "a b", "$HOME"}, Start: []string{m.program("bad", "#!/bin/sh\necho no such thing >&2; exit 3\n")}, Limit: 5}
	out, err := m.ops.Script(t.Context(), s, false, Occasion{"r0", "/dev/drbd0", "op1"})
	ends(t, out, err, "stop ended with exit code 0", "")
	said := strings.Join(out.Commands[0].Output, "\n")
	for _, want := range []string{"SANTUI_ACTION=stop", "SANTUI_DEVICE=/dev/drbd0", "SANTUI_NODE=otter", "SANTUI_OPERATION=op1", "SANTUI_RESOURCE=r0", "args a b $HOME", "LC_ALL=C"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if n := strings.Count(said, "\n"); n > 13 {
		t.Errorf("more environment than it should have:\n%s", said)
	}
	out, err = m.ops.Script(t.Context(), s, true, Occasion{})
	ends(t, out, err, "", "no such thing")
	if len(out.Commands) != 1 || out.Commands[0].Exit != 3 {
		t.Errorf("%+v", out.Commands)
	}
	s.Stop, s.Limit = []string{m.program("slow", "#!/bin/sh\nsleep 1000\n")}, 0.2
	out, err = m.ops.Script(t.Context(), s, false, Occasion{})
	ends(t, out, err, "", "time limit")
	if !errors.Is(err, &proto.Error{Code: proto.CodeTimeout}) {
		t.Errorf("%v", err)
	}
}

func TestTrusted(t *testing.T) {
	m := newMachine(t)
	good := m.program("good", "#!/bin/sh\n")
	if err := trusted(good); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(m.dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	if err := trusted(link); err != nil {
		t.Error(err)
	}
	for want, breakIt := range map[string]func(string) error{
		"others than root may write": func(p string) error { return os.Chmod(p, 0o722) }, //nolint:gosec // that is the point
		"is no program":              func(p string) error { return os.Chmod(p, 0o600) },
		"no such file":               os.Remove,
	} {
		p := m.program("x", "#!/bin/sh\n")
		if err := breakIt(p); err != nil {
			t.Fatal(err)
		}
		if err := trusted(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		_ = os.Remove(p)
	}
	if err := os.Chmod(filepath.Dir(good), 0o777); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if err := trusted(link); err == nil || !strings.Contains(err.Error(), "others than root may write to "+filepath.Dir(good)) {
		t.Errorf("in a folder of everybody's: %v", err)
	}
}

func TestExports(t *testing.T) {
	m, e := newMachine(t), proto.Export{Path: "/srv/store", Client: "10.0.0.0/24", Options: "rw,sync"}
	m.write("nfsd/unlock_filesystem", "")
	out, err := m.ops.Export(t.Context(), e)
	ends(t, out, err, "is exported to 10.0.0.0/24", "")
	f := m.ops.Facts(t.Context(), proto.Service{Exports: []proto.Export{e}})
	if len(f.Exports) != 1 || f.Exports[0].Options != "rw,sync,wdelay" || f.NFS != "" || f.Unserved || f.Errs != nil {
		t.Errorf("%+v", f)
	}
	out, err = m.ops.Unexport(t.Context(), e)
	ends(t, out, err, "is not exported", "")
	if b, _ := os.ReadFile(filepath.Join(m.dir, "nfsd/unlock_filesystem")); string(b) != e.Path+"\n" {
		t.Errorf("the locks were not dropped: %q", b)
	}
	if out, err = m.ops.Unexport(t.Context(), e); err != nil || !out.Already || len(out.Commands) != 0 {
		t.Errorf("again: %+v, %v", out, err)
	}
	m.write("etab.lies", "")
	out, err = m.ops.Export(t.Context(), e)
	ends(t, out, err, "", "table says otherwise")
	m.write("nfsd/threads", "0\n")
	if f = m.ops.Facts(t.Context(), proto.Service{Exports: []proto.Export{e}}); !f.Unserved {
		t.Error("a server without threads serves")
	}
}

func TestAddress(t *testing.T) {
	a := proto.Address{Address: "10.0.0.100/24", Interface: "eth0"}
	m := newMachine(t)
	facts := func() proto.AddressState {
		return m.ops.Facts(t.Context(), proto.Service{Address: []proto.Address{a}}).Addresses[0]
	}
	if f := facts(); f.Held != "" || f.Problem != "" {
		t.Errorf("%+v", f)
	}
	m.net.other = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	out, err := m.ops.AddAddress(t.Context(), a)
	ends(t, out, err, "", "02:00:00:00:00:09 has it")
	m.net.other = nil
	m.net.fails = true
	out, err = m.ops.AddAddress(t.Context(), a)
	ends(t, out, err, "", "Operation not permitted")
	m.net.fails = false
	out, err = m.ops.AddAddress(t.Context(), a)
	ends(t, out, err, "eth0 has 10.0.0.100/24, announced", "")
	if f := facts(); f.Held != "eth0" || m.net.told != 1 {
		t.Errorf("%+v, told %d times", f, m.net.told)
	}
	if out, err = m.ops.AddAddress(t.Context(), a); err != nil || !out.Already {
		t.Errorf("again: %+v, %v", out, err)
	}
	m.net.fails = true
	out, err = m.ops.DropAddress(t.Context(), a)
	ends(t, out, err, "", "eth0 has it still")
	m.net.fails, m.net.secondaries = false, true
	out, err = m.ops.DropAddress(t.Context(), a)
	ends(t, out, err, "no interface has 10.0.0.100", "")
	if len(out.Findings) != 1 || !strings.Contains(out.Findings[0], "eth0 lost 10.0.0.1/24 too") {
		t.Errorf("%q", out.Findings)
	}
	if out, err = m.ops.DropAddress(t.Context(), a); err != nil || !out.Already {
		t.Errorf("again: %+v, %v", out, err)
	}
	a.Interface = "eth1"
	out, err = m.ops.AddAddress(t.Context(), a)
	ends(t, out, err, "", "eth1 is not there, or down")
	a.Interface = "eth7"
	if f := facts(); f.Problem != "there is no interface eth7" {
		t.Errorf("%+v", f)
	}
	a = proto.Address{Address: "10.0.0.1/32", Interface: "eth0"}
	m.net.list[1].Addrs = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}
	out, err = m.ops.DropAddress(t.Context(), a)
	ends(t, out, err, "", "otherwise than agent.toml says")
}

// TestAddress6: the kernel's own search for a duplicate is left out, and an interface without IPv6 is named.
func TestAddress6(t *testing.T) {
	a := proto.Address{Address: "fd00::100/64", Interface: "eth0"}
	m := newMachine(t)
	out, err := m.ops.AddAddress(t.Context(), a)
	ends(t, out, err, "eth0 has fd00::100/64, announced to the neighbours (aloud)", "")
	if got := strings.Join(out.Commands[0].Argv, " "); got != "ip addr add fd00::100/64 dev eth0 nodad" {
		t.Error(got)
	}
	out, err = m.ops.DropAddress(t.Context(), a)
	ends(t, out, err, "no interface has fd00::100", "")
	m.net.list[1].No6 = true
	if f := m.ops.Facts(t.Context(), proto.Service{Address: []proto.Address{a}}).Addresses[0]; !strings.Contains(f.Problem, "IPv6 is off on the interface eth0") {
		t.Errorf("%+v", f)
	}
}

func TestNeighbourDiscoveryPackets(t *testing.T) {
	mac, addr := net.HardwareAddr{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("fd00::1:2345:6789")
	d := ndp(mac, addr, true)
	// RFC 8200's header and RFC 4861's fields, by hand.
	ask := []byte{0x60, 0, 0, 0, 0, 24, 58, 255}
	ask = append(ask, make([]byte, 16)...)
	ask = append(ask, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x45, 0x67, 0x89, 135, 0, 0x8b, 0x09, 0, 0, 0, 0)
	ask = append(ask, addr.AsSlice()...)
	if d.probe.to.String() != "33:33:ff:45:67:89" || !slices.Equal(d.probe.data, ask) {
		t.Errorf("%v % x, want % x", d.probe.to, d.probe.data, ask)
	}
	told := d.announce[0].data
	if d.announce[0].to.String() != "33:33:00:00:00:01" || told[40] != 136 || told[44] != 0xa0 || !slices.Equal(told[64:], []byte{2, 1, 2, 0, 0, 0, 0, 1}) {
		t.Errorf("%v % x", d.announce[0].to, told)
	}
	from := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, b := range [][]byte{told, ask} { // who has it, and who is about to take it
		if got := d.claims(b, from); got.String() != from.String() {
			t.Errorf("% x: %v", b, got)
		}
		for i := range b {
			if d.claims(b[:i], from) != nil {
				t.Errorf("%d bytes are a packet", i)
			}
			bad := slices.Clone(b)
			bad[i] ^= 0x10 // of the first four bytes only the version counts
			if (i == 0 || i > 3) && d.claims(bad, from) != nil {
				t.Errorf("a packet with byte %d changed counts", i)
			}
		}
	}
	if ndp(mac, netip.MustParseAddr("fd00::1:2345:6780"), false).claims(told, from) != nil {
		t.Error("another address counts")
	}
}

func TestARPPackets(t *testing.T) {
	mac, addr := net.HardwareAddr{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("10.0.0.100")
	b := arpPacket(arpRequest, mac, addr, addr)
	// RFC 826's fields, by hand.
	want := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 100, 0, 0, 0, 0, 0, 0, 10, 0, 0, 100}
	if !slices.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	if m, from, ok := arpOf(b); !ok || from != addr || m.String() != mac.String() {
		t.Errorf("%v %v %v", m, from, ok)
	}
	for i := range b {
		if _, _, ok := arpOf(b[:i]); ok {
			t.Errorf("%d bytes are a packet", i)
		}
	}
}
