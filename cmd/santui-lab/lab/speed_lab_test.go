//go:build lab

package lab

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// These tests print numbers and judge only what was done: how fast it was depends on what else the machine does.

// rounds is how often a long test repeats itself.
func rounds(t *testing.T, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of rounds", name, text)
	}
	return n
}

func machine(t *testing.T) {
	t.Helper()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("load of this machine: %s", load)
}

// TestLongFailoverSpeed moves the guide's stack there and back, with santui and by bare commands in a script with the
// kernel's DRBD.
func TestLongFailoverSpeed(t *testing.T) {
	n := rounds(t, "SANTUI_MOVES", 3)
	var bare, service, whole []float64
	t.Run("kernel", func(t *testing.T) {
		l, a, _ := kernelPair(t, DRBDConf{Disk: "/dev/md3"}, 128<<20)
		nodes := []*Node{a.node, l.Node("weasel")}
		if _, err := nodes[1].Sh(t.Context(), "mkdir -p /mnt/test"); err != nil {
			t.Fatal(err)
		}
		if out, err := nodes[0].Sh(t.Context(), guideStack); err != nil {
			t.Fatal(err, out)
		}
		for i := range 2 * n {
			from, to := nodes[i%2], nodes[1-i%2]
			began := time.Now()
			if out, err := from.Sh(t.Context(), "umount /mnt/test && vgchange -an storage && drbdadm secondary r0"); err != nil {
				t.Fatal(err, out)
			}
			if out, err := to.Sh(t.Context(), "drbdadm primary r0 && vgchange -ay storage && mount /dev/storage/test /mnt/test"); err != nil {
				t.Fatal(err, out)
			}
			bare = append(bare, time.Since(began).Seconds())
		}
	})
	t.Run("santui", func(t *testing.T) {
		p := newPair(t, Options{DiskSize: 128 << 20}, AgentOptions{})
		p.sh(p.weasel, "mkdir -p /mnt/test")
		p.sh(p.otter, strings.Replace(guideStack, "vgcreate -q ", "vgcreate -q --setautoactivation n ", 1))
		p.synced("weasel")
		for i := range 2 * n {
			to := []string{"weasel", "otter"}[i%2]
			p.until("nothing blocks a move to "+to, 30*time.Second, func() (string, bool) {
				bad := p.checks(to).Blocking()
				return strings.Join(unwell(bad), ""), len(bad) == 0
			})
			began := time.Now()
			out := p.do("failover", "--to", to, "--confirm", PairName, "--json")
			whole = append(whole, time.Since(began).Seconds())
			var o proto.Op
			if err := json.Unmarshal([]byte(out), &o); err != nil {
				t.Fatal(err)
			}
			service = append(service, o.Outage)
			if i == 0 {
				t.Log(p.do("report", o.ID))
			}
		}
	})
	if len(bare) != 2*n || len(whole) != 2*n {
		t.Fatal("not everything was measured")
	}
	machine(t)
	t.Logf("medians of %d moves: the script's commands %.2f s; santui's service outage %.2f s (%.2f times), command line with its checks %.2f s (%.2f times)",
		2*n, median(bare), median(service), median(service)/median(bare), median(whole), median(whole)/median(bare))
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
