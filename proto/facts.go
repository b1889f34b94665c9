package proto

import "time"

// Facts are what a node says about itself beyond the resource: what the checks of a stack need. A fact that could not
// be read is named in Errs; the field is then empty.
type Facts struct {
	LVM LVMFacts `json:"lvm"`
	// Backing is what uses the backing disk beside replication: loop devices, logical volumes, mounts. Anything here is
	// an alarm: it reads and writes behind replication's back.
	Backing      []User     `json:"backing,omitempty"`
	BackingLV    *BackingLV `json:"backing_lv,omitempty"` // nil if the backing disk is no logical volume
	DiskSize     int64      `json:"disk_size"`            // bytes of the backing disk, 0 if unknown
	DiskSector   int        `json:"disk_sector"`          // logical block size of the backing disk in bytes, 0 if unknown
	DeviceSector int        `json:"device_sector"`        // of the replicated device, 0 while it does not exist
	DiskErrors   int64      `json:"disk_errors"`          // the kernel's error count of the backing disk (SCSI only)
	Filesystems  []string   `json:"filesystems"`          // types that the kernel has or can load
	ThinTools    string     `json:"thin_tools"`           // version of thin_check, "" if it is missing
	// Versions of the programs that a move runs, by package: lvm2, e2fsprogs, xfsprogs, util-linux, thin-provisioning-tools.
	Versions map[string]string `json:"versions,omitempty"`
	Fstab    []FstabEntry      `json:"fstab,omitempty"`
	Health   []FSHealth        `json:"health,omitempty"` // of the stack's file systems, where something is to be said
	Link     *LinkFacts        `json:"link,omitempty"`   // nil: nobody has looked yet
	Errs     []string          `json:"errs,omitempty"`
}

// LinkFacts are what a node has seen of its replication link over the last minutes, from the kernel's view of the two TCP
// connections (struct tcp_info, linux/tcp.h). Times are seconds.
type LinkFacts struct {
	Breaks    int       `json:"breaks"`    // how often the network ended it, as opposed to either node, within BreaksIn
	BreaksIn  float64   `json:"breaks_in"` //
	LastBreak time.Time `json:"last_break,omitzero"`
	Sent      int64     `json:"sent"`      // segments with data, those sent again included, within Window
	Resent    int64     `json:"resent"`    // segments sent again
	Window    float64   `json:"window"`    //
	RTT       float64   `json:"rtt"`       // round trip, smoothed, 0 if not known
	UsualRTT  float64   `json:"usual_rtt"` // the shortest since the agent was started
	MTU       int       `json:"mtu"`       // of the path to the other node as this node's kernel knows it, bytes, 0 if not known
}

// BackingLV is the logical volume that a backing disk is. Sizes are bytes.
type BackingLV struct {
	VG     string `json:"vg"`
	LV     string `json:"lv"`
	Type   string `json:"type"` // lvs' segtype: linear, striped, thin ...
	Size   int64  `json:"size"`
	Free   int64  `json:"free"` // in the group
	Extent int64  `json:"extent"`
}

// LVMFacts is what LVM makes of this node's devices on its own, at boot or when somebody types a command: without the
// --devices that every command of an operation carries.
type LVMFacts struct {
	Installed    bool   `json:"installed"`
	Mechanism    string `json:"mechanism"`              // what selects devices: "devices file", "filter", "none"
	DevicesFile  string `json:"devices_file,omitempty"` // its path, if it is in force
	Filter       string `json:"filter,omitempty"`       // as lvm.conf has it
	GlobalFilter string `json:"global_filter,omitempty"`
	ScanLVs      bool   `json:"scan_lvs"`
	// SearchDevnames is search_for_devnames: whether lvm looks outside a devices file for what it names by device name.
	SearchDevnames string   `json:"search_for_devnames,omitempty"`
	Backing        []string `json:"backing,omitempty"`    // names under which LVM sees the backing disk
	Device         bool     `json:"device"`               // LVM sees the replicated device
	Duplicates     []string `json:"duplicates,omitempty"` // other devices that carry the same physical volume
	Others         []string `json:"others,omitempty"`     // volume groups elsewhere on this node
}

// FstabEntry is one line of /etc/fstab, or a mount unit of systemd that somebody wrote beside it.
type FstabEntry struct {
	Source  string `json:"source"`
	Target  string `json:"target"`
	FSType  string `json:"fstype"`
	Options string `json:"options"`        // of a unit: with noauto unless it is enabled, and x-systemd.automount where that is
	Unit    string `json:"unit,omitempty"` // the mount unit's name, "" for a line of fstab
}

// FSHealth is what is wrong with a mounted file system.
type FSHealth struct {
	Target   string `json:"target"`
	Errors   int64  `json:"errors"`    // errors that the file system has recorded since its last check (ext4)
	ReadOnly bool   `json:"read_only"` // the file system is read-only
	State    string `json:"state,omitempty"`
}

// LVM device selection, for LVMFacts.Mechanism.
const (
	SelectDevicesFile = "devices file"
	SelectFilter      = "filter"
	SelectNone        = "none"
)

// Limits of Facts.
const (
	// MaxFstab is how many lines of /etc/fstab are looked at.
	MaxFstab = 256
	// MaxFacts bounds the other lists.
	MaxFacts = 64
)
