package datapath

import (
	"context"
	"time"
)

// Attach opens the backing disk, reads its metadata, applies the activity log if the node went down as Primary, and
// brings the disk to the best state its metadata allows. It returns when the disk is usable or refused.
func (r *Resource) Attach(ctx context.Context) error { return r.ask(ctx, cmdAttach{}) }

// Detach lets go of the backing disk. The state machine refuses it while the disk holds the only usable copy of a
// Primary.
func (r *Resource) Detach(ctx context.Context) error { return r.ask(ctx, cmdDetach{}) }

// Connect leaves StandAlone and looks for the peer from now on; it does not wait until the peer answers. With
// discardMyData this node's changes lose if a split brain is found.
func (r *Resource) Connect(ctx context.Context, discardMyData bool) error {
	return r.ask(ctx, cmdConnect{discard: discardMyData})
}

// Disconnect ends the link and stays StandAlone. A reachable peer is asked first; with force it is not.
func (r *Resource) Disconnect(ctx context.Context, force bool) error {
	return r.ask(ctx, cmdDisconnect{force: force})
}

// Promote makes this node Primary, with the peer's agreement when it is connected. With force, a disk that is less
// than UpToDate is declared UpToDate.
func (r *Resource) Promote(ctx context.Context, force bool) error {
	return r.ask(ctx, cmdPromote{force: force})
}

// Demote makes this node Secondary. It fails with ErrInUse while the device is open.
func (r *Resource) Demote(ctx context.Context) error { return r.ask(ctx, cmdDemote{}) }

// PauseSync pauses a running or coming resync until ResumeSync, on both nodes.
func (r *Resource) PauseSync(ctx context.Context) error { return r.ask(ctx, cmdPause{on: true}) }

// ResumeSync takes back PauseSync.
func (r *Resource) ResumeSync(ctx context.Context) error { return r.ask(ctx, cmdPause{on: false}) }

// VerifyStart begins an online verify: both copies are read and compared from offset from (rounded down to 4 KiB) to the
// end, while applications go on. What differs is marked out of sync; nothing is repaired. It returns when the peer has
// agreed; Status tells how far it is and, in LastVerify, what came out.
func (r *Resource) VerifyStart(ctx context.Context, from int64) error {
	return r.ask(ctx, cmdVerify{from: from})
}

// VerifyStop ends a verify that this node began and returns when all that was asked for has been compared.
func (r *Resource) VerifyStop(ctx context.Context) error { return r.ask(ctx, cmdVerifyStop{}) }

// Invalidate overwrites all of this node's copy from the peer's, InvalidateRemote the peer's from this one. The state
// machine refuses it while the node that is overwritten is Primary, or the other copy is not UpToDate. Both return when
// the resync has begun.
func (r *Resource) Invalidate(ctx context.Context) error { return r.ask(ctx, cmdInvalidate{}) }

// InvalidateRemote overwrites the peer's copy; see Invalidate.
func (r *Resource) InvalidateRemote(ctx context.Context) error {
	return r.ask(ctx, cmdInvalidate{peer: true})
}

// SkipInitialSync declares two disks that were just created to hold the same, as they are: both become UpToDate and
// nothing is copied. What differs stays different, and only a verify would find it. The state machine refuses it unless
// both disks are fresh and both nodes Secondary.
func (r *Resource) SkipInitialSync(ctx context.Context) error { return r.ask(ctx, cmdSkipSync{}) }

// Resize takes a backing disk that has been enlarged under the resource: the metadata goes to its new end, and with a
// connected peer whose disk has grown too the device grows to the smaller of the two. It is enough to ask on one node. The
// new part is resynced, from the Primary if there is one, or with assumeClean counts as in sync. It returns when this node
// has done its part; Status has the size.
func (r *Resource) Resize(ctx context.Context, assumeClean bool) error {
	return r.ask(ctx, cmdResize{assumeClean: assumeClean})
}

// Outdate declares the copy of this node, a Secondary that is not connected, to be Outdated: it cannot be promoted without
// force until it has followed the peer's again.
func (r *Resource) Outdate(ctx context.Context) error { return r.ask(ctx, cmdOutdate{}) }

// SuspendIO lets all I/O of applications wait until ResumeIO.
func (r *Resource) SuspendIO(ctx context.Context) error { return r.ask(ctx, cmdSuspend{on: true}) }

// ResumeIO ends every suspension of I/O: by SuspendIO, for want of a copy (such I/O fails then), and because the peer is
// lost and not fenced (then this node goes on without it).
func (r *Resource) ResumeIO(ctx context.Context) error { return r.ask(ctx, cmdSuspend{on: false}) }

// SetResyncRate changes the rate, in bytes a second, at which this node asks for blocks while it is SyncTarget. It
// works while a resync runs and until the resource is closed, and takes over from SyncControl. An online verify keeps to
// it too.
func (r *Resource) SetResyncRate(bytesPerSecond int64) error {
	return r.ask(context.Background(), cmdRate{rate: bytesPerSecond})
}

// OpenDevice counts one more user of the device. Only a Primary can be opened.
func (r *Resource) OpenDevice() error { return r.ask(context.Background(), cmdOpen{}) }

// CloseDevice takes back one OpenDevice.
func (r *Resource) CloseDevice() error { return r.ask(context.Background(), cmdCloseDev{}) }

// Status returns the newest published state. It never blocks and never returns nil.
func (r *Resource) Status() *Status { return r.status.Load() }

// Changed returns a channel that is closed when a newer Status than the present one was published. Take the channel
// first, then the Status, then wait.
func (r *Resource) Changed() <-chan struct{} { return *r.changed.Load() }

// The commands.
type (
	cmdAttach     struct{}
	cmdDetach     struct{}
	cmdConnect    struct{ discard bool }
	cmdDisconnect struct{ force bool }
	cmdPromote    struct{ force bool }
	cmdDemote     struct{}
	cmdPause      struct{ on bool }
	cmdRate       struct{ rate int64 }
	cmdResize     struct{ assumeClean bool }
	cmdOpen       struct{}
	cmdCloseDev   struct{}
	cmdClose      struct{}
	cmdVerify     struct{ from int64 }
	cmdVerifyStop struct{}
	cmdInvalidate struct{ peer bool }
	cmdSkipSync   struct{}
	cmdOutdate    struct{}
	cmdSuspend    struct{ on bool }
)

// request is a command on its way to the owner goroutine.
type request struct {
	ctx   context.Context
	cmd   any
	since time.Time
	reply chan error // capacity 1
}

// ask hands a command to the owner and waits for its answer. A command whose caller has gone is still answered by the
// state machine; it is just that nobody hears it.
func (r *Resource) ask(ctx context.Context, cmd any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q := &request{ctx: ctx, cmd: cmd, since: time.Now(), reply: make(chan error, 1)}
	if !r.inbox.put(q) {
		return ErrClosed
	}
	select {
	case err := <-q.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.gone:
		select {
		case err := <-q.reply:
			return err
		default:
			return ErrClosed
		}
	}
}
