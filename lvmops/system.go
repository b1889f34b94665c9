package lvmops

import (
	"encoding/json"
	"fmt"
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

// parsePVs reads the physical volumes of a report.
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
