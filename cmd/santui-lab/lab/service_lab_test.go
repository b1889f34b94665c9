//go:build lab

package lab

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// serviceSettings is what agent.toml says of the service on both nodes.
const serviceSettings = `[resource.r0]
units = ["writer.service"]
keep = ["/srv"]
[[resource.r0.scripts]]
name = "app"
stop = ["/usr/local/sbin/app", "stop"]
start = ["/usr/local/sbin/app", "start"]
limit = 20
[[resource.r0.address]]
address = "10.0.0.100/24"
interface = "eth0"
[[resource.r0.exports]]
path = "/mnt/test"
client = "10.0.0.0/24"
options = "rw,sync,no_subtree_check,no_root_squash,fsid=0"
`

// serviceNode prepares a node. There is no systemd in the lab: systemctl is a fake that keeps ActiveState in /run/units and
// whose unit is a real process, in the cgroup that systemd would have put it into, with the mount as its directory. The
// script writes to the mount, so it fails where it is run without. The NFS server is the kernel's.
const serviceNode = `set -e
mkdir -p /run/systemd/system /run/units /sys/fs/cgroup
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/system.slice/writer.service
echo inactive >/run/units/writer.service
cat >/usr/sbin/systemctl <<'X'
#!/bin/sh
U=/run/units/writer.service C=/sys/fs/cgroup/system.slice/writer.service/cgroup.procs
case $1 in
show) printf 'LoadState=loaded\nActiveState=%s\nUnitFileState=disabled\n' "$(cat $U)";;
start)
	if [ -e $U.fails ]; then echo failed >$U; echo "Job for $2 failed." >&2; exit 1; fi
	setsid sh -c "echo \$\$ >$C; echo \$\$ >$U.pid; cd /mnt/test; exec sleep 100000" </dev/null >/dev/null 2>&1 &
	while [ "$(readlink /proc/$(cat $U.pid 2>/dev/null)/cwd)" != /mnt/test ]; do sleep 0.05; done
	echo active >$U;;
stop)
	kill $(cat $U.pid); while kill -0 $(cat $U.pid) 2>/dev/null; do sleep 0.05; done
	rm $U.pid; echo inactive >$U;;
esac
X
cat >/usr/local/sbin/app <<'X'
#!/bin/sh
[ $1 = start ] || [ ! -e /run/app.fails ] || { echo "the app does not $1" >&2; exit 4; }
mountpoint -q /mnt/test && echo "$SANTUI_ACTION on $SANTUI_NODE of $SANTUI_RESOURCE, $SANTUI_DEVICE" >>/mnt/test/.app.log
X
chmod 755 /usr/sbin/systemctl /usr/local/sbin/app
modprobe nfsd
mount -t nfsd none /proc/fs/nfsd
sysctl -q fs.leases-enable=0
mkdir -p /var/lib/nfs /run/rpc_pipefs
: >/var/lib/nfs/etab
echo 1 >/proc/fs/nfsd/nfsv4gracetime || true
rpc.nfsd --no-nfs-version 3 --no-udp 2
rpc.mountd --no-nfs-version 3
`

// serviceRig is a pair whose service has all that agent.toml can name: a real process, the real exportfs and kernel server
// with a client on weasel, a real address.
type serviceRig struct{ *verbRig }

func newServiceRig(t *testing.T) serviceRig {
	t.Helper()
	g := serviceRig{newVerbRig(t, rigOptions{settings: serviceSettings})}
	for _, n := range g.l.Nodes() {
		g.sh(n, serviceNode)
	}
	g.sh(g.otter, `exportfs -o rw,sync,no_subtree_check,no_root_squash,fsid=0 10.0.0.0/24:/mnt/test
systemctl start writer.service; SANTUI_ACTION=begin app start; ip addr add 10.0.0.100/24 dev eth0`)
	g.sh(g.weasel, "mkdir -p /mnt/client; modprobe nfs; modprobe nfsv4 || true; mount -t nfs4 -o timeo=10,actimeo=0 10.0.0.100:/ /mnt/client")
	g.here(g.otter)
	return g
}

// here demands all of the service on one node and none of it on the other, and that the client reads through the address.
func (g serviceRig) here(n *Node) {
	g.t.Helper()
	other := g.otter
	if n == other {
		other = g.weasel
	}
	g.sh(n, `ip -o addr show dev eth0 | grep -q 10.0.0.100/24; [ "$(cat /run/units/writer.service)" = active ]; [ "$(readlink /proc/$(cat /run/units/writer.service.pid)/cwd)" = /mnt/test ]
exportfs -v | grep -A1 '^/mnt/test' | grep -q fsid=0`)
	if out := g.sh(other, `ip -o addr show | grep 10.0.0.100 || true; grep -v -e inactive -e failed /run/units/writer.service || true; exportfs -v`); strings.TrimSpace(out) != "" {
		g.t.Errorf("%s still has %s", other.Name(), out)
	}
	g.onService(n)
	g.sh(g.weasel, `timeout 60 sh -c 'until [ "$(head -c5 /mnt/client/.app.log)" = begin ]; do sleep 0.2; done'`)
}

// neighbour is what the host's end of the data link believes of the service address.
func (g serviceRig) neighbour() string {
	g.t.Helper()
	out, err := exec.CommandContext(g.t.Context(), "ip", "netns", "exec", g.l.Namespace(), "ip", "neigh", "show", "10.0.0.100").CombinedOutput()
	if err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// TestService moves the whole service there and back.
func TestService(t *testing.T) {
	t.Parallel()
	g := newServiceRig(t)
	// The host's end of the link gets to know otter as the address, so that only an announcement can tell it better.
	_ = exec.CommandContext(t.Context(), "ip", "netns", "exec", g.l.Namespace(), "timeout", "5", "bash", "-c", "</dev/tcp/10.0.0.100/22").Run()
	if n := g.neighbour(); !strings.Contains(n, macAddr(0, 0)) {
		t.Errorf("the neighbour does not know otter: %q", n)
	}
	g.patient("failover", "--to", "weasel", "--confirm", PairName)
	if n := g.neighbour(); !strings.Contains(n, macAddr(0, 1)) {
		t.Errorf("the neighbour was not told: %q", n)
	}
	g.here(g.weasel)

	t.Log("back, step by step on a terminal")
	cmd := exec.CommandContext(t.Context(), "script", "-qec", g.santui+" --config "+g.conf+" failover --to otter --step --confirm "+PairName, "/dev/null")
	cmd.Stdin = strings.NewReader(strings.Repeat("\n", 40))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "resume (return), undo?") != 15 {
		t.Errorf("%v\n%s", err, out)
	}
	g.here(g.otter)
	if log := g.sh(g.otter, "cat /mnt/test/.app.log"); !strings.Contains(log, "stop on otter of r0, /dev/drbd0\nstart on weasel of r0, /dev/drbd0\n") {
		t.Errorf("the script's log:\n%s", log)
	}
	g.sh(g.weasel, "umount /mnt/client")
}

// TestLongServiceFaults makes every check of the service real, and lets a unit and a script fail.
func TestLongServiceFaults(t *testing.T) {
	t.Parallel()
	g := newServiceRig(t)
	for _, c := range []struct{ code, make, undo, want string }{
		{"ADDRESS", "ip addr add 10.0.0.100/32 dev eth1", "ip addr del 10.0.0.100/32 dev eth1", "is on weasel (eth1), where the service is not"},
		{"UNITS", "echo active >/run/units/writer.service", "echo inactive >/run/units/writer.service", "writer.service is active on weasel"},
		{"UNITS", "rmdir /run/systemd/system", "mkdir /run/systemd/system", "systemd does not run on this node"},
		{"SCRIPTS", "chmod go+w /usr/local/sbin/app", "chmod go-w /usr/local/sbin/app", "others than root may write to /usr/local/sbin/app"},
		{"EXPORTS", "mount --bind /dev/null /usr/sbin/exportfs", "umount /usr/sbin/exportfs", "program is not installed"},
	} {
		g.sh(g.weasel, c.make)
		g.must(3, []string{"failover", "--to", "weasel", "--confirm", PairName}, c.code, c.want)
		g.sh(g.weasel, c.undo)
	}
	g.sh(g.otter, "exportfs -o ro 10.0.0.9:/mnt/test")
	g.must(3, []string{"failover", "--to", "weasel", "--confirm", PairName}, "BUSY-NFS", "10.0.0.9")
	g.sh(g.otter, "exportfs -u 10.0.0.9:/mnt/test")
	g.changeSettings(g.weasel, strings.Replace(serviceSettings, `keep = ["/srv"]`, `keep = ["/mnt/test"]`, 1))
	g.must(3, []string{"failover", "--to", "weasel", "--confirm", PairName}, "SERVICE-DRIFT", "KEEP")
	g.changeSettings(g.weasel, serviceSettings)
	g.here(g.otter)

	t.Log("a unit that does not start, a script that does not stop: all is back where it was")
	for _, f := range []struct {
		node     *Node
		file, in string
	}{{g.weasel, "/run/units/writer.service.fails", "Job for writer.service failed"}, {g.otter, "/run/app.fails", "the app does not stop"}} {
		g.sh(f.node, "touch "+f.file)
		g.until(60*time.Second, "nothing blocks", func() bool {
			out, code := g.run("failover", "--to", "weasel", "--confirm", PairName)
			if code == 3 { // a busy machine
				t.Log(out)
				return false
			}
			if code != 6 || !strings.Contains(out, f.in) {
				t.Fatalf("exit %d, want 6, and %q:\n%s", code, f.in, out)
			}
			return true
		})
		g.sh(f.node, "rm "+f.file)
		g.here(g.otter)
	}
	g.sh(g.weasel, "umount /mnt/client")
}

// changeSettings gives a node other settings and starts its agent anew.
func (g *verbRig) changeSettings(n *Node, more string) {
	g.t.Helper()
	if err := n.StopAgent(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	text := g.sh(n, "sed '/^.resource/,$d' "+agentConfig)
	if err := n.WriteFile(g.t.Context(), agentConfig, []byte(text+"\n"+more), 0o600); err != nil {
		g.t.Fatal(err)
	}
	g.startAgain(n)
	g.whole()
}
