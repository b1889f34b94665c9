package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/state"
	"example.com/santui/proto"
)

// IOErrorPolicy says what happens when the backing disk fails (drbd.conf: on-io-error).
type IOErrorPolicy string

// The policies.
const (
	OnIOErrorDetach IOErrorPolicy = "detach"              // the disk is dropped, I/O goes on with the peer's copy
	OnIOErrorPassOn IOErrorPolicy = "pass_on"             // the error goes to the application, the disk becomes Inconsistent
	OnIOErrorCall   IOErrorPolicy = "call-local-io-error" // the handler of that name is run, then as detach
)

// ioErrorPolicies are the state machine's names.
var ioErrorPolicies = map[IOErrorPolicy]state.IOErrorPolicy{
	OnIOErrorDetach: state.IOErrorDetach, OnIOErrorPassOn: state.IOErrorPassOn, OnIOErrorCall: state.IOErrorCallHandler,
}

// FencingPolicy says what must be known of a lost peer before this node relies on its own copy (drbd.conf: fencing).
type FencingPolicy string

// The policies.
const (
	FencingDontCare  FencingPolicy = "dont-care"
	FencingResource  FencingPolicy = "resource-only"        // the handler fence-peer is called, and no copy that is only Consistent is promoted without its success
	FencingSuspendIO FencingPolicy = "resource-and-stonith" // besides, I/O of a Primary that lost its peer waits for it
)

var fencingPolicies = map[FencingPolicy]state.FencingPolicy{
	FencingDontCare: state.FencingDontCare, FencingResource: state.FencingResource, FencingSuspendIO: state.FencingAndSuspendIO,
}

// AfterSBPolicies are the policies for a split brain with no, one or two Primaries (drbd.conf: after-sb-0pri and so on).
// After disconnect, which is the default, people decide; all others discard the changes of one node.
var AfterSBPolicies = [3][]string{
	{"disconnect", "discard-younger-primary", "discard-older-primary", "discard-zero-changes", "discard-least-changes", "discard-local", "discard-remote"},
	{"disconnect", "consensus", "discard-secondary", "call-pri-lost-after-sb", "violently-as0p"},
	{"disconnect", "call-pri-lost-after-sb", "violently-as0p"},
}

// afterSBNames are the words by their number in P_PROTOCOL (enum drbd_after_sb_p, linux/drbd.h).
var afterSBNames = []string{"disconnect", "discard-younger-primary", "discard-older-primary", "discard-zero-changes", "discard-least-changes",
	"discard-local", "discard-remote", "consensus", "discard-secondary", "call-pri-lost-after-sb", "violently-as0p"}

func afterSBName(n uint32) string {
	if uint64(n) < uint64(len(afterSBNames)) {
		return afterSBNames[n]
	}
	return fmt.Sprintf("policy %d", n)
}

// afterSB gives the policies' numbers.
func (c *Config) afterSB() (n [3]uint32) {
	for i, p := range c.AfterSB {
		n[i] = uint32(max(slices.Index(afterSBNames, p), 0))
	}
	return n
}

// RRConflict says what happens when a resync would overwrite the copy of a Primary (drbd.conf: rr-conflict). It never
// does, so violently is refused by name.
type RRConflict string

// The policies.
const (
	RRDisconnect  RRConflict = "disconnect"
	RRCallPriLost RRConflict = "call-pri-lost" // the handler pri-lost is run, then as disconnect
)

// CongestionPolicy says what a Primary does when the link to the peer is congested (drbd.conf: on-congestion).
type CongestionPolicy string

// The policies.
const (
	CongestionBlock      CongestionPolicy = "block"      // writes wait
	CongestionPullAhead  CongestionPolicy = "pull-ahead" // the peer falls behind: it is told what changed, and resynced later
	CongestionDisconnect CongestionPolicy = "disconnect" // the link is given up until an operator connects
)

var congestionPolicies = map[CongestionPolicy]state.CongestionPolicy{
	CongestionBlock: state.CongestionBlocks, CongestionPullAhead: state.CongestionPullsAhead, CongestionDisconnect: state.CongestionDisconnects,
}

// Helper runs the handlers of drbd.conf. Both methods may be called from any goroutine.
type Helper interface {
	// Has says whether a command is configured for a handler ("split-brain").
	Has(handler string) bool
	// Run runs it, bounded in time, and gives its exit code and what it printed last. An error means that there is no exit
	// code. It returns soon after ctx has ended.
	Run(ctx context.Context, handler string) (exit int, said string, err error)
}

// Config describes one replicated resource as one of its two nodes sees it. Zero values mean DRBD's defaults
// (linux/drbd_limits.h).
type Config struct {
	Resource string // name, "r0"
	Device   string // the path that applications use, for messages
	Node     string // this node's name
	Peer     string // the other node's name

	Open     func() (block.Device, error) // opens the backing disk; called by Attach, closed by Detach and Close
	DiskPath string                       // the backing disk, for messages

	// OpenMeta opens the device of external metadata, with the backing disk; nil: the metadata is internal. MetaIndex is the
	// slot there, or meta.Flexible.
	OpenMeta  func() (block.Device, error)
	MetaPath  string // for messages
	MetaIndex int

	// LastSize tells of how many bytes the backing disk was when KeepSize was last called: at the end of that many its
	// internal metadata is, and so many count until Resize, should it have grown since. nil: only this process remembers.
	LastSize func() int64
	KeepSize func(bytes int64) error

	// Size is how many bytes of the disk are used at most, in whole sectors; 0 = as many as there are (disk { size }). Either
	// node's counts for both.
	Size int64

	LocalAddr string // "10.0.0.1:7788"
	PeerAddr  string

	Protocol proto.Protocol // 0 = C
	CRAMAlg  string         // "" = peers do not authenticate; md5, sha1, sha256, sha512 ...
	Secret   []byte         // at most 64 bytes in drbd.conf

	ResyncRate  int64        // bytes a second, 0 = DRBD's 250 KiB/s
	SyncControl *SyncControl // nil: the rate is fixed; else it is found while a resync runs, and begins with ResyncRate
	YieldRate   int64        // bytes a second that are left to a peer's resync while applications are busy here; 0: it does not yield

	PingInt     time.Duration // idle time on the meta socket before a ping, 10 s
	PingTimeout time.Duration // time for its answer, 500 ms
	ConnectInt  time.Duration // pause between attempts to connect, 10 s
	Timeout     time.Duration // 6 s; times KoCount: how long a peer may leave a request unanswered
	KoCount     int           // 7; KoNever

	ALExtents    int // size of the activity log in 4 MiB extents, 1237
	MaxBuffers   int // 4 KiB pages of data taken from the peer and not yet on disk, 2048
	MaxEpochSize int // writes between two barriers, 2048

	OnIOError IOErrorPolicy
	Fencing   FencingPolicy // "" = dont-care
	// AfterSB are the policies for a split brain, by the number of Primaries; "" = disconnect. Both nodes must agree, but that
	// discard-local here is discard-remote there. AlwaysASBP applies them also where it is not known when the copies parted.
	AfterSB         [3]string
	AlwaysASBP      bool
	RRConflict      RRConflict // "" = disconnect
	SuspendOnNoData bool       // I/O that no copy can serve waits until one is back, instead of failing (on-no-data-accessible suspend-io)

	// Features that drbd.conf may ask for. They are here so that New can refuse them by name.
	DataIntegrityAlg string // digest on every block that travels, one of DigestAlgs; "" = none. Both nodes must agree
	CsumsAlg         string // digest of checksum based resync, one of DigestAlgs; "" = blocks are copied unseen. Both nodes must agree
	VerifyAlg        string // digest of online verify, one of DigestAlgs; "" = no verify. Both nodes must agree
	// OnCongestion is what a Primary does when CongestionFill bytes of data are under way to the peer (0: no limit), or
	// CongestionExtents extents of the activity log are in use (1237). Anything but block needs protocol A.
	OnCongestion      CongestionPolicy
	CongestionFill    int64
	CongestionExtents int

	AllowTwoPrimaries bool

	CsumsAfterCrashOnly bool // checksums are compared only when this node crashed as Primary; any other resync copies unseen
	PlainBitmap         bool // bitmaps are sent uncompressed (net { use-rle no; })

	// SndBuf and RcvBuf are the sizes of the sockets' buffers in bytes, 0 = the kernel finds them.
	SndBuf, RcvBuf int

	// DisableWriteSame tells the peer that this disk is not for write-same (disk { disable-write-same }).
	DisableWriteSame bool

	// RSDiscardGranularity makes a resync thin: pieces of that many bytes, aligned, are asked for as ones that may be
	// empty, and those that are are not sent but zeroed, their space given back. 0, or a power of two from 4 KiB to 1 MiB.
	RSDiscardGranularity int64

	// Listen and Dial make the replication link; nil = TCP. laddr is the local address to bind, its port is ignored.
	Listen func(ctx context.Context, addr string) (net.Listener, error)
	Dial   func(ctx context.Context, laddr, raddr string) (net.Conn, error)

	// SyncOrder is that of the resources of this node; those named in ResyncAfter are resynced before this one. nil: it does
	// not wait, and nobody for it.
	SyncOrder   *SyncOrder
	ResyncAfter []string

	Helper Helper // nil = no handlers

	// Verified gets the outcome of each online verify. It must not block or call back.
	Verified func(v *proto.Verify)

	// Events gets one line for operators at each thing that happened. It must not block or call back.
	Events func(level proto.Level, text string)
	Logger *slog.Logger // nil = slog.Default()
}

// KoNever is a KoCount: a peer that answers pings is never given up, however long it owes an answer to a write (drbd.conf:
// ko-count 0).
const KoNever = -1

// patience is how long a write may stay unanswered, 0 for ever.
func (c *Config) patience() time.Duration {
	if c.KoCount == KoNever {
		return 0
	}
	return c.Timeout * time.Duration(c.KoCount)
}

// CRAMAlgs are the HMAC algorithms of cram-hmac-alg that this engine knows.
var CRAMAlgs = []string{"md5", "sha1", "sha224", "sha256", "sha384", "sha512"}

const (
	defaultResyncRate = 250 << 10 // L: RESYNC_RATE_DEF
	maxSecret         = 64        // SHARED_SECRET_MAX, linux/drbd.h
)

// withDefaults returns c with DRBD's defaults filled in, or why it cannot be used.
func (c Config) withDefaults() (Config, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.PingInt, 10*time.Second)
	def(&c.PingTimeout, 500*time.Millisecond)
	def(&c.ConnectInt, 10*time.Second)
	def(&c.Timeout, 6*time.Second)
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	num(&c.KoCount, 7)
	num(&c.ALExtents, 1237)
	num(&c.MaxBuffers, 2048)
	num(&c.MaxEpochSize, 2048)
	num(&c.CongestionExtents, 1237)
	if c.ResyncRate == 0 {
		c.ResyncRate = defaultResyncRate
	}
	if c.SyncControl != nil {
		s := c.SyncControl.withDefaults()
		c.SyncControl = &s
	}
	if c.OnIOError == "" {
		c.OnIOError = OnIOErrorDetach
	}
	for i := range c.AfterSB {
		if c.AfterSB[i] == "" {
			c.AfterSB[i] = "disconnect"
		}
	}
	if c.RRConflict == "" {
		c.RRConflict = RRDisconnect
	}
	if c.Fencing == "" {
		c.Fencing = FencingDontCare
	}
	if c.OnCongestion == "" {
		c.OnCongestion = CongestionBlock
	}
	if c.Protocol == 0 {
		c.Protocol = proto.ProtocolC
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("resource", c.Resource, "node", c.Node)
	if c.Events == nil {
		c.Events = func(proto.Level, string) {}
	}
	if c.Verified == nil {
		c.Verified = func(*proto.Verify) {}
	}
	if c.LastSize == nil || c.KeepSize == nil {
		var last atomic.Int64
		c.LastSize, c.KeepSize = last.Load, func(n int64) error { last.Store(n); return nil }
	}
	if c.Listen == nil {
		c.Listen = c.listenTCP
	}
	if c.Dial == nil {
		c.Dial = c.dialTCP
	}
	return c, c.check()
}

// initial is the state that a resource begins with.
func (c *Config) initial(seed uint64) state.State {
	st := state.New(ioErrorPolicies[c.OnIOError], seed)
	st.Fencing, st.CanVerify = fencingPolicies[c.Fencing], c.VerifyAlg != ""
	st.UserSize, st.Limit = uint64(c.Size/512), uint64(c.Size/512)
	st.OnCongestion = congestionPolicies[c.OnCongestion]
	st.AfterSB, st.AlwaysASBP = c.afterSB(), c.AlwaysASBP
	if c.RRConflict == RRCallPriLost {
		st.RRConflict = state.RRCallPriLost
	}
	if c.SuspendOnNoData {
		st.OnNoData = state.NoDataSuspends
	}
	return st
}

func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return proto.Errorf(proto.CodeInvalid, "resource %s: %s", c.Resource, fmt.Sprintf(format, args...)).On(c.Node)
	}
	switch {
	case c.Resource == "" || c.Node == "" || c.Peer == "":
		return bad("resource, node and peer must have names")
	case c.Open == nil:
		return bad("no backing disk")
	case c.LocalAddr == "" || c.PeerAddr == "":
		return bad("local and peer address are both needed")
	case c.ResyncRate < 0 || c.YieldRate < 0 || c.KoCount < KoNever || c.ALExtents < 0 || c.MaxBuffers < 0 || c.MaxEpochSize < 0 ||
		c.SndBuf < 0 || c.RcvBuf < 0 || c.CongestionFill < 0 || c.CongestionExtents < 0:
		return bad("a negative limit makes no sense")
	case slices.Contains(c.ResyncAfter, c.Resource) || len(c.ResyncAfter) > 0 && c.SyncOrder == nil:
		return bad("resync-after %v: it cannot come after these", c.ResyncAfter)
	case c.Size < 0 || c.Size%block.SectorSize != 0:
		return bad("size %d is not whole sectors", c.Size)
	case c.CRAMAlg != "" && !slices.Contains(CRAMAlgs, c.CRAMAlg):
		return bad("cram-hmac-alg %q is not one of %v", c.CRAMAlg, CRAMAlgs)
	case c.CRAMAlg != "" && len(c.Secret) == 0:
		return bad("cram-hmac-alg %s needs a shared-secret", c.CRAMAlg)
	case c.DataIntegrityAlg != "" && !slices.Contains(DigestAlgs, c.DataIntegrityAlg):
		return bad("data-integrity-alg %q is not one of %v", c.DataIntegrityAlg, DigestAlgs)
	case c.CsumsAlg != "" && !slices.Contains(DigestAlgs, c.CsumsAlg):
		return bad("csums-alg %q is not one of %v", c.CsumsAlg, DigestAlgs)
	case c.VerifyAlg != "" && !slices.Contains(DigestAlgs, c.VerifyAlg):
		return bad("verify-alg %q is not one of %v", c.VerifyAlg, DigestAlgs)
	case ioErrorPolicies[c.OnIOError] == 0 && c.OnIOError != OnIOErrorDetach:
		return bad("on-io-error %q is not a policy", c.OnIOError)
	case fencingPolicies[c.Fencing] == 0 && c.Fencing != FencingDontCare:
		return bad("fencing %q is not a policy", c.Fencing)
	case congestionPolicies[c.OnCongestion] == 0 && c.OnCongestion != CongestionBlock:
		return bad("on-congestion %q is not a policy", c.OnCongestion)
	case c.OnCongestion != CongestionBlock && c.Protocol != proto.ProtocolA: // ERR_CONG_NOT_PROTO_A, drbd_nl.c
		return bad("on-congestion %s needs protocol A: under %v a write waits for the peer anyway", c.OnCongestion, c.Protocol)
	case c.RSDiscardGranularity != 0 && (c.RSDiscardGranularity < block4k || c.RSDiscardGranularity > maxResyncRequest ||
		c.RSDiscardGranularity&(c.RSDiscardGranularity-1) != 0):
		return bad("rs-discard-granularity %d is not a power of two from 4 KiB to 1 MiB", c.RSDiscardGranularity)
	case len(c.Secret) > maxSecret:
		return bad("shared-secret is longer than %d bytes", maxSecret)
	}
	if s := c.SyncControl; s != nil && (s.FillTarget < 0 || s.MinRate < 0 || s.MinRate > s.MaxRate) {
		return bad("c-fill-target %d, c-min-rate %d and c-max-rate %d do not go together", s.FillTarget, s.MinRate, s.MaxRate)
	}
	for i, p := range c.AfterSB {
		if !slices.Contains(AfterSBPolicies[i], p) {
			return bad("after-sb-%dpri %q is not one of %v", i, p, AfterSBPolicies[i])
		}
	}
	return c.refuse()
}

// refuse names what drbd.conf may ask for and this version does not do.
func (c *Config) refuse() error {
	for _, f := range []struct {
		asked bool
		name  string
	}{
		{c.Protocol > proto.ProtocolC, "protocol " + c.Protocol.String()},
		{c.AllowTwoPrimaries, "allow-two-primaries"},
		{c.RRConflict != RRDisconnect && c.RRConflict != RRCallPriLost, "rr-conflict " + string(c.RRConflict)},
	} {
		if f.asked {
			return c.unsupported(f.name).WithRemedy("remove it from the configuration of %s on both nodes", c.Resource)
		}
	}
	return nil
}

func (c *Config) unsupported(what string) *proto.Error {
	return proto.Errorf(proto.CodeUnsupported, "resource %s: %s is not in this version of santui", c.Resource, what).On(c.Node)
}
