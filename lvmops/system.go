package lvmops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/santui/proto"
)

// programs are all that this package may run.
var programs = []string{"lvm", "vgchange", "pvcreate", "vgcreate", "lvcreate", "pvs", "lvmconfig", "mount", "umount", "mkfs.ext4", "mkfs.xfs", "udevadm",
	"thin_check"}

// looker is a Runner that can say where a program is.
type looker interface {
	Look(name string) (string, error)
}

// Look passes the question on.
func (o *observed) Look(name string) (string, error) {
	if l, ok := o.next.(looker); ok {
		return l.Look(name)
	}
	return (&Exec{}).Look(name)
}

// Tools tells where the programs that this package runs are: name to path, "" if missing.
func (o *Ops) Tools() map[string]string {
	l, ok := o.opt.Runner.(looker)
	if !ok {
		l = &Exec{}
	}
	tools := make(map[string]string, len(programs))
	for _, p := range programs {
		path, err := l.Look(p)
		if err != nil {
			path = ""
		}
		tools[p] = path
	}
	return tools
}

// VGNames lists the volume groups that this node sees on devices other than those excepted, for the check that no
// other VG has the name of one that is to arrive. It looks at all devices that LVM's configuration lets it see.
func (o *Ops) VGNames(ctx context.Context, except ...string) ([]string, error) {
	res, err := o.run(ctx, nil, Cmd{Argv: []string{"pvs", "--reportformat", "json", "-o", "pv_name,vg_name"}, Limit: LimitLook})
	if errors.Is(err, ErrNotFound) {
		return nil, nil // no LVM, no volume group
	}
	if err != nil {
		return nil, o.failed(err, "listing the volume groups of this node")
	}
	rows, err := parsePVs(res.Stdout)
	if err != nil {
		return nil, o.failed(err, "listing the volume groups of this node")
	}
	var names []string
	for _, r := range rows {
		if n := r["vg_name"]; n != "" && !slices.Contains(except, r["pv_name"]) && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

func parsePVs(out []byte) ([]map[string]string, error) {
	var raw rawReport
	if err := json.Unmarshal(out, &raw); err != nil {
		return nil, fmt.Errorf("lvm's report is not the JSON it should be: %w", err)
	}
	var rows []map[string]string
	for _, r := range raw.Report {
		rows = append(rows, r.PV...)
	}
	return rows, nil
}

// BackingVisible says whether LVM sees a physical volume on a backing disk, that is, whether it could activate a
// volume group behind the replication's back. The evidence names what was seen and which device selection is in force:
// a devices file, if one is used, makes lvm ignore both filters (lvmdevices(8)).
func (o *Ops) BackingVisible(ctx context.Context, disk string) (bool, []string, error) {
	if err := validPath(disk); err != nil {
		return false, nil, o.refuse(proto.CodeInvalid, "backing disk: %v", err)
	}
	if _, _, err := o.opt.DeviceNumber(disk); err != nil {
		return false, []string{disk + " is no block device, LVM does not look at it"}, nil //nolint:nilerr // an answer, not a failure
	}
	kind, err := o.content(ctx, disk)
	if err != nil {
		return false, nil, err
	}
	if kind != kindPV {
		return false, []string{fmt.Sprintf("%s carries no physical volume label (%s)", disk, orNothing(kind))}, nil
	}
	res, err := o.run(ctx, nil, Cmd{Argv: []string{"pvs", "--reportformat", "json", "-o", "pv_name,vg_name", disk}, Limit: LimitLook})
	switch {
	case errors.Is(err, ErrNotFound):
		return false, []string{"LVM is not installed"}, nil
	case errors.Is(err, ErrExit): // what lvm answers for a device that a filter hides
		return false, append([]string{"lvm does not show " + disk}, Lines(res.Stderr)...), nil
	case err != nil:
		return false, nil, o.failed(err, "asking lvm about the backing disk %s", disk)
	}
	rows, err := parsePVs(res.Stdout)
	if err != nil {
		return false, nil, o.failed(err, "asking lvm about the backing disk %s", disk)
	}
	evidence := o.selection(ctx)
	if len(rows) == 0 {
		return false, append(evidence, "lvm does not show "+disk), nil
	}
	for _, r := range rows {
		evidence = append(evidence, Printable(fmt.Sprintf("lvm sees physical volume %s of volume group %q", r["pv_name"], r["vg_name"])))
	}
	return true, append(evidence, Lines(res.Stderr)...), nil
}

// selection describes lvm's device selection: the settings, one a line, and the devices file.
func (o *Ops) selection(ctx context.Context) []string {
	var lines []string
	for _, key := range []string{"devices/use_devicesfile", "devices/devicesfile", "devices/filter", "devices/global_filter", "devices/scan_lvs"} {
		// One call per setting: a version that does not know one fails for that one only.
		res, err := o.run(ctx, nil, Cmd{Argv: []string{"lvmconfig", "--typeconfig", "full", key}, Limit: LimitLook})
		if err != nil {
			lines = append(lines, key+": not known to this version of lvm")
			continue
		}
		lines = append(lines, "devices/"+strings.TrimPrefix(strings.Join(Lines(res.Stdout), " "), "devices/"))
	}
	for _, f := range []string{"system.devices"} {
		path := filepath.Join("/etc/lvm/devices", f)
		if _, err := os.Stat(path); err == nil {
			lines = append(lines, path+" exists")
		} else {
			lines = append(lines, path+" does not exist")
		}
	}
	return lines
}
