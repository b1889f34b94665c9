package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"
)

// SectorSize is the logical block size of every exported device, in bytes.
// Offsets and lengths that reach a Backend are multiples of it.
const SectorSize = 512

// Backend is what a front end serves. All offsets and lengths are in bytes and
// multiples of SectorSize; data buffers start at a 4096-byte boundary. All
// methods may be called at the same time from many goroutines.
//
// An error may wrap a syscall.Errno (found with errors.As), which then reaches
// the user of the device as far as the front end's protocol can carry it; any
// other error arrives there as EIO.
type Backend interface {
	// ReadAt fills p from off. n < len(p) without an error is treated as EIO.
	ReadAt(p []byte, off int64) (n int, err error)
	// WriteAt writes p at off. p must not be kept after the call returns.
	WriteAt(p []byte, off int64) (n int, err error)
	// Flush makes every write that completed before the call durable.
	Flush() error
	// Discard tells that n bytes from off are not needed any more. What they
	// read as afterwards is up to the Backend.
	Discard(off, n int64) error
	// WriteZeroes makes n bytes from off read as zeroes. With unmap the
	// Backend may give the space back while doing so.
	WriteZeroes(off, n int64, unmap bool) error
	// Size is the size of the device in bytes. While the Backend is exported it
	// may only grow; users of the device see that after Export.Resize.
	Size() int64
}

// Kind names a front end.
type Kind string

// The front ends.
const (
	FUSE Kind = "fuse" // FUSE file and loop device; any kernel since 5.8
	NBD  Kind = "nbd"  // the kernel's NBD client; 4.12, and 5.14 to be swept after a crash
	Ublk Kind = "ublk" // refused with ErrNoUblk
)

// Errors of this package. They are wrapped with the device and what was tried.
var (
	// ErrBusy: the device, or its mount, is still held by somebody.
	ErrBusy = errors.New("device is in use")
	// ErrNoUblk: the ublk front end does not exist in this version.
	ErrNoUblk = errors.New("the ublk front end is not in this version of santui; use nbd or fuse")
	// ErrUnknownKind: no front end has this name.
	ErrUnknownKind = errors.New("unknown front end")
	// ErrNotOffered: this kernel does not offer the front end.
	ErrNotOffered = errors.New("front end is not offered by this kernel")
	// ErrAlive: a running process already exports this name.
	ErrAlive = errors.New("name is already exported by a running process")
	// ErrLinkIsDevice: a real device node is where the link should go.
	ErrLinkIsDevice = errors.New("path is a real block device; is the kernel's DRBD module using it?")
	// ErrLinkTaken: something that is not ours is where the link should go.
	ErrLinkTaken = errors.New("path is taken by something that is not santui's")
	// ErrDied: the front end ended without Close.
	ErrDied = errors.New("front end ended by itself")
	// ErrOptions: Options or the Backend's size make no sense.
	ErrOptions = errors.New("bad export options")
)

// Options say how to export one Backend.
type Options struct {
	// Name of the resource, "r0": letters, digits, '_', '.', '-'; at most 64.
	Name string
	// Link is the path that configuration names, "/dev/drbd0". It becomes a
	// symbolic link to the kernel's device. Empty: no link.
	Link string
	// RunDir is a directory for mounts and lock files that nobody but the
	// agent uses. Made with mode 0700 when missing. Both agents of a pair on
	// one machine (tests, demo) need different ones.
	RunDir string
	// Logger gets what cannot be returned. Nil: slog.Default().
	Logger *slog.Logger
	// Queue is how many requests are worked on at the same time. 0: 64.
	Queue int
	// DeadConnTimeout is how long, in whole seconds, the kernel keeps requests
	// of an nbd device after its server has gone, before it fails them. 0: it
	// fails them at once. Other kinds ignore it.
	DeadConnTimeout time.Duration
}

// Export is a block device that exists while it is attached.
type Export interface {
	// Kind is the front end in use.
	Kind() Kind
	// Device is the kernel's node, "/dev/loop3" or "/dev/nbd0".
	Device() string
	// InUse tells whether anybody holds the device: a mount, a holder such as
	// dm or LVM, swap, another loop device, a process that has it open. The
	// exclusive open (O_EXCL) decides; who is what a look at /proc and /sys
	// could find out, and may be empty although the answer is true.
	InUse() (busy bool, who string, err error)
	// Resize gives the kernel's device the size that the Backend has now. Users
	// of the device go on meanwhile.
	Resize() error
	// Close takes the device away: link, device, mount, directories, in this
	// order. While the device is held it returns ErrBusy and everything stays
	// as it was; it may be called again, also after it failed half way. After
	// nil, further calls return nil.
	Close(ctx context.Context) error
	// Done is closed when the front end has ended, by Close or by itself.
	Done() <-chan struct{}
	// Err is why the front end ended by itself (it wraps ErrDied), nil before
	// Done and after an ordinary Close. An Export that died still needs Close
	// to clear away what is left of it.
	Err() error
}

// Support tells whether this kernel offers a front end.
type Support struct {
	Kind Kind
	// Err is nil when the kind can be used, or says what is missing (it wraps
	// ErrNotOffered or ErrNoUblk).
	Err error
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// check fills in defaults and refuses what cannot work.
func (o *Options) check(b Backend) error {
	if b == nil {
		return fmt.Errorf("%w: no backend", ErrOptions)
	}
	if !nameRE.MatchString(o.Name) {
		return fmt.Errorf("%w: name %q: want 1 to 64 letters, digits, '_', '.', '-'", ErrOptions, o.Name)
	}
	if size := b.Size(); size <= 0 || size%SectorSize != 0 {
		return fmt.Errorf("%w: %s: size %d bytes is not a positive multiple of %d", ErrOptions, o.Name, size, SectorSize)
	}
	if o.Queue < 0 || o.DeadConnTimeout < 0 {
		return fmt.Errorf("%w: %s: negative queue or timeout", ErrOptions, o.Name)
	}
	if o.Queue == 0 {
		o.Queue = 64
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("export", o.Name)
	return o.checkPaths()
}

// Pick returns the best front end this kernel offers: fuse, then nbd. In one
// node of the lab (Linux 6.1, TestLabSpeed) nbd does 0.7 of fuse's small writes
// and a quarter of its large ones; its kernel client also knows no error but
// EIO, and no zeroing before Linux 6.10. The error lists why each kind is out
// of the question.
func Pick() (Kind, error) {
	var why []error
	for _, s := range Supported() {
		if s.Err == nil {
			return s.Kind, nil
		}
		why = append(why, fmt.Errorf("%s: %w", s.Kind, s.Err))
	}
	return "", errors.Join(why...)
}

// Attach exports b as a block device of the given kind ("" lets Pick choose).
// First it sweeps up what a dead process left of the same name. ctx bounds the
// attaching only. When it returns an error, nothing is left behind.
//
// The kernel reads and flushes the device while it attaches (partition table,
// LOOP_CONFIGURE), and no signal or ctx ends that: attach a resource that
// answers, not one whose I/O is suspended.
func Attach(ctx context.Context, kind Kind, b Backend, o Options) (Export, error) {
	if err := o.check(b); err != nil {
		return nil, err
	}
	if kind == "" {
		var err error
		if kind, err = Pick(); err != nil {
			return nil, fmt.Errorf("export %s: %w", o.Name, err)
		}
	}
	switch kind {
	case FUSE, NBD:
		return attach(ctx, kind, b, o)
	case Ublk:
		return nil, fmt.Errorf("export %s: %w", o.Name, ErrNoUblk)
	}
	return nil, fmt.Errorf("export %s as %q: %w", o.Name, kind, ErrUnknownKind)
}
