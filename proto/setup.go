package proto

// MethodSetup and MethodDoctor go to the agent of the node that they are about.
const (
	MethodSetup  Method = "setup"  // SetupRequest -> stream of Op, a whole one per change
	MethodDoctor Method = "doctor" // DoctorRequest -> DoctorReply
)

// The kinds of step of a set-up, besides StepMount.
const (
	StepPVCreate StepKind = "pvcreate"
	StepVGCreate StepKind = "vgcreate"
	StepLVCreate StepKind = "lvcreate"
	StepMkfs     StepKind = "mkfs"
)

// SetupRequest asks for the two-node guide's stack on a replicated device: one volume group, one logical volume, a file
// system, mounted. It must go to the Primary's agent.
type SetupRequest struct {
	Resource string `json:"resource"` // "" if the pair has only one
	VG       string `json:"vg"`
	LV       string `json:"lv"`
	Size     int64  `json:"size"` // bytes, 0 for all there is
	FSType   string `json:"fstype"`
	Mount    string `json:"mount"` // "" leaves it unmounted
	DryRun   bool   `json:"dry_run"`
	Confirm  string `json:"confirm"` // the pair's name, typed
	Owner    string `json:"owner"`
}

// DoctorRequest asks a node about LVM's device selection; with Fix it writes what it proposes.
type DoctorRequest struct {
	Resource string `json:"resource"`
	Fix      bool   `json:"fix"`
	Confirm  string `json:"confirm"` // with Fix: the pair's name, typed
	By       string `json:"by"`
}

// The ways in which LVM and replication can be stacked, for DoctorReply.Layout.
const (
	LayoutAbove = "LVM on the replicated device"
	LayoutBelow = "the replicated device on a logical volume"
	LayoutBoth  = "LVM below and above the replicated device"
	LayoutNone  = "no LVM on the replicated device"
)

// DoctorReply is one node's diagnosis.
type DoctorReply struct {
	Schema   string   `json:"schema"`
	Node     string   `json:"node"`
	Resource string   `json:"resource"`
	Disk     string   `json:"disk"`
	Device   string   `json:"device"`
	Layout   string   `json:"layout"`
	LVM      LVMFacts `json:"lvm"`
	Healthy  bool     `json:"healthy"`
	Findings []string `json:"findings"` // what was found, in words; never empty
	Fix      *LVMFix  `json:"fix,omitempty"`
	Hint     string   `json:"hint,omitempty"` // what is left to do by hand
}

// LVMFix is a change of lvm's device selection, proposed or made.
type LVMFix struct {
	File     string      `json:"file"`
	Diff     []string    `json:"diff"` // the exact change, or the command for it
	Done     bool        `json:"done"`
	Backup   string      `json:"backup,omitempty"`
	Commands []Execution `json:"commands,omitempty"`
}
