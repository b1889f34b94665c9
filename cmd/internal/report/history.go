package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/clean"
)

// Trend sums up the outages of one verb, of the operations that came to their end.
type Trend struct {
	Verb    proto.Verb `json:"verb"`
	Moves   int        `json:"moves"` // a drill has two
	Service Spread     `json:"service"`
	Storage *Spread    `json:"storage,omitempty"` // of the moves that a probe measured
}

// Spread is in seconds.
type Spread struct {
	Least  float64 `json:"least"`
	Median float64 `json:"median"`
	Worst  float64 `json:"worst"`
	Last   float64 `json:"last"`
}

// spreadOf takes the newest first, at least one.
func spreadOf(x []float64) Spread {
	s := Spread{Last: x[0]}
	x = slices.Sorted(slices.Values(x))
	s.Least, s.Worst = x[0], x[len(x)-1]
	s.Median = (x[(len(x)-1)/2] + x[len(x)/2]) / 2
	return s
}

// Trends sums up operations, which come newest first.
func Trends(ops []proto.Op) []Trend {
	var out []Trend
	for _, verb := range []proto.Verb{proto.VerbDrill, proto.VerbFailover, proto.VerbTakeover} {
		var service, storage []float64
		for _, o := range ops {
			if o.Plan.Verb != verb || o.State != proto.OpDone {
				continue
			}
			for _, x := range slices.Backward(o.Outages) {
				service = append(service, x.Service)
				if x.Storage > 0 {
					storage = append(storage, x.Storage)
				}
			}
		}
		if len(service) == 0 {
			continue
		}
		t := Trend{Verb: verb, Moves: len(service), Service: spreadOf(service)}
		if len(storage) > 0 {
			s := spreadOf(storage)
			t.Storage = &s
		}
		out = append(out, t)
	}
	return out
}

// lastMoves is how many moves of drills the chart of a history shows.
const lastMoves = 40

// History is the page of all operations of a pair, newest first.
func History(pair string, ops []proto.Op, zone *time.Location) Page {
	ops = clean.Value(ops)
	p := Page{Title: fmt.Sprintf("operations of pair %s: %d", clean.String(pair), len(ops))}
	if t := Trends(ops); len(t) > 0 {
		p.Parts = append(p.Parts, trendPart(t))
	}
	if d := drills(ops, zone); len(d.Rows) > 0 {
		p.Parts = append(p.Parts, d)
	}
	list := Part{Heading: "Operations", Columns: []string{"started", "operation", "verb", "from", "to", "state", "service away", "storage away", "by", "outcome"}}
	for _, o := range ops {
		var service, storage float64
		for _, x := range o.Outages {
			service, storage = max(service, x.Service), max(storage, x.Storage)
		}
		list.Rows = append(list.Rows, []string{stamp(o.Started, zone), o.ID, string(o.Plan.Verb), o.Plan.From, o.Plan.To, string(o.State), away(service), away(storage), o.Owner, o.Outcome})
	}
	p.Parts = append(p.Parts, list)
	return p
}

// away words an outage; "" if there was none or nobody measured it.
func away(s float64) string {
	if s == 0 {
		return ""
	}
	return span(s)
}

func trendPart(trends []Trend) Part {
	p := Part{Heading: "Trend", Columns: []string{"verb", "moves", "away", "last", "median", "worst", "least"}}
	row := func(t Trend, what string, s Spread) {
		p.Rows = append(p.Rows, []string{string(t.Verb), fmt.Sprint(t.Moves), what, away(s.Last), away(s.Median), away(s.Worst), away(s.Least)})
	}
	for _, t := range trends {
		what := "service"
		if t.Verb == proto.VerbTakeover {
			what = "its steps"
		}
		row(t, what, t.Service)
		if t.Storage != nil {
			row(t, "storage", *t.Storage)
		}
	}
	return p
}

// drills draws the outages of the last drills, oldest first, and lists them.
func drills(ops []proto.Op, zone *time.Location) Part {
	p := Part{Heading: "The last drills", Columns: []string{"started", "from", "to", "service away", "storage away"}}
	c := &Chart{}
	for _, o := range slices.Backward(ops) {
		if o.Plan.Verb != proto.VerbDrill || o.State != proto.OpDone {
			continue
		}
		for _, x := range o.Outages {
			p.Rows = append(p.Rows, []string{stamp(o.Started, zone), x.From, x.To, away(x.Service), away(x.Storage)})
			bars := []Bar{{To: x.Service, Class: "a", Title: "service away, " + away(x.Service)}}
			if x.Storage > 0 {
				bars = append(bars, Bar{To: x.Storage, Class: "b", Title: "storage away, " + away(x.Storage)})
			}
			slices.SortFunc(bars, func(a, b Bar) int { return cmp.Compare(b.To, a.To) }) // the shorter one on top
			c.add(fmt.Sprintf("%s to %s", o.Started.In(zone).Format("2006-01-02 15:04"), x.To), bars...)
		}
	}
	if n := len(p.Rows); n > lastMoves {
		p.Rows, c.Rows = p.Rows[n-lastMoves:], c.Rows[n-lastMoves:]
	}
	p.Chart = c
	return p
}
