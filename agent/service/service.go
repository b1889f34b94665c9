package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// The time limits of the steps, for plans. A script's is its own.
const (
	LimitUnit    = 120 * time.Second // systemd gives a unit 90 s to stop, DefaultTimeoutStopSec
	LimitAddress = 15 * time.Second
	LimitExport  = 30 * time.Second
)

// limitLook bounds a program that only looks.
const limitLook = 10 * time.Second

// Options configure an Ops. Only Runner and Exports are required.
type Options struct {
	Runner  lvmops.Runner
	Exports func() ([]proto.Export, error) // what this node exports now
	Node    string                         // this node's name, for errors
	Booted  string                         // a directory that is there if systemd runs (sd_booted(3)): /run/systemd/system
	NFSD    string                         // the NFS server's control files: /proc/fs/nfsd
	Net     Network                        // the kernel's
}

// looker is a Runner that can say where a program is.
type looker interface {
	Look(name string) (string, error)
}

// Ops does the work. Its methods may be called concurrently; ordering steps is the caller's job.
type Ops struct{ opt Options }

// New fills in defaults.
func New(opt Options) *Ops {
	if opt.Booted == "" {
		opt.Booted = "/run/systemd/system"
	}
	if opt.NFSD == "" {
		opt.NFSD = "/proc/fs/nfsd"
	}
	if opt.Net == nil {
		opt.Net = kernel{}
	}
	return &Ops{opt: opt}
}

// Facts tells how this node stands to a configuration. What could not be found out is named in Errs.
func (o *Ops) Facts(ctx context.Context, c proto.Service) proto.ServiceFacts {
	f := proto.ServiceFacts{Config: c}
	note := func(err error) {
		if err != nil {
			f.Errs = append(f.Errs, err.Error())
		}
	}
	var err error
	f.Units, err = o.units(ctx, c.Units)
	note(err)
	for _, s := range c.Scripts {
		for _, argv := range [][]string{s.Stop, s.Start} {
			if err := trusted(argv[0]); err != nil {
				f.Scripts = append(f.Scripts, fmt.Sprintf("%s: %v", s.Name, err))
			}
		}
	}
	f.Addresses, err = o.addresses(c.Address)
	note(err)
	if len(c.Exports) > 0 {
		f.Exports, err = o.opt.Exports()
		note(err)
		f.Exports = f.Exports[:min(len(f.Exports), proto.MaxFacts)]
		f.NFS, f.Unserved = o.nfs()
	}
	return f
}

func (o *Ops) run(ctx context.Context, out *lvmops.Outcome, cmd lvmops.Cmd) (lvmops.Result, error) {
	return lvmops.Run(ctx, o.opt.Runner, o.opt.Node, out, cmd) //nolint:wrapcheck // an ExecError says all there is
}

func (o *Ops) refuse(code proto.ErrorCode, format string, args ...any) *proto.Error {
	return proto.Errorf(code, format, args...).On(o.opt.Node)
}

// failed is the error of a step; a passed limit says nothing about its effect, which the code tells.
func (o *Ops) failed(cause error, format string, args ...any) *proto.Error {
	code := proto.CodeFailed
	if errors.Is(cause, lvmops.ErrTimeout) || errors.Is(cause, lvmops.ErrStuck) || errors.Is(cause, context.DeadlineExceeded) {
		code = proto.CodeTimeout
	}
	text := fmt.Sprintf(format, args...)
	if cause != nil {
		text += ": " + cause.Error()
	}
	return o.refuse(code, "%s", text)
}
