package lvmops

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"example.com/santui/proto"
)

// LimitSetup bounds pvcreate, vgcreate and lvcreate.
const LimitSetup = 60 * time.Second

// PVCreateArgv is the command line of PVCreate.
func PVCreateArgv(node string) []string { return []string{"pvcreate", "--devices", node, node} }

// VGCreateArgv is the command line of VGCreate. Autoactivation is off, in the VG's metadata and so on both nodes: a VG
// on a replicated device must only become active where and when a move says so.
func VGCreateArgv(vg, node string) []string {
	return []string{"vgcreate", "--devices", node, "--setautoactivation", "n", vg, node}
}

// LVCreateArgv is the command line of LVCreate. Signatures left over from an older volume are wiped.
func LVCreateArgv(vg, lv string, size int64, node string) []string {
	argv := []string{"lvcreate", "--devices", node, "--yes", "--wipesignatures", "y", "--name", lv}
	if size > 0 {
		return append(argv, "--size", strconv.FormatInt(size, 10)+"b", vg)
	}
	return append(argv, "--extents", "100%FREE", vg)
}

// MkfsArgv is the command line of Mkfs.
func MkfsArgv(fstype, path string) []string {
	return []string{"mkfs." + fstype, "-q", path}
}

// PVCreate makes the device a physical volume. A device that is one already stays as it is; one that holds anything
// else recognisable is refused.
func (o *Ops) PVCreate(ctx context.Context, node string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	kind, err := o.content(ctx, node)
	if err != nil {
		return out, err
	}
	if kind == kindPV {
		out.Already, out.Now = true, node+" is a physical volume"
		return out, nil
	}
	if err := o.empty(node, kind); err != nil {
		return out, err
	}
	if _, err := o.run(ctx, &out, Cmd{Argv: PVCreateArgv(node), Limit: LimitSetup}); err != nil {
		return out, o.failed(err, "making %s a physical volume", node)
	}
	if kind, err = o.content(ctx, node); err != nil {
		return out, err
	}
	if kind != kindPV {
		return out, o.refuse(proto.CodeFailed, "pvcreate reported success, but %s carries no label (%s)", node, orNothing(kind))
	}
	out.Now = node + " is a physical volume"
	return out, nil
}

// empty refuses to overwrite what is recognised.
func (o *Ops) empty(node, kind string) error {
	if kind == "" {
		return nil
	}
	return o.refuse(proto.CodeState, "%s holds %s and will not be overwritten", node, kind).
		WithRemedy("if its content is not needed, remove the signature with: wipefs --all %s", node)
}

// VGCreate makes a volume group of one physical volume, with autoactivation off.
func (o *Ops) VGCreate(ctx context.Context, vg, node string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	if err := CheckVGName(vg); err != nil {
		return out, o.refuse(proto.CodeInvalid, "%v", err)
	}
	kind, err := o.content(ctx, node)
	if err != nil {
		return out, err
	}
	if kind != kindPV {
		return out, o.refuse(proto.CodeState, "volume group %s: %s is no physical volume (%s)", vg, node, orNothing(kind)).
			WithRemedy("pvcreate it first")
	}
	rep, err := o.report(ctx, node, &out)
	if err != nil {
		return out, err
	}
	if rep.find(vg) != nil {
		out.Already, out.Now = true, fmt.Sprintf("volume group %s is on %s", vg, node)
		return out, nil
	}
	if len(rep.vgs) > 0 {
		return out, o.refuse(proto.CodeState, "%s belongs to volume group %s", node, rep.names())
	}
	if _, err := o.run(ctx, &out, Cmd{Argv: VGCreateArgv(vg, node), Limit: LimitSetup}); err != nil {
		return out, o.failed(err, "creating volume group %s on %s", vg, node)
	}
	if _, err := o.findVG(ctx, vg, node, &out); err != nil {
		return out, err
	}
	out.Now = fmt.Sprintf("volume group %s is on %s", vg, node)
	return out, nil
}

// LVCreate makes a linear logical volume of size bytes, rounded up to extents, or of all that is free if size is 0.
// It is active afterwards.
func (o *Ops) LVCreate(ctx context.Context, vg, lv string, size int64, node string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	if err := CheckLVName(lv); err != nil {
		return out, o.refuse(proto.CodeInvalid, "%v", err)
	}
	if size < 0 || size%512 != 0 {
		return out, o.refuse(proto.CodeInvalid, "size of %s/%s: %d bytes is no positive multiple of 512", vg, lv, size)
	}
	g, err := o.findVG(ctx, vg, node, &out)
	if err != nil {
		return out, err
	}
	if l := g.byName(lv); l != nil {
		out.Already, out.Now = true, fmt.Sprintf("logical volume %s has %d bytes", l.Path, l.Size)
		return out, nil
	}
	if _, err := o.run(ctx, &out, Cmd{Argv: LVCreateArgv(vg, lv, size, node), Limit: LimitSetup}); err != nil {
		return out, o.failed(err, "creating logical volume %s/%s on %s", vg, lv, node)
	}
	if g, err = o.findVG(ctx, vg, node, &out); err != nil {
		return out, err
	}
	l := g.byName(lv)
	if l == nil {
		return out, o.refuse(proto.CodeFailed, "lvcreate reported success, but %s has no logical volume %s", vg, lv)
	}
	out.Now = fmt.Sprintf("logical volume %s has %d bytes", l.Path, l.Size)
	return out, nil
}

func (vg *lvmVG) byName(lv string) *proto.LV {
	for i := range vg.LVs {
		if vg.LVs[i].Name == lv {
			return &vg.LVs[i]
		}
	}
	return nil
}

// Mkfs makes an ext4 or xfs file system on an empty block device. The same file system being there counts as done; a
// different one is refused, and so is anything else that is recognised.
func (o *Ops) Mkfs(ctx context.Context, fstype, path string) (out Outcome, err error) {
	defer out.Since(time.Now())
	defer o.Forget()
	if fstype != "ext4" && fstype != "xfs" {
		return out, o.refuse(proto.CodeUnsupported, "file system type %q: this version makes ext4 and xfs", fstype)
	}
	kind, err := o.content(ctx, path)
	if err != nil {
		return out, err
	}
	if kind == fstype {
		out.Already, out.Now = true, fmt.Sprintf("%s holds %s", path, fstype)
		return out, nil
	}
	if err := o.empty(path, kind); err != nil {
		return out, err
	}
	if _, err := o.run(ctx, &out, Cmd{Argv: MkfsArgv(fstype, path), Limit: LimitMkfs}); err != nil {
		return out, o.failed(err, "making %s on %s", fstype, path)
	}
	if kind, err = o.content(ctx, path); err != nil {
		return out, err
	}
	if kind != fstype {
		return out, o.refuse(proto.CodeFailed, "mkfs.%s reported success, but on %s: %s", fstype, path, orNothing(kind))
	}
	out.Now = fmt.Sprintf("%s holds %s", path, fstype)
	return out, nil
}
