package drbdconf

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"example.com/santui/proto"
)

// Config is what a drbd.conf and the files it includes say.
type Config struct {
	Files     []string // every file that was read, in that order
	Resources []*Resource
	// Unsupported are the findings outside resources; each resource has its own.
	Unsupported []Finding
}

// Resource is one replicated device.
type Resource struct {
	Name     string
	Pos      Pos
	Protocol proto.Protocol
	Hosts    []*Host // two, unless the resource is refused
	Disk     Disk
	Net      Net
	Startup  Startup
	OnNoData string // on-no-data-accessible: io-error, suspend-io
	// ResyncAfter are the resources whose resync goes first: the one that resync-after names, and those of lower groups (0.7).
	ResyncAfter []string
	// Handlers are command lines by event; 0.7's incon-degr-cmd is "pri-on-incon-degr".
	Handlers    map[string]string
	Unsupported []Finding

	group      int           // of 0.7, for ResyncAfter
	set        map[key]value // what the files set, common{} included
	structural bool          // refused for its structure: checks that need two hosts do not apply
}

// Host is one node's side of a resource.
type Host struct {
	Name     string
	Pos      Pos
	Device   string // "/dev/drbd0"
	Minor    int
	Disk     string // the backing disk's absolute path
	MetaDisk string // "internal", or the absolute path of a device of its own
	// MetaIndex is the slot of 128 MiB on that device, or Flexible.
	MetaIndex int
	Address   netip.AddrPort
}

// Flexible is the MetaIndex of metadata that takes all of its device.
const Flexible = -1

// External says whether the metadata is on a device of its own.
func (h *Host) External() bool { return h.MetaDisk != "internal" }

// Disk are the options of section disk, defaults filled in.
type Disk struct {
	OnIOError  string // detach, pass_on, call-local-io-error
	Fencing    string // dont-care, resource-only, resource-and-stonith
	ResyncRate int64  // bytes a second
	ALExtents  int    // of 4 MiB each
	Size       int64  // bytes to use, 0 = all
	// CPlanAhead is in 0.1 s; 0 = the fixed ResyncRate. It is 0 too where the rate stands in a section syncer and
	// c-plan-ahead nowhere: the DRBD that such a file was written for has no controller, or has it switched off.
	CPlanAhead   int
	CDelayTarget int   // 0.1 s
	CFillTarget  int64 // bytes, 0 = CDelayTarget counts
	CMinRate     int64 // bytes a second
	CMaxRate     int64 // bytes a second
	Timeout      time.Duration
	Flushes      bool
	MDFlushes    bool
	// RSDiscardGranularity is in bytes, 0 = a thin resync is not wanted.
	RSDiscardGranularity int
	DisableWriteSame     bool // the peer is told that this disk is not for write-same
}

// Net are the options of section net, defaults filled in.
type Net struct {
	Timeout           time.Duration
	PingInt           time.Duration
	PingTimeout       time.Duration
	ConnectInt        time.Duration
	KoCount           int // 0 = never give up
	MaxBuffers        int // of 4 KiB
	MaxEpochSize      int // writes
	SndbufSize        int // bytes, 0 = the kernel decides
	RcvbufSize        int
	CRAMAlg           string // "" = no authentication
	Secret            Secret
	VerifyAlg         string
	CsumsAlg          string
	DataIntegrityAlg  string
	AllowTwoPrimaries bool
	UseRLE            bool
	// CsumsAfterCrashOnly leaves checksum based resync to a node that crashed as Primary.
	CsumsAfterCrashOnly bool
	OnCongestion        string // block, pull-ahead, disconnect
	CongestionFill      int64  // bytes
	CongestionExtents   int
	AfterSB             [3]string // after-sb-0pri, -1pri, -2pri
	AlwaysASBP          bool
	RRConflict          string // disconnect, call-pri-lost
}

// Startup says how long boot waits for the peer (santui-agent wait-connect); 0 = for ever. Degr counts on a node that went down
// as Primary without its peer, Outdated on one whose copy is.
type Startup struct {
	WFCTimeout         time.Duration
	DegrWFCTimeout     time.Duration
	OutdatedWFCTimeout time.Duration
}

// Secret is a shared secret. It prints, marshals and logs as "***".
type Secret struct{ v *string } // a pointer, because fmt looks into unexported fields

func newSecret(s string) Secret { return Secret{&s} }

// Reveal is the secret itself, nil if there is none.
func (s Secret) Reveal() []byte {
	if s.v == nil {
		return nil
	}
	return []byte(*s.v)
}

func (s Secret) String() string {
	if s.v == nil {
		return ""
	}
	return "***"
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Equal compares secrets.
func (s Secret) Equal(o Secret) bool {
	return (s.v == nil) == (o.v == nil) && (s.v == nil || *s.v == *o.v)
}

// Resource returns the resource of that name, or the only one if name is "".
func (c *Config) Resource(name string) (*Resource, error) {
	known := make([]string, len(c.Resources))
	for i, r := range c.Resources {
		if r.Name == name {
			return r, nil
		}
		known[i] = r.Name
	}
	file := "drbd.conf"
	if len(c.Files) > 0 {
		file = c.Files[0]
	}
	if name == "" {
		if len(c.Resources) == 1 {
			return c.Resources[0], nil
		}
		return nil, fmt.Errorf("%s has %d resources, name one: %s", file, len(known), oneOf(known))
	}
	return nil, fmt.Errorf("%s has no resource %q; it has %s", file, name, oneOf(known))
}

// Host returns the section of the node.
func (r *Resource) Host(node string) (*Host, error) {
	known := make([]string, len(r.Hosts))
	for i, h := range r.Hosts {
		if h.Name == node {
			return h, nil
		}
		known[i] = h.Name
	}
	return nil, fmt.Errorf("%s: resource %s has no section \"on %s\"; it has %s; the name must be what `uname -n` prints, or the node name in the agent's settings",
		r.Pos, r.Name, node, oneOf(known))
}

// Peer returns the section of the other node.
func (r *Resource) Peer(node string) (*Host, error) {
	if _, err := r.Host(node); err != nil {
		return nil, err
	}
	for _, h := range r.Hosts {
		if h.Name != node {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%s: resource %s has no section for a node other than %s", r.Pos, r.Name, node)
}

// YieldRate is what a resync is left with while applications are busy, bytes a second; 0 = it does not yield. A fixed rate
// yields only if c-min-rate stands in the files.
func (r *Resource) YieldRate() int64 {
	if _, isSet := r.set[key{"disk", "c-min-rate"}]; r.Disk.CPlanAhead == 0 && !isSet {
		return 0
	}
	return r.Disk.CMinRate
}

// Refused says why the resource cannot be used by this version, nil if it can.
func (r *Resource) Refused() error {
	var errs []error
	for _, f := range r.Unsupported {
		if f.Refused {
			errs = append(errs, errors.New(f.String()))
		}
	}
	return errors.Join(errs...)
}

// key names an option: a section and a name.
type key struct{ section, name string }

// value is an option as it was written.
type value struct {
	pos    Pos
	words  []string
	syncer bool // it stands in a section syncer
	// secret replaces words for the shared secret.
	secret Secret
}

func (v value) text() string { return strings.Join(v.words, " ") }
