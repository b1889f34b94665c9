package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/export"
	"example.com/santui/datapath/state"
	"example.com/santui/proto"
)

// NativeConfig is what a Native needs beside the replication itself.
type NativeConfig struct {
	Datapath datapath.Config
	FrontEnd export.Kind // "" lets the kernel's abilities decide
	RunDir   string      // private directory of the agent for mounts and sockets
	StateDir string      // keeps the outcome of the last verify over restarts; "" does not
	Minor    int
	Pair     string
}

// Native is santui's own engine behind a front end.
type Native struct {
	cfg    NativeConfig
	res    *datapath.Resource
	events func(proto.Level, string)
	log    *slog.Logger

	role sync.Mutex // serialises what changes role and export together

	mu     sync.Mutex // protects what follows
	exp    export.Export
	verify *proto.Verify // outcome of the last one, nil if there was none

	saves sync.WaitGroup
}

var _ Engine = (*Native)(nil)

// resizeTime is how long a resize waits for the peer's word.
const resizeTime = 5 * time.Second

// NewNative checks the configuration and starts the resource's state machine, without touching disk or network.
func NewNative(cfg NativeConfig) (*Native, error) {
	n := &Native{}
	cfg.Datapath.Verified = n.keepVerify
	if cfg.StateDir != "" {
		cfg.Datapath.LastSize, cfg.Datapath.KeepSize = diskSize(sizeFile(&cfg))
	}
	res, err := datapath.New(cfg.Datapath)
	if err != nil {
		return nil, err
	}
	log := cfg.Datapath.Logger
	if log == nil {
		log = slog.Default()
	}
	events := cfg.Datapath.Events
	if events == nil {
		events = func(proto.Level, string) {}
	}
	n.cfg, n.res, n.events, n.log = cfg, res, events, log
	n.loadVerify()
	return n, nil
}

func (n *Native) errorf(code proto.ErrorCode, format string, args ...any) *proto.Error {
	e := proto.Errorf(code, format, args...).On(n.cfg.Datapath.Node)
	e.Resource = n.cfg.Datapath.Resource
	return e
}

// wrap turns an error of the engine into one that can cross a control link.
func (n *Native) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	var pe *proto.Error
	if errors.As(err, &pe) {
		return err
	}
	var refusal *state.Refusal
	if errors.As(err, &refusal) {
		return n.errorf(proto.CodeState, "%s: %s", what, strings.TrimPrefix(refusal.Text, what+": ")).WithRemedy("%s", refusal.Remedy)
	}
	code := proto.CodeFailed
	switch {
	case errors.Is(err, datapath.ErrInUse), errors.Is(err, export.ErrBusy):
		code = proto.CodeBusy
	case errors.Is(err, context.DeadlineExceeded):
		code = proto.CodeTimeout
	case errors.Is(err, context.Canceled):
		code = proto.CodeInterrupted
	case errors.Is(err, datapath.ErrClosed):
		code = proto.CodeNotFound
	}
	return n.errorf(code, "%s: %v", what, err)
}

// Up implements Engine. What a killed agent left of the front end is cleared away first: it would keep the disk busy.
func (n *Native) Up(ctx context.Context) error {
	if err := export.Sweep(ctx, n.cfg.RunDir); err != nil {
		n.log.Warn("clearing away an earlier agent's front end", "err", err)
	}
	return errors.Join(n.AttachDisk(ctx), n.wrap("connect to "+n.cfg.Datapath.Peer, n.res.Connect(ctx, false)))
}

// Status implements Engine.
func (n *Native) Status() proto.Resource {
	st, c := n.res.Status(), n.cfg.Datapath
	r := proto.Resource{
		Name: c.Resource, Minor: n.cfg.Minor, Device: c.Device, Node: n.Node(), Disk: c.DiskPath, Engine: "native",
		FrontEnd: string(n.cfg.FrontEnd), Protocol: c.Protocol, Size: st.Size, SizeLimit: st.SizeLimit,
		Role: st.Role, PeerRole: st.PeerRole, Conn: st.Conn, DiskState: st.Disk, PeerDisk: st.PeerDisk,
		Suspended: st.Suspended, UUIDs: st.UUIDs, OutOfSync: st.OutOfSync, Sync: st.Sync, Counters: st.Counters,
		LastInSync: st.LastInSync, Problem: st.Problem, Degraded: st.Degraded,
	}
	n.mu.Lock()
	r.Verify = n.verify
	n.mu.Unlock()
	r.Lights = lights(c.Peer, st)
	r.Lights.Verified = verifiedLight(c.VerifyAlg, st, r.Verify)
	return r
}

// lights words the statements about this copy, all but Verified.
func lights(peer string, st *datapath.Status) proto.Lights {
	connected := st.Conn >= proto.Connected
	both := connected && st.Disk == proto.UpToDate && st.PeerDisk == proto.UpToDate
	l := proto.Lights{}
	switch {
	case both && st.OutOfSync == 0 && !st.Conn.Syncing():
		l.InSync = proto.Light{On: true, Why: "both copies are identical"}
	case st.Conn.Syncing():
		l.InSync = proto.Light{Why: fmt.Sprintf("%d MiB still to be synchronised", st.OutOfSync>>20)}
	case st.Conn == proto.Ahead:
		l.InSync = proto.Light{Why: fmt.Sprintf("the link is congested: %s is %d KiB behind, which are resynced later", peer, st.OutOfSync>>10)}
	case st.Conn == proto.Behind:
		l.InSync = proto.Light{Why: fmt.Sprintf("the link is congested: %s is %d KiB ahead, which are resynced later", peer, st.OutOfSync>>10)}
	case both:
		l.InSync = proto.Light{Why: fmt.Sprintf("%d KiB are marked out of sync between two UpToDate copies", st.OutOfSync>>10)}
	case !connected && !st.LastInSync.IsZero():
		l.InSync = proto.Light{Why: "last identical at " + st.LastInSync.Format(time.DateTime)}
	default:
		l.InSync = proto.Light{Why: fmt.Sprintf("%s here, %s on %s", st.Disk, st.PeerDisk, peer)}
	}
	switch {
	case both:
		l.Redundant = proto.Light{On: true, Why: "two UpToDate copies, " + peer + " follows every write"}
	case !connected:
		l.Redundant = proto.Light{Why: peer + " is not connected (" + st.Conn.String() + ")"}
	default:
		l.Redundant = proto.Light{Why: fmt.Sprintf("the copies are %s here and %s on %s", st.Disk, st.PeerDisk, peer)}
	}
	switch {
	case st.Role == proto.Primary:
		l.SafePowerOff = proto.Light{Why: "this node is Primary"}
	case both && st.OutOfSync > 0 && !st.Conn.Syncing():
		l.SafePowerOff = proto.Light{Why: fmt.Sprintf("%d KiB differ from %s, and it is not known whose are right: verify repair first", (st.OutOfSync+1023)>>10, peer)}
	case both || st.Disk <= proto.Inconsistent && !st.Conn.Syncing():
		l.SafePowerOff = proto.Light{On: true, Why: "this node is Secondary and holds nothing that " + peer + " lacks"}
		if !both {
			l.SafePowerOff.Why = "this node holds no usable copy (" + st.Disk.String() + ")"
		}
	case st.Conn.Syncing():
		l.SafePowerOff = proto.Light{Why: "a resync is running"}
	case st.Conn == proto.Behind:
		l.SafePowerOff = proto.Light{On: true, Why: "this node is Behind and holds nothing that " + peer + " lacks"}
	default:
		l.SafePowerOff = proto.Light{Why: "this may be the only good copy: " + peer + " is " + st.PeerDisk.String()}
	}
	return l
}

// Changed implements Engine.
func (n *Native) Changed() <-chan struct{} { return n.res.Changed() }

// LinkInfo implements Engine.
func (n *Native) LinkInfo() LinkInfo { return LinkInfo(n.res.LinkInfo()) }

// Node implements Engine.
func (n *Native) Node() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.exp == nil {
		return ""
	}
	return n.exp.Device()
}

func (n *Native) export() export.Export {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.exp
}

func (n *Native) setExport(e export.Export) {
	n.mu.Lock()
	n.exp = e
	n.mu.Unlock()
}

// Promote implements Engine. When the device cannot be made, the role is given back.
func (n *Native) Promote(ctx context.Context, force bool) error {
	n.role.Lock()
	defer n.role.Unlock()
	if n.res.Status().Role != proto.Primary || force && n.res.Status().Disk != proto.UpToDate {
		if err := n.res.Promote(ctx, force); err != nil {
			return n.wrap("promote", err)
		}
	}
	if n.export() != nil {
		return nil
	}
	if err := n.attach(ctx); err != nil {
		back := n.res.Demote(context.WithoutCancel(ctx))
		return errors.Join(n.wrap("make "+n.cfg.Datapath.Device, err), n.wrap("give the Primary role back", back))
	}
	return nil
}

func (n *Native) attach(ctx context.Context) error {
	if err := n.res.OpenDevice(); err != nil {
		return err
	}
	size := n.res.Size()
	e, err := export.Attach(ctx, n.cfg.FrontEnd, n.res, export.Options{
		Name: n.cfg.Datapath.Resource, Link: n.cfg.Datapath.Device, RunDir: n.cfg.RunDir, Logger: n.log,
	})
	if err != nil {
		return errors.Join(err, n.res.CloseDevice())
	}
	n.setExport(e)
	n.tell(proto.LevelInfo, fmt.Sprintf("%s leads to %s", n.cfg.Datapath.Device, e.Device()))
	go n.watch(e, size)
	return nil
}

// watch lets the device grow with the resource, and tells the operator when the front end dies under a Primary. It ends
// with the export.
func (n *Native) watch(e export.Export, size int64) {
	for ended := false; !ended; {
		ch := n.res.Changed()
		if now := n.res.Size(); now > size {
			size = now
			if err := e.Resize(); err != nil {
				n.tell(proto.LevelAlert, fmt.Sprintf("%s does not show its new size: %v. Make the node Secondary and Primary again", n.cfg.Datapath.Device, err))
			} else {
				n.tell(proto.LevelInfo, fmt.Sprintf("%s has %d bytes now", n.cfg.Datapath.Device, now))
			}
		}
		select {
		case <-e.Done():
			ended = true
		case <-ch:
		}
	}
	if err := e.Err(); err != nil {
		n.tell(proto.LevelAlert, fmt.Sprintf("%s is gone: %v. Unmount what is on it and make the node Secondary", n.cfg.Datapath.Device, err))
	}
}

// tell logs a line and puts it into the event list, as the resource does with its own.
func (n *Native) tell(level proto.Level, text string) {
	n.log.Info(text, "resource", n.cfg.Datapath.Resource, "level", level)
	n.events(level, text)
}

// Demote implements Engine. The front end's exclusive open of the device is the proof that nobody uses it any more.
func (n *Native) Demote(ctx context.Context) error {
	n.role.Lock()
	defer n.role.Unlock()
	return n.demote(ctx)
}

func (n *Native) demote(ctx context.Context) error {
	if e := n.export(); e != nil {
		if err := e.Close(ctx); err != nil {
			return n.wrap("take away "+n.cfg.Datapath.Device, err)
		}
		n.setExport(nil)
		if err := n.res.CloseDevice(); err != nil {
			return n.wrap("close "+n.cfg.Datapath.Device, err)
		}
	}
	if n.res.Status().Role != proto.Primary {
		return nil
	}
	if err := n.res.Demote(ctx); err != nil {
		again := n.attach(context.WithoutCancel(ctx)) // still Primary, so the device must exist
		return errors.Join(n.wrap("demote", err), n.wrap("bring "+n.cfg.Datapath.Device+" back", again))
	}
	return nil
}

// Connect implements Engine.
func (n *Native) Connect(ctx context.Context, discardMyData bool) error {
	return n.wrap("connect", n.res.Connect(ctx, discardMyData))
}

// Disconnect implements Engine.
func (n *Native) Disconnect(ctx context.Context) error {
	return n.wrap("disconnect", n.res.Disconnect(ctx, false))
}

// AttachDisk implements Engine.
func (n *Native) AttachDisk(ctx context.Context) error {
	err := n.res.Attach(ctx)
	if errors.Is(err, datapath.ErrTwoMetadata) {
		return n.errorf(proto.CodeState, "attach: %v", err).WithRemedy("decide which one is this resource's. The one at the end: remove %s. "+
			"The one where the end was: erase the superblock at the end, 4096 bytes there, with dd. Then attach", sizeFile(&n.cfg))
	}
	return n.wrap("attach "+n.cfg.Datapath.DiskPath, err)
}

// DetachDisk implements Engine.
func (n *Native) DetachDisk(ctx context.Context) error {
	return n.wrap("detach "+n.cfg.Datapath.DiskPath, n.res.Detach(ctx))
}

// Outdate implements Engine.
func (n *Native) Outdate(ctx context.Context) error { return n.wrap("outdate", n.res.Outdate(ctx)) }

// SuspendIO implements Engine.
func (n *Native) SuspendIO(ctx context.Context) error {
	return n.wrap("suspend I/O", n.res.SuspendIO(ctx))
}

// ResumeIO implements Engine.
func (n *Native) ResumeIO(ctx context.Context) error {
	return n.wrap("resume I/O", n.res.ResumeIO(ctx))
}

// PauseSync implements Engine.
func (n *Native) PauseSync(ctx context.Context) error {
	return n.wrap("pause the resync", n.res.PauseSync(ctx))
}

// ResumeSync implements Engine.
func (n *Native) ResumeSync(ctx context.Context) error {
	return n.wrap("resume the resync", n.res.ResumeSync(ctx))
}

// Resize implements Engine. The front end follows when the size is there: see watch.
func (n *Native) Resize(ctx context.Context, assumeClean bool) error {
	before := n.res.Status().Size
	if err := n.res.Resize(ctx, assumeClean); err != nil {
		return n.wrap("resize", err)
	}
	ctx, cancel := context.WithTimeout(ctx, resizeTime)
	defer cancel()
	for {
		ch := n.res.Changed()
		if st := n.res.Status(); st.Size > before {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			st, peer := n.res.Status(), n.cfg.Datapath.Peer
			if st.Conn < proto.Connected {
				return n.errorf(proto.CodeState, "resize: the device keeps its %d bytes as long as %s does not agree; the disk here is ready", before, peer).
					WithRemedy("connect the nodes and resize again")
			}
			if st.SizeLimit > 0 && st.Size >= st.SizeLimit {
				return n.errorf(proto.CodeState, "resize: the device keeps its %d bytes, which is what size in drbd.conf allows it", before).
					WithRemedy("raise size in the disk section on both nodes and start both agents again")
			}
			return n.errorf(proto.CodeState, "resize: the device keeps its %d bytes: the smaller of the two disks has no room for more", before).
				WithRemedy("enlarge the disks of both nodes, then resize again")
		}
	}
}

// SetSyncRate implements Engine.
func (n *Native) SetSyncRate(bytesPerSecond int64) error {
	return n.wrap("set the resync rate", n.res.SetResyncRate(bytesPerSecond))
}

// Close implements Engine.
func (n *Native) Close(ctx context.Context) error {
	n.role.Lock()
	defer n.role.Unlock()
	if err := n.demote(ctx); err != nil {
		return err
	}
	err := n.wrap("take the resource down", n.res.Close())
	n.saves.Wait()
	return err
}
