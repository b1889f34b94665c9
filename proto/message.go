package proto

import "time"

// Method names a request. One request travels per stream.
type Method string

// Requests that a cockpit or the command line sends to an agent.
const (
	MethodSnapshot Method = "snapshot"  // Empty -> Snapshot
	MethodWatch    Method = "watch"     // Empty -> stream of WatchEvent; the first holds a whole snapshot
	MethodCheck    Method = "check"     // CheckRequest -> CheckList
	MethodPlan     Method = "plan"      // CheckRequest -> PlanReply
	MethodOpStart  Method = "op.start"  // OpStartRequest -> Op (state running, or done for a dry run)
	MethodOpWatch  Method = "op.watch"  // OpRequest -> stream of Op, a whole one per change; ends when it is final
	MethodOpDecide Method = "op.decide" // DecideRequest -> Op
	MethodOps      Method = "ops"       // Empty -> OpsReply
	MethodReport   Method = "report"    // OpRequest -> Report
	MethodSync     Method = "sync"      // SyncRequest -> Empty
	MethodVerify   Method = "verify"    // VerifyRequest -> Empty
	MethodResource Method = "resource"  // ResourceRequest -> Empty
	MethodPing     Method = "ping"      // Empty -> Empty
)

// Requests between the two agents of a pair.
const (
	MethodPeerObserve Method = "peer.observe" // ObserveRequest -> Observation, read afresh
	MethodPeerStep    Method = "peer.step"    // PeerStepRequest -> StepResult
	MethodPeerLock    Method = "peer.lock"    // Lock -> Empty, or CodeLocked with the owner
	MethodPeerUnlock  Method = "peer.unlock"  // Lock -> Empty
	MethodPeerJournal Method = "peer.journal" // Op -> Empty: the peer's copy of the journal
)

// Empty is a request or reply without content.
type Empty struct{}

// WatchEvent is one frame of a watch: exactly one of the fields is set.
type WatchEvent struct {
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	Delta    *Delta    `json:"delta,omitempty"`
}

// Delta says what changed between two snapshots. Sections that are nil did not change.
type Delta struct {
	Base      uint64      `json:"base"` // Seq of the snapshot it applies to
	Seq       uint64      `json:"seq"`
	At        time.Time   `json:"at"`
	PeerLink  *PeerLink   `json:"peer_link,omitempty"`
	Resources []Resource  `json:"resources,omitempty"` // changed ones, whole
	Removed   []string    `json:"removed,omitempty"`   // names of resources that are gone
	OpSet     bool        `json:"op_set,omitempty"`    // Op is the new value, nil included; LockSet and ReadySet alike
	Op        *Op         `json:"op,omitempty"`
	LockSet   bool        `json:"lock_set,omitempty"`
	Lock      *Lock       `json:"lock,omitempty"`
	ReadySet  bool        `json:"readiness_set,omitempty"`
	Readiness []CheckList `json:"readiness,omitempty"`
	Events    []Event     `json:"events,omitempty"` // appended
}

// CheckRequest asks for the checks or the plan of moving a resource to a node.
type CheckRequest struct {
	Verb     Verb   `json:"verb"`
	Resource string `json:"resource"` // "" if the pair has only one
	To       string `json:"to"`
	// NoSnapshot leaves out the copy that a resolve makes of what it discards.
	NoSnapshot bool `json:"no_snapshot,omitempty"`
}

// PlanReply is a plan with the checks it was made under.
type PlanReply struct {
	Plan   Plan      `json:"plan"`
	Hash   string    `json:"hash"`
	Checks CheckList `json:"checks"`
	// Last is how long the service was away in the last operation of this kind, 0 if there was none.
	Last float64 `json:"last_outage"`
}

// OpStartRequest starts an operation. It must go to the agent of node To.
type OpStartRequest struct {
	RequestID string   `json:"request_id"` // a retry with the same id returns the same operation
	Verb      Verb     `json:"verb"`
	Resource  string   `json:"resource"`
	To        string   `json:"to"`
	Confirm   string   `json:"confirm"`   // the pair's name, typed
	PlanHash  string   `json:"plan_hash"` // "" accepts whatever the plan is now
	DryRun    bool     `json:"dry_run"`
	OnFailure Choice   `json:"on_failure"` // "" waits for a decision; ChoiceUndo or ChoiceKeep decide beforehand
	Accept    []string `json:"accept"`     // codes of soft vetoes that the operator accepts
	Owner     string   `json:"owner"`
	// Statement is how the operator knows that the peer is off. A takeover needs it.
	Statement string `json:"statement,omitempty"`
	// NoSnapshot is CheckRequest's.
	NoSnapshot bool `json:"no_snapshot,omitempty"`
	// StepByStep pauses before every step until ChoiceResume.
	StepByStep bool `json:"step_by_step,omitempty"`
}

// OpRequest names an operation.
type OpRequest struct {
	ID string `json:"id"`
}

// DecideRequest tells an operation what to do. One that does not run any more (orphaned, or kept half way) takes
// ChoiceUndo only, with Confirm.
type DecideRequest struct {
	ID      string `json:"id"`
	Choice  Choice `json:"choice"`
	Confirm string `json:"confirm,omitempty"` // the pair's name, typed
	By      string `json:"by"`
}

// OpsReply lists operations, newest first.
type OpsReply struct {
	Schema string `json:"schema"`
	Ops    []Op   `json:"ops"`
}

// SyncAction is what a SyncRequest asks for.
type SyncAction string

// The actions on a synchronisation.
const (
	SyncPause  SyncAction = "pause"
	SyncResume SyncAction = "resume"
	SyncRate   SyncAction = "rate"
	// SyncStart overwrites the peer's copy in full from the one of the node that receives the request. If neither copy is
	// good yet, it declares this one to be and promotes the node. It needs Confirm, and the peer must not be Primary.
	SyncStart SyncAction = "start"
	// SyncSkip declares two disks that were just created to hold the same: both become UpToDate, nothing is copied, and
	// what differs stays different. It needs Confirm, two fresh disks and two Secondaries.
	SyncSkip SyncAction = "skip"
)

// SyncRequest steers a synchronisation.
type SyncRequest struct {
	Resource string     `json:"resource"`
	Action   SyncAction `json:"action"`
	Rate     int64      `json:"rate,omitempty"` // bytes a second
	Confirm  string     `json:"confirm,omitempty"`
	By       string     `json:"by"`
}

// VerifyAction is what a VerifyRequest asks for.
type VerifyAction string

// The actions of an online verify.
const (
	VerifyStart VerifyAction = "start" // the node that receives the request compares
	VerifyStop  VerifyAction = "stop"  // goes to the node that compares
	// VerifyRepair resynchronises what is marked out of sync from the copy of the node that receives the request, whose
	// link is down for a moment. It needs Confirm, and the peer must not be Primary.
	VerifyRepair VerifyAction = "repair"
)

// VerifyRequest steers an online verify.
type VerifyRequest struct {
	Resource string       `json:"resource"`
	Action   VerifyAction `json:"action"`
	From     int64        `json:"from,omitempty"` // byte at which to begin
	Confirm  string       `json:"confirm,omitempty"`
	By       string       `json:"by"`
}

// ResourceAction is what a ResourceRequest asks for; the words are drbdadm's.
type ResourceAction string

// The actions on a resource.
const (
	ResourceConnect    ResourceAction = "connect"
	ResourceDisconnect ResourceAction = "disconnect"
	ResourcePrimary    ResourceAction = "primary"
	ResourceSecondary  ResourceAction = "secondary"
	ResourceOutdate    ResourceAction = "outdate"
	ResourceSuspendIO  ResourceAction = "suspend-io"
	ResourceResumeIO   ResourceAction = "resume-io"
	ResourceResize     ResourceAction = "resize"
	ResourceAttach     ResourceAction = "attach"
	ResourceDetach     ResourceAction = "detach"
)

// ResourceRequest does one thing to a resource on the node that receives it.
type ResourceRequest struct {
	Resource string         `json:"resource"`
	Action   ResourceAction `json:"action"`
	By       string         `json:"by"`
	// Confirm is the pair's name, which a resize and DiscardMyData ask for.
	Confirm string `json:"confirm,omitempty"`
	// AssumeClean leaves out the resync of what is new after a resize.
	AssumeClean bool `json:"assume_clean,omitempty"`
	// DiscardMyData lets this node's changes lose if a connect finds a split brain.
	DiscardMyData bool `json:"discard_my_data,omitempty"`
}

// ObserveRequest asks the peer agent for a fresh look at a resource and its stack.
type ObserveRequest struct {
	Resource string `json:"resource"`
	// Targets are mount points whose presence on this node matters to the plan.
	Targets []string `json:"targets,omitempty"`
	// VGs are the uuids of volume groups that the node must have nothing of while it is Secondary.
	VGs []string `json:"vgs,omitempty"`
	// MaxAge is how old, in seconds, the look at the stack may be; 0 asks for a fresh one.
	MaxAge float64 `json:"max_age,omitempty"`
	// Whole asks for a fresh look that leaves nothing out which shows no sign of having changed since an earlier one: what an
	// operation begins with.
	Whole bool `json:"whole,omitempty"`
	// Brief asks only for what the agent knows without a look at stack, disks and service: role, states, lock, targets.
	Brief bool `json:"brief,omitempty"`
}

// Observation is a fresh look of one agent at one resource, input of checks and plans.
type Observation struct {
	Node     string            `json:"node"`
	Pair     string            `json:"pair"`
	At       time.Time         `json:"at"`
	Agent    AgentInfo         `json:"agent"`
	Resource Resource          `json:"resource"`
	PeerLink PeerLink          `json:"peer_link"`
	Lock     *Lock             `json:"lock,omitempty"`
	OpID     string            `json:"op_id,omitempty"`
	OpStep   int               `json:"op_step,omitempty"` // the step of that operation that is under way now, -1 for none; 0 from agents that do not say
	OpUndo   bool              `json:"op_undo,omitempty"` // it is being undone
	Tools    map[string]string `json:"tools"`             // program -> path, "" if missing
	Targets  []MountPoint      `json:"targets"`           // the mount points asked for
	VGClash  []string          `json:"vg_clash,omitempty"`
	Left     []string          `json:"left,omitempty"`     // what is left here of the volume groups asked for, and how to remove it
	Managers []string          `json:"managers,omitempty"` // other cluster managers that run here
	Journal  string            `json:"journal,omitempty"`  // why this node could not journal an operation now, "" if it could
	Facts    *Facts            `json:"facts,omitempty"`    // nil if the node did not look
	Service  *ServiceFacts     `json:"service,omitempty"`  // nil if agent.toml adds nothing to the resource
	Memory   *Memory           `json:"memory,omitempty"`   // of the node's last turn as Primary; nil if it did not look
	Err      *Error            `json:"err,omitempty"`
}

// Memory is what an agent remembers of its own node's last turn as Primary.
type Memory struct {
	Stack   Stack     `json:"stack"`            // what was on the device, outside of an operation
	Device  string    `json:"device"`           // the replicated device, in terms of the mounts' sources
	At      time.Time `json:"at,omitzero"`      // when Stack was last seen to change; zero if nothing is remembered
	Primary time.Time `json:"primary,omitzero"` // when the node was last made Primary
	Until   time.Time `json:"until,omitzero"`   // when it was last known to be, if it is not
}

// MountPoint says what a node has at a path.
type MountPoint struct {
	Path    string `json:"path"`
	Exists  bool   `json:"exists"`
	Dir     bool   `json:"dir"`
	Empty   bool   `json:"empty"`
	Mounted string `json:"mounted,omitempty"` // source of what is mounted there
}

// PeerStepRequest asks the peer to do one step of an operation, or its inverse.
type PeerStepRequest struct {
	OpID   string `json:"op_id"`
	Step   Step   `json:"step"`
	Undo   bool   `json:"undo"`
	DryRun bool   `json:"dry_run"`
	// Sentinels are the sets that a StepVerify must find.
	Sentinels []Sentinel `json:"sentinels,omitempty"`
	// VG is the group that a StepActivate brings up, as the node saw it that had it last.
	VG *VG `json:"vg,omitempty"`
}
