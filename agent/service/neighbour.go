package service

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/lvmops"
)

const (
	probes        = 2
	probeWait     = 100 * time.Millisecond // after each: what is on the same wire answers within a few
	announcements = 3
	announceGap   = 20 * time.Millisecond
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
		x := Interface{Name: i.Name, Index: i.Index, Up: i.Flags&net.FlagUp != 0, MAC: i.HardwareAddr,
			NoProbe: i.Flags&net.FlagBroadcast == 0 || len(i.HardwareAddr) != macLen,
			No6:     setting(i.Name, "disable_ipv6") != "0", Router: setting(i.Name, "forwarding") == "1"}
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

// setting reads one of an interface's IPv6 settings, "" if the kernel has no IPv6.
func setting(iface, name string) string {
	b, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// message is a packet without its Ethernet header, and whom it is for.
type message struct {
	to   net.HardwareAddr
	data []byte
}

// dialect is how one family of addresses asks its neighbours about an address, and tells them.
type dialect struct {
	ethertype uint16
	probe     message
	announce  []message
	// claims returns whose address a packet says it is, nil if it does not speak of it. from sent it.
	claims func(packet []byte, from net.HardwareAddr) net.HardwareAddr
	words  string // what the announcement is called
}

func dialectOf(on Interface, addr netip.Addr) dialect {
	if addr.Is6() {
		return ndp(on.MAC, addr, on.Router)
	}
	return arp(on.MAC, addr)
}

// socket is a packet socket for one protocol on one interface; the kernel adds the Ethernet header.
type socket struct {
	fd int
	at unix.SockaddrLinklayer
}

func listen(on Interface, ethertype uint16) (socket, error) {
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, ethertype)) // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return socket{}, fmt.Errorf("open a packet socket: %w", err)
	}
	s := socket{fd, unix.SockaddrLinklayer{Protocol: proto, Ifindex: on.Index}}
	if err := unix.Bind(fd, &s.at); err != nil {
		return s, errors.Join(fmt.Errorf("listen on %s: %w", on.Name, err), unix.Close(fd))
	}
	return s, nil
}

func (s socket) send(m message) error {
	to := s.at
	to.Halen = uint8(len(m.to)) //nolint:gosec // 6
	copy(to.Addr[:], m.to)
	return unix.Sendto(s.fd, m.data, 0, &to)
}

// receive waits for one packet, for at most as long as is left; n is 0 if none came.
func (s socket) receive(buf []byte, left time.Duration) (n int, from net.HardwareAddr, err error) {
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) { //nolint:gosec // a descriptor
		return 0, nil, fmt.Errorf("wait for an answer: %w", err)
	}
	n, at, err := unix.Recvfrom(s.fd, buf, 0)
	if err != nil {
		return 0, nil, nil //nolint:nilerr // nothing there, or the interface went down: the deadline ends it
	}
	if l, ok := at.(*unix.SockaddrLinklayer); ok {
		from = bytes.Clone(l.Addr[:macLen])
	}
	return n, from, nil
}

// Probe implements Network.
func (kernel) Probe(ctx context.Context, on Interface, addr netip.Addr) (net.HardwareAddr, error) {
	if on.NoProbe {
		return nil, nil
	}
	d := dialectOf(on, addr)
	s, err := listen(on, d.ethertype)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(s.fd) }()
	buf := make([]byte, 2048)
	for range probes {
		if err := s.send(d.probe); err != nil {
			return nil, fmt.Errorf("ask on %s for %s: %w", on.Name, addr, err)
		}
		for deadline := time.Now().Add(probeWait); ; {
			left := time.Until(deadline)
			if left <= 0 || ctx.Err() != nil {
				break
			}
			n, from, err := s.receive(buf, left)
			if err != nil {
				return nil, err
			}
			if mac := d.claims(buf[:n], from); mac != nil && !bytes.Equal(mac, on.MAC) {
				return mac, nil
			}
		}
	}
	return nil, ctx.Err() //nolint:wrapcheck // the caller says what was asked
}

// Announce implements Network.
func (kernel) Announce(ctx context.Context, on Interface, addr netip.Addr) (string, error) {
	if on.NoProbe {
		return "", nil
	}
	d := dialectOf(on, addr)
	s, err := listen(on, d.ethertype)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(s.fd) }()
	for i := range announcements {
		if i > 0 {
			if err := lvmops.Pause(ctx, announceGap); err != nil {
				return "", err
			}
		}
		for _, m := range d.announce {
			if err := s.send(m); err != nil {
				return "", fmt.Errorf("announce %s on %s: %w", addr, on.Name, err)
			}
		}
	}
	return d.words, nil
}
