//go:build lab

package lab

import (
	"strings"
	"testing"
)

// guideStack is what the two-node guide builds on the replicated device, with some files to look after.
const guideStack = `
pvcreate -q /dev/drbd0
vgcreate -q storage /dev/drbd0
lvcreate -q -y -l 75%FREE -n test storage
mkfs.ext4 -q /dev/storage/test
mkdir -p /mnt/test
mount /dev/storage/test /mnt/test
for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/mnt/test/file-$i bs=1M count=3 status=none; done
mkdir /mnt/test/folder; echo text > "/mnt/test/folder/a name with spaces"
ln -s ../file-1 /mnt/test/folder/link; touch -d 2001-02-03 /mnt/test/folder/old
sync`

// listing is the files with their content, owners, modes and times.
const listing = `mountpoint -q /mnt/test; cd /mnt/test; find . -type f -print0 | sort -z | xargs -0 sha256sum; find . ! -name lost+found -printf '%p %y %m %U %s %T@ %l\n' | sort`

// TestRunbook is the two-node guide's whole runbook with santui's agents on both nodes, for each front end that the lab's
// kernel can offer: full sync, LVM, a file system, the move to weasel and back, every byte compared.
func TestRunbook(t *testing.T) {
	t.Parallel()
	for _, front := range []string{"nbd", "fuse"} {
		t.Run(front, func(t *testing.T) { runbook(t, front) })
	}
}

func runbook(t *testing.T, front string) {
	p := newPair(t, Options{DiskSize: 128 << 20}, AgentOptions{FrontEnd: front, DRBDConf: GuideConf})
	p.sh(p.weasel, "mkdir -p /mnt/test")
	p.sh(p.otter, guideStack) // while the sync runs: the guide does not wait either
	p.synced("weasel")
	want := p.sh(p.otter, listing)
	if strings.Count(want, "\n") < 15 {
		t.Fatalf("the listing is too short to prove anything:\n%s", want)
	}
	notOnSecondary(p, p.weasel)

	p.failover("weasel")
	if got := p.sh(p.weasel, listing); got != want {
		t.Fatalf("files on weasel:\n%s\nwritten on otter:\n%s", got, want)
	}
	if out := p.sh(p.otter, "grep -c /mnt/test /proc/mounts || true; ls /dev/mapper"); out != "0\ncontrol" {
		t.Errorf("left on otter: %s", out)
	}
	notOnSecondary(p, p.otter)
	p.sh(p.weasel, "dd if=/dev/urandom of=/mnt/test/from-weasel bs=1M count=5 status=none; rm /mnt/test/file-2; sync")
	want = p.sh(p.weasel, listing)

	p.failover("otter")
	if got := p.sh(p.otter, listing); got != want {
		t.Fatalf("files back on otter:\n%s\nlast seen on weasel:\n%s", got, want)
	}
	notOnSecondary(p, p.weasel)
	p.sh(p.otter, "umount /mnt/test; vgchange -an storage")
	p.identical()
	for _, n := range p.l.Nodes() { // a judge that nobody here wrote, on each copy
		p.sh(n, `vgchange -qay --config 'devices{filter=["a|/dev/ubdb|","r|.*|"]}' storage && e2fsck -fn /dev/storage/test && vgchange -qan --config 'devices{filter=["a|/dev/ubdb|","r|.*|"]}' storage`)
	}
}

// notOnSecondary shows that neither the replicated device nor the disk behind it can be used beside replication.
func notOnSecondary(p *pair, n *Node) {
	p.t.Helper()
	p.sh(n, "mkdir -p /mnt/try")
	for what, script := range map[string]string{
		"reading /dev/drbd0":         "dd if=/dev/drbd0 of=/dev/null count=1 2>&1",
		"writing /dev/drbd0":         "dd if=/dev/zero of=/dev/drbd0 conv=nocreat count=1 2>&1",
		"mounting /dev/drbd0":        "mount -o ro /dev/drbd0 /mnt/try 2>&1",
		"mounting the backing disk":  "mount -t ext4 -o ro /dev/md3 /mnt/try 2>&1",
		"exclusive use of the disk":  "dmsetup create stolen --table '0 1000 linear /dev/ubdb 0' 2>&1",
		"activating it below santui": `vgchange -ay --config 'devices{filter=["a|/dev/ubdb|","r|.*|"]}' storage 2>&1 && ls /dev/storage/test`,
	} {
		if out, err := n.Sh(p.t.Context(), script); err == nil {
			p.t.Errorf("%s: %s worked: %s", n.Name(), what, out)
		}
	}
	p.sh(n, "! test -e /dev/mapper/storage-test && ! test -e /dev/mapper/stolen")
}
