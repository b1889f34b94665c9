package lvmops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
)

// maxKnown bounds how many volume groups' metadata are remembered.
const maxKnown = 64

// markOf is a group's proto.VG.Mark, "" if the device does not tell.
func markOf(header []byte) string {
	if header == nil {
		return ""
	}
	sum := sha256.Sum256(header)
	return hex.EncodeToString(sum[:])
}

// keep remembers what lvm reported when the header of the device's metadata was this one, and marks the group with it. The
// header holds place, size and checksum of the newest metadata (LVM2 lib/format_text/layout.h, struct mda_header).
func (o *Ops) keep(header []byte, rep *lvmReport) {
	mark := markOf(header)
	if mark == "" || len(rep.vgs) != 1 {
		return
	}
	rep.vgs[0].Mark = mark
	o.know(rep.vgs[0])
}

func (o *Ops) know(g lvmVG) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= maxKnown {
		clear(o.known)
	}
	o.known[g.Mark] = g
}

// recall returns what is known of the metadata with this header: names, uuids and flags, nothing of what is active.
func (o *Ops) recall(header []byte) *lvmVG {
	mark := markOf(header)
	o.mu.Lock()
	defer o.mu.Unlock()
	g, ok := o.known[mark]
	if mark == "" || !ok {
		return nil
	}
	return &g
}

// Learn takes over what the other node's lvm said of a volume group. It counts for a device whose metadata carry the same
// mark, as a replica's do. A group that makes no sense is not taken over: this node's lvm is then asked.
func (o *Ops) Learn(vg proto.VG) {
	g := lvmVG{VG: vg}
	g.LVs = nil
	if g.valid() != nil || len(vg.Mark) != 2*sha256.Size {
		return
	}
	for _, lv := range vg.LVs {
		if g.add(lv) != nil {
			return
		}
	}
	o.know(g)
}

// settled says of what lvm reported of a device that only its metadata and the active devices can change it. Pools, snapshots,
// mirrors and caches fill up or fail without that; lv_attr's first letter tells them apart (lvs(8)).
func (r lvmReport) settled() bool {
	return !slices.ContainsFunc(r.vgs, func(vg lvmVG) bool {
		return vg.Foreign || vg.Partial || slices.ContainsFunc(vg.LVs, func(lv proto.LV) bool { return !strings.HasPrefix(lv.Attr, "-") })
	})
}

// maxRead bounds how many devices are read to see whether lvm would find something new.
const maxRead = 64

// around is what lvm said of this node's devices, and from what it said it.
type around struct {
	names []string // of the devices that it looked at
	key   string   // see aroundKey
	facts proto.LVMFacts
	lv    *proto.BackingLV
	at    time.Time
}

// Around is LVMView and BackingLV for whoever asks again and again: lvm runs only if something has changed that it goes by. That
// is read: its settings, which block devices there are, and the labels and metadata headers of those it looked at.
func (o *Ops) Around(ctx context.Context, disk, node string) (proto.LVMFacts, *proto.BackingLV, error) {
	id := disk + "\x00" + node
	o.mu.Lock()
	old := o.around[id]
	o.mu.Unlock()
	key := ""
	if old != nil {
		if key = o.aroundKey(ctx, old.names, disk, node); key != "" && key == old.key && time.Since(old.at) < longestCache {
			return old.facts, old.lv, nil
		}
	}
	now := &around{key: key, at: time.Now()} // what was read before lvm looks
	var err error
	if now.facts, now.names, err = o.lvmView(ctx, disk, node); err != nil {
		return now.facts, nil, err
	}
	if now.lv, err = o.BackingLV(ctx, disk); err != nil {
		return now.facts, nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.around) >= maxKnown {
		clear(o.around)
	}
	o.around[id] = now
	return now.facts, now.lv, nil
}

// aroundKey changes whenever lvm may see something else than these devices with what they carried, "" if that can not be told
// without lvm. Logical volumes are not read, as lvm does not read them.
func (o *Ops) aroundKey(ctx context.Context, names []string, disk, node string) string {
	o.mu.Lock()
	set, key := o.settings, o.settingsAt
	o.mu.Unlock()
	if key != o.settingsKey() || set["scan_lvs"] != "0" {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s%s %s\n", key, fileState(o.devicesFile(set)), readLine(filepath.Join(o.opt.Sys, "kernel/uevent_seqnum")),
		strings.Join(entries(filepath.Join(o.opt.Sys, "class/block")), " "))
	read := 0
	for _, path := range append([]string{disk, node}, names...) {
		ma, mi, err := o.opt.DeviceNumber(path)
		if err != nil {
			fmt.Fprintf(&b, "%s -\n", path)
			continue
		}
		uuid := readLine(filepath.Join(o.opt.Sys, "dev/block", devno{ma, mi}.String(), "dm/uuid"))
		fmt.Fprintf(&b, "%s %d:%d %s\n", path, ma, mi, uuid)
		if strings.HasPrefix(uuid, "LVM-") && path != disk {
			continue
		}
		if read++; read > maxRead {
			return ""
		}
		head, err := o.readHead(ctx, path)
		if err != nil {
			return ""
		}
		if l := pvLabel(head); l != nil {
			if l.mark == nil {
				return "" // the header is farther inside
			}
			fmt.Fprintf(&b, "%s %x\n", l.pvUUID, l.mark)
		}
	}
	return b.String()
}
