package service

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ARP over Ethernet, RFC 826 and RFC 5227.
const (
	macLen      = 6
	arpLen      = 28
	arpEthernet = 1
	arpRequest  = 1
	arpReply    = 2
)

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arp asks and tells about an IPv4 address.
func arp(mac net.HardwareAddr, addr netip.Addr) dialect {
	return dialect{
		ethertype: unix.ETH_P_ARP,
		// As a machine without an address does, so that nobody's table changes.
		probe: message{everybody, arpPacket(arpRequest, mac, netip.IPv4Unspecified(), addr)},
		// As a request for its own address; some only listen to replies.
		announce: []message{{everybody, arpPacket(arpRequest, mac, addr, addr)}, {everybody, arpPacket(arpReply, mac, addr, addr)}},
		claims: func(b []byte, _ net.HardwareAddr) net.HardwareAddr {
			if who, from, ok := arpOf(b); ok && from == addr {
				return who
			}
			return nil
		},
		words: "gratuitous ARP",
	}
}

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
