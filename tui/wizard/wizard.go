package wizard

import (
	"errors"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/view"
)

// Page is one of the five pages.
type Page int

// The pages.
const (
	Check Page = iota
	Plan
	Confirm
	Run
	Report
)

var pageScreens = []keymap.Screen{keymap.CheckPage, keymap.PlanPage, keymap.ConfirmPage, keymap.RunPage, keymap.ReportPage}

const (
	// checkAge is how old checks may be when an operation is started; older ones are made again first.
	checkAge = time.Minute
	// settle is how long after choices appear the enter key is ignored, so that a key meant for what was there before
	// does not choose.
	settle = time.Second
	// watchAgain is the pause before a broken watch is begun again, and the first one of a row; watchSlow the longest.
	watchAgain = 2 * time.Second
	watchSlow  = 10 * time.Second
	// copyTime is how long the other agent's copy is followed before the one that runs the operation is asked again.
	copyTime = 5 * time.Second
	maxTyped = 160
	// maxStatement and minStatement bound the statement about a gone node, runes and bytes; the agent asks for as much.
	maxStatement = 200
	minStatement = 5
)

// Request is what the wizard wants done.
type Request any

// The requests. Gen comes back with the answer; answers of an older generation are dropped.
type (
	// Load asks the agent of To for checks and plan.
	Load struct {
		Gen int
		Req proto.CheckRequest
	}
	// LoadOp asks for the operation that is to be undone.
	LoadOp struct {
		Gen      int
		Node, ID string
	}
	// LoadSetup asks the agent of Node for checks and plan of a set-up.
	LoadSetup struct {
		Gen  int
		Node string
		Req  proto.SetupRequest
	}
	// Begin starts the operation, or its dry run, on the agent of Req.To.
	Begin struct {
		Gen int
		Req proto.OpStartRequest
	}
	// Watch follows the operation on a node, after a pause and for a while; For 0 is without end. With Setup it begins that
	// set-up, whose states come as those of an operation that is watched.
	Watch struct {
		Node, ID   string
		After, For time.Duration
		Setup      *proto.SetupRequest
	}
	// Decide passes a decision on.
	Decide struct {
		Node string
		Req  proto.DecideRequest
	}
	// Fetch asks for the report.
	Fetch struct{ Node, ID string }
	// CopyText puts text into the terminal's clipboard.
	CopyText struct{ Text string }
	// WriteText writes a file into the cockpit's state folder.
	WriteText struct{ Name, Text string }
	// Close leaves the wizard.
	Close struct{ Note view.Line }
)

// Options are fixed for the wizard's life.
type Options struct {
	Pair     string
	Owner    string // user@host
	ReadOnly bool
	NewID    func() string // a fresh request id
}

// Model is the wizard's state. It belongs to the root model; nothing else touches it.
type Model struct {
	o                  Options
	verb               proto.Verb
	resource, from, to string
	undoing            *proto.Op // the operation that VerbUndo undoes, as it was left
	setup              *proto.SetupRequest

	page Page
	note view.Line

	gen     int
	loading bool
	loadErr error
	stale   bool // reply is of an earlier look than the one that failed
	reply   *proto.PlanReply
	at      time.Time // when reply came, our clock

	dryGen int
	drying bool
	dry    *proto.Op

	typed     string
	statement string // how the operator knows that the other node is off
	ticks     map[string]bool
	stepwise  bool // stop before every step
	focus     int
	starting  bool
	requestID string

	op        *proto.Op
	seen      time.Time // when op last changed, our clock
	stepSince map[int]time.Time
	choice    int // index into choices, -1 none
	deciding  bool
	allOutput bool
	watchErr  error
	tries     int       // to follow it, since the agent that runs it was lost
	heard     time.Time // when it last told anything, our clock

	report    *proto.Report
	reportErr error

	top    int
	follow bool
}

// New begins on page 1 and asks for the checks of a verb.
func New(o Options, verb proto.Verb, resource, from, to string) (*Model, []Request) {
	m := &Model{o: o, verb: verb, resource: resource, from: from, to: to, choice: -1, ticks: map[string]bool{}, follow: true}
	return m, m.load()
}

// Attach takes up an operation that exists already.
func Attach(o Options, op proto.Op, now time.Time) (*Model, []Request) {
	m := &Model{o: o, verb: op.Plan.Verb, resource: op.Plan.Resource, from: op.Plan.From, to: op.Plan.To, page: Run, choice: -1, ticks: map[string]bool{}, follow: true}
	out := m.See(op, now)
	if !op.State.Final() {
		out = append(out, Watch{Node: m.runner(), ID: op.ID})
	}
	return m, out
}

// Verb is what the wizard leads to.
func (m *Model) Verb() proto.Verb { return m.verb }

// Page is the page shown.
func (m *Model) Page() Page { return m.page }

// Screen is the page as the key map calls it.
func (m *Model) Screen() keymap.Screen { return pageScreens[m.page] }

// Op is the operation, nil before it began.
func (m *Model) Op() *proto.Op { return m.op }

// Running says whether an operation was started or attached to here and is not over.
func (m *Model) Running() bool { return m.op != nil && !m.op.State.Final() }

// Uncertain says whether the start of an operation was asked for and no answer came yet.
func (m *Model) Uncertain() bool { return m.starting }

func (m *Model) runner() string {
	if m.op != nil && m.op.Runner != "" {
		return m.op.Runner
	}
	if m.undoing != nil {
		return m.undoing.Runner
	}
	return m.to
}

func (m *Model) pairName() string {
	if m.reply != nil && m.reply.Plan.Pair != "" {
		return m.reply.Plan.Pair
	}
	return m.o.Pair
}

func (m *Model) load() []Request {
	m.gen++
	m.loading, m.loadErr = true, nil
	if m.setup != nil {
		req := *m.setup
		req.DryRun = true
		return []Request{LoadSetup{Gen: m.gen, Node: m.to, Req: req}}
	}
	if m.undoing != nil {
		return []Request{LoadOp{Gen: m.gen, Node: m.runner(), ID: m.undoing.ID}}
	}
	return []Request{Load{Gen: m.gen, Req: proto.CheckRequest{Verb: m.verb, Resource: m.resource, To: m.to}}}
}

// Loaded is the answer to Load.
func (m *Model) Loaded(gen int, r proto.PlanReply, err error, now time.Time) {
	if gen != m.gen {
		return
	}
	m.loading, m.loadErr = false, err
	if err != nil {
		if m.page == Confirm {
			m.page, m.top = Check, 0
		}
		var pe *proto.Error
		if errors.As(err, &pe) && len(pe.Checks) > 0 {
			m.reply = &proto.PlanReply{Checks: proto.CheckList{Verb: m.verb, From: m.from, To: m.to, At: now, Checks: pe.Checks}}
		} else {
			m.stale = m.reply != nil
		}
		return
	}
	m.stale = false
	old, ticks := m.reply, len(m.soft())
	m.reply, m.at = &r, now
	if ticks != len(m.soft()) {
		m.focus = 0
	}
	if r.Plan.From != "" && m.setup == nil {
		m.from = r.Plan.From
	}
	if old == nil || old.Hash != r.Hash {
		m.dry, m.drying, m.requestID = nil, false, ""
		m.dryGen++
	}
	for code := range m.ticks { // a tick is for what was seen, not for what may come under the same code
		delete(m.ticks, code)
	}
	if m.page != Confirm {
		return
	}
	switch {
	case len(m.hard()) > 0:
		m.toPage(Check)
		m.note = view.Line{Level: view.Warn, Text: "something blocks now that did not before"}
	case old == nil || old.Hash != r.Hash:
		m.toPage(Plan)
		m.note = view.Line{Level: view.Warn, Text: "the plan changed: read it again"}
	default:
		m.note = view.Line{Text: "the checks were old and were made again: nothing changed"}
	}
}

func (m *Model) toPage(p Page) {
	m.page, m.top, m.note = p, 0, view.Line{}
	m.follow = p == Run
	switch {
	case p != Confirm:
		m.typed, m.statement, m.focus = "", "", m.cancelAt()
	case m.verb == proto.VerbTakeover:
		m.focus = m.statementAt()
	}
}

// hard are the vetoes that stop the wizard, soft those that the third page asks to accept.
func (m *Model) hard() []proto.Check { return m.vetoes(true) }
func (m *Model) soft() []proto.Check { return m.vetoes(false) }

func (m *Model) vetoes(hard bool) []proto.Check {
	if m.reply == nil {
		return nil
	}
	return slices.DeleteFunc(m.reply.Checks.Blocking(), func(c proto.Check) bool { return c.Hard != hard })
}

// whyNotNext tells why the enter key does not lead to the next page, "" if it does.
func (m *Model) whyNotNext() string {
	switch {
	case m.loading:
		return "the checks are being made"
	case m.loadErr != nil:
		return "the checks could not be made"
	case m.reply == nil:
		return "there are no checks yet"
	case len(m.hard()) > 0:
		return "blocked: " + m.hard()[0].Code
	case m.page == Plan && m.reply.Hash == "":
		return "there is no plan"
	case m.page == Plan && m.o.ReadOnly:
		return "this session is read-only"
	}
	return ""
}

// request is the start of the operation as planned.
func (m *Model) request(dry bool) proto.OpStartRequest {
	r := proto.OpStartRequest{
		RequestID: m.o.NewID(), Verb: m.verb, Resource: m.resource, To: m.to, Confirm: m.confirmed(),
		PlanHash: m.reply.Hash, DryRun: dry, StepByStep: m.stepwise && !dry, Owner: m.o.Owner, Statement: strings.TrimSpace(m.statement),
	}
	for _, c := range m.soft() {
		if m.ticks[c.Code] && !slices.Contains(r.Accept, c.Code) {
			r.Accept = append(r.Accept, c.Code)
		}
	}
	return r
}

// Began is the answer to Begin, dry run or not.
func (m *Model) Began(gen int, dry bool, op proto.Op, err error, now time.Time) []Request {
	if dry {
		m.dryRan(gen, op, err)
		return nil
	}
	if !m.starting {
		return nil
	}
	m.starting = false
	if err == nil {
		m.toPage(Run)
		return append(m.See(op, now), m.watch(op)...)
	}
	return m.refused(err)
}

// refused says why the operation did not begin, and goes to the page where something can be done about it.
func (m *Model) refused(err error) []Request {
	m.note = view.Line{Level: view.Alert, Text: err.Error()}
	switch {
	case is(err, proto.CodeVeto), m.undoing != nil && is(err, proto.CodeState):
		note := m.note
		m.toPage(Check)
		m.note, m.requestID = note, ""
		return m.load()
	case is(err, proto.CodeStale):
		note := m.note
		m.toPage(Plan)
		m.note, m.requestID = note, ""
		return m.load()
	case is(err, proto.CodeUnreachable), errors.Is(err, errTimeout):
		m.note.Text += ". It may have begun: Start asks again under the same id, which never starts it twice"
	default:
		m.requestID = ""
	}
	return nil
}

func (m *Model) watch(op proto.Op) []Request {
	if op.State.Final() {
		return nil
	}
	return []Request{Watch{Node: m.runner(), ID: op.ID}}
}

func (m *Model) dryRan(gen int, op proto.Op, err error) {
	if gen != m.dryGen || !m.drying {
		return
	}
	m.drying = false
	if err != nil {
		m.note = view.Line{Level: view.Warn, Text: "dry run: " + err.Error()}
		return
	}
	m.dry = &op
	m.note = view.Line{Level: view.Good, Text: "dry run: both agents accept every step; nothing was done"}
	if op.Err != nil {
		m.note = view.Line{Level: view.Warn, Text: "dry run: " + op.Err.Error()}
	}
}

// See takes in a newer state of the operation.
func (m *Model) See(op proto.Op, now time.Time) []Request {
	if m.op != nil && (m.op.ID != op.ID || m.op.Rev > op.Rev) || m.page < Run {
		return nil
	}
	old := m.op
	if m.op = &op; old == nil || op.Rev > old.Rev {
		m.heard = now
	}
	m.noteSteps(now)
	if old == nil || old.State != op.State || !slices.Equal(m.offered(old), m.offered(&op)) {
		m.seen, m.deciding, m.choice = now, false, -1
		if len(op.Choices) > 0 {
			m.choice = 0
		}
		if op.State == proto.OpStopped || op.State == proto.OpUndoing {
			m.follow, m.allOutput = true, false
		}
	}
	if op.State.Final() && m.page == Run {
		m.toPage(Report)
		return []Request{Fetch{Node: m.runner(), ID: op.ID}}
	}
	return nil
}

// noteSteps remembers when a step was first seen running, by our clock: the agent's is another machine's.
func (m *Model) noteSteps(now time.Time) {
	next := map[int]time.Time{}
	for _, s := range m.op.Steps {
		if s.Result.State != proto.StepRunning && s.Undo.State != proto.StepUndoing {
			continue
		}
		t, ok := m.stepSince[s.Step.Index]
		if !ok {
			t = now
		}
		next[s.Step.Index] = t
	}
	m.stepSince = next
}

// Offered is what may be decided now.
func (m *Model) Offered() []proto.Choice {
	if m.page != Run {
		return nil
	}
	return m.offered(m.op)
}

func (m *Model) offered(op *proto.Op) []proto.Choice {
	switch {
	case op == nil:
		return nil
	case len(op.Choices) > 0:
		return op.Choices
	case op.State == proto.OpRunning && op.Plan.Verb != proto.VerbSetup: // which does not stop between its steps
		return []proto.Choice{proto.ChoicePause}
	}
	return nil
}

// Answers says that an agent sends the operation's states. Only the one that runs it knows that they are new.
func (m *Model) Answers(node string, now time.Time) {
	if node == m.runner() {
		m.watchErr, m.tries, m.heard = nil, 0, now
	}
}

// WatchEnded says that the stream of the operation's states ended. The agent that runs the operation, and the other one for its
// copy, are asked in turn until it is over.
func (m *Model) WatchEnded(id string, err error, now time.Time) []Request {
	if id == "" && m.setup != nil { // the stream that began it
		if m.starting {
			m.starting = false
			if err == nil {
				err = errors.New("the agent began nothing")
			}
			return m.refused(err)
		}
		if m.op != nil {
			id = m.op.ID
		}
	}
	if !m.Running() || m.op.ID != id {
		return nil
	}
	if m.tries == 0 {
		m.heard = now // it was alive until now
	}
	m.tries++
	if m.tries%2 == 0 { // the copy's stream has had its time
		return []Request{Watch{Node: m.runner(), ID: id, After: min(watchAgain*time.Duration(m.tries/2), watchSlow)}}
	}
	if m.watchErr = err; err == nil {
		m.watchErr = errors.New("the stream ended")
	}
	other := m.from
	if other == m.runner() {
		other = m.to
	}
	return []Request{Watch{Node: other, ID: id, After: watchAgain, For: copyTime}}
}

// Decided is the answer to Decide.
func (m *Model) Decided(op proto.Op, err error, now time.Time) []Request {
	if m.starting {
		return m.Began(m.gen, false, op, err, now)
	}
	m.deciding = false
	if err != nil {
		m.note = view.Line{Level: view.Warn, Text: err.Error()}
		return nil
	}
	return m.See(op, now)
}

// Fetched is the answer to Fetch.
func (m *Model) Fetched(r proto.Report, err error) {
	if err != nil {
		m.reportErr = err
		return
	}
	m.report = &r
}

func is(err error, code proto.ErrorCode) bool { return errors.Is(err, &proto.Error{Code: code}) }
