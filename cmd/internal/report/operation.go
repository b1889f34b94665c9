package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/clean"
	"example.com/santui/tui/view"
)

// Operation is the page of one operation. Times are shown in zone.
func Operation(r proto.Report, zone *time.Location) Page {
	o := clean.Value(r.Op)
	p := Page{Title: fmt.Sprintf("%s of %s, %s to %s: %s", o.Plan.Verb, o.Plan.Resource, o.Plan.From, o.Plan.To, o.State)}
	fact := func(name, format string, args ...any) {
		p.Facts = append(p.Facts, Fact{name, fmt.Sprintf(format, args...)})
	}
	fact("operation", "%s of pair %s, plan %s", o.ID, o.Plan.Pair, o.PlanHash)
	fact("outcome", "%s", o.Outcome)
	fact("confirmed by", "%s, run by the agent of %s", o.Owner, o.Runner)
	fact("started", "%s", stamp(o.Started, zone))
	if !o.Ended.IsZero() {
		fact("took", "%s", span(o.Ended.Sub(o.Started).Seconds()))
	}
	for _, x := range o.Outages {
		text := span(x.Service)
		if !x.Began.IsZero() {
			text += fmt.Sprintf(", from %s to %s", x.Began.In(zone).Format(clockFormat), x.Began.Add(duration(x.Service)).In(zone).Format(clockFormat))
		}
		fact(service(o.Plan.Verb), "%s to %s: %s", x.From, x.To, text)
		if x.Storage > 0 {
			text = span(x.Storage)
			if !x.LastWrite.IsZero() {
				text += fmt.Sprintf(", last write on %s at %s, first write on %s at %s", x.From, x.LastWrite.In(zone).Format(clockFormat),
					x.To, x.LastWrite.Add(duration(x.Storage)).In(zone).Format(clockFormat))
			}
			fact("storage away", "%s to %s: %s", x.From, x.To, text)
		}
	}
	if o.Statement != "" {
		fact("statement", "%s said of %s: %s", o.Owner, o.Plan.From, o.Statement)
	}
	for _, l := range dataAtRisk(o) {
		fact("data at risk", "%s", l)
	}
	for _, node := range slices.Sorted(maps.Keys(o.Versions)) {
		fact(node, "%s", o.Versions[node])
	}
	if w := warnings(o); len(w.Rows) > 0 {
		p.Parts = append(p.Parts, w)
	}
	p.Parts = append(p.Parts, steps(o, zone))
	if lines := Commands(r.Op, zone); len(lines) > 0 {
		p.Parts = append(p.Parts, Part{Heading: "Commands", Lines: lines})
	}
	return p
}

// dataAtRisk is what the operation itself says, or that the checks found nothing out of sync.
func dataAtRisk(o proto.Op) []string {
	if len(o.AtRisk) > 0 {
		return o.AtRisk
	}
	for _, c := range o.Checks.Checks {
		if c.Code == proto.CheckSync && c.Result == proto.CheckOK {
			return []string{"none: nothing was out of sync when it began"}
		}
	}
	return nil
}

// warnings lists the checks that were not ok, and who accepted them.
func warnings(o proto.Op) Part {
	p := Part{Heading: "Warnings", Columns: []string{"check", "node", "accepted by", "evidence"}}
	for _, c := range o.Checks.Checks {
		if c.Result == proto.CheckOK {
			continue
		}
		by := "" // a warning stops nothing
		if slices.Contains(o.Accepted, c.Code) {
			by = o.Owner
		}
		p.Rows = append(p.Rows, []string{c.Code, c.Node, by, strings.Join(c.Evidence, "; ")})
	}
	return p
}

// service names what an operation knows of the service's absence. Before a takeover it had been away already: that one
// measures its own work only.
func service(v proto.Verb) string {
	if v == proto.VerbTakeover {
		return "its steps took"
	}
	return "service away"
}

func steps(o proto.Op, zone *time.Location) Part {
	p := Part{Heading: "Steps", Columns: []string{"#", "at", "node", "step", "command", "state", "took", "result"}}
	chart := &Chart{}
	since := func(t time.Time) float64 { return t.Sub(o.Started).Seconds() }
	for _, x := range o.Outages {
		if !x.Began.IsZero() {
			name := service(o.Plan.Verb)
			b := Bar{From: since(x.Began), To: since(x.Began) + x.Service, Class: "away", Title: name + ", " + span(x.Service)}
			chart.Bands = append(chart.Bands, b)
			b.Class = "stopped"
			chart.add(fmt.Sprintf("%s, %s to %s", name, x.From, x.To), b)
		}
		if !x.LastWrite.IsZero() {
			chart.add(fmt.Sprintf("storage away, %s to %s", x.From, x.To), Bar{From: since(x.LastWrite), To: since(x.LastWrite) + x.Storage, Class: "stopped",
				Title: "storage away, " + span(x.Storage)})
		}
	}
	row := func(index string, s proto.Step, kind proto.StepKind, argv []string, r proto.StepResult, class string) {
		at, took := "", ""
		if !r.Started.IsZero() {
			at, took = r.Started.In(zone).Format(clockFormat), span(r.Seconds)
			if r.Err != nil {
				class = "failed"
			}
			chart.add(fmt.Sprintf("%s %s on %s", index, kind, s.Node),
				Bar{From: since(r.Started), To: since(r.Started) + r.Seconds, Class: class, Title: view.Command(argv) + ", " + took})
		}
		p.Rows = append(p.Rows, []string{index, at, s.Node, string(kind), view.Command(argv), string(r.State), took, said(r)})
	}
	for _, s := range o.Steps {
		class := "a"
		if s.Step.Node == o.Plan.To {
			class = "b"
		}
		row(fmt.Sprint(s.Step.Index), s.Step, s.Step.Kind, s.Step.Argv, s.Result, class)
	}
	for _, s := range slices.Backward(o.Steps) {
		if s.Undo.State != "" {
			row(fmt.Sprintf("undo %d", s.Step.Index), s.Step, s.Step.UndoKind, s.Step.Undo, s.Undo, "undo")
		}
	}
	if len(chart.Rows) > 0 {
		p.Chart = chart
	}
	return p
}

func (c *Chart) add(label string, bars ...Bar) {
	c.Rows = append(c.Rows, ChartRow{Label: label, Bars: bars})
	for _, b := range bars {
		c.End = max(c.End, b.To)
	}
}

// said is what a step led to, in words.
func said(r proto.StepResult) string {
	var parts []string
	if r.Err != nil {
		parts = append(parts, r.Err.Error())
	}
	if r.Now != "" {
		parts = append(parts, r.Now)
	}
	if text := strings.Join(parts, "; now: "); text != "" {
		parts = []string{text}
	}
	for _, found := range r.Output {
		parts = append(parts, "noticed: "+found)
	}
	return strings.Join(parts, "; ")
}

// Commands lists every program that an operation ran, with what it printed.
func Commands(o proto.Op, zone *time.Location) []string {
	o = clean.Value(o)
	var all []proto.Execution
	for _, s := range o.Steps {
		all = append(append(all, s.Result.Commands...), s.Undo.Commands...)
	}
	slices.SortStableFunc(all, func(a, b proto.Execution) int { return a.Started.Compare(b.Started) })
	var out []string
	for _, e := range all {
		out = append(out, fmt.Sprintf("%s %s$ %s", e.Started.In(zone).Format(clockFormat), e.Node, view.Command(e.Argv)))
		for _, l := range e.Output {
			out = append(out, "    "+l)
		}
		end := fmt.Sprintf("    exit %d, %s", e.Exit, span(e.Seconds))
		if e.Err != "" {
			end += ", " + e.Err
		}
		out = append(out, end)
	}
	return out
}

func duration(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
