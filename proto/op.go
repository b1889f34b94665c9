package proto

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Verb names what an operation does.
type Verb string

// The verbs. In every plan To is the node whose agent runs the operation and whose copy is the good one afterwards, From
// the other node.
const (
	VerbFailover Verb = "failover" // the service moves from From to To, planned
	VerbDrill    Verb = "drill"    // there and back, with files written before and verified on both sides
	VerbTakeover Verb = "takeover" // From is gone: To becomes Primary without it
	VerbRejoin   Verb = "rejoin"   // From is back and follows To again
	VerbResolve  Verb = "resolve"  // split brain: the changes of From are discarded
	VerbSetup    Verb = "setup"
)

// StepKind says what a step does. The agent knows how to do, verify and undo each kind.
type StepKind string

// The kinds of step of a planned failover, in the order in which they run.
const (
	StepUnmount    StepKind = "unmount"
	StepDeactivate StepKind = "deactivate"
	StepDemote     StepKind = "demote"
	StepAttest     StepKind = "attest"
	StepPromote    StepKind = "promote"
	StepActivate   StepKind = "activate"
	StepMount      StepKind = "mount"
)

// The kinds of step that only other verbs have.
const (
	StepSentinel   StepKind = "sentinel"     // drill: write files of random bytes with their checksums
	StepProbe      StepKind = "probe"        // drill: write and sync a counter again and again, until the unmount
	StepVerify     StepKind = "verify-files" // drill: read the files back and compare
	StepClean      StepKind = "clean"        // drill: remove them
	StepGone       StepKind = "gone"         // takeover: From is still silent on both links
	StepDisconnect StepKind = "disconnect"   // of the replication link
	StepConnect    StepKind = "connect"
	StepDiscard    StepKind = "connect-discard" // connect, and lose a split brain
	StepSnapshot   StepKind = "snapshot"        // resolve: of the logical volume whose changes are discarded
	StepResync     StepKind = "resync"          // wait until the copies are, or become, one
)

// Step is one entry of a plan. Argv is exactly what will be executed on Node; a step that is done inside the agent
// (demote, promote, attest) shows the drbdadm command an operator would type for it and has Internal set.
type Step struct {
	Index    int      `json:"index"` // from 1
	Kind     StepKind `json:"kind"`
	Node     string   `json:"node"`
	Resource string   `json:"resource"`
	Argv     []string `json:"argv"`
	Internal bool     `json:"internal"`
	Undo     []string `json:"undo"`      // the inverse's command line, empty if there is nothing to undo
	UndoKind StepKind `json:"undo_kind"` // "" if there is nothing to undo
	Limit    float64  `json:"limit"`     // seconds
	Why      string   `json:"why"`
	VG       string   `json:"vg,omitempty"`
	Mount    *Mount   `json:"mount,omitempty"`
	Unit     string   `json:"unit,omitempty"`
	Script   *Script  `json:"script,omitempty"`
	Address  *Address `json:"address,omitempty"`
	Export   *Export  `json:"export,omitempty"`
	Set      string   `json:"set,omitempty"` // name of the set of files that a StepSentinel writes
	// Snapshot is what a StepSnapshot makes.
	Snapshot *LVSnapshot `json:"snapshot,omitempty"`
	Skip     string      `json:"skip,omitempty"` // why this step is shown but not done
}

// LVSnapshot is a snapshot of a logical volume, in its own group.
type LVSnapshot struct {
	VG     string `json:"vg"`
	Origin string `json:"origin"`
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
}

// Plan is the ordered list of steps. The same value is shown, copied, dry-run, executed, undone and reported.
type Plan struct {
	Schema   string    `json:"schema"`
	Verb     Verb      `json:"verb"`
	Pair     string    `json:"pair"`
	Resource string    `json:"resource"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	At       time.Time `json:"at"`
	Steps    []Step    `json:"steps"`
	Effect   []string  `json:"effect"` // in plain words, what users will notice
}

// Hash identifies what the plan does, regardless of when it was made. An operation started with a hash runs only if a
// plan computed at that moment has the same one.
func (p Plan) Hash() string {
	p.At = time.Time{}
	b, err := json.Marshal(p)
	if err != nil { // a struct of strings and numbers always marshals
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:12]
}

// OpState is where an operation stands.
type OpState string

// The states of an operation. Stopped waits for a decision; the last four are final.
const (
	OpRunning  OpState = "running"
	OpPaused   OpState = "paused"  // stops before the next step, as asked
	OpStopped  OpState = "stopped" // a step failed: retry, undo or keep?
	OpUndoing  OpState = "undoing"
	OpDone     OpState = "done"
	OpUndone   OpState = "undone"    // failed and completely undone
	OpKept     OpState = "attention" // stopped half way and left so
	OpAborted  OpState = "refused"   // refused before anything was done
	OpOrphaned OpState = "orphaned"  // its agent died; the journal says how far it came
)

// Final says whether the operation will not change any more.
func (s OpState) Final() bool {
	switch s {
	case OpDone, OpUndone, OpKept, OpAborted, OpOrphaned:
		return true
	default:
		return false
	}
}

// StepState is where one step stands.
type StepState string

// The states of a step.
const (
	StepWaiting StepState = "waiting"
	StepRunning StepState = "running"
	StepDone    StepState = "done"
	StepAlready StepState = "already" // it was so before
	StepFailed  StepState = "failed"
	StepUndoing StepState = "undoing"
	StepUndone  StepState = "undone"
	StepSkipped StepState = "skipped" // as planned: its node is gone
)

// StepResult is what executing a step led to, as read back from the node, not as assumed.
type StepResult struct {
	State    StepState   `json:"state"`
	Started  time.Time   `json:"started"`
	Seconds  float64     `json:"seconds"`
	Output   []string    `json:"output,omitempty"` // bounded, see MaxOutputLines
	Err      *Error      `json:"err,omitempty"`
	Now      string      `json:"now,omitempty"` // the state afterwards, in words
	Commands []Execution `json:"commands,omitempty"`
	Probe    *ProbeWrite `json:"probe,omitempty"`    // of a probe that this step started or ended
	Sentinel *Sentinel   `json:"sentinel,omitempty"` // what this step wrote or verified
}

// ProbeWrite is a write of a drill's probe. Ages, not times, travel: the clocks of two nodes need not agree.
type ProbeWrite struct {
	Target string  `json:"target"` // mount point
	Count  int64   `json:"count"`  // writes so far, each synced
	Age    float64 `json:"age"`    // seconds between the end of the write in question (the last one, or the first) and the answer
}

// Sentinel describes a set of files that a drill wrote below a mount point.
type Sentinel struct {
	Target string `json:"target"`
	Set    string `json:"set"` // name of the set
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	Sum    string `json:"sum"` // SHA-256 of the list of checksums, hexadecimal
}

// Outage is how long one move took the service away, seconds.
type Outage struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Service float64 `json:"service"`           // first unmount (or demote) to last mount (or promote)
	Storage float64 `json:"storage,omitempty"` // last write on From to first write on To; 0 if nobody measured it
	// Began is when the service went away, LastWrite when the probe wrote on From for the last time. Both are of the clock
	// of the node that ran the operation.
	Began     time.Time `json:"began,omitzero"`
	LastWrite time.Time `json:"last_write,omitzero"`
}

// Execution is one external program that was run.
type Execution struct {
	Node    string    `json:"node"`
	Argv    []string  `json:"argv"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Exit    int       `json:"exit"` // -1 if it was killed or never started
	Output  []string  `json:"output,omitempty"`
	Err     string    `json:"err,omitempty"`
}

// StepStatus is a step of a running operation.
type StepStatus struct {
	Step   Step       `json:"step"`
	Result StepResult `json:"result"`
	Undo   StepResult `json:"undo"` // of its inverse, zero unless undone
}

// Op is an operation: a plan that runs, has run or waits. It lives on the agent of Plan.To and in the journals of both.
type Op struct {
	Schema   string       `json:"schema"`
	ID       string       `json:"id"`
	Plan     Plan         `json:"plan"`
	PlanHash string       `json:"plan_hash"`
	Checks   CheckList    `json:"checks"`
	State    OpState      `json:"state"`
	Steps    []StepStatus `json:"steps"`
	Owner    string       `json:"owner"` // user@host of whoever confirmed it
	Runner   string       `json:"runner"`
	// RequestID is that of the request that began it; the same request again begins nothing.
	RequestID string    `json:"request_id,omitempty"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended,omitzero"`
	Outage    float64   `json:"outage"`            // seconds from the first unmount (or demote) to the last mount (or promote), as far as it got
	Outages   []Outage  `json:"outages,omitempty"` // one a move: a drill has two. Outage is the longest
	Accepted  []string  `json:"accepted,omitempty"`
	// Statement is how the operator knows that From is off, in a takeover.
	Statement string `json:"statement,omitempty"`
	// AtRisk says in words what data the operation may lose, or discards.
	AtRisk  []string `json:"at_risk,omitempty"`
	Choices []Choice `json:"choices,omitempty"` // offered while stopped, the safest first
	Outcome string   `json:"outcome"`           // one sentence
	Err     *Error   `json:"err,omitempty"`
	Rev     uint64   `json:"rev"` // grows with every change
	// Versions are those of the agent, the kernel and the programs of each node when the operation began, in words.
	Versions map[string]string `json:"versions,omitempty"`
}

// Choice is what an operator may decide while an operation is stopped or running.
type Choice string

// The choices.
const (
	ChoiceRetry  Choice = "retry"
	ChoiceUndo   Choice = "undo"
	ChoiceKeep   Choice = "keep"
	ChoicePause  Choice = "pause"
	ChoiceResume Choice = "resume"
)

// Lock is the pair's operation lock, held on both agents.
type Lock struct {
	OpID  string    `json:"op_id"`
	Owner string    `json:"owner"`
	Node  string    `json:"node"` // whose agent runs the operation
	Since time.Time `json:"since"`
}

// Report is what an operation leaves behind, on both agents.
type Report struct {
	Schema string     `json:"schema"`
	Op     Op         `json:"op"`
	Before []Resource `json:"before,omitempty"`
	After  []Resource `json:"after,omitempty"`
}
