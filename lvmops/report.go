package lvmops

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"example.com/santui/proto"
)

// lvmReport is what lvm says about one device.
type lvmReport struct {
	vgs      []lvmVG
	findings []string // what lvm wrote to stderr
}

type lvmVG struct {
	proto.VG
	lvs []lvmLV // parallel to VG.LVs
}

type lvmLV struct {
	uuid   string // without dashes
	hidden bool
	skip   bool // activation skip: vgchange -ay leaves it alone
	noNode bool // a pool: it has a device-mapper node but none in /dev/VG
	never  bool // can not be activated by itself
}

// activation reads off a volume how it behaves when its group is activated. The letters of lv_attr are in lvs(8), "lv_attr
// bits": the first is the volume's type, the tenth is k for activation skip. lvm marks hidden volumes with brackets. Pools
// have no node in /dev/VG; a cache pool or the spare metadata volume is never active by itself.
func activation(lv proto.LV) lvmLV {
	l := lvmLV{uuid: plain(lv.UUID), hidden: strings.HasPrefix(lv.Name, "["), never: strings.Contains(lv.Role, "cache,pool")}
	if lv.Attr != "" {
		l.noNode = strings.ContainsRune("td", rune(lv.Attr[0]))
		l.never = l.never || lv.Attr[0] == 'e'
		l.skip = len(lv.Attr) > 9 && lv.Attr[9] == 'k'
	}
	return l
}

// reportArgv asks for all there is to know about a device in one consistent read. The columns exist since LVM 2.03.12,
// which is also the first version with --devices. --foreign lets a group show that belongs to another system ID, which lvm
// would leave out without a word (lvmsystemid(7)).
func reportArgv(node string) []string {
	return []string{"lvm", "fullreport", "--all", "--reportformat", "json", "--units", "b", "--nosuffix", "--binary", "--foreign", "--devices", node,
		"--configreport", "vg", "-o", "vg_name,vg_uuid,vg_seqno,vg_partial,vg_exported,vg_autoactivation,vg_systemid,vg_lock_type,pv_count",
		"--configreport", "pv", "-o", "pv_name,pv_uuid,pv_duplicate,pv_missing",
		"--configreport", "lv", "-o", "lv_name,lv_uuid,lv_size,lv_attr,lv_path,lv_active,lv_device_open,lv_role," +
			"lv_health_status,lv_check_needed,data_percent,metadata_percent,pool_lv,origin",
		"--configreport", "pvseg", "-o", "pvseg_start", "--configreport", "seg", "-o", "seg_start"}
}

// rawReport is the shape of `lvm fullreport --reportformat json`: every value is a string.
type rawReport struct {
	Report []struct {
		VG []map[string]string `json:"vg"`
		PV []map[string]string `json:"pv"`
		LV []map[string]string `json:"lv"`
	} `json:"report"`
}

// report runs lvm on the device and parses what it prints.
func (o *Ops) report(ctx context.Context, node string, out *Outcome) (lvmReport, error) {
	res, err := o.run(ctx, out, Cmd{Argv: reportArgv(node), Limit: LimitLook})
	if out != nil { // the report itself is not for people
		out.Commands[len(out.Commands)-1].Output = Lines(res.Stderr)
	}
	if err != nil {
		return lvmReport{}, o.failed(err, "reading the LVM metadata of %s", node)
	}
	rep, err := parseReport(res.Stdout)
	if err != nil {
		return lvmReport{}, o.failed(fmt.Errorf("%w (lvm printed %d bytes, dropped %d)", err, len(res.Stdout), res.Dropped),
			"reading the LVM metadata of %s", node)
	}
	rep.findings = Lines(res.Stderr)
	return rep, nil
}

func parseReport(out []byte) (lvmReport, error) {
	var raw rawReport
	if err := json.Unmarshal(out, &raw); err != nil {
		return lvmReport{}, fmt.Errorf("lvm's report is not the JSON it should be: %w", err)
	}
	if raw.Report == nil {
		return lvmReport{}, fmt.Errorf("lvm's report has no \"report\" member")
	}
	var rep lvmReport
	for _, r := range raw.Report {
		if len(r.VG) == 0 { // the orphans: physical volumes without a volume group
			continue
		}
		vg, err := parseVG(r.VG[0])
		if err != nil {
			return lvmReport{}, err
		}
		vg.Foreign = len(r.PV) > 1
		for _, pv := range r.PV {
			if isSet(pv["pv_missing"]) {
				vg.Partial = true
			}
		}
		for _, l := range r.LV {
			if err := vg.addLV(l); err != nil {
				return lvmReport{}, err
			}
		}
		rep.vgs = append(rep.vgs, vg)
	}
	return rep, nil
}

// isSet reads a --binary column: "1" or "0", and "-1" or "" for unknown.
func isSet(s string) bool { return s == "1" }

func parseVG(m map[string]string) (lvmVG, error) {
	var vg lvmVG
	vg.SystemID, vg.LockType = Printable(m["vg_systemid"]), Printable(m["vg_lock_type"])
	vg.Name, vg.UUID = m["vg_name"], m["vg_uuid"]
	if err := vg.valid(); err != nil {
		return vg, fmt.Errorf("lvm's report: %w", err)
	}
	seqno, err := strconv.Atoi(m["vg_seqno"])
	if err != nil {
		return vg, fmt.Errorf("lvm's report: volume group %s has vg_seqno %q", vg.Name, m["vg_seqno"])
	}
	vg.Seqno = seqno
	vg.Partial, vg.Exported, vg.AutoActivation = isSet(m["vg_partial"]), isSet(m["vg_exported"]), isSet(m["vg_autoactivation"])
	return vg, nil
}

func (vg *lvmVG) valid() error {
	if err := CheckVGName(vg.Name); err != nil {
		return err
	}
	if len(plain(vg.UUID)) != 32 {
		return fmt.Errorf("volume group %s has the uuid %q", vg.Name, vg.UUID)
	}
	return nil
}

func (vg *lvmVG) addLV(m map[string]string) error {
	size, err := strconv.ParseInt(m["lv_size"], 10, 64)
	if err != nil {
		return fmt.Errorf("lvm's report: %s/%s has lv_size %q", vg.Name, m["lv_name"], m["lv_size"])
	}
	err = vg.add(proto.LV{Name: m["lv_name"], UUID: m["lv_uuid"], Size: size, Attr: m["lv_attr"], Role: Printable(m["lv_role"]),
		Open: isSet(m["lv_device_open"]), Health: Printable(m["lv_health_status"]), CheckNeeded: isSet(m["lv_check_needed"]),
		DataPct: percent(m["data_percent"]), MetaPct: percent(m["metadata_percent"]), Pool: Printable(m["pool_lv"]), Origin: Printable(m["origin"])})
	if err != nil {
		return fmt.Errorf("lvm's report: %w", err)
	}
	return nil
}

// add checks a volume and takes it in.
func (vg *lvmVG) add(lv proto.LV) error {
	bare := strings.Trim(lv.Name, "[]")
	if err := checkName("logical volume", bare); err != nil {
		return fmt.Errorf("%s: %w", vg.Name, err)
	}
	if len(plain(lv.UUID)) != 32 {
		return fmt.Errorf("%s/%s has the uuid %q", vg.Name, lv.Name, lv.UUID)
	}
	l := activation(lv)
	if lv.Path = ""; !l.hidden && !l.noNode {
		lv.Path = "/dev/" + vg.Name + "/" + bare
	}
	vg.lvs, vg.LVs = append(vg.lvs, l), append(vg.LVs, lv)
	return nil
}

// percent reads a percentage column; 0 where lvm has nothing to say.
func percent(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 100 {
		return 0
	}
	return v
}

// plain removes the dashes of a uuid: device-mapper's uuids are without.
func plain(uuid string) string { return strings.ReplaceAll(uuid, "-", "") }

func (r lvmReport) find(vg string) *lvmVG {
	for i := range r.vgs {
		if r.vgs[i].Name == vg {
			return &r.vgs[i]
		}
	}
	return nil
}

func (r lvmReport) names() string {
	if len(r.vgs) == 0 {
		return "no volume group"
	}
	s := make([]string, len(r.vgs))
	for i, vg := range r.vgs {
		s[i] = vg.Name
	}
	return strings.Join(s, ", ")
}
