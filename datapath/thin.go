package datapath

import (
	"bytes"

	"example.com/santui/proto/drbd"
)

// Thin resync: a target with rs-discard-granularity asks for pieces of that size with P_RS_THIN_REQ, and the source answers
// with P_RS_DEALLOCATED for those that hold nothing but zeroes (make_resync_request and w_e_end_rsdata_req, drbd_worker.c).
// A checksum based resync asks for digests instead.

// granularity is the size of such pieces on this link, 0 if there are none.
func (l *link) granularity() int64 {
	if l.agreed.features&drbd.FeatureThinResync == 0 || l.csums.Load() {
		return 0
	}
	return l.r.cfg.RSDiscardGranularity
}

// thin says whether a block is asked for as one that may be empty.
func (l *link) thin(off, n int64) bool {
	g := l.granularity()
	return g > 0 && n == g && off%g == 0
}

// empty says whether p is all zeroes.
func empty(p []byte) bool {
	for ; len(p) > len(zeroes); p = p[len(zeroes):] {
		if !bytes.Equal(p[:len(zeroes)], zeroes) {
			return false
		}
	}
	return bytes.Equal(p, zeroes[:len(p)])
}
