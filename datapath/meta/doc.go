// Package meta keeps DRBD's version 08 metadata: superblock, activity log and
// bitmap. What it writes is what the kernel module 8.4 and drbdmeta write, so a disk
// can go from one to the other. Internal metadata is at the end of the backing disk:
//
//	data ............ | bitmap | activity log | superblock |
//	0        UsableSize=BMOffset       ALOffset       MDOffset
//
// External metadata (MetaDisk) is on a device of its own, all of which it takes, or in
// one of the device's slots of 128 MiB:
//
//	| superblock | activity log | bitmap .... |
//	MDOffset     ALOffset       BMOffset
//
// The superblock names the generation of the data (four UUIDs), the flags and
// the last size the peers agreed on. The bitmap has one bit per 4 KiB, set
// where the copies may differ. The activity log names the 4 MiB extents that may
// have writes under way: after a crash of a Primary all their bits count as set.
//
// A disk that has grown keeps its internal metadata where the end was until Move.
//
// Create makes fresh metadata, Open reads it. Open does not change the disk: if
// NeedsApplyAL, ApplyAL must come before any other change, the rest is refused
// with ErrUnclean until then.
//
// A Metadata owns the metadata's area for as long as it is open: the
// superblock's copy, one Bitmap, one ActivityLog. It has no goroutines; whoever
// calls does the I/O. Three rules hold at every instant, whatever is cut:
//
//   - the extent of a write is in the activity log on disk before Begin returns;
//   - the bitmap page of an extent is on disk before the log forgets the extent;
//   - a valid superblock never stands over a bitmap or log that is not written.
//
// Before the log forgets an extent, and before pages of the bitmap are written but after
// what they say was taken, the data's device is flushed: no bit is clear on disk whose data
// is in a cache. Whoever calls MarkClean has flushed the data before.
//
// Damage is reported with its place and what was expected, and nothing is attached
// that contradicts itself. The activity log has checksums: if what is missing may
// matter, every block counts as out of sync. UUIDs, known flags and the bitmap have
// none: damage there shows at the handshake, or by an online verify.
//
// Version 07 and 09 metadata, and activity logs other than one stripe of 32 KiB, are
// refused by ErrUnsupported.
package meta
