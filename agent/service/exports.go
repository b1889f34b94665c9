package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// ExportArgv is the command line of Export.
func ExportArgv(e proto.Export) []string {
	return []string{"exportfs", "-o", e.Options, e.Client + ":" + e.Path}
}

// UnexportArgv is the command line of Unexport.
func UnexportArgv(e proto.Export) []string {
	return []string{"exportfs", "-u", e.Client + ":" + e.Path}
}

// nfs says why this node cannot export, and whether its server serves nobody.
func (o *Ops) nfs() (problem string, unserved bool) {
	if l, ok := o.opt.Runner.(looker); ok {
		if _, err := l.Look("exportfs"); err != nil {
			return err.Error(), true
		}
	}
	b, err := os.ReadFile(filepath.Join(o.opt.NFSD, "threads"))
	return "", err != nil || strings.TrimSpace(string(b)) == "0"
}

// exported says whether a directory is exported to a client now.
func (o *Ops) exported(e proto.Export) (bool, error) {
	list, err := o.opt.Exports()
	return slices.ContainsFunc(list, func(x proto.Export) bool { return x.Path == e.Path && x.Client == e.Client }), err
}

// Export exports a directory to a client and proves it by exportfs' table.
func (o *Ops) Export(ctx context.Context, e proto.Export) (lvmops.Outcome, error) {
	return o.setExport(ctx, e, true, ExportArgv(e))
}

// Unexport takes an export back, proves it by exportfs' table, and lets the NFS server drop the locks that clients hold on
// the file system: they would keep it from being unmounted (nfsd's unlock_filesystem, fs/nfsd/nfsctl.c).
func (o *Ops) Unexport(ctx context.Context, e proto.Export) (lvmops.Outcome, error) {
	out, err := o.setExport(ctx, e, false, UnexportArgv(e))
	if err != nil {
		return out, err
	}
	unlock := filepath.Join(o.opt.NFSD, "unlock_filesystem")
	if _, err := os.Stat(unlock); err != nil {
		return out, nil //nolint:nilerr // no NFS server, no locks
	}
	if err := os.WriteFile(unlock, []byte(e.Path+"\n"), 0); err != nil {
		out.Findings = append(out.Findings, fmt.Sprintf("clients may still hold locks on %s: %v", e.Path, err))
	}
	return out, nil
}

func (o *Ops) setExport(ctx context.Context, e proto.Export, want bool, argv []string) (out lvmops.Outcome, err error) {
	begin := time.Now()
	defer out.Since(begin)
	words := fmt.Sprintf("%s is exported to %s", e.Path, e.Client)
	if !want {
		words = fmt.Sprintf("%s is not exported to %s", e.Path, e.Client)
	}
	is, err := o.exported(e)
	if err != nil {
		return out, err
	}
	// An export that is there may have other options: it is made again, which changes nothing where they are the same.
	if !is && !want {
		out.Already, out.Now = true, words
		return out, nil
	}
	_, runErr := o.run(ctx, &out, lvmops.Cmd{Argv: argv, Limit: LimitExport})
	after, err := o.exported(e)
	switch {
	case err != nil:
		return out, err
	case after != want:
		return out, o.failed(runErr, "%s: exportfs' table says otherwise", strings.Join(argv, " ")).
			WithRemedy("exportfs -v shows the table; a host is listed under its canonical name there")
	case runErr != nil:
		out.Findings = append(out.Findings, runErr.Error())
	}
	out.Already, out.Now = is == want, words
	return out, nil
}
