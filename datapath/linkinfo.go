package datapath

import (
	"syscall"
	"time"

	"example.com/santui/proto"
)

// LinkInfo is what the kernel knows of the two connections to the peer, both together where a sum makes sense (struct tcp_info,
// linux/tcp.h; RFC 4898).
type LinkInfo struct {
	Since   time.Time     // when the connections were made; zero while there is none
	Sent    int64         // segments with data, sent ones and sent again ones
	Resent  int64         // of them, sent again
	RTT     time.Duration // smoothed, of the connection that has sent more since the last call; 0 if not measured
	BestRTT time.Duration // the shortest of the last minutes, of both connections; 0 if not measured
	MTU     int           // of the path, bytes; 0 if not known
	// Broken counts the links since New that ended because the peer or the network fell silent or refused, as opposed to an end that
	// either node or its process made.
	Broken int64
}

// LinkInfo asks the kernel about the connections to the peer.
func (r *Resource) LinkInfo() LinkInfo {
	i := LinkInfo{Broken: r.broken.Load()}
	l := r.linked.Load()
	if l == nil || l.isDead() {
		return i
	}
	i.Since = l.socks.meta.since
	most := int64(-1)
	for _, s := range []*sock{l.socks.data, l.socks.meta} {
		c, ok := s.Conn.(syscall.Conn)
		if !ok {
			continue
		}
		t, err := tcpInfo(c)
		if err != nil {
			continue // it ends just now
		}
		i.Sent, i.Resent = i.Sent+t.sent, i.Resent+t.resent
		if t.best > 0 && (i.BestRTT == 0 || t.best < i.BestRTT) {
			i.BestRTT = t.best
		}
		if n := t.sent - s.told.Swap(t.sent); n > most {
			most, i.RTT, i.MTU = n, t.rtt, t.mtu
		}
	}
	return i
}

// tcp is what LinkInfo takes from one connection.
type tcp struct {
	sent, resent int64
	rtt, best    time.Duration
	mtu          int
}

// breaks says whether a link that ended so was cut by the network.
func breaks(why proto.ConnState) bool { return why == proto.Timeout || why == proto.NetworkFailure }
