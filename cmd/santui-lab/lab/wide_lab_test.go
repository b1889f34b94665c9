//go:build lab

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// TestLongWideChecks measures the checks of 50 logical volumes and 2,000 processes, how long writes wait meanwhile, and what the
// agents take of a core while nothing happens. It prints these numbers and judges what the checks say: how fast they were
// depends on what else this machine does.
func TestLongWideChecks(t *testing.T) {
	p := newPair(t, Options{DiskSize: 320 << 20, Memory: "1024M"}, AgentOptions{})
	p.sh(p.weasel, "mkdir -p /mnt/test")
	p.synced("weasel")
	bare := p.idle("an empty device")
	p.sh(p.otter, `pvcreate -q /dev/drbd0; vgcreate -q --setautoactivation n storage /dev/drbd0
lvcreate -q -y -L 64M -n test storage; for i in $(seq 49); do lvcreate -q -y -L 4M -n lv$i storage; done
mkfs.ext4 -q /dev/storage/test; mkdir -p /mnt/test; mount /dev/storage/test /mnt/test`)
	p.synced("weasel")
	p.sh(p.otter, `cat >/run/many <<'E'
i=0; while [ $i -lt 2000 ]; do busybox sleep 100000 & i=$((i+1)); done; wait
E
setsid sh /run/many >/dev/null 2>&1 </dev/null &`)
	p.until("2,000 processes run", 10*time.Minute, func() (string, bool) {
		n, err := strconv.Atoi(p.sh(p.otter, "ls /proc | grep -c '^[0-9]'"))
		return fmt.Sprint(n, err), n > 2000
	})
	full := p.idle("50 volumes and 2,000 processes")
	weasel := p.cockpit(p.weasel)
	look := func() (took float64) {
		began := time.Now()
		var l proto.CheckList
		if err := weasel.Call(t.Context(), proto.MethodCheck, proto.CheckRequest{Verb: proto.VerbFailover, To: "weasel"}, &l); err != nil {
			t.Fatal(err)
		}
		took = time.Since(began).Seconds()
		if bad := l.Blocking(); len(bad) > 1 || len(bad) == 1 && bad[0].Code != proto.CheckBusyProc { // fio's
			t.Errorf("%s", strings.Join(unwell(bad), "\n"))
		}
		return took
	}
	p.sh(p.otter, "lvcreate -q -y -L 4M -n late storage") // nothing of what was found before counts any more
	changed := look()
	var took, whole, start []float64
	before := []float64{p.cpu(p.otter), p.cpu(p.weasel)}
	for range 9 {
		took = append(took, look())
		began := time.Now()
		p.checks("weasel")
		whole = append(whole, time.Since(began).Seconds())
		began = time.Now()
		p.do("ops") // the command's start, ssh to both nodes, and a question that takes no look
		start = append(start, time.Since(began).Seconds())
	}
	for i, n := range []*Node{p.otter, p.weasel} {
		t.Logf("processor time of a check on %s, as its kernel counts: %.2f s", n.Name(), (p.cpu(n)-before[i])/float64(len(took)+len(whole)))
	}
	alone := p.writer(nil)
	beside := p.writer(func() { look() })
	p.sh(p.otter, "setsid sh -c 'cd /mnt/test && exec busybox sleep 4242' >/dev/null 2>&1 </dev/null & sleep 1")
	if out, code := p.santui("check", "--to", "weasel"); code != 3 || !strings.Contains(out, "/mnt/test") {
		t.Errorf("one process of 2,001 works in /mnt/test: exit %d\n%s", code, out)
	}
	machine(t)
	for i, n := range []*Node{p.otter, p.weasel} {
		t.Logf("while idle the discovery of this stack takes %s another %+.2f %% of a core: %.2f %% with it, %.2f %% without, which is for links, engine and timers",
			n.Name(), full[i]-bare[i], full[i], bare[i])
	}
	t.Logf("checks over 50 volumes and 2,000 processes: agent's answer median %.2f s, worst %.2f s, after a new volume %.2f s",
		median(took), slices.Max(took), changed)
	t.Logf("command line median %.2f s, worst %.2f s, of which start and connecting take %.2f s, worst %.2f s",
		median(whole), slices.Max(whole), median(start), slices.Max(start))
	t.Logf("a writer of synced blocks: %s alone, %s beside checks without a pause", alone, beside)
}

// cockpit opens a session to a node's agent, as the cockpit does.
func (p *pair) cockpit(n *Node) *session.Session {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	s, err := p.l.cockpit(ctx, n)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = s.Close() })
	return s
}

// writer writes and syncs blocks on otter for some seconds while it calls f again and again, and says how long they took.
func (p *pair) writer(f func()) string {
	p.t.Helper()
	const fio = "cd /mnt/test && fio --name=w --filename=w --filesize=8M --rw=randwrite --bs=4k --ioengine=psync --sync=1 --time_based --runtime=10 --output-format=json"
	done := make(chan string, 1)
	go func() {
		out, err := p.otter.Sh(p.t.Context(), fio)
		if err != nil {
			out = err.Error() + out
		}
		done <- out
	}()
	for {
		select {
		case out := <-done:
			var r struct {
				Jobs []struct {
					Write struct {
						IOs  int64 `json:"total_ios"`
						Clat struct {
							Mean, Max  float64
							Percentile map[string]float64
						} `json:"clat_ns"`
					}
				}
			}
			if err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "{")):]), &r); err != nil || len(r.Jobs) != 1 || r.Jobs[0].Write.IOs == 0 {
				p.t.Fatalf("fio: %v\n%s", err, out)
			}
			w := r.Jobs[0].Write
			return fmt.Sprintf("%d writes, mean %.1f ms, p99 %.1f ms, worst %.0f ms", w.IOs, w.Clat.Mean/1e6, w.Clat.Percentile["99.000000"]/1e6, w.Clat.Max/1e6)
		default:
			if f != nil {
				f()
			} else {
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
}

// usage is the processor time, in seconds, that a node's agent has used, and the programs that it has run (proc(5)), and how often
// a thread of the agent has waited for something.
type usage struct{ own, programs, waits float64 }

func (p *pair) usage(n *Node) usage {
	p.t.Helper()
	f := strings.Fields(p.sh(n, `P=/proc/$(cat /run/santui-agent.pid); cut -d' ' -f14-17 $P/stat; getconf CLK_TCK; cat $P/task/*/status | awk '/^voluntary/ { n += $2 } END { print n }' `))
	v := make([]float64, 6)
	for i := range v {
		var err error
		if v[i], err = strconv.ParseFloat(f[i], 64); err != nil {
			p.t.Fatal(err)
		}
	}
	return usage{own: (v[0] + v[1]) / v[4], programs: (v[2] + v[3]) / v[4], waits: v[5]}
}

func (p *pair) cpu(n *Node) float64 {
	u := p.usage(n)
	return u.own + u.programs
}

// idle logs what the agents use of a core while nothing happens, and returns it for each node in percent.
func (p *pair) idle(what string) (percent []float64) {
	p.t.Helper()
	const wait = 60 * time.Second
	time.Sleep(10 * time.Second) // what was begun comes to its end
	began := time.Now()
	before := []usage{p.usage(p.otter), p.usage(p.weasel)}
	time.Sleep(wait)
	for i, n := range []*Node{p.otter, p.weasel} {
		now, s := p.usage(n), time.Since(began).Seconds()
		own, programs := 100*(now.own-before[i].own)/s, 100*(now.programs-before[i].programs)/s
		p.t.Logf("idle with %s: %s uses %.2f %% of a core (the agent %.2f, its programs %.2f; %.0f waits a second)", what, n.Name(), own+programs, own, programs,
			(now.waits-before[i].waits)/s)
		percent = append(percent, own+programs)
	}
	return percent
}
