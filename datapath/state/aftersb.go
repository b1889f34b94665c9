package state

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// RRConflict says what happens when a resync would overwrite the copy of a Primary (drbd.conf: rr-conflict).
type RRConflict uint8

// The policies.
const (
	RRDisconnect  RRConflict = iota
	RRCallPriLost            // run the handler pri-lost, then as disconnect
)

// fork is what the policies for a split brain go by. Both nodes see the same, mirrored, and come to opposite results.
type fork struct {
	role, peerRole proto.Role
	older, peerOld bool   // was Primary already when the copies parted (bit 0 of the bitmap UUID)
	bits, peerBits uint64 // blocks changed since, as each has told the other
	tie            bool   // RESOLVE_CONFLICTS
}

// primaries says which of the three policies is in force.
func (f fork) primaries() int {
	n := 0
	for _, r := range []proto.Role{f.role, f.peerRole} {
		if r == proto.Primary {
			n++
		}
	}
	return n
}

func winner(self bool) int {
	if self {
		return SourceBitmap
	}
	return TargetBitmap
}

// resolve applies the policies (drbd_asb_recover_0p to 2p, drbd_receiver.c). SplitBrain2: they do not decide. lost: this
// node is Primary and would lose, which a handler is to be told; DRBD tries to demote it first, here only people do that.
func (f fork) resolve(policy [3]uint32) (result int, lost bool) {
	n := f.primaries()
	if n == 0 {
		return f.resolve0(policy[0]), false
	}
	result = f.resolve0(policy[0])
	switch {
	case policy[n] == drbd.AfterSBViolently:
		return result, false
	case policy[n] == drbd.AfterSBCallHelper:
		if result == TargetBitmap && f.role == proto.Primary {
			return SplitBrain2, true
		}
		return result, false
	case n == 1 && policy[n] == drbd.AfterSBDiscardSecondary:
		return winner(f.role == proto.Primary), false
	case n == 1 && policy[n] == drbd.AfterSBConsensus && result == winner(f.role == proto.Primary):
		return result, false
	default:
		return SplitBrain2, false
	}
}

// resolve0 decides between two Secondaries.
func (f fork) resolve0(policy uint32) int {
	switch policy {
	case drbd.AfterSBDiscardYoungerPri, drbd.AfterSBDiscardOlderPri:
		if f.older != f.peerOld {
			return winner(f.older == (policy == drbd.AfterSBDiscardYoungerPri))
		}
		if r := f.zeroChanges(); r != SplitBrain2 {
			return r
		}
		return f.leastChanges()
	case drbd.AfterSBDiscardZeroChanges:
		return f.zeroChanges()
	case drbd.AfterSBDiscardLeastChanges:
		return f.leastChanges()
	case drbd.AfterSBDiscardLocal:
		return TargetBitmap
	case drbd.AfterSBDiscardRemote:
		return SourceBitmap
	default:
		return SplitBrain2
	}
}

func (f fork) zeroChanges() int {
	switch {
	case f.bits == 0 && f.peerBits == 0:
		return winner(!f.tie)
	case f.bits == 0 || f.peerBits == 0:
		return winner(f.peerBits == 0)
	default:
		return SplitBrain2
	}
}

func (f fork) leastChanges() int {
	if f.bits == f.peerBits {
		return winner(!f.tie)
	}
	return winner(f.bits > f.peerBits)
}

// overturns says that a decision would keep an Outdated copy and give up changes of one that is not. The nodes have decided the
// other way before, and the link broke before the resync began: the exchange of bitmaps has changed by then what the policies
// count. DRBD decides by the new counts.
func (f fork) overturns(result int, disk, peerDisk proto.DiskState) bool {
	if result > 0 {
		return disk == proto.Outdated && peerDisk > proto.Outdated && f.peerBits > 0
	}
	return peerDisk == proto.Outdated && disk > proto.Outdated && f.bits > 0
}

// splitBrain resolves a split brain: by the policies if they are configured, else by what the operator said of the side
// that loses. told is how many blocks this node said that it has changed.
func (m *machine) splitBrain(result int, peerRole proto.Role, disk, peerDisk proto.DiskState, told uint64, strangers bool) (int, bool) {
	if result != SplitBrain && result != SplitBrain2 {
		return result, true
	}
	m.handler("initial-split-brain")
	f := fork{
		role: m.s.Role, peerRole: peerRole, tie: m.s.ResolveConflicts,
		older: m.s.UUIDs.Bitmap&1 == 1, peerOld: m.s.PeerUUIDs.Bitmap&1 == 1, bits: told, peerBits: m.s.PeerUUIDs.Bits,
	}
	// always-asbp is for data sets that are somehow related (drbd.conf(5)).
	if result == SplitBrain || m.s.AlwaysASBP && !strangers {
		r, lost := f.resolve(m.s.AfterSB)
		if lost { // whatever the peer was asked for: it goes by the policy, and is the source itself
			m.notify(proto.LevelAlert, "split brain: by after-sb-%dpri this Primary has to give its changes up. Nothing is resynced and the link stays down. "+
				"Demote this node and connect it with discard-my-data", f.primaries())
			m.handler("pri-lost-after-sb")
			m.handler("split-brain")
			return 0, false
		}
		if r != SplitBrain2 && f.overturns(r, disk, peerDisk) {
			m.notify(proto.LevelAlert, "after-sb-%dpri is not applied: it would keep the changes of the copy that is Outdated, which an earlier decision "+
				"was about to give up", f.primaries())
			r = SplitBrain2
		}
		if r != SplitBrain2 {
			full := result == SplitBrain2 // the histories do not say since when
			if full {
				r *= 2
			}
			m.tellLoss(fmt.Sprintf("split brain, resolved by after-sb-%dpri", f.primaries()), r, told)
			return r, true
		}
	}
	peer := m.s.PeerUUIDs.Flags&drbd.UUIDDiscardMyData != 0
	if m.s.DiscardMyData != peer {
		r := winner(peer)
		m.tellLoss("split brain, resolved as asked", r, told)
		return r, true
	}
	caution := ""
	if strangers {
		caution = "No generation is known that both copies had: see first that neither is the disk of another pair. "
	}
	m.notify(proto.LevelAlert, "split brain: both nodes have changed the data on their own. Nothing is resynced and the link stays down. %s"+
		"Decide which node's changes are to be lost, make it Secondary and connect it with discard-my-data; then connect the other one", caution)
	m.handler("split-brain")
	return 0, false
}

// tellLoss says who has won and what the other one loses.
func (m *machine) tellLoss(how string, result int, told uint64) {
	who, bits := "the peer", m.s.PeerUUIDs.Bits
	if result < 0 {
		who, bits = "this node", told
	}
	m.notify(proto.LevelAlert, "%s: the changes of %s are discarded, up to %d bytes in %d blocks", how, who, bits*blockBytes, bits)
}

// blockBytes is what one bit stands for (BM_BLOCK_SIZE, drbd_int.h).
const blockBytes = 4096
