package source

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/clean"
	"example.com/santui/tui/safe"
)

// Record is one line of a recording. A line is an update of a node (Node set, Method empty), the reply to a method, or
// an event of a streaming method.
type Record struct {
	// After is how long after the line before it of the same kind this one comes, seconds.
	After float64 `json:"after,omitempty"`

	Node     string          `json:"node,omitempty"`
	Down     string          `json:"down,omitempty"`  // the agent does not answer, and why
	Retry    float64         `json:"retry,omitempty"` // seconds until the next attempt
	Snapshot *proto.Snapshot `json:"snapshot,omitempty"`

	Method proto.Method `json:"method,omitempty"`
	// Case is what the reply or event answers: the verb of a plan, the node of a doctor, the choice of the last op.decide, "dry-run" for a dry run or that of a set-up. A line
	// without a case answers all for which there is none of their own.
	Case  string          `json:"case,omitempty"`
	Event bool            `json:"event,omitempty"` // belongs to a stream
	Out   json.RawMessage `json:"out,omitempty"`
	Err   *proto.Error    `json:"err,omitempty"`
}

// Replay is a Source that plays a recording. Time runs speed times as fast as recorded.
type Replay struct {
	nodes   []string
	records []Record
	speed   float64
	news    *latest

	mu      sync.Mutex // protects what follows
	cur     map[string]Update
	decided string
}

// maxRecord bounds a line of a recording, bytes.
const maxRecord = 4 << 20

// ReadRecords reads a recording, one JSON document a line.
func ReadRecords(r io.Reader) ([]Record, error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxRecord)
	var out []Record
	for n := 1; sc.Scan(); n++ {
		if len(sc.Bytes()) == 0 {
			continue
		}
		var rec Record
		if err := json.Unmarshal(sc.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("recording, line %d: %w", n, err)
		}
		out = append(out, clean.Value(rec))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading the recording: %w", err)
	}
	return out, nil
}

// WriteRecords writes a recording.
func WriteRecords(w io.Writer, records []Record) error {
	enc := json.NewEncoder(w)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("writing the recording: %w", err)
		}
	}
	return nil
}

// NewReplay plays records. A speed of 0 is the recorded one.
func NewReplay(records []Record, speed float64) *Replay {
	if speed <= 0 {
		speed = 1
	}
	p := &Replay{records: records, speed: speed, news: newLatest(), cur: map[string]Update{}}
	for _, r := range records {
		if r.Node == "" {
			continue
		}
		if _, ok := p.cur[r.Node]; !ok {
			p.nodes = append(p.nodes, r.Node)
			p.cur[r.Node] = Update{Node: r.Node}
		}
	}
	return p
}

// Nodes implements Source.
func (p *Replay) Nodes() []string { return p.nodes }

// RetryNow implements Source; a recording goes its own pace.
func (p *Replay) RetryNow(string) {}

// Watch implements Source.
func (p *Replay) Watch(ctx context.Context) <-chan Update {
	out := make(chan Update)
	safe.Go(ctx, func() { p.news.pump(ctx, out) })
	safe.Go(ctx, func() {
		for _, r := range p.records {
			if r.Node == "" || r.Method != "" {
				continue
			}
			if p.wait(ctx, r.After) != nil {
				return
			}
			p.apply(r)
		}
	})
	return out
}

func (p *Replay) apply(r Record) {
	p.mu.Lock()
	u := p.cur[r.Node]
	now := time.Now()
	if r.Down == "" {
		u.LinkUp, u.Err, u.NextTry, u.At = true, nil, time.Time{}, now
	} else {
		if u.LinkUp {
			u.At = now
		}
		u.LinkUp, u.Err, u.NextTry = false, errors.New(r.Down), now.Add(time.Duration(r.Retry*float64(time.Second)))
	}
	if r.Snapshot != nil {
		u.Snapshot = r.Snapshot
	}
	p.cur[r.Node] = u
	p.mu.Unlock()
	p.news.put(u)
}

func (p *Replay) wait(ctx context.Context, seconds float64) error {
	t := time.NewTimer(time.Duration(seconds / p.speed * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// caseOf says which recorded answer a request asks for.
func (p *Replay) caseOf(node string, in any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r := in.(type) {
	case proto.CheckRequest:
		return string(r.Verb)
	case proto.SetupRequest:
		if r.DryRun {
			return "dry-run"
		}
	case proto.DoctorRequest:
		return node
	case proto.DecideRequest:
		p.decided = string(r.Choice)
	case proto.OpStartRequest:
		if r.DryRun {
			return "dry-run"
		}
		p.decided = ""
	}
	return p.decided
}

// find returns the recorded lines for a request: those of its case, or those without one.
func (p *Replay) find(m proto.Method, event bool, c string) []Record {
	var own, common []Record
	for _, r := range p.records {
		if r.Method != m || r.Event != event {
			continue
		}
		switch r.Case {
		case c:
			own = append(own, r)
		case "":
			common = append(common, r)
		}
	}
	if len(own) > 0 {
		return own
	}
	return common
}

// Call implements Source.
func (p *Replay) Call(ctx context.Context, node string, m proto.Method, in, out any) error {
	found := p.find(m, false, p.caseOf(node, in))
	if len(found) == 0 {
		return proto.Errorf(proto.CodeUnsupported, "%s: the recording holds no answer", m).On(node)
	}
	r := found[0]
	if err := p.wait(ctx, r.After); err != nil {
		return err
	}
	if r.Err != nil {
		return r.Err
	}
	if out == nil || len(r.Out) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Out, out); err != nil {
		return fmt.Errorf("recording, answer to %s: %w", m, err)
	}
	return nil
}

// Stream implements Source. Lines of a stream that carry a node and a snapshot also update that node. A stream of an
// operation that stopped stays open until a decision is called for, and goes on with that decision's events.
func (p *Replay) Stream(ctx context.Context, node string, m proto.Method, in any, on func(json.RawMessage) error) error {
	c := p.caseOf(node, in)
	for {
		found := p.find(m, true, c)
		if len(found) == 0 {
			return proto.Errorf(proto.CodeUnsupported, "%s: the recording holds no events", m).On(node)
		}
		last, err := p.play(ctx, found, on)
		if err != nil || m != proto.MethodOpWatch || last.State.Final() {
			return err
		}
		for c == p.caseOf(node, in) {
			if err := p.wait(ctx, 0.05*p.speed); err != nil {
				return err
			}
		}
		c = p.caseOf(node, in)
	}
}

// play sends recorded events and returns the operation that the last of them showed.
func (p *Replay) play(ctx context.Context, found []Record, on func(json.RawMessage) error) (last proto.Op, err error) {
	for _, r := range found {
		if err := p.wait(ctx, r.After); err != nil {
			return last, err
		}
		if r.Err != nil {
			return last, r.Err
		}
		if r.Node != "" {
			p.apply(r)
		}
		if len(r.Out) == 0 {
			continue
		}
		if err := on(r.Out); err != nil {
			return last, err
		}
		if err := json.Unmarshal(r.Out, &last); err != nil {
			return last, fmt.Errorf("recording: %w", err)
		}
	}
	return last, nil
}
