package datapath

import "time"

var epoch0 = time.Now()

// since0 is t on the monotonic clock, for what is kept as one word: the wall clock may be set while a link is up, and a
// link must neither end for that nor outlive its peer.
func since0(t time.Time) int64 { return int64(t.Sub(epoch0)) }
