package proto

import (
	"fmt"
	"slices"
)

// Role is what a node does with a resource. Numbers: enum drbd_role, linux/drbd.h.
type Role uint8

// The roles.
const (
	RoleUnknown Role = iota
	Primary
	Secondary
)

// DiskState is how good a node's copy is. The order carries meaning: DRBD compares disk states with < and >.
// Numbers: enum drbd_disk_state, linux/drbd.h.
type DiskState uint8

// The disk states, from nothing to good.
const (
	Diskless DiskState = iota
	Attaching
	Failed
	Negotiating
	Inconsistent
	Outdated
	DUnknown
	Consistent
	UpToDate
)

// ConnState is the state of the replication link. Everything from Connected on has a working peer; the order carries
// meaning. Numbers: enum drbd_conns, linux/drbd.h.
type ConnState uint8

// The connection states.
const (
	StandAlone ConnState = iota
	Disconnecting
	Unconnected
	Timeout
	BrokenPipe
	NetworkFailure
	ProtocolError
	TearDown
	WFConnection
	WFReportParams
	Connected
	StartingSyncS
	StartingSyncT
	WFBitMapS
	WFBitMapT
	WFSyncUUID
	SyncSource
	SyncTarget
	VerifyS
	VerifyT
	PausedSyncS
	PausedSyncT
	Ahead
	Behind
)

// Protocol is DRBD's replication protocol. Numbers: DRBD_PROT_A..C, linux/drbd.h.
type Protocol uint8

// The replication protocols: A acknowledges when the data is handed to TCP, B when the peer has it in memory, C when
// it is on both disks.
const (
	ProtocolA Protocol = iota + 1
	ProtocolB
	ProtocolC
)

var (
	roleNames = []string{"Unknown", "Primary", "Secondary"}
	diskNames = []string{
		"Diskless", "Attaching", "Failed", "Negotiating", "Inconsistent", "Outdated", "DUnknown", "Consistent", "UpToDate",
	}
	connNames = []string{
		"StandAlone", "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure", "ProtocolError", "TearDown",
		"WFConnection", "WFReportParams", "Connected", "StartingSyncS", "StartingSyncT", "WFBitMapS", "WFBitMapT",
		"WFSyncUUID", "SyncSource", "SyncTarget", "VerifyS", "VerifyT", "PausedSyncS", "PausedSyncT", "Ahead", "Behind",
	}
	protocolNames = []string{"", "A", "B", "C"}
)

func word(names []string, i uint8, kind string) string {
	if int(i) < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}

func parseWord(names []string, text []byte, kind string) (uint8, error) {
	i := slices.Index(names, string(text))
	if i < 0 || len(text) == 0 {
		return 0, fmt.Errorf("unknown %s %q", kind, text)
	}
	return uint8(i), nil
}

func (r Role) String() string      { return word(roleNames, uint8(r), "Role") }
func (d DiskState) String() string { return word(diskNames, uint8(d), "DiskState") }
func (c ConnState) String() string { return word(connNames, uint8(c), "ConnState") }
func (p Protocol) String() string  { return word(protocolNames, uint8(p), "Protocol") }

// MarshalText spells the role as DRBD does.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalText spells the disk state as DRBD does.
func (d DiskState) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText spells the connection state as DRBD does.
func (c ConnState) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText gives A, B or C.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads DRBD's spelling.
func (r *Role) UnmarshalText(text []byte) error {
	v, err := parseWord(roleNames, text, "role")
	*r = Role(v)
	return err
}

// UnmarshalText reads DRBD's spelling.
func (d *DiskState) UnmarshalText(text []byte) error {
	v, err := parseWord(diskNames, text, "disk state")
	*d = DiskState(v)
	return err
}

// UnmarshalText reads DRBD's spelling.
func (c *ConnState) UnmarshalText(text []byte) error {
	v, err := parseWord(connNames, text, "connection state")
	*c = ConnState(v)
	return err
}

// UnmarshalText reads A, B or C.
func (p *Protocol) UnmarshalText(text []byte) error {
	v, err := parseWord(protocolNames, text, "protocol")
	*p = Protocol(v)
	return err
}

// Syncing says whether blocks are being resynchronised, running or paused.
func (c ConnState) Syncing() bool {
	switch c {
	case SyncSource, SyncTarget, PausedSyncS, PausedSyncT:
		return true
	default:
		return false
	}
}

// Verifying says whether an online verify runs.
func (c ConnState) Verifying() bool { return c == VerifyS || c == VerifyT }
