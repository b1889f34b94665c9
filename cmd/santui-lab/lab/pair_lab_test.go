//go:build lab

package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// pair is a lab in which santui's agents run on both nodes, worked by the host's santui.
type pair struct {
	t             *testing.T
	l             *Lab
	otter, weasel *Node
	config        string
	usable        int64 // bytes of the replicated device
}

// newPair boots a lab, starts the agents on fresh metadata and begins the first full sync from otter.
func newPair(t *testing.T, o Options, agents AgentOptions) *pair {
	t.Helper()
	ctx := t.Context()
	l := ForTest(t, o)
	p := &pair{t: t, l: l, otter: l.Node("otter"), weasel: l.Node("weasel")}
	var err error
	if p.config, err = l.CockpitConfig(); err != nil {
		t.Fatal(err)
	}
	agents.Binary, agents.CreateMD = cmp.Or(agents.Binary, built("santui-agent")), true
	if err := l.InstallAgents(ctx, agents); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		if err := n.StartAgent(ctx); err != nil {
			t.Fatal(err)
		}
	}
	size := o.DiskSize
	if size == 0 {
		size = DefaultDiskSize
	}
	layout, err := meta.LayoutFor(size)
	if err != nil {
		t.Fatal(err)
	}
	p.usable = layout.UsableSize
	p.until("the first sync starts", 30*time.Second, func() (string, bool) {
		out, code := p.santui("sync", "start", "--from", "otter", "--confirm", PairName)
		return out, code == 0
	})
	p.until("/dev/drbd0 appears on otter", 10*time.Second, func() (string, bool) {
		out, err := p.otter.Sh(ctx, "blockdev --getsize64 /dev/drbd0 2>&1")
		return out, err == nil
	})
	return p
}

// until polls a condition; what it said last explains a failure.
func (p *pair) until(what string, limit time.Duration, ok func() (string, bool)) {
	p.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		said, done := ok()
		if done {
			return
		}
		if time.Now().After(deadline) || p.t.Context().Err() != nil {
			p.t.Fatalf("%s: not within %v: %s\n%s", what, limit, said, p.logs())
		}
	}
}

func (p *pair) logs() string {
	ctx := context.WithoutCancel(p.t.Context())
	return "agent of otter:\n" + p.otter.AgentLog(ctx) + "\nagent of weasel:\n" + p.weasel.AgentLog(ctx)
}

// santui runs the host's santui over the pair and returns what it printed and its exit code.
func (p *pair) santui(args ...string) (string, int) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), built("santui"), append([]string{"--config", p.config}, args...)...)
	var both strings.Builder
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("santui %v: %v", args, err)
	}
	return both.String(), cmd.ProcessState.ExitCode()
}

// do is santui for a command that must succeed.
func (p *pair) do(args ...string) string {
	p.t.Helper()
	out, code := p.santui(args...)
	if code != 0 {
		p.t.Fatalf("santui %s: exit %d\n%s\n%s", strings.Join(args, " "), code, out, p.logs())
	}
	return out
}

// failover moves the service and requires that it worked.
func (p *pair) failover(to string) {
	p.t.Helper()
	p.until("nothing blocks a move to "+to, 30*time.Second, func() (string, bool) {
		bad := p.checks(to).Blocking()
		return strings.Join(unwell(bad), ""), len(bad) == 0
	})
	began := time.Now()
	p.do("failover", "--to", to, "--confirm", PairName)
	p.t.Logf("failover to %s took %.1f s", to, time.Since(began).Seconds())
}

// checks evaluates the checks of a move. An agent that was restarted a moment ago gets time to answer.
func (p *pair) checks(to string) proto.CheckList {
	p.t.Helper()
	var l proto.CheckList
	p.until("the agent of "+to+" answers", 30*time.Second, func() (string, bool) {
		out, code := p.santui("check", "--to", to, "--json")
		if code == 5 {
			return out, false
		}
		l = proto.CheckList{}
		if err := json.Unmarshal([]byte(out), &l); err != nil || (code != 0 && code != 3) {
			p.t.Fatalf("check --to %s: exit %d, %v\n%s", to, code, err, out)
		}
		return "", true
	})
	return l
}

// synced waits until nothing is out of sync.
func (p *pair) synced(to string) {
	p.t.Helper()
	began := time.Now()
	p.until("the pair is in sync", time.Minute, func() (string, bool) {
		var bad []string
		for _, c := range p.checks(to).Checks {
			if c.Result != proto.CheckOK && (c.Code == proto.CheckSync || c.Code == proto.CheckDisk || c.Code == proto.CheckLink || c.Code == proto.CheckAgents) {
				bad = append(bad, c.Code+": "+strings.Join(c.Evidence, ", "))
			}
		}
		return strings.Join(bad, "; "), len(bad) == 0
	})
	p.t.Logf("in sync after %.1f s", time.Since(began).Seconds())
}

// sh runs a script in a node and requires that it worked.
func (p *pair) sh(n *Node, script string) string {
	p.t.Helper()
	out, err := n.Sh(p.t.Context(), script)
	if err != nil {
		p.t.Fatalf("%v\n%s\n%s", err, out, p.logs())
	}
	return out
}

// identical stops both agents and compares the two disks, byte by byte, up to the metadata.
func (p *pair) identical() {
	p.t.Helper()
	ctx := p.t.Context()
	for _, n := range p.l.Nodes() {
		if err := n.StopAgent(ctx); err != nil {
			p.t.Fatalf("%v\n%s", err, n.AgentLog(ctx))
		}
	}
	if err := CompareDisks(ctx, p.otter, p.weasel, p.usable); err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("%d bytes identical on both disks", p.usable)
}
