package engine

import (
	"context"
	"time"

	"example.com/santui/proto"
)

// LinkInfo describes the replication link. A zero field is not known.
type LinkInfo struct {
	Since   time.Time     // of this link; zero while there is none
	Sent    int64         // segments with data, those sent again included
	Resent  int64         // segments sent again
	RTT     time.Duration // round trip, smoothed
	BestRTT time.Duration // the shortest of the last minutes
	MTU     int           // of the path, bytes
	Broken  int64         // links that the network ended, since the engine was started
}

// Engine replicates one resource on this node. Methods are safe for concurrent use. Errors are *proto.Error where an
// operator can act on them.
type Engine interface {
	// Up attaches the disk and starts to connect. It does not wait for the peer. A disk that cannot be attached is an
	// error, and the resource connects without it.
	Up(ctx context.Context) error
	// Status is what the resource looks like now; the fields that belong to the volume stack are left empty.
	Status() proto.Resource
	// Changed is closed when Status has something newer. Take it before Status.
	Changed() <-chan struct{}
	// Promote makes this node Primary; when it returns, the device exists. force declares this copy the good one.
	Promote(ctx context.Context, force bool) error
	// Demote makes this node Secondary. It fails with CodeBusy while anything holds the device.
	Demote(ctx context.Context) error
	// Connect and Disconnect leave and enter StandAlone. With discardMyData this node's changes lose if the nodes find a
	// split brain; it counts only out of StandAlone.
	Connect(ctx context.Context, discardMyData bool) error
	Disconnect(ctx context.Context) error
	// AttachDisk and DetachDisk take the backing disk into use and let go of it; applications go on through the peer.
	AttachDisk(ctx context.Context) error
	DetachDisk(ctx context.Context) error
	// Outdate declares the copy of this node, a Secondary without connection, to be Outdated.
	Outdate(ctx context.Context) error
	// SuspendIO lets applications' I/O wait; ResumeIO ends every suspension, that for a lost peer or copy too.
	SuspendIO(ctx context.Context) error
	ResumeIO(ctx context.Context) error
	// PauseSync, ResumeSync and SetSyncRate (bytes a second) steer a resync.
	PauseSync(ctx context.Context) error
	ResumeSync(ctx context.Context) error
	SetSyncRate(bytesPerSecond int64) error
	// Resize takes a disk that has been enlarged. It returns when the device has grown, with an error if the smaller of the
	// two disks does not allow it. With assumeClean the new part is not resynced.
	Resize(ctx context.Context, assumeClean bool) error
	// InvalidatePeer overwrites the peer's copy in full from this node's. It returns when the resync has begun.
	InvalidatePeer(ctx context.Context) error
	// SkipInitialSync declares two fresh disks to hold the same; nothing is copied.
	SkipInitialSync(ctx context.Context) error
	// VerifyStart begins an online verify at byte from, compared by this node; VerifyStop ends one that this node began.
	// The outcome is in Status.
	VerifyStart(ctx context.Context, from int64) error
	VerifyStop(ctx context.Context) error
	// Repair resynchronises what is marked out of sync from this node's copy. The link is down for a moment.
	Repair(ctx context.Context) error
	// LinkInfo is what the kernel knows of the connections to the peer, at this moment. It does not wait.
	LinkInfo() LinkInfo
	// Node is the kernel's block device while Primary, "" otherwise.
	Node() string
	// Close takes the resource down in order. While the device is in use it fails with CodeBusy and everything stays up.
	Close(ctx context.Context) error
}
