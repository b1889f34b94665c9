package lvmops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
)

// settleFor is how long a step waits for short-lived openers (udev's probes, blkid) to let go, and for device nodes to
// appear. vgchange itself waits up to 5 s (25 tries, activation/retry_deactivation) within each attempt.
const settleFor = 10 * time.Second

// Deactivate deactivates every LV of the VG and proves, from device-mapper's uuids, that nothing of it is left. A VG
// that is in use is a *proto.Error with CodeBusy whose Checks name the users.
func (o *Ops) Deactivate(ctx context.Context, vg, node string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	limit := limitOf(ctx, LimitDeactivate)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := o.underWay(ctx, "deactivating volume group "+vg, "vgchange", "-ay", vg); err != nil {
		return out, err
	}
	g, err := o.findVG(ctx, vg, node, &out)
	if err != nil {
		return out, err
	}
	prefix := "LVM-" + plain(g.UUID)
	left := o.dmNodes(prefix)
	if len(left) == 0 {
		out.Already, out.Now = true, fmt.Sprintf("volume group %s is not active: no device-mapper device of it exists", vg)
		return out, nil
	}
	deadline := time.Now().Add(settleFor)
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		_, runErr := o.run(ctx, &out, Cmd{Argv: DeactivateArgv(vg, node), Limit: limit / 2})
		o.settle(ctx, &out)
		if left = o.dmNodes(prefix); len(left) == 0 {
			out.Now = fmt.Sprintf("volume group %s is not active: no device-mapper device of it is left", vg)
			return out, nil
		}
		if errors.Is(runErr, ErrNotFound) || ctx.Err() != nil || errors.Is(runErr, ErrStuck) || errors.Is(runErr, ErrTimeout) {
			return out, o.failed(errors.Join(runErr, ctx.Err()), "deactivating volume group %s on %s; still active: %s", vg, node, shownDM(left))
		}
		users, err := o.lastingUsers(ctx, node)
		if err != nil {
			return out, err
		}
		late := time.Now().Add(wait).After(deadline)
		switch {
		case slices.ContainsFunc(users, lasting), late && len(users) > 0:
			return out, o.busy(users, runErr, "deactivating volume group %s on %s: still active: %s; %s", vg, node, shownDM(left), summary(users))
		case late:
			return out, o.failed(o.leftover(runErr), "deactivating volume group %s on %s; still active: %s; no user was found: a file system that is frozen (fsfreeze -f, thawed by fsfreeze -u where it is mounted) keeps its volume open after the unmount, and so does a target of the kernel", vg, node, shownDM(left))
		}
		if err := Pause(ctx, wait); err != nil {
			return out, o.failed(err, "deactivating volume group %s on %s; still active: %s", vg, node, shownDM(left))
		}
	}
}

// leftover is the cause when vgchange claims success and devices are there all the same.
func (o *Ops) leftover(runErr error) error {
	if runErr == nil {
		return errors.New("vgchange reported success, but device-mapper still has devices of it")
	}
	return runErr
}

// lastingUsers are the users of a device without the LVs that are to be deactivated.
func (o *Ops) lastingUsers(ctx context.Context, node string) ([]proto.User, error) {
	users, err := o.Busy(ctx, node)
	if err != nil && len(users) == 0 {
		return nil, err
	}
	return slices.DeleteFunc(users, func(u proto.User) bool { return u.How == howActive }), nil
}

// lasting says whether a user will not go away by waiting: all but processes that merely have a device open, which may
// be a probe.
func lasting(u proto.User) bool { return u.Kind != "process" || u.How != "open" }

// Activate activates every LV of the VG and proves that each has its node in /dev and that the node leads to it. LVs
// marked to be skipped (lvchange -k) stay as they are and are named in the findings.
func (o *Ops) Activate(ctx context.Context, vg, node string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	limit := limitOf(ctx, LimitActivate)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := o.underWay(ctx, "activating volume group "+vg, "vgchange", "-an", vg); err != nil {
		return out, err
	}
	g, err := o.findVG(ctx, vg, node, &out)
	if err != nil {
		return out, err
	}
	if stray := o.strays(g, node); len(stray) > 0 {
		return out, o.refuse(proto.CodeState, "activating volume group %s on %s: %s stands on another device, left by an agent that died", vg, node, shownDM(stray)).
			WithRemedy("umount what is mounted from it, then %s", removal(stray))
	}
	want, skipped := g.expected()
	for _, n := range skipped {
		out.Findings = append(out.Findings, fmt.Sprintf("%s/%s has the activation skip flag and is left inactive", vg, n))
	}
	if missing := o.missing(g, want); len(missing) == 0 {
		out.Already, out.Now = true, fmt.Sprintf("volume group %s is active, %d logical volumes", vg, len(want))
		return out, nil
	}
	if g.Exported || g.Partial {
		return out, o.refuse(proto.CodeState, "volume group %s on %s is %s and will not be activated", vg, node, partialWords(g)).
			WithRemedy("bring back what is missing (vgs -o+vg_missing_pv_count), or vgimport it")
	}
	if len(want) == 0 {
		out.Already, out.Now = true, fmt.Sprintf("volume group %s has no logical volume to activate", vg)
		return out, nil
	}
	_, runErr := o.run(ctx, &out, Cmd{Argv: ActivateArgv(vg, node), Limit: limit * 3 / 4})
	if runErr != nil && !errors.Is(runErr, ErrExit) && !errors.Is(runErr, ErrTimeout) {
		return out, o.failed(runErr, "activating volume group %s on %s", vg, node)
	}
	o.settle(ctx, &out)
	missing := o.missing(g, want)
	for deadline := time.Now().Add(settleFor / 2); len(missing) > 0 && runErr == nil && time.Now().Before(deadline); {
		if err := Pause(ctx, 100*time.Millisecond); err != nil {
			return out, o.failed(err, "waiting for the device nodes of volume group %s", vg)
		}
		missing = o.missing(g, want)
	}
	if len(missing) == 0 {
		out.Now = fmt.Sprintf("volume group %s is active, %d logical volumes, each with its device node", vg, len(want))
		return out, nil
	}
	if runErr == nil {
		runErr = errors.New("vgchange reported success all the same")
	}
	return out, o.failed(runErr, "activating volume group %s on %s: %s", vg, node, join(missing))
}

func partialWords(g *lvmVG) string {
	if g.Exported {
		return "exported"
	}
	return "partial (a physical volume is missing)"
}

// expected lists, by index, the LVs that vgchange -ay makes active, and the names of those that it skips.
func (vg *lvmVG) expected() (want []int, skipped []string) {
	for i, l := range vg.lvs {
		switch {
		case l.hidden, l.never:
		case l.skip:
			skipped = append(skipped, vg.LVs[i].Name)
		default:
			want = append(want, i)
		}
	}
	return want, skipped
}

// missing says, in words, which of the wanted LVs are not there: no device-mapper device, or no node that leads to it.
func (o *Ops) missing(g *lvmVG, want []int) []string {
	byUUID := map[string]devno{}
	nodes := o.dmNodes("LVM-" + plain(g.UUID))
	for _, d := range nodes {
		byUUID[d.dmUUID] = d.no
	}
	var missing []string
	for _, i := range want {
		l, lv := g.lvs[i], g.LVs[i]
		no, ok := byUUID[g.dmUUID(l)]
		if l.noNode { // a pool is active as a layer: -tpool, -vpool
			ok = slices.ContainsFunc(nodes, func(d device) bool { return strings.HasPrefix(d.dmUUID, g.dmUUID(l)) })
		}
		if !ok {
			missing = append(missing, g.Name+"/"+lv.Name+" is not active")
		}
		if !ok || l.noNode {
			continue
		}
		ma, mi, err := o.opt.DeviceNumber(lv.Path)
		switch {
		case err != nil:
			missing = append(missing, fmt.Sprintf("%s: %v", lv.Path, err))
		case no != devno{ma, mi}:
			missing = append(missing, fmt.Sprintf("%s is device %d:%d, but the logical volume is %v", lv.Path, ma, mi, no))
		}
	}
	return missing
}

// dmNodes lists the device-mapper devices whose uuid begins with a prefix. /sys is the judge and not /dev: names may
// differ between nodes, and links may be stale.
func (o *Ops) dmNodes(prefix string) []device {
	var list []device
	for _, n := range entries(filepath.Join(o.opt.Sys, "block")) {
		if !strings.HasPrefix(n, "dm-") {
			continue
		}
		dir := filepath.Join(o.opt.Sys, "block", n)
		d := device{name: n, dmUUID: readLine(filepath.Join(dir, "dm/uuid")), dmName: readLine(filepath.Join(dir, "dm/name"))}
		no, ok := parseDevno(readLine(filepath.Join(dir, "dev")))
		if d.no = no; ok && strings.HasPrefix(d.dmUUID, prefix) {
			list = append(list, d)
		}
	}
	return list
}

// strays are the devices of a volume group that do not stand on the replicated device: those of an earlier agent's, whose
// own device is dead. They keep the names that an activation needs, and look active.
func (o *Ops) strays(g *lvmVG, node string) []device {
	f, err := o.openFamily(node, node)
	if err != nil || len(f.devices) >= maxFamily {
		return nil // cannot be told; the activation proves its nodes
	}
	return slices.DeleteFunc(o.dmNodes("LVM-"+plain(g.UUID)), func(d device) bool { return f.devices[d.no] != nil })
}

// removal is what an operator types to be rid of devices. The package itself removes none: what is on them may be open.
func removal(list []device) string {
	return "dmsetup remove " + strings.ReplaceAll(shownDM(list), ", ", " ")
}

// Leftovers says in words what is left on this node, which has no replicated device now, of volume groups with these
// uuids.
func (o *Ops) Leftovers(uuids []string) []string {
	var out []string
	for _, u := range uuids {
		if left := o.dmNodes("LVM-" + plain(u)); u != "" && len(left) > 0 {
			out = append(out, fmt.Sprintf("%s, left by an agent that died: umount what is mounted from it, then %s", shownDM(left), removal(left)))
		}
	}
	return out
}

func shownDM(list []device) string {
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.dmName
		if d.dmName == "" {
			names[i] = d.name
		}
	}
	return Printable(strings.Join(names, ", "))
}

// settle waits for udev to finish with what it knows of, where udev runs. Its failure is not one of the step.
func (o *Ops) settle(ctx context.Context, out *Outcome) {
	if _, err := os.Stat("/run/udev/control"); err != nil || o.opt.Sys != "/sys" {
		return
	}
	if _, err := o.run(ctx, out, Cmd{Argv: []string{"udevadm", "settle", "--timeout=5"}, Limit: settleFor}); err != nil {
		out.Findings = append(out.Findings, err.Error())
	}
}

// findVG checks the names and finds the volume group on the device. lvm is not asked again as long as the group's metadata
// are those that it was asked about.
func (o *Ops) findVG(ctx context.Context, vg, node string, out *Outcome) (*lvmVG, error) {
	if err := CheckVGName(vg); err != nil {
		return nil, o.refuse(proto.CodeInvalid, "%v", err)
	}
	head, err := o.head(ctx, node)
	if err != nil {
		return nil, err
	}
	if kind := sniff(head); kind != kindPV {
		return nil, o.refuse(proto.CodeNotFound, "volume group %s: %s is no physical volume (%s)", vg, node, orNothing(kind))
	}
	mark := pvLabel(head).mark
	if g := o.recall(mark); g != nil && g.Name == vg {
		return g, nil
	}
	rep, err := o.report(ctx, node, out)
	if err != nil {
		return nil, err
	}
	o.keep(mark, &rep)
	g := rep.find(vg)
	if g == nil {
		return nil, o.refuse(proto.CodeNotFound, "volume group %s is not on %s, which holds %s", vg, node, rep.names())
	}
	return g, nil
}

// content reads what a block device shows, see sniff.
func (o *Ops) content(ctx context.Context, node string) (string, error) {
	head, err := o.head(ctx, node)
	return sniff(head), err
}

// head is readHead for a device that a step names.
func (o *Ops) head(ctx context.Context, node string) ([]byte, error) {
	if err := validPath(node); err != nil {
		return nil, o.refuse(proto.CodeInvalid, "device: %v", err)
	}
	if _, _, err := o.opt.DeviceNumber(node); err != nil {
		return nil, &failure{o.refuse(proto.CodeNotFound, "device %s is not there: %v", node, err), err}
	}
	head, err := o.readHead(ctx, node)
	if err != nil {
		return nil, o.failed(err, "reading the first sectors of %s", node)
	}
	return head, nil
}

func orNothing(kind string) string {
	if kind == "" {
		return "nothing is recognised on it"
	}
	return "it holds " + kind
}
