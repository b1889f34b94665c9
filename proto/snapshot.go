package proto

import "time"

// Schema is the version of every JSON document that santui prints or sends.
const Schema = "santui/1"

// Snapshot is all that one agent knows, at one moment. Both the cockpit and `santui status --json` show this value.
// The sections are replaced as a whole, never mutated: a Snapshot that was handed out stays as it is.
type Snapshot struct {
	Schema    string     `json:"schema"`
	Pair      string     `json:"pair"`
	Node      string     `json:"node"`
	Peer      string     `json:"peer"`
	Seq       uint64     `json:"seq"` // grows by one with every change, restarts with the agent
	At        time.Time  `json:"at"`  // the agent's clock; never compare it with another machine's
	Agent     AgentInfo  `json:"agent"`
	PeerLink  PeerLink   `json:"peer_link"`
	Resources []Resource `json:"resources"`
	Op        *Op        `json:"op,omitempty"`   // the operation this agent runs or takes part in
	Lock      *Lock      `json:"lock,omitempty"` // who holds the pair's operation lock
	// Readiness holds the checks of a planned failover in the direction that makes sense now (to the Secondary), as
	// this agent sees it. Empty while neither node is Primary.
	Readiness []CheckList `json:"readiness,omitempty"`
	Events    []Event     `json:"events"` // newest last, at most MaxEvents
}

// AgentInfo identifies a running agent.
type AgentInfo struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	Kernel    string    `json:"kernel"`
}

// PeerLink is the agent's control link to the other agent. It is not the replication link.
type PeerLink struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since"`
	RTT   float64   `json:"rtt"` // seconds, of the last exchange
	Err   string    `json:"err,omitempty"`
}

// Resource is one replicated device as its node sees it.
type Resource struct {
	Name      string    `json:"name"`
	Minor     int       `json:"minor"`
	Device    string    `json:"device"`              // the path that drbd.conf names; exists only while Primary
	Node      string    `json:"node_path,omitempty"` // the kernel's device behind it, for example /dev/nbd0
	Disk      string    `json:"disk_path"`           // the backing disk
	Engine    string    `json:"engine"`              // native or drbd
	FrontEnd  string    `json:"front_end"`           // nbd, ublk or fuse
	Protocol  Protocol  `json:"protocol"`
	Size      int64     `json:"size"`                 // bytes usable by applications, 0 while unknown
	SizeLimit int64     `json:"size_limit,omitempty"` // bytes that drbd.conf allows the device (disk { size }), 0 = no limit
	Role      Role      `json:"role"`
	PeerRole  Role      `json:"peer_role"`
	Conn      ConnState `json:"conn"`
	DiskState DiskState `json:"disk"`
	PeerDisk  DiskState `json:"peer_disk"`
	Suspended bool      `json:"suspended"`
	Open      int       `json:"open"` // openers of the device
	UUIDs     UUIDs     `json:"uuids"`
	OutOfSync int64     `json:"out_of_sync"` // bytes
	Sync      *Sync     `json:"sync,omitempty"`
	Verify    *Verify   `json:"verify,omitempty"` // outcome of the newest online verify that this node took part in
	Counters  Counters  `json:"counters"`
	Lights    Lights    `json:"lights"`
	Stack     Stack     `json:"stack"`
	// LastInSync is when this copy was last known identical to the peer's, zero if never.
	LastInSync time.Time `json:"last_in_sync"`
	// ConnSince is since when the replication link is up (from Connected on) or not, as this agent saw it; RoleSince since
	// when the role is what it is; LastWrite when this node, as Primary, was last seen to write (after the agent's
	// death up to a minute too early). Zero if not known.
	ConnSince time.Time `json:"conn_since,omitzero"`
	RoleSince time.Time `json:"role_since,omitzero"`
	LastWrite time.Time `json:"last_write,omitzero"`
	// WasPrimary is when this node was last made Primary.
	WasPrimary time.Time `json:"was_primary,omitzero"`
	// Degraded says that this node had gone down as Primary without its peer when its disk was attached.
	Degraded bool `json:"degraded,omitempty"`
	// NeedsRejoin says that this node took over and the other one has not followed it since, "" otherwise.
	NeedsRejoin string `json:"needs_rejoin,omitempty"`
	// SplitBrain says that both nodes were seen to have changed the data on their own.
	SplitBrain bool `json:"split_brain,omitempty"`
	// Problem is the newest condition that needs a human (split brain, I/O error ...), with its remedy.
	Problem string `json:"problem,omitempty"`
}

// UUIDs is the generation record of a copy: DRBD's current, bitmap and history identifiers (linux/drbd.h,
// enum drbd_uuid_index).
type UUIDs struct {
	Current uint64    `json:"current"`
	Bitmap  uint64    `json:"bitmap"`
	History [2]uint64 `json:"history"`
}

// Sync is a running resynchronisation or verify.
type Sync struct {
	Kind    string    `json:"kind"` // "resync" or "verify"
	Source  string    `json:"source"`
	Target  string    `json:"target"`
	Started time.Time `json:"started"`
	Total   int64     `json:"total"`            // bytes to do at the start
	Left    int64     `json:"left"`             // bytes still out of sync
	Failed  int64     `json:"failed"`           // bytes that could not be read or written
	Differ  int64     `json:"differ,omitempty"` // bytes that a verify found to differ so far
	Rate    int64     `json:"rate"`             // bytes a second, over the last seconds
	Mean    int64     `json:"mean"`             // bytes a second, since the start
	Limit   int64     `json:"limit"`            // configured rate, bytes a second
	Finish  float64   `json:"finish"`           // seconds left at Rate, -1 while unknown
	Paused  bool      `json:"paused"`           //
	By      string    `json:"by,omitempty"`     // who paused it: a node, or "resync-after r0"
	Stalled bool      `json:"stalled"`          // nothing moved for a while
	Want    int64     `json:"want,omitempty"`   // controller's target rate
	OpID    string    `json:"op_id,omitempty"`  // the operation that started it
	Why     string    `json:"reason,omitempty"` // why it runs
}

// Verify is the outcome of an online verify: both copies were read and compared, block by block. Sizes are bytes.
type Verify struct {
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	By       string    `json:"by"`               // the node that compared
	Alg      string    `json:"alg"`              // digest
	Size     int64     `json:"size"`             // of the device
	From     int64     `json:"from"`             // offset at which it began
	Checked  int64     `json:"checked"`          // compared
	Differ   int64     `json:"differ"`           // in blocks of 4 KiB that differ; they are marked out of sync
	Failed   int64     `json:"failed,omitempty"` // could not be read
	Ranges   []Extent  `json:"ranges,omitempty"` // what differs; the first 100 ranges
	Complete bool      `json:"complete"`         // the whole device was compared
	Why      string    `json:"why,omitempty"`    // it ended early
}

// Extent is a range of a device in bytes.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// Counters are DRBD's /proc/drbd counters, in bytes where DRBD shows KiB.
type Counters struct {
	Sent       int64 `json:"ns"`
	Received   int64 `json:"nr"`
	Written    int64 `json:"dw"`
	Read       int64 `json:"dr"`
	ALWrites   int64 `json:"al"`
	BMWrites   int64 `json:"bm"`
	LocalInFly int64 `json:"lo"`
	Pending    int64 `json:"pe"`
	Unacked    int64 `json:"ua"`
	AppPending int64 `json:"ap"`
	Epochs     int64 `json:"ep"`

	ProtocolErrors int64 `json:"protocol_errors"` // connections that ended because of a packet that no correct peer sends
}

// Light is one yes-or-no statement with its reason. The reason is never empty.
type Light struct {
	On  bool   `json:"on"`
	Why string `json:"why"`
}

// Lights are the four statements about a copy that operators mix up.
type Lights struct {
	InSync       Light `json:"in_sync"`
	Verified     Light `json:"verified"`
	Redundant    Light `json:"redundant"`
	SafePowerOff Light `json:"safe_to_power_off"`
}

// Stack is all that sits on a replicated device, as far as it is active on this node. On a Secondary it is empty.
type Stack struct {
	VGs    []VG    `json:"vgs,omitempty"`
	Mounts []Mount `json:"mounts,omitempty"` // deepest last: unmount in reverse order
	FS     string  `json:"fs,omitempty"`     // file system directly on the device: ext4, xfs, btrfs ...; "" if none
	Users  []User  `json:"users,omitempty"`
	Every  float64 `json:"every,omitempty"` // seconds between two looks of an agent for which this look took long; 0: a few
	Err    string  `json:"err,omitempty"`   // the stack could not be read completely, and why
}

// VG is a volume group whose physical volume is the replicated device.
type VG struct {
	Name           string `json:"name"`
	UUID           string `json:"uuid"`
	Seqno          int    `json:"seqno"`
	Partial        bool   `json:"partial"`
	Exported       bool   `json:"exported"`
	Foreign        bool   `json:"foreign"`        // has PVs outside the replicated device
	AutoActivation bool   `json:"autoactivation"` // LVM may activate it by itself
	SystemID       string `json:"system_id,omitempty"`
	LockType       string `json:"lock_type,omitempty"` // of lvmlockd
	Mark           string `json:"mark,omitempty"`      // changes with every commit of the metadata; replicas have the same
	LVs            []LV   `json:"lvs"`
}

// LV is a logical volume.
type LV struct {
	Name   string `json:"name"`
	UUID   string `json:"uuid"`
	Path   string `json:"path"` // /dev/VG/LV
	Size   int64  `json:"size"`
	Active bool   `json:"active"`
	Open   bool   `json:"open"`
	Attr   string `json:"attr"`
	Role   string `json:"role,omitempty"` // lvs' lv_role
	FS     string `json:"fs,omitempty"`
	Pool   string `json:"pool,omitempty"`   // the thin pool it lives in
	Origin string `json:"origin,omitempty"` // what it is a snapshot of
	// Health is lvs' lv_health_status: "", "partial", "failed", "out_of_data", "metadata_read_only" ...; CheckNeeded
	// its lv_check_needed.
	Health      string  `json:"health,omitempty"`
	CheckNeeded bool    `json:"check_needed,omitempty"`
	DataPct     float64 `json:"data_percent,omitempty"` // of a thin pool or snapshot
	MetaPct     float64 `json:"metadata_percent,omitempty"`
	// Unexplained says that somebody has it open and nobody could be found: a kernel target, for example.
	Unexplained bool `json:"unexplained_open,omitempty"`
}

// Mount is a file system of the stack that is mounted in the agent's mount namespace.
type Mount struct {
	Source  string  `json:"source"` // device, as the operator knows it: /dev/storage/test, /dev/drbd0
	Target  string  `json:"target"`
	FSType  string  `json:"fstype"`
	Options string  `json:"options"`
	Root    string  `json:"root,omitempty"` // other than / for a bind mount
	Size    int64   `json:"size"`
	Used    int64   `json:"used"`
	Major   uint32  `json:"major"`
	Minor   uint32  `json:"minor"`
	NS      *uint64 `json:"ns,omitempty"` // inode of the mount namespace, if it is not the agent's
	// Problem is why it could not be mounted on the other node as it is here: a part of the file system is on another disk,
	// an automounter watches it ... "" if it could.
	Problem string `json:"problem,omitempty"`
}

// User is something that keeps a device or mount of the stack busy.
type User struct {
	Kind   string `json:"kind"` // process, swap, loop, dm, mount-namespace, md
	PID    int    `json:"pid,omitempty"`
	UID    int    `json:"uid,omitempty"`
	Name   string `json:"name"`
	Path   string `json:"path"` // what is held
	How    string `json:"how"`  // cwd, root, exe, fd, mmap, holder ...
	Device string `json:"device,omitempty"`
	Unit   string `json:"unit,omitempty"` // the systemd unit that a process belongs to
}

// Event is one line of the event list.
type Event struct {
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"at"`
	Node     string    `json:"node"`
	Resource string    `json:"resource,omitempty"`
	Level    Level     `json:"level"`
	Text     string    `json:"text"`
	OpID     string    `json:"op_id,omitempty"`
}

// Level grades an event.
type Level string

// The levels.
const (
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelAlert Level = "alert"
)
