package meta

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// The activity log's block format (struct al_transaction_on_disk,
// drbd_actlog.c). Everything is big endian.
const (
	alMagic           uint32 = 0x69cb65a2
	alTypeUpdate      uint16 = 0
	alTypeInitialized uint16 = 0xffff
	alUpdates                = 64  // updates a transaction can hold
	alContext                = 919 // slots of the current state it repeats
	alUpdateSlots            = 36  // byte offsets
	alUpdateExtents          = alUpdateSlots + 2*alUpdates
	alContextOff             = alUpdateExtents + 4*alUpdates

	freeExtent uint32 = 0xffffffff
	freeSlot   uint16 = 0xffff
)

// Limits of the activity log's capacity in extents. The upper one keeps the whole
// state in the ring even while one block is being overwritten (drbd_al_extents_max,
// drbd_nl.c).
const (
	MinALExtents     = 7
	MaxALExtents     = (alBlocks - 1) * alContext
	DefaultALExtents = 1237
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// alChecksum is the kernel's crc32c(0, block, 4096): seed 0 and no final
// inversion, where Go's has both. The checksum field must be zero.
func alChecksum(p []byte) uint32 { return ^crc32.Update(^uint32(0), castagnoli, p[:alBlockSize]) }

// alBlock is one decoded block of the ring.
type alBlock struct {
	Number       uint32
	Type         uint16
	ContextSize  uint16 // capacity of the log that wrote it
	ContextStart uint16
	Updates      []alUpdate
	Context      [alContext]uint32
	// nUpdates is the field as it was read; update entries behind it count
	// only if they name a slot.
	nUpdates uint16
}

// alUpdate says that a slot now holds another extent.
type alUpdate struct {
	Slot   uint16
	Extent uint32
}

// marshal encodes the block into the first 4096 bytes of p. Updates beyond 64
// are refused.
func (b *alBlock) marshal(p []byte) error {
	if len(p) < alBlockSize || len(b.Updates) > alUpdates {
		return fmt.Errorf("%w: %d updates and %d bytes for an activity log block", ErrInvalid, len(b.Updates), len(p))
	}
	be, p := binary.BigEndian, p[:alBlockSize]
	clear(p)
	be.PutUint32(p[0:], alMagic)
	be.PutUint32(p[4:], b.Number)
	be.PutUint16(p[12:], b.Type)
	if b.Type == alTypeUpdate {
		be.PutUint16(p[14:], uint16(len(b.Updates)))
		be.PutUint16(p[16:], b.ContextSize)
		be.PutUint16(p[18:], b.ContextStart)
		for i := range alUpdates {
			u := alUpdate{Slot: freeSlot, Extent: freeExtent}
			if i < len(b.Updates) {
				u = b.Updates[i]
			}
			be.PutUint16(p[alUpdateSlots+2*i:], u.Slot)
			be.PutUint32(p[alUpdateExtents+4*i:], u.Extent)
		}
		for i, e := range b.Context {
			be.PutUint32(p[alContextOff+4*i:], e)
		}
	}
	be.PutUint32(p[8:], alChecksum(p))
	return nil
}

// unmarshal decodes p; false when magic, checksum or type is wrong, as they are
// in a block torn by a crash.
func (b *alBlock) unmarshal(p []byte) bool {
	if len(p) < alBlockSize {
		return false
	}
	be := binary.BigEndian
	var buf [alBlockSize]byte
	copy(buf[:], p)
	clear(buf[8:12])
	if be.Uint32(p[0:]) != alMagic || be.Uint32(p[8:]) != alChecksum(buf[:]) {
		return false
	}
	b.Number, b.Type = be.Uint32(p[4:]), be.Uint16(p[12:])
	if b.Type == alTypeInitialized {
		return true
	}
	b.nUpdates, b.ContextSize, b.ContextStart = be.Uint16(p[14:]), be.Uint16(p[16:]), be.Uint16(p[18:])
	b.Updates = b.Updates[:0]
	for i := range alUpdates {
		u := alUpdate{be.Uint16(p[alUpdateSlots+2*i:]), be.Uint32(p[alUpdateExtents+4*i:])}
		if i < int(b.nUpdates) || u.Slot != freeSlot {
			b.Updates = append(b.Updates, u)
		}
	}
	for i := range b.Context {
		b.Context[i] = be.Uint32(p[alContextOff+4*i:])
	}
	return b.Type == alTypeUpdate
}

// ring is what a read of the whole log yields.
type ring struct {
	blocks  [alBlocks]alBlock
	valid   [alBlocks]bool
	nValid  int
	updates []int // indexes of valid update blocks, oldest first
	newest  uint32
	damaged string // what damage says
}

// readRing decodes the whole log, ALSize bytes, which were read at off.
func readRing(p []byte, off int64) *ring {
	r := &ring{}
	defer func() { r.damaged = r.damage(p, off) }()
	for i := range r.blocks {
		if !r.blocks[i].unmarshal(p[i*alBlockSize:]) {
			continue
		}
		r.valid[i] = true
		r.nValid++
		if r.blocks[i].Type == alTypeUpdate {
			r.updates = append(r.updates, i)
		}
	}
	if len(r.updates) == 0 {
		return r
	}
	r.newest = r.blocks[r.updates[0]].Number
	for _, i := range r.updates {
		if int32(r.blocks[i].Number-r.newest) > 0 {
			r.newest = r.blocks[i].Number
		}
	}
	// Transaction numbers wrap: compare ages, not numbers.
	slices.SortFunc(r.updates, func(i, j int) int {
		return int(int32(r.blocks[i].Number-r.newest)) - int(int32(r.blocks[j].Number-r.newest))
	})
	return r
}

// damage tells which blocks are not valid, given what was read at off, and what is wrong with each; "" if none is. The one
// that the next transaction goes to is left out: a power cut may have torn it.
func (r *ring) damage(p []byte, off int64) string {
	var bad []string
	for i, ok := range r.valid {
		if ok || len(r.updates) > 0 && uint32(i) == (r.newest+1)%alBlocks {
			continue
		}
		b := slices.Clone(p[i*alBlockSize:][:alBlockSize])
		be := binary.BigEndian
		at, magic, sum, kind := off+int64(i)*alBlockSize, be.Uint32(b[0:]), be.Uint32(b[8:]), be.Uint16(b[12:])
		clear(b[8:12])
		switch want := alChecksum(b); {
		case magic != alMagic:
			bad = append(bad, fmt.Sprintf("at %d the magic number is %#08x, expected %#08x", at, magic, alMagic))
		case sum != want:
			bad = append(bad, fmt.Sprintf("at %d the checksum is %#08x, expected %#08x", at, sum, want))
		default:
			bad = append(bad, fmt.Sprintf("at %d the type is %d, expected %d or %d", at, kind, alTypeUpdate, alTypeInitialized))
		}
	}
	return strings.Join(bad, "; ")
}

// gapless reports whether nothing is missing: counted back from the newest transaction, one follows the other to where the
// log began, or as far as their contexts hold every slot.
func (r *ring) gapless() bool {
	need := int(r.blocks[r.newest%alBlocks].ContextSize)
	seen := make(map[int]bool)
	for n := range uint32(alBlocks) {
		i := (r.newest - n) % alBlocks
		b := &r.blocks[i]
		switch {
		case !r.valid[i]:
			return false
		case b.Type == alTypeInitialized:
			return true
		case b.Number != r.newest-n:
			return false // of another life of the log
		}
		for k := range b.Context {
			if slot := int(b.ContextStart) + k; slot < need {
				seen[slot] = true
			}
		}
		if len(seen) == need {
			return true
		}
	}
	return false
}

// nextToReplace is the block to overwrite first, a damaged one or the oldest, and the capacity of the log that wrote the
// newest one.
func (r *ring) nextToReplace() (next uint32, capacity int) {
	if len(r.updates) > 0 {
		return r.newest + 1, int(r.blocks[r.newest%alBlocks].ContextSize)
	}
	return uint32(max(0, slices.Index(r.valid[:], false))), 0
}

// clean reports whether the log holds no transaction at all.
func (r *ring) clean() bool { return r.nValid == alBlocks && len(r.updates) == 0 }

// extents replays the log: the extents that were active when its newest
// transaction was written, sorted, each once. ErrALUnreadable when there is
// nothing to go by. A single unreadable block in an otherwise fresh log is a first
// transaction that was cut: no write had been let through on its account.
func (r *ring) extents() ([]uint32, error) {
	if r.nValid == 0 {
		return nil, fmt.Errorf("%w: none of its %d blocks is valid", ErrALUnreadable, alBlocks)
	}
	if len(r.updates) == 0 {
		if r.nValid < alBlocks-1 {
			return nil, fmt.Errorf("%w: %d of its %d blocks are damaged and the rest hold no transaction", ErrALUnreadable, alBlocks-r.nValid, alBlocks)
		}
		return nil, nil
	}
	if !r.gapless() {
		return nil, fmt.Errorf("%w: transactions before number %d are missing, and what is left does not hold every slot", ErrALUnreadable, r.newest)
	}
	slots := make(map[int]uint32)
	for _, i := range r.updates {
		b := &r.blocks[i]
		for k, extent := range b.Context {
			slot := int(b.ContextStart) + k
			if extent == freeExtent && slot >= int(b.ContextSize) {
				continue
			}
			slots[slot] = extent
		}
		for _, u := range b.Updates {
			if u.Slot != freeSlot {
				slots[int(u.Slot)] = u.Extent
			}
		}
	}
	hot := make([]uint32, 0, len(slots))
	for _, extent := range slots {
		if extent != freeExtent {
			hot = append(hot, extent)
		}
	}
	slices.Sort(hot)
	return slices.Compact(hot), nil
}
