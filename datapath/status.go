package datapath

import (
	"time"

	"example.com/santui/proto"
)

// Status is what a resource looked like at one moment. It is never changed after it was published.
type Status struct {
	Seq       uint64 // grows with every publication
	At        time.Time
	Role      proto.Role
	PeerRole  proto.Role
	Conn      proto.ConnState
	Disk      proto.DiskState
	PeerDisk  proto.DiskState
	Suspended bool
	Open      int // openers of the device
	Size      int64
	SizeLimit int64 // what the device may have at most, by size in either node's drbd.conf; 0 = no limit
	UUIDs     proto.UUIDs
	PeerUUIDs proto.UUIDs // of the last handshake
	OutOfSync int64       // bytes
	Sync      *proto.Sync // nil unless a resync runs or is paused, or a verify runs
	// LastVerify is the outcome of the newest online verify since the resource was started, nil if there was none.
	LastVerify *proto.Verify
	Counters   proto.Counters
	// LastInSync is when both copies were last known identical, zero if never since the resource was started.
	LastInSync time.Time
	// Problem is the newest condition that needs a human, with its remedy; "" when there is none.
	Problem string
	// PauseHere and PausePeer: resync is paused by this node, by the peer.
	PauseHere, PausePeer bool
	// PauseAfter names the resources whose resync goes first, "" for none.
	PauseAfter string
	// Degraded says that the disk was found as one of a node that went down as Primary without its peer.
	Degraded bool
	// PeerProtocol is the protocol version agreed with the peer, 0 while not connected.
	PeerProtocol int
}
