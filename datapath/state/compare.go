package state

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Side is one node's history as the comparison sees it.
type Side struct {
	UUIDs   UUIDs
	Role    proto.Role
	Crashed bool // went down as Primary
}

// Caps is what the comparison needs to know of the connection.
type Caps struct {
	Features         uint32 // agreed feature flags
	ResolveConflicts bool   // self decides ties
}

// Results of a comparison (drbd_uuid_compare, drbd_receiver.c). Negative ones are self's loss.
const (
	SourceFull   = 2
	SourceBitmap = 1
	NoSync       = 0
	TargetBitmap = -1
	TargetFull   = -2
	SplitBrain   = 100 // automatic recovery is allowed
	SplitBrain2  = -100
	Unrelated    = -1000
	NeedFeature  = -0x10000 // undecidable between these two versions
)

// Verdict is the outcome of a comparison. Self and Peer are the histories after the repair that some rules make.
type Verdict struct {
	Result int
	Rule   int // DRBD's number of the rule that decided
	Text   string
	Self   UUIDs
	Peer   UUIDs
	// Strangers: of a split brain, all that the two have in common is that neither has much of a history. DRBD's rule does not
	// tell this from a generation that both had.
	Strangers bool
}

// syncUUIDOffset is what a source adds to its bitmap UUID when it starts a resync (UUID_NEW_BM_OFFSET, drbd_int.h).
const syncUUIDOffset = 1 << 48

func masked(u uint64) uint64 { return u &^ 1 }

func (u UUIDs) String() string {
	return fmt.Sprintf("%016X:%016X:%016X:%016X", u.Current, u.Bitmap, u.History0, u.History1)
}

func (u UUIDs) masked() UUIDs {
	return UUIDs{masked(u.Current), masked(u.Bitmap), masked(u.History0), masked(u.History1)}
}

// Compare says which of two copies is newer. The rules are tried in order, the first that matches decides.
func Compare(self, peer Side, caps Caps) Verdict {
	v := Verdict{Self: self.UUIDs, Peer: peer.UUIDs}
	s, p := self.UUIDs.masked(), peer.UUIDs.masked()
	fresh := func(u uint64) bool { return u == drbd.UUIDJustCreated }
	switch {
	case fresh(s.Current) && fresh(p.Current):
		return v.is(NoSync, 10, "both copies are fresh")
	case (fresh(s.Current) || s.Current == 0) && !fresh(p.Current):
		return v.is(TargetFull, 20, "the own copy is fresh")
	case !fresh(s.Current) && (fresh(p.Current) || p.Current == 0):
		return v.is(SourceFull, 30, "the peer's copy is fresh")
	case s.Current == p.Current:
		return v.sameGeneration(self, peer, caps)
	}
	if v.ancestry(s, p) {
		return v
	}
	return v.unrelated(s, p)
}

func (v Verdict) is(result, rule int, text string) Verdict {
	v.Result, v.Rule, v.Text = result, rule, text
	return v
}

// missedEnd is the rule for a source that did not hear of the end of its resync, peerMissedEnd that for its target.
const (
	missedEnd     = 34
	peerMissedEnd = 35
)

// sameGeneration compares two copies whose current UUIDs are equal: rules 34 to 41.
func (v Verdict) sameGeneration(self, peer Side, caps Caps) Verdict {
	s, p := self.UUIDs.masked(), peer.UUIDs.masked()
	switch {
	case peer.UUIDs.Bitmap == 0 && self.UUIDs.Bitmap != 0:
		if s.Bitmap == p.History0 && s.History0 == p.History1 {
			v.Self.History0, v.Self.History1, v.Self.Bitmap = v.Self.Bitmap, v.Self.History0, 0
			return v.is(SourceBitmap, missedEnd, "the end of the last resync was missed here")
		}
		return v.is(SourceBitmap, 36, "the peer did not record the start of the last resync")
	case self.UUIDs.Bitmap == 0 && peer.UUIDs.Bitmap != 0:
		if s.History0 == p.Bitmap && s.History1 == p.History0 {
			v.Peer.History1, v.Peer.History0, v.Peer.Bitmap = v.Peer.History0, v.Peer.Bitmap, 0
			return v.is(TargetBitmap, peerMissedEnd, "the peer missed the end of the last resync")
		}
		return v.is(TargetBitmap, 37, "the start of the last resync was not recorded here")
	case !self.Crashed && !peer.Crashed:
		return v.is(NoSync, 40, "same generation")
	case self.Role == proto.Primary || peer.Role == proto.Primary:
		return v.primaryAfterCrash(self, peer, caps)
	case self.Crashed && peer.Crashed && caps.ResolveConflicts:
		return v.is(TargetBitmap, 40, "both went down as Primary; the tie breaker gives in")
	case self.Crashed:
		return v.is(SourceBitmap, 40, "this node went down as Primary")
	default:
		return v.is(TargetBitmap, 40, "the peer went down as Primary")
	}
}

func (v Verdict) primaryAfterCrash(self, peer Side, caps Caps) Verdict {
	switch {
	case caps.Features&drbd.FeatureWSame == 0:
		return v.is(NeedFeature, 41, "same generation after a crash beside a Primary; the peer's version is too old to decide")
	case self.Role == proto.Primary && peer.Role == proto.Primary:
		return v.is(SplitBrain2, 41, "same generation after a crash, and both are Primary")
	case self.Role == proto.Primary:
		return v.is(SourceBitmap, 41, "same generation after a crash; this node is Primary")
	default:
		return v.is(TargetBitmap, 41, "same generation after a crash; the peer is Primary")
	}
}

// startUnheard says that the bitmap's generation is the name of a resync that began from generation g.
func (u UUIDs) startUnheard(g uint64) bool {
	return g != 0 && masked(g+syncUUIDOffset) == masked(u.Bitmap)
}

// rebased gives the history at the beginning of a full resync to a copy whose generation is in it: the bitmap, of which every bit
// is set, reaches back to that. Stricter than DRBD, whose history soon forgets what the target bears; if the link breaks before
// that has heard the sync UUID, the copies have nothing in common any more.
func (u UUIDs) rebased(target uint64) UUIDs {
	base, rest := u.History0, u.History1
	if masked(base) != masked(target) {
		base, rest = rest, base
	}
	switch {
	case base == 0 || masked(base) == drbd.UUIDJustCreated || masked(base) != masked(target) || masked(base) == masked(u.Bitmap):
		return u
	case u.Bitmap == 0:
		return UUIDs{u.Current, base, rest, 0}
	default:
		return UUIDs{u.Current, base, u.Bitmap, rest}
	}
}

// outlives says that u has gone on alone after a resync that p, its target, has finished. p has all but what came since.
func (u UUIDs) outlives(p UUIDs) bool {
	return u.History0 == p.Current && p.Bitmap == 0 && u.Bitmap != 0 && u.Bitmap == p.History0
}

// ancestry finds one copy's generation in the other's history: rules 50 to 80. 52, 53, 72 and 73 are not DRBD's, and come to the
// same with less to copy: a kernel's target takes them for 60, marks everything and sends that.
func (v *Verdict) ancestry(s, p UUIDs) bool {
	switch {
	case s.Current == p.Bitmap:
		*v = v.is(TargetBitmap, 50, "the peer has changed since the copies were the same")
	case s.Current == p.History0 && masked(p.History0+syncUUIDOffset) == p.Bitmap:
		v.Peer.Bitmap, v.Peer.History0 = v.Peer.History0, v.Peer.History1
		*v = v.is(TargetBitmap, 51, "the start of the last resync did not reach this node")
	case s.Current == p.History1 && p.startUnheard(s.Current):
		v.Peer.Bitmap = v.Peer.History1
		*v = v.is(TargetBitmap, 52, "the start of the last resync did not reach this node, and the peer has gone on alone since")
	case p.outlives(s):
		v.Peer.Bitmap, v.Peer.History0 = v.Peer.History0, v.Peer.Bitmap
		*v = v.is(TargetBitmap, 53, "the peer missed the end of the last resync, and has gone on alone since")
	case s.Current == p.History0 || s.Current == p.History1:
		v.Peer = v.Peer.rebased(s.Current)
		*v = v.is(TargetFull, 60, "the peer has changed, and its bitmap does not reach back far enough")
	case s.Bitmap == p.Current:
		*v = v.is(SourceBitmap, 70, "this node has changed since the copies were the same")
	case s.History0 == p.Current && masked(s.History0+syncUUIDOffset) == s.Bitmap:
		v.Self.Bitmap, v.Self.History0 = v.Self.History0, v.Self.History1
		*v = v.is(SourceBitmap, 71, "the start of the last resync did not reach the peer")
	case s.History1 == p.Current && s.startUnheard(p.Current):
		v.Self.Bitmap = v.Self.History1
		*v = v.is(SourceBitmap, 72, "the start of the last resync did not reach the peer, and this node has gone on alone since")
	case s.outlives(p):
		v.Self.Bitmap, v.Self.History0 = v.Self.History0, v.Self.Bitmap
		*v = v.is(SourceBitmap, 73, "the end of the last resync was missed here, and this node has gone on alone since")
	case s.History0 == p.Current || s.History1 == p.Current:
		*v = v.is(SourceFull, 80, "this node has changed, and its bitmap does not reach back far enough")
	default:
		return false
	}
	return true
}

// unrelated tells a split brain from copies that never were the same: rules 90 and 100. Empty history slots count as
// equal, as they do in DRBD. Stricter than DRBD, a generation since which one copy has changed counts as one that it had.
func (v Verdict) unrelated(s, p UUIDs) Verdict {
	switch {
	case s.Bitmap == p.Bitmap && s.Bitmap != 0:
		return v.is(SplitBrain, 90, "both copies have changed since they were the same")
	case s.History0 == p.History0 || s.History0 == p.History1 || s.History1 == p.History0 || s.History1 == p.History1,
		shared(s, p):
		if v.Strangers = !shared(s, p); v.Strangers {
			return v.is(SplitBrain2, 100, "both copies have changed, and no generation is known that both had")
		}
		return v.is(SplitBrain2, 100, "both copies have changed")
	default:
		return v.is(Unrelated, 100, "the copies have nothing in common")
	}
}

// shared says whether both copies had a generation that is one.
func shared(s, p UUIDs) bool {
	for _, u := range []uint64{s.Bitmap, s.History0, s.History1} {
		if u != 0 && u != drbd.UUIDJustCreated && (u == p.Bitmap || u == p.History0 || u == p.History1) {
			return true
		}
	}
	return false
}
