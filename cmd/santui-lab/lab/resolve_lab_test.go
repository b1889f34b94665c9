//go:build lab

package lab

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// diskOnLVM makes the replicated disk a logical volume whose group has room for a snapshot of it.
const diskOnLVM = `set -e
sed -i '/filter/d' /etc/lvm/lvm.conf
pvcreate -q /dev/ubdb; vgcreate -q disks /dev/ubdb; lvcreate -q -y -L 64M -n r0 disks
ln -sf disks/r0 /dev/md3`

// TestLongResolveOverLVM: LVM below the replicated device and above it, a split brain, and its end by an operator at a terminal.
// The loser is taken down first, a snapshot keeps what it had, and the winner's data is on both nodes afterwards.
func TestLongResolveOverLVM(t *testing.T) {
	t.Parallel()
	g := newVerbRig(t, rigOptions{size: 160 << 20, disk: diskOnLVM})
	g.fork()
	lost := g.sh(g.otter, "sha256sum </mnt/test/lost")
	check := []string{"check", "--to", "weasel", "--verb", "resolve"}
	g.sh(g.otter, "lvcreate -q -y -l 100%FREE -n filler disks")
	g.until(time.Minute, "no room is seen", func() bool {
		out, _ := g.run(check...)
		return strings.Contains(out, "they are not copied anywhere first: disks has 0 MiB free")
	})
	g.sh(g.otter, "lvremove -q -y disks/filler")
	var snapshot string
	g.until(time.Minute, "room is seen", func() bool {
		out, code := g.run(check...)
		snapshot = regexp.MustCompile(`snapshot (disks/santui-r0-[0-9a-f]{16}) keeps them`).FindString(out)
		return snapshot != "" && code == 0
	})
	snapshot = strings.Fields(snapshot)[1]

	before := g.untouched()
	g.sh(g.otter, "cd /mnt/test; setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >/run/cwd.pid")
	g.until(time.Minute, "a process is in the way", func() bool {
		out, code := g.run("resolve", "--discard", "otter", "--confirm", PairName)
		return code == 3 && strings.Contains(out, "BUSY-PROC")
	})
	g.sh(g.otter, "kill $(cat /run/cwd.pid)")
	if out, err := g.typed("no"); err == nil || !strings.Contains(out, "is not confirmed") {
		t.Errorf("%v\n%s", err, out)
	}
	if now := g.untouched(); now != before {
		t.Fatalf("what was refused changed something:\n%s\nbefore:\n%s", now, before)
	}

	var out string
	g.until(time.Minute, "nothing blocks", func() bool { // a busy machine
		var err error
		out, err = g.typed(PairName)
		return err == nil || !strings.Contains(out, "is not possible now")
	})
	t.Log(out)
	for _, want := range []string{"stays:    weasel: Primary since", "discards: otter: Primary since", "Type the pair's name", "the changes of otter are discarded"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	g.order()
	g.whole()
	g.onService(g.weasel)
	if got := g.sh(g.otter, `mkdir -p /mnt/rescue; C='devices { scan_lvs = 1 }'; S=/dev/`+snapshot+`
vgchange -qay --config "$C" --devices $S storage >&2; mount -o ro /dev/storage/test /mnt/rescue; sha256sum </mnt/rescue/lost
umount /mnt/rescue; vgchange -qan --config "$C" --devices $S storage >&2; lvremove -qy `+snapshot+" >&2"); got != lost {
		t.Errorf("the snapshot has %q, otter had written %q", got, lost)
	}
	g.move(g.otter)
}

// typed runs the resolve on a terminal and types a word.
func (g *verbRig) typed(word string) (string, error) {
	cmd := exec.CommandContext(g.t.Context(), "script", "-qec", g.santui+" --config "+g.conf+" resolve --discard otter", "/dev/null")
	cmd.Stdin = strings.NewReader(word + "\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// untouched is what a refused resolve must leave as it is.
func (g *verbRig) untouched() string {
	out := ""
	for _, n := range g.l.Nodes() {
		r := g.snap(n).Resources[0]
		out += n.Name() + " " + r.Role.String() + " " + r.Conn.String() + "\n" + g.sh(n, "grep /mnt/ /proc/mounts; ls /dev/mapper") + g.read(n)
	}
	return out
}

// order demands that the loser's stack was taken down before anything of its copy was touched.
func (g *verbRig) order() {
	g.t.Helper()
	var list proto.OpsReply
	var r proto.Report
	if err := json.Unmarshal([]byte(g.must(0, []string{"ops", "--json"})), &list); err != nil {
		g.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(g.must(0, []string{"report", list.Ops[0].ID, "--json"})), &r); err != nil {
		g.t.Fatal(err)
	}
	var did []string
	for _, s := range r.Op.Steps {
		if s.Result.State == proto.StepDone {
			did = append(did, string(s.Step.Kind)+"@"+s.Step.Node)
		}
	}
	if got := strings.Join(did, " "); !strings.HasPrefix(got, "unmount@otter deactivate@otter demote@otter attest@otter snapshot@otter ") || !strings.Contains(got, "connect-discard@otter") {
		g.t.Errorf("done: %s", got)
	}
}
