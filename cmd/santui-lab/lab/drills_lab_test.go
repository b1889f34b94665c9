//go:build lab

package lab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// fioDrill fills a file with blocks that say what was written where, or reads them back.
const fioDrill = "cd /mnt/test && fio --name=d --filename=fio --filesize=8M --rw=randwrite --bs=4k --ioengine=psync --end_fsync=1 --verify=crc32c " +
	"--verify_fatal=1 --verify_state_save=0 --randseed=%d --output=/run/fio.out %s || { cat /run/fio.out; exit 1; }"

// TestLongDrills runs SANTUI_DRILLS (10) drills in a row. Before each fio writes new blocks, after it they are all read back from
// the disk; at the end every file and both disks are compared, and the report has every drill.
func TestLongDrills(t *testing.T) {
	t.Parallel()
	n := rounds(t, "SANTUI_DRILLS", 10)
	p := newPair(t, Options{DiskSize: 96 << 20}, AgentOptions{})
	p.sh(p.weasel, "mkdir -p /mnt/test")
	p.sh(p.otter, guideStack)
	p.synced("weasel")
	want := contents(p.sh(p.otter, listing))
	if strings.Count(want, "\n") < 6 {
		t.Fatalf("the listing is too short to prove anything:\n%s", want)
	}
	var took []float64
	for i := range n {
		p.sh(p.otter, fmt.Sprintf(fioDrill, i, "--do_verify=0"))
		p.until("nothing blocks a drill", time.Minute, func() (string, bool) {
			out, code := p.santui("drill", "--to", "weasel", "--confirm", PairName, "--dry-run")
			return out, code == 0
		})
		began := time.Now()
		p.do("drill", "--to", "weasel", "--confirm", PairName)
		took = append(took, time.Since(began).Seconds())
		p.sh(p.otter, "echo 3 >/proc/sys/vm/drop_caches; "+fmt.Sprintf(fioDrill, i, "--verify_only"))
	}
	p.sh(p.otter, "rm /mnt/test/fio")
	if got := contents(p.sh(p.otter, listing)); got != want {
		t.Errorf("files after %d drills:\n%s\nbefore:\n%s", n, got, want)
	}
	p.drillsIn("the history of otter", n, p.do("report", "--json"))
	machine(t)
	t.Logf("%d drills: median %.1f s, worst %.1f s\n%s", n, median(took), slices.Max(took), p.do("report"))
	p.sh(p.otter, "umount /mnt/test; vgchange -an storage")
	p.identical()
}

// drillsIn requires that a history has n drills, each done, with both outages measured.
func (p *pair) drillsIn(where string, n int, text string) {
	p.t.Helper()
	var history struct {
		Ops []proto.Op `json:"ops"`
	}
	if err := json.Unmarshal([]byte(text), &history); err != nil {
		p.t.Fatal(err)
	}
	done := 0
	for _, o := range history.Ops {
		if o.Plan.Verb == proto.VerbDrill && o.State == proto.OpDone && len(o.Outages) == 2 {
			done++
		}
	}
	if done != n {
		p.t.Errorf("%s has %d drills that are done, not %d", where, done, n)
	}
}

// contents are the lines of a listing that tell what is in the files.
func contents(listing string) string {
	lines := strings.Split(listing, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return !strings.Contains(l, "  ./") }), "\n")
}
