package op

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"example.com/santui/proto"
)

// Known is what an agent remembers of a resource beyond its own death, because a takeover needs it when nobody can be
// asked any more.
type Known struct {
	Resource string `json:"resource"`
	// Peer is what the other node had on the device when it was last seen as Primary, outside of an operation.
	Peer       proto.Stack `json:"peer_stack"`
	PeerDevice string      `json:"peer_device"` // the replicated device as that node calls it
	PeerAt     time.Time   `json:"peer_at"`     // when Peer was last seen to change
	// InSync is when both copies were last known identical, as of the last time the link broke.
	InSync time.Time `json:"in_sync,omitzero"`
	// Role is this node's role, and since when.
	Role  proto.Role `json:"role"`
	Since time.Time  `json:"role_since,omitzero"`
	// LastWrite is when this node, as Primary, was seen to write. It is kept to the minute, and exactly when the link or the
	// role changes.
	LastWrite time.Time `json:"last_write,omitzero"`
	// Own is what this node had on the device in its last turn as Primary, and when that was.
	Own proto.Memory `json:"own,omitzero"`
	// Rejoin says that this node took over and the other one has not followed it since.
	Rejoin string `json:"needs_rejoin,omitempty"`
}

func (j *Journal) knownFile(resource string) string {
	return filepath.Join(j.dir, "known", url.PathEscape(resource)+".json")
}

// Known returns what is remembered of a resource. A file that cannot be read counts as nothing remembered; the next
// Remember replaces it.
func (j *Journal) Known(resource string) Known {
	j.knowing.Lock()
	defer j.knowing.Unlock()
	return j.loadKnown(resource)
}

func (j *Journal) loadKnown(resource string) Known {
	if k, ok := j.known[resource]; ok {
		return k
	}
	k := Known{Resource: resource}
	if b, err := os.ReadFile(j.knownFile(resource)); err == nil {
		if json.Unmarshal(b, &k) != nil || k.Resource != resource {
			k = Known{Resource: resource}
		}
	}
	j.known[resource] = k
	return k
}

// Remember changes what is remembered, durably. Nothing is written when nothing changes.
func (j *Journal) Remember(resource string, change func(*Known)) error {
	j.knowing.Lock()
	defer j.knowing.Unlock()
	old := j.loadKnown(resource)
	k := old
	change(&k)
	if reflect.DeepEqual(old, k) {
		return nil
	}
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("encode what is known of %s: %w", resource, err)
	}
	name := j.knownFile(resource)
	if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("remember %s: %w", resource, err)
	}
	if err := replace(name, b); err != nil {
		return fmt.Errorf("remember %s: %w", resource, err)
	}
	j.known[resource] = k
	return nil
}

// shrinkAfter is how long a stack must have lacked something before that is forgotten. A node that shuts down takes its
// service apart piece by piece, with looks in between: what shall be brought up again is what was there before.
const shrinkAfter = 2 * time.Minute

// SeePeer remembers the stack of a peer that is Primary and in no operation.
func (j *Journal) SeePeer(o proto.Observation) error {
	return j.see("peer", o, func(k *Known, st proto.Stack, device string) {
		if !reflect.DeepEqual(k.Peer, st) || k.PeerDevice != device {
			k.Peer, k.PeerDevice, k.PeerAt = st, device, time.Now().Round(0)
		}
	}, func(k Known) proto.Stack { return k.Peer })
}

// SeeOwn remembers the stack of this node while it is Primary and in no operation.
func (j *Journal) SeeOwn(o proto.Observation) error {
	return j.see("own", o, func(k *Known, st proto.Stack, device string) {
		if !reflect.DeepEqual(k.Own.Stack, st) || k.Own.Device != device || k.Own.At.Before(k.Own.Primary) {
			k.Own.Stack, k.Own.Device, k.Own.At = st, device, time.Now().Round(0)
		}
	}, func(k Known) proto.Stack { return k.Own.Stack })
}

func (j *Journal) see(whose string, o proto.Observation, keep func(*Known, proto.Stack, string), kept func(Known) proto.Stack) error {
	r := o.Resource
	if r.Role != proto.Primary || r.Stack.Err != "" || o.Lock != nil || o.OpID != "" {
		return nil
	}
	st := lasting(r.Stack)
	if j.shrinks(whose+" "+r.Name, lacks(st, kept(j.Known(r.Name)))) {
		return nil
	}
	return j.Remember(r.Name, func(k *Known) { keep(k, st, r.Device) })
}

// shrinks says whether something has been missing for a short while only.
func (j *Journal) shrinks(key string, less bool) bool {
	j.knowing.Lock()
	defer j.knowing.Unlock()
	since, ok := j.shrunk[key]
	switch {
	case !less:
		delete(j.shrunk, key)
		return false
	case !ok:
		j.shrunk[key] = time.Now()
		return true
	default:
		return time.Since(since) < shrinkAfter
	}
}

// lacks says whether a mount or an active group of a stack is not there any more.
func lacks(st, before proto.Stack) bool {
	now, was := serviceOf(st, "", proto.Service{}), serviceOf(before, "", proto.Service{})
	return slices.ContainsFunc(was.vgs, func(vg string) bool { return !slices.Contains(now.vgs, vg) }) ||
		slices.ContainsFunc(targets(was.mounts), func(t string) bool { return !slices.Contains(targets(now.mounts), t) })
}

// lasting strips from a stack what changes all the time.
func lasting(st proto.Stack) proto.Stack {
	out := proto.Stack{FS: st.FS}
	for _, m := range st.Mounts {
		out.Mounts = append(out.Mounts, steady(m))
	}
	for _, vg := range st.VGs {
		vg.Seqno, vg.Mark = 0, ""
		lvs := make([]proto.LV, len(vg.LVs))
		for i, lv := range vg.LVs {
			lv.Open, lv.Attr = false, ""
			lvs[i] = lv
		}
		vg.LVs = lvs
		out.VGs = append(out.VGs, vg)
	}
	return out
}
