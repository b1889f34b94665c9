package lvmops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/santui/proto"
)

// BackingLV tells of which logical volume a backing disk is, nil if it is none. Beside LVMView it is the only look
// over all devices: the volume group below replication is not on the replicated device.
func (o *Ops) BackingLV(ctx context.Context, disk string) (*proto.BackingLV, error) {
	lv, _, err := o.backingLV(ctx, disk, nil)
	return lv, err
}

// backingLV returns also the names of the group's snapshots of the volume.
func (o *Ops) backingLV(ctx context.Context, disk string, out *Outcome) (*proto.BackingLV, []string, error) {
	ma, mi, err := o.opt.DeviceNumber(disk)
	if err != nil {
		return nil, nil, nil //nolint:nilerr // a file, or a disk that is gone: no logical volume
	}
	uuid, ok := strings.CutPrefix(readLine(filepath.Join(o.opt.Sys, "dev/block", devno{ma, mi}.String(), "dm/uuid")), "LVM-")
	if !ok {
		return nil, nil, nil
	}
	res, err := o.run(ctx, out, Cmd{Limit: LimitLook, Argv: []string{"lvs", "--reportformat", "json", "--units", "b", "--nosuffix",
		"-o", "vg_uuid,lv_uuid,vg_name,lv_name,origin,segtype,lv_size,vg_free,vg_extent_size"}})
	if errors.Is(err, ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, o.failed(err, "looking for the logical volume below %s", disk)
	}
	rows, err := parseLVs(res.Stdout)
	if err != nil {
		return nil, nil, o.failed(err, "looking for the logical volume below %s", disk)
	}
	var found *proto.BackingLV
	for _, r := range rows {
		if plain(r["vg_uuid"])+plain(r["lv_uuid"]) != uuid {
			continue
		}
		found = &proto.BackingLV{VG: r["vg_name"], LV: r["lv_name"], Type: r["segtype"]}
		for key, n := range map[string]*int64{"lv_size": &found.Size, "vg_free": &found.Free, "vg_extent_size": &found.Extent} {
			if *n, err = strconv.ParseInt(r[key], 10, 64); err != nil || *n < 0 {
				return nil, nil, o.failed(fmt.Errorf("%s is %q", key, r[key]), "looking for the logical volume below %s", disk)
			}
		}
	}
	if found == nil {
		return nil, nil, o.refuse(proto.CodeFailed, "%s is a logical volume that lvs does not list", disk).WithRemedy("look at lvs and its warnings on this node")
	}
	var snapshots []string
	for _, r := range rows {
		if r["vg_name"] == found.VG && r["origin"] == found.LV {
			snapshots = append(snapshots, r["lv_name"])
		}
	}
	return found, snapshots, nil
}

func parseLVs(out []byte) ([]map[string]string, error) {
	var raw struct {
		Report []struct {
			LV []map[string]string `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(out, &raw); err != nil {
		return nil, fmt.Errorf("lvm's report is not the JSON it should be: %w", err)
	}
	var rows []map[string]string
	for _, r := range raw.Report {
		rows = append(rows, r.LV...)
	}
	return rows, nil
}

// SnapshotArgv is the command line of Snapshot.
func SnapshotArgv(s proto.LVSnapshot) []string {
	return []string{"lvcreate", "--snapshot", "--yes", "--name", s.Name, "--size", strconv.FormatInt(s.Size, 10) + "b", s.VG + "/" + s.Origin}
}

// Snapshot makes a snapshot of the logical volume that a backing disk is. A snapshot of that name that is there already
// is kept: it is older, and so the one that is wanted.
func (o *Ops) Snapshot(ctx context.Context, disk string, s proto.LVSnapshot) (out Outcome, err error) {
	defer out.Since(time.Now())
	if err := errors.Join(CheckVGName(s.VG), CheckLVName(s.Name)); err != nil {
		return out, o.refuse(proto.CodeInvalid, "%v", err)
	}
	if s.Size <= 0 || s.Size%512 != 0 {
		return out, o.refuse(proto.CodeInvalid, "size of %s/%s: %d bytes is no positive multiple of 512", s.VG, s.Name, s.Size)
	}
	there := func() (bool, error) {
		lv, names, err := o.backingLV(ctx, disk, &out)
		if err == nil && (lv == nil || lv.VG != s.VG || lv.LV != s.Origin) {
			err = o.refuse(proto.CodeState, "%s is not logical volume %s/%s", disk, s.VG, s.Origin)
		}
		for _, n := range names {
			if n == s.Name {
				return true, err
			}
		}
		return false, err
	}
	found, err := there()
	if err != nil {
		return out, err
	}
	out.Now = fmt.Sprintf("%s/%s is a snapshot of %s/%s", s.VG, s.Name, s.VG, s.Origin)
	if out.Already = found; found {
		return out, nil
	}
	if _, err := o.run(ctx, &out, Cmd{Argv: SnapshotArgv(s), Limit: LimitSetup}); err != nil {
		return out, o.failed(err, "making snapshot %s/%s", s.VG, s.Name)
	}
	if found, err = there(); err == nil && !found {
		err = o.refuse(proto.CodeFailed, "lvcreate reported success, but %s has no snapshot %s", s.VG, s.Name)
	}
	return out, err
}
