package service

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/lvmops"
)

// kernel is the Network of this machine.
type kernel struct{}

// Interfaces implements Network.
func (kernel) Interfaces() ([]Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var out []Interface
	for _, i := range list {
		x := Interface{Name: i.Name, Index: i.Index, Up: i.Flags&net.FlagUp != 0, MAC: i.HardwareAddr, NoProbe: i.Flags&net.FlagBroadcast == 0 || len(i.HardwareAddr) != macLen}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("read the addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if p, err := netip.ParsePrefix(n.String()); err == nil {
					x.Addrs = append(x.Addrs, p)
				}
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// ARP over Ethernet, RFC 826 and RFC 5227.
const (
	macLen      = 6
	arpLen      = 28
	arpEthernet = 1
	arpRequest  = 1
	arpReply    = 2

	probes        = 2
	probeWait     = 100 * time.Millisecond // after each: what is on the same wire answers within a few
	announcements = 3
	announceGap   = 20 * time.Millisecond
)

var (
	everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	nobody    = netip.IPv4Unspecified()
)

// arpPacket is an ARP packet without its Ethernet header.
func arpPacket(op uint16, mac net.HardwareAddr, from, to netip.Addr) []byte {
	b := make([]byte, 0, arpLen)
	b = binary.BigEndian.AppendUint16(b, arpEthernet)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, macLen, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, mac...), from.AsSlice()...)
	return append(append(b, make([]byte, macLen)...), to.AsSlice()...)
}

// arpOf reads who claims which address in an ARP packet; ok is false for anything else.
func arpOf(b []byte) (mac net.HardwareAddr, from netip.Addr, ok bool) {
	if len(b) < arpLen || binary.BigEndian.Uint16(b) != arpEthernet || binary.BigEndian.Uint16(b[2:]) != unix.ETH_P_IP || b[4] != macLen || b[5] != 4 {
		return nil, netip.Addr{}, false
	}
	if op := binary.BigEndian.Uint16(b[6:]); op != arpRequest && op != arpReply {
		return nil, netip.Addr{}, false
	}
	from, ok = netip.AddrFromSlice(b[14:18])
	return net.HardwareAddr(bytes.Clone(b[8:14])), from, ok
}

// arpSocket is a packet socket for ARP on one interface; the kernel adds the Ethernet header.
func arpSocket(on Interface) (int, *unix.SockaddrLinklayer, error) {
	proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff}) // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return -1, nil, fmt.Errorf("open a packet socket: %w", err)
	}
	to := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: on.Index, Halen: macLen}
	copy(to.Addr[:], everybody)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: on.Index}); err != nil {
		return -1, nil, errors.Join(fmt.Errorf("listen for ARP on %s: %w", on.Name, err), unix.Close(fd))
	}
	return fd, to, nil
}

// Probe implements Network: it asks as a machine without an address does, so that nobody's table changes.
func (kernel) Probe(ctx context.Context, on Interface, addr netip.Addr) (net.HardwareAddr, error) {
	if on.NoProbe {
		return nil, nil
	}
	fd, to, err := arpSocket(on)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 256)
	for range probes {
		if err := unix.Sendto(fd, arpPacket(arpRequest, on.MAC, nobody, addr), 0, to); err != nil {
			return nil, fmt.Errorf("send an ARP probe on %s: %w", on.Name, err)
		}
		for deadline := time.Now().Add(probeWait); ; {
			left := time.Until(deadline)
			if left <= 0 || ctx.Err() != nil {
				break
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
				return nil, fmt.Errorf("wait for an answer to an ARP probe: %w", err)
			}
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue // nothing there, or the interface went down: the deadline ends it
			}
			if mac, from, ok := arpOf(buf[:n]); ok && from == addr && !bytes.Equal(mac, on.MAC) {
				return mac, nil
			}
		}
	}
	return nil, ctx.Err() //nolint:wrapcheck // the caller says what was asked
}

// Announce implements Network.
func (kernel) Announce(ctx context.Context, on Interface, addr netip.Addr) error {
	if on.NoProbe {
		return nil
	}
	fd, to, err := arpSocket(on)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for i := range announcements {
		if i > 0 {
			if err := lvmops.Pause(ctx, announceGap); err != nil {
				return err
			}
		}
		// As a request for its own address; some only listen to replies.
		for _, op := range []uint16{arpRequest, arpReply} {
			if err := unix.Sendto(fd, arpPacket(op, on.MAC, addr, addr), 0, to); err != nil {
				return fmt.Errorf("announce %s on %s: %w", addr, on.Name, err)
			}
		}
	}
	return nil
}
