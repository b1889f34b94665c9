package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"github.com/charmbracelet/x/exp/golden"
	"pgregory.net/rapid"
)

var begin = time.Date(2026, 11, 22, 14, 2, 15, 0, time.UTC)

// record writes down an operation step by step, as an agent would.
type record struct {
	op proto.Op
	at time.Time
}

func (r *record) step(kind proto.StepKind, node string, seconds float64, argv ...string) *proto.StepStatus {
	s := proto.StepStatus{Step: proto.Step{Index: len(r.op.Steps) + 1, Kind: kind, Node: node, Resource: "r0", Argv: argv}}
	s.Result = proto.StepResult{State: proto.StepDone, Started: r.at, Seconds: seconds}
	s.Result.Commands = []proto.Execution{{Node: node, Argv: argv, Started: r.at, Seconds: seconds, Output: []string{"  done by " + argv[0]}}}
	r.at = r.at.Add(duration(seconds))
	r.op.Steps = append(r.op.Steps, s)
	return &r.op.Steps[len(r.op.Steps)-1]
}

func newRecord(id string, verb proto.Verb, at time.Time) *record {
	return &record{at: at, op: proto.Op{
		ID: id, Plan: proto.Plan{Verb: verb, Pair: "store-1", Resource: "r0", From: "otter", To: "weasel"}, PlanHash: "0123456789ab",
		Owner: "root@laptop", Runner: "weasel", Started: at, State: proto.OpDone,
		Versions: map[string]string{"weasel": "agent 0.2, kernel 6.1.0", "otter": "agent 0.2, kernel 6.1.0"},
		Checks:   proto.CheckList{Checks: []proto.Check{{Code: proto.CheckSync, Result: proto.CheckOK}}},
	}}
}

// drill is a drill whose second move is the slower one.
func drill(id, vg string, at time.Time, slow float64) proto.Op {
	r := newRecord(id, proto.VerbDrill, at)
	for i, n := range [][2]string{{"otter", "weasel"}, {"weasel", "otter"}} {
		x := proto.Outage{From: n[0], To: n[1], Began: r.at}
		r.step(proto.StepUnmount, n[0], 0.4, "umount", "/srv/"+vg)
		r.step(proto.StepDeactivate, n[0], 0.3, "vgchange", "--devices", "/dev/drbd0", "-an", vg)
		r.step(proto.StepPromote, n[1], 0.2, "drbdadm", "primary", "r0").Result.Now = "r0 is Primary on " + n[1]
		r.step(proto.StepActivate, n[1], slow*float64(i+1), "vgchange", "--devices", "/dev/drbd0", "-ay", vg)
		r.step(proto.StepMount, n[1], 0.25, "mount", "/dev/"+vg+"/test", "/srv/"+vg)
		x.Service = r.at.Sub(x.Began).Seconds()
		x.LastWrite, x.Storage = x.Began.Add(10*time.Millisecond), x.Service+0.03
		r.op.Outages = append(r.op.Outages, x)
		r.at = r.at.Add(500 * time.Millisecond)
	}
	r.op.Outage, r.op.Ended, r.op.Outcome = r.op.Outages[1].Service, r.at, "there and back: r0 is Primary on otter"
	r.op.Accepted = []string{proto.CheckBusyProc}
	r.op.Checks.Checks = append(r.op.Checks.Checks,
		proto.Check{Code: proto.CheckBusyProc, Node: "otter", Result: proto.CheckFail, Evidence: []string{"sleep (pid 12) has its cwd in /srv/" + vg}},
		proto.Check{Code: proto.CheckClock, Result: proto.CheckWarn, Evidence: []string{"the clocks differ by 3 s"}})
	return r.op
}

// takeover is one that failed at its last step and went back.
func takeover(vg string) proto.Op {
	r := newRecord("20261122-150000-beef", proto.VerbTakeover, begin.Add(time.Hour))
	r.op.State, r.op.Outcome, r.op.Statement = proto.OpUndone, "undone: weasel is Secondary again", "powered off at the rack"
	r.op.AtRisk = []string{"weasel was last identical to otter at 14:58:11", "4096 bytes are known to differ"}
	r.op.Steps = append(r.op.Steps, proto.StepStatus{Step: proto.Step{Index: 1, Kind: proto.StepUnmount, Node: "otter", Argv: []string{"umount", "/srv/" + vg}},
		Result: proto.StepResult{State: proto.StepSkipped, Now: "otter does not answer"}})
	promote := r.step(proto.StepPromote, "weasel", 0.2, "drbdadm", "primary", "r0")
	promote.Result.Output = []string{"/dev/mapper/x is left on the device of an agent that died"}
	promote.Step.UndoKind, promote.Step.Undo = proto.StepDemote, []string{"drbdadm", "secondary", "r0"}
	fail := r.step(proto.StepActivate, "weasel", 30, "vgchange", "-ay", vg)
	fail.Result.State, fail.Result.Err = proto.StepFailed, proto.Errorf(proto.CodeTimeout, "vgchange of %s took too long", vg).On("weasel")
	r.op.Steps[1].Undo = proto.StepResult{State: proto.StepUndone, Started: r.at.Add(time.Second), Seconds: 0.1}
	r.op.Ended = r.at.Add(2 * time.Second)
	r.op.Outages = []proto.Outage{{From: "otter", To: "weasel", Began: r.op.Started, Service: 30.2}}
	return r.op
}

// nasty are names and output that want to be markup somewhere.
var nasty = []string{"<script>alert(1)</script>", "a|b", "`x`", "```", "\"><img src=x onerror=y>", "</pre></svg>", "[x](http://evil)", "# *x* _y_ ~~z~~", "a\nb\x1b[2J",
	"]]>", "&lt;b&gt;", "{{.}}", "'; drop", "\\|", "-->", "größe 日本", strings.Repeat("x", 300)}

func pages() map[string]Page {
	hostile := drill("20261122-140215-0001", nasty[0], begin, 0.5)
	for i, s := range nasty {
		st := &hostile.Steps[i%len(hostile.Steps)]
		st.Result.Commands[0].Output = append(st.Result.Commands[0].Output, s)
		st.Result.Now = s
	}
	hostile.Owner, hostile.Outcome, hostile.AtRisk = nasty[1]+nasty[0], nasty[6], nasty
	ops := []proto.Op{takeover("storage")}
	for i := range 5 {
		ops = append(ops, drill(fmt.Sprintf("20261121-14021%d-0002", 5-i), "storage", begin.Add(-time.Duration(i)*24*time.Hour), 0.5+float64(i*i%3)))
	}
	return map[string]Page{
		"drill":    Operation(proto.Report{Op: drill("20261122-140215-0001", "storage", begin, 0.5)}, time.UTC),
		"takeover": Operation(proto.Report{Op: takeover("storage")}, time.UTC),
		"hostile":  Operation(proto.Report{Op: hostile}, time.UTC),
		"history":  History("store-1", ops, time.UTC),
		"empty":    History("store-1", nil, time.UTC),
	}
}

func (p Page) in(t interface{ Fatal(...any) }, format string) string {
	var b bytes.Buffer
	if err := p.Write(&b, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	for name, p := range pages() {
		for _, format := range []string{Text, Markdown, HTML} {
			t.Run(name+"."+format, func(t *testing.T) { golden.RequireEqual(t, []byte(p.in(t, format))) })
		}
	}
}

// TestJSON keeps the shape of the agents' own values, which are the fourth format.
func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := cli.PrintJSON(&b, proto.Report{Schema: proto.Schema, Op: takeover("<storage>")}); err != nil {
		t.Fatal(err)
	}
	golden.RequireEqual(t, b.Bytes())
}

// inert demands that an HTML page is well-formed, made of a few known elements, and loads and runs nothing.
func inert(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, page string) {
	known := strings.Fields("html head meta title style body h1 h2 dl dt dd table tr th td pre svg rect line text")
	for d := xml.NewDecoder(strings.NewReader(page)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, page)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		if !slices.Contains(known, e.Name.Local) {
			t.Fatalf("element %s", e.Name.Local)
		}
		for _, a := range e.Attr {
			if a.Name.Local == "style" || a.Name.Local == "href" || a.Name.Local == "src" || strings.HasPrefix(a.Name.Local, "on") {
				t.Fatalf("%s has %s=%q", e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
}

// tame demands of Markdown that every table keeps its number of columns, no fence ends early, and no HTML is in the text.
func tame(t interface{ Fatalf(string, ...any) }, page string) {
	fenced, columns := "", 0
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		ticks := strings.HasPrefix(line, "```") && strings.Trim(line, "`") == ""
		switch {
		case fenced == "" && ticks:
			fenced = line
		case fenced != "" && line == fenced:
			fenced = ""
		case fenced != "" && ticks && len(line) >= len(fenced):
			t.Fatalf("a fence of %s ends with %s", fenced, line)
		case fenced != "":
		case strings.ContainsAny(line, "<>"), strings.Contains(line, "http://"):
			t.Fatalf("markup: %s", line)
		case strings.HasPrefix(line, "|"):
			n := 0
			for i := range len(line) {
				back := len(line[:i]) - len(strings.TrimRight(line[:i], `\`))
				if line[i] == '|' && back%2 == 0 {
					n++
				}
			}
			if columns != 0 && n != columns {
				t.Fatalf("%d bars instead of %d: %s", n, columns, line)
			}
			columns = n
			continue
		}
		columns = 0
	}
	if fenced != "" {
		t.Fatalf("a fence stays open")
	}
}

func TestHostileText(t *testing.T) {
	for name, p := range pages() {
		inert(t, p.in(t, HTML))
		tame(t, p.in(t, Markdown))
		if text := p.in(t, Text); strings.ContainsAny(text, "\x1b\t\r") {
			t.Errorf("%s: control characters in %q", name, text)
		}
	}
	if page := pages()["hostile"].in(t, HTML); !strings.Contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;") || strings.Contains(page, "<script") {
		t.Error("the hostile name is not there, or not escaped")
	}
}

func TestAnyTextStaysText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.SampledFrom(nasty), rapid.String())
		draw := func(l string) string { return part.Draw(t, l) + part.Draw(t, l) }
		o := drill("20261122-140215-0001", draw("vg"), begin, 0.5)
		o.Owner, o.Outcome, o.State, o.Plan.From = draw("owner"), draw("outcome"), proto.OpState(draw("state")), draw("from")
		o.Steps[0].Result.Err = proto.Errorf(proto.CodeFailed, "%s", draw("err"))
		o.Steps[1].Result.Commands[0].Output = []string{draw("out"), draw("out")}
		p := Operation(proto.Report{Op: o}, time.UTC)
		inert(t, p.in(t, HTML))
		tame(t, p.in(t, Markdown))
	})
}

func TestTrends(t *testing.T) {
	service := func(s ...float64) (ops []proto.Op) { // newest first
		for _, x := range s {
			ops = append(ops, proto.Op{State: proto.OpDone, Plan: proto.Plan{Verb: proto.VerbFailover}, Outages: []proto.Outage{{Service: x}}})
		}
		return ops
	}
	for _, tt := range []struct {
		ops  []proto.Op
		want Spread
	}{
		{service(3), Spread{3, 3, 3, 3}},
		{service(5, 1), Spread{1, 3, 5, 5}},
		{service(2, 9, 1), Spread{1, 2, 9, 2}},
		{append(service(2, 9, 1, 4), proto.Op{State: proto.OpUndone, Plan: proto.Plan{Verb: proto.VerbFailover}, Outages: []proto.Outage{{Service: 99}}}), Spread{1, 3, 9, 2}},
	} {
		got := Trends(tt.ops)
		if len(got) != 1 || got[0].Service != tt.want || got[0].Storage != nil {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
	}
	drills := Trends([]proto.Op{drill("1", "s", begin, 1)})
	if d := drills[0]; d.Moves != 2 || d.Storage == nil || d.Service.Last != d.Service.Worst || d.Service.Least >= d.Service.Worst {
		t.Errorf("%+v", drills) // the newest move is the drill's way back, its slower one
	}
	if len(Trends(nil)) != 0 {
		t.Error("a trend of nothing")
	}
}

func TestTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.Float64Range(0.001, 1e6).Draw(t, "end")
		if n := end / tick(end); n < 1 || n > 10.01 {
			t.Fatalf("%v marks", n)
		}
	})
}
