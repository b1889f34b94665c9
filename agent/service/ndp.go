package service

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Neighbour discovery over Ethernet: RFC 4861 (messages), RFC 4862 section 5.4 (duplicate addresses), RFC 2464 section 7
// (multicast on Ethernet).
const (
	ip6Len       = 40
	ip6ICMP      = 58
	ndHopLimit   = 255 // anything less has crossed a router
	ndLen        = 24  // type, code, checksum, flags, target
	ndSolicit    = 135
	ndAdvertise  = 136
	ndRouter     = 0x80
	ndOverride   = 0x20
	ndOptionMAC  = 2 // target link-layer address
	ndOptionUnit = 8 // bytes
)

var (
	allNodes  = netip.MustParseAddr("ff02::1")
	solicited = netip.MustParseAddr("ff02::1:ff00:0").As16()
)

// ndp asks and tells about an IPv6 address.
func ndp(mac net.HardwareAddr, addr netip.Addr, router bool) dialect {
	group := solicited
	target := addr.As16()
	copy(group[13:], target[13:])
	ask := netip.AddrFrom16(group)
	flags := byte(ndOverride)
	if router {
		flags |= ndRouter
	}
	return dialect{
		ethertype: unix.ETH_P_IPV6,
		// From no address, as one that is only thought of is asked for: nobody's table changes, and the answer goes to all.
		probe:    message{multicastMAC(ask), ndPacket(netip.IPv6Unspecified(), ask, ndSolicit, 0, addr, nil)},
		announce: []message{{multicastMAC(allNodes), ndPacket(addr, allNodes, ndAdvertise, flags, addr, mac)}},
		claims: func(b []byte, from net.HardwareAddr) net.HardwareAddr {
			if claimed, ok := ndClaim(b); ok && claimed == addr {
				return from
			}
			return nil
		},
		words: "unsolicited neighbour advertisement",
	}
}

// multicastMAC is where a multicast address is heard.
func multicastMAC(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// ndPacket is a neighbour solicitation or advertisement with its IPv6 header. mac, if not nil, is where target is.
func ndPacket(from, to netip.Addr, kind, flags byte, target netip.Addr, mac net.HardwareAddr) []byte {
	n := ndLen
	if mac != nil {
		n += ndOptionUnit
	}
	b := make([]byte, 0, ip6Len+n)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(n)) //nolint:gosec // 24 or 32
	b = append(b, ip6ICMP, ndHopLimit)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	b = append(b, kind, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, target.AsSlice()...)
	if mac != nil {
		b = append(append(b, ndOptionMAC, 1), mac...)
	}
	binary.BigEndian.PutUint16(b[ip6Len+2:], ^icmp6Sum(b))
	return b
}

// icmp6Sum is the ones' complement sum of an ICMPv6 message and its pseudo-header, RFC 8200 section 8.1: 0xffff for a message
// that carries its checksum.
func icmp6Sum(packet []byte) uint16 {
	sum := uint32(len(packet)-ip6Len) + ip6ICMP //nolint:gosec // small
	for b := packet[8:]; len(b) > 0; b = b[2:] {
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
			break
		}
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum) //nolint:gosec // folded
}

// ndClaim reads which address a packet's sender claims: one that it advertises, or one that it asks for as we do, because it
// is about to take it. ok is false for anything else.
func ndClaim(b []byte) (addr netip.Addr, ok bool) {
	if len(b) < ip6Len+ndLen || b[0]>>4 != 6 || b[6] != ip6ICMP || b[7] != ndHopLimit {
		return addr, false
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < ndLen || ip6Len+n > len(b) || icmp6Sum(b[:ip6Len+n]) != 0xffff || b[ip6Len+1] != 0 {
		return addr, false
	}
	from, _ := netip.AddrFromSlice(b[8:24])
	switch kind := b[ip6Len]; {
	case kind == ndAdvertise, kind == ndSolicit && from.IsUnspecified():
		return netip.AddrFromSlice(b[ip6Len+8 : ip6Len+ndLen])
	default:
		return addr, false
	}
}
