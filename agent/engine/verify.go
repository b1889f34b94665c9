package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/proto"
)

// InvalidatePeer implements Engine.
func (n *Native) InvalidatePeer(ctx context.Context) error {
	return n.wrap("overwrite the copy of "+n.cfg.Datapath.Peer, n.res.InvalidateRemote(ctx))
}

// SkipInitialSync implements Engine.
func (n *Native) SkipInitialSync(ctx context.Context) error {
	return n.wrap("skip the initial sync with "+n.cfg.Datapath.Peer, n.res.SkipInitialSync(ctx))
}

// VerifyStart implements Engine.
func (n *Native) VerifyStart(ctx context.Context, from int64) error {
	return n.wrap("start the verify", n.res.VerifyStart(ctx, from))
}

// VerifyStop implements Engine.
func (n *Native) VerifyStop(ctx context.Context) error {
	return n.wrap("stop the verify", n.res.VerifyStop(ctx))
}

// reconnectTime is how long a repair waits for the peer to come back.
const reconnectTime = 30 * time.Second

// Repair implements Engine. A verify only marks what differs: nodes that agree about their history do not resync, not even
// after a reconnection. A Primary that loses its peer starts a new generation, and on return the marked blocks follow. A
// node that is Secondary becomes Primary for that moment, without a device.
func (n *Native) Repair(ctx context.Context) (err error) {
	n.role.Lock()
	defer n.role.Unlock()
	st := n.res.Status()
	switch {
	case st.Conn != proto.Connected || st.Disk != proto.UpToDate || st.PeerDisk != proto.UpToDate:
		return n.errorf(proto.CodeState, "repair: the nodes are %s, the copies %s here and %s on %s", st.Conn, st.Disk, st.PeerDisk, n.cfg.Datapath.Peer).
			WithRemedy("both nodes must be connected and both copies UpToDate")
	case st.PeerRole == proto.Primary:
		return n.errorf(proto.CodeState, "repair: %s is Primary, its copy cannot be overwritten", n.cfg.Datapath.Peer).
			WithRemedy("repair from there, or make it Secondary first")
	case st.OutOfSync == 0:
		return n.errorf(proto.CodeState, "repair: nothing is marked out of sync")
	}
	if st.Role != proto.Primary {
		if err := n.res.Promote(ctx, false); err != nil {
			return n.wrap("repair: become Primary for a moment", err)
		}
		defer func() {
			back := n.res.Demote(context.WithoutCancel(ctx))
			err = errors.Join(err, n.wrap("repair: give the Primary role back", back))
		}()
	}
	if err := n.res.Disconnect(ctx, false); err != nil {
		return n.wrap("repair: disconnect", err)
	}
	if err := n.res.Connect(context.WithoutCancel(ctx), false); err != nil {
		return n.wrap("repair: connect again", err)
	}
	return n.awaitPeer(ctx)
}

func (n *Native) awaitPeer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reconnectTime)
	defer cancel()
	for {
		ch := n.res.Changed()
		if n.res.Status().Conn >= proto.Connected {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return n.errorf(proto.CodeTimeout, "repair: %s has not come back yet", n.cfg.Datapath.Peer).
				WithRemedy("the repair begins when it connects; look at its events")
		}
	}
}

func (n *Native) verifyPath() string {
	if n.cfg.StateDir == "" {
		return ""
	}
	return filepath.Join(n.cfg.StateDir, "verify-"+n.cfg.Datapath.Resource+".json")
}

// loadVerify reads the outcome that an earlier agent kept. Without one, nothing has been verified.
func (n *Native) loadVerify() {
	path := n.verifyPath()
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var v proto.Verify
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		n.log.Warn("the outcome of the last verify cannot be read", "file", path, "err", err)
		return
	}
	n.mu.Lock()
	n.verify = &v
	n.mu.Unlock()
}

// keepVerify takes the outcome of a verify and saves it in the background.
func (n *Native) keepVerify(v *proto.Verify) {
	n.mu.Lock()
	n.verify = v
	n.mu.Unlock()
	if path := n.verifyPath(); path != "" {
		n.saves.Go(func() {
			if err := saveJSON(path, v); err != nil {
				n.log.Warn("the outcome of the verify cannot be kept", "file", path, "err", err)
			}
		})
	}
}

func saveJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".verify-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// verifiedLight words what the last verify is worth now.
func verifiedLight(alg string, st *datapath.Status, v *proto.Verify) proto.Light {
	if st.Conn.Verifying() {
		return proto.Light{Why: "a verify is running"}
	}
	if v == nil {
		if alg == "" {
			return proto.Light{Why: "never verified: drbd.conf names no verify-alg"}
		}
		return proto.Light{Why: "never verified"}
	}
	when := v.Ended.Local().Format(time.DateTime)
	switch {
	case v.Differ > 0 && st.OutOfSync > 0:
		return proto.Light{Why: fmt.Sprintf("%d KiB differed at %s and are out of sync still", v.Differ>>10, when)}
	case v.Differ > 0:
		return proto.Light{Why: fmt.Sprintf("%d KiB differed at %s; resynchronised since, verify again", v.Differ>>10, when)}
	case !v.Complete:
		return proto.Light{Why: fmt.Sprintf("only %d of %d MiB compared at %s: %s", v.Checked>>20, v.Size>>20, when, v.Why)}
	default:
		return proto.Light{On: true, Why: fmt.Sprintf("all %d MiB compared at %s, no difference", v.Size>>20, when)}
	}
}
