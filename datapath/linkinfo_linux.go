package datapath

import (
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func tcpInfo(c syscall.Conn) (t tcp, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return t, err
	}
	var i *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { i, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) }); e != nil {
		return t, e
	}
	if err != nil {
		return t, err
	}
	t = tcp{sent: int64(i.Data_segs_out), resent: int64(i.Total_retrans), rtt: time.Duration(i.Rtt) * time.Microsecond, mtu: int(i.Pmtu)}
	if i.Min_rtt != math.MaxUint32 { // not measured yet (tcp_min_rtt, tcp.h)
		t.best = time.Duration(i.Min_rtt) * time.Microsecond
	}
	return t, nil
}
