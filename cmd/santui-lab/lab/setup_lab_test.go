//go:build lab

package lab

import (
	"strings"
	"testing"
)

// TestLongSetup: on two nodes whose lvm.conf has no filter, santui setup refuses, santui doctor says why and writes the
// filter, setup makes the guide's stack and refuses what is in its way, and names that nobody would choose go through a
// whole failover.
func TestLongSetup(t *testing.T) {
	t.Parallel()
	p := newPair(t, Options{DiskSize: 96 << 20}, AgentOptions{DRBDConf: strings.Replace(GuideConf, "30M", "200M", 1)})
	p.synced("weasel")
	for _, n := range p.l.Nodes() {
		p.sh(n, "sed -i '/filter/d' /etc/lvm/lvm.conf; mkdir -p /mnt/test")
	}
	const odd = "od+d.V-_G--x"
	where := "/mnt/a b\nc\td\\040'\"$(touch x)é"
	setup := []string{"setup", "--vg", "storage", "--lv", "test", "--size", "24M", "--mount", "/mnt/test", "--confirm", PairName}

	t.Run("doctor", func(t *testing.T) { p.doctors(t, setup) })
	p.t = t
	t.Run("setup", func(t *testing.T) { p.setups(t, setup) })
	p.t = t
	p.failover("weasel")
	p.failover("otter")
	p.sh(p.otter, "umount /mnt/test; vgchange -qan storage; vgremove -qyf --devices /dev/drbd0 storage; pvremove -qy --devices /dev/drbd0 /dev/drbd0")

	t.Run("hostile names", func(t *testing.T) {
		q := *p
		q.t = t
		for _, n := range q.l.Nodes() {
			if _, err := n.Run(t.Context(), "mkdir", "-p", where, "/mnt/bind\nline"); err != nil {
				t.Fatal(err)
			}
		}
		q.do("setup", "--vg", odd, "--lv", "l--v.1", "--mount", where, "--confirm", PairName)
		in := func(n *Node, script string) string { // with $1 the mount point
			res, err := n.Run(t.Context(), "sh", "-ec", script, "sh", where)
			if err != nil {
				t.Fatalf("%v\n%s", err, q.logs())
			}
			return res.Stdout
		}
		in(q.otter, `cd "$1"; mkdir "sub
dir"; mount --bind "sub
dir" "/mnt/bind
line"; dd if=/dev/urandom of="sub
dir/f" bs=64k count=9 status=none; echo x >"$(printf '\033[31m')"; sync`)
		const list = `mountpoint -q "$1"; mountpoint -q "/mnt/bind
line"; cd "$1"; find . -type f -print0 | sort -z | xargs -0 sha256sum`
		want := in(q.otter, list)
		for _, to := range []string{"weasel", "otter"} {
			q.failover(to)
			if got := in(q.l.Node(to), list); got != want {
				t.Errorf("on %s:\n%q\nwant\n%q", to, got, want)
			}
		}
		in(q.weasel, `! mountpoint -q "$1"; ! test -e /mnt/x && ! test -e "$1/x"`)
	})
}

// doctors: the patient, the diagnosis, the refusal without consent, the cure with its exact change, the second look.
func (p *pair) doctors(t *testing.T, setup []string) {
	p.t = t
	out, code := p.santui("doctor")
	if code != 3 || strings.Count(out, "NOT SAFE") != 2 || !strings.Contains(out, "would change /etc/lvm/lvm.conf") || !strings.Contains(out, "+") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	t.Logf("%s", out)
	if out, code := p.santui(setup...); code != 3 || !strings.Contains(out, "BACKING-VISIBLE") {
		t.Errorf("setup beside a visible backing disk: exit %d\n%s", code, out)
	}
	before := p.sh(p.otter, "cat /etc/lvm/lvm.conf")
	for _, args := range [][]string{{"doctor", "--fix"}, {"doctor", "--fix", "--confirm", "other"}} {
		if out, code := p.santui(args...); code != 4 {
			t.Errorf("%v: exit %d\n%s", args, code, out)
		}
	}
	if after := p.sh(p.otter, "cat /etc/lvm/lvm.conf"); after != before {
		t.Errorf("changed without consent:\n%s", after)
	}
	p.sh(p.weasel, "chmod 640 /etc/lvm/lvm.conf")
	out = p.do("doctor", "--fix", "--confirm", PairName)
	t.Logf("%s", out)
	if strings.Count(out, "changed /etc/lvm/lvm.conf") != 2 || !strings.Contains(out, `"r|^/dev/ubdb$|"`) || strings.Contains(out, "NOT SAFE") {
		t.Errorf("%s", out)
	}
	if out := p.do("doctor"); strings.Contains(out, "would change") {
		t.Errorf("the second look finds something again:\n%s", out)
	}
	p.sh(p.otter, `test "$(pvs -a | grep -c 'ubdb\|md3')" = 0; lvmconfig --validate >/dev/null`)
	p.sh(p.weasel, "test $(stat -c %a /etc/lvm/lvm.conf) = 640")
	kept := p.sh(p.otter, "cat /etc/lvm/lvm.conf.santui-*")
	if kept != before {
		t.Errorf("the copy is not the old file:\n%s", kept)
	}
}

// setups: what is refused, with nothing written; the stack; the same command again.
func (p *pair) setups(t *testing.T, setup []string) {
	p.t = t
	refused := func(what, want string) {
		t.Helper()
		before := p.sh(p.otter, "head -c 1M /dev/drbd0 | sha256sum; ls /dev/mapper")
		if out, code := p.santui(setup...); code != 3 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, want %q\n%s", what, code, want, out)
		}
		if after := p.sh(p.otter, "head -c 1M /dev/drbd0 | sha256sum; ls /dev/mapper"); after != before {
			t.Errorf("%s: the device changed", what)
		}
	}
	p.sh(p.otter, "mkfs.ext4 -q /dev/drbd0")
	refused("a file system", "holds ext4")
	p.sh(p.otter, "wipefs -qa /dev/drbd0; dd if=/dev/zero of=/dev/drbd0 bs=1M count=1 status=none; mkswap -q /dev/drbd0")
	refused("swap", "holds swap")
	p.sh(p.otter, "wipefs -qa /dev/drbd0; pvcreate -q /dev/drbd0; vgcreate -q another /dev/drbd0")
	refused("another volume group", "belongs to volume group another")
	p.sh(p.otter, "vgremove -q another; pvremove -q /dev/drbd0")
	p.sh(p.weasel, "rmdir /mnt/test")
	refused("no mount point on weasel", "/mnt/test is no directory on weasel")
	p.sh(p.weasel, "mkdir /mnt/test")
	if out, code := p.santui(append(setup[:len(setup)-2:len(setup)-2], "--dry-run")...); code != 0 || !strings.Contains(out, "vgcreate --devices /dev/drbd0 --setautoactivation n storage") {
		t.Errorf("dry run: exit %d\n%s", code, out)
	}
	if out, code := p.santui(setup[:len(setup)-2]...); code != 4 {
		t.Errorf("without consent: exit %d\n%s", code, out)
	}
	t.Logf("%s", p.do(setup...))
	p.sh(p.otter, `mountpoint -q /mnt/test; test "$(vgs --noheadings -o vg_autoactivation storage | tr -d ' ')" = ""`)
	if out := p.do(setup...); strings.Count(out, "already") != 5 {
		t.Errorf("the second time:\n%s", out)
	}
}
