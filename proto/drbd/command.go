package drbd

import "fmt"

// Cmd is the command id of a packet (enum drbd_packet, drbd_protocol.h).
type Cmd uint16

// The commands that a two-node, single-volume node at protocol 101 can meet.
const (
	CmdData             Cmd = 0x00
	CmdDataReply        Cmd = 0x01
	CmdRSDataReply      Cmd = 0x02
	CmdBarrier          Cmd = 0x03
	CmdBitmap           Cmd = 0x04
	CmdUnplugRemote     Cmd = 0x07
	CmdDataRequest      Cmd = 0x08
	CmdRSDataRequest    Cmd = 0x09
	CmdProtocol         Cmd = 0x0b
	CmdUUIDs            Cmd = 0x0c
	CmdSizes            Cmd = 0x0d
	CmdState            Cmd = 0x0e
	CmdSyncUUID         Cmd = 0x0f
	CmdAuthChallenge    Cmd = 0x10
	CmdAuthResponse     Cmd = 0x11
	CmdStateChgReq      Cmd = 0x12
	CmdPing             Cmd = 0x13
	CmdPingAck          Cmd = 0x14
	CmdRecvAck          Cmd = 0x15
	CmdWriteAck         Cmd = 0x16
	CmdRSWriteAck       Cmd = 0x17
	CmdSuperseded       Cmd = 0x18
	CmdNegAck           Cmd = 0x19
	CmdNegDReply        Cmd = 0x1a
	CmdNegRSDReply      Cmd = 0x1b
	CmdBarrierAck       Cmd = 0x1c
	CmdStateChgReply    Cmd = 0x1d
	CmdOVRequest        Cmd = 0x1e
	CmdOVReply          Cmd = 0x1f
	CmdOVResult         Cmd = 0x20
	CmdCSumRSRequest    Cmd = 0x21
	CmdRSIsInSync       Cmd = 0x22
	CmdSyncParam89      Cmd = 0x23
	CmdCompressedBitmap Cmd = 0x24
	CmdDelayProbe       Cmd = 0x27
	CmdOutOfSync        Cmd = 0x28
	CmdRSCancel         Cmd = 0x29
	CmdConnStChgReq     Cmd = 0x2a
	CmdConnStChgReply   Cmd = 0x2b
	CmdRetryWrite       Cmd = 0x2c
	CmdProtocolUpdate   Cmd = 0x2d
	CmdTrim             Cmd = 0x31
	CmdRSThinReq        Cmd = 0x32
	CmdRSDeallocated    Cmd = 0x33
	CmdWSame            Cmd = 0x34
	CmdZeroes           Cmd = 0x36
	// CmdEnableReplNext and CmdEnableRepl are DRBD 9's. 9.3 sends the second one unasked at protocol 101; skip both.
	CmdEnableReplNext Cmd = 0x58
	CmdEnableRepl     Cmd = 0x59
	CmdInitialMeta    Cmd = 0xfff1
	CmdInitialData    Cmd = 0xfff2
	CmdFeatures       Cmd = 0xfffe
)

// Socket is one of the two connections of a pair.
type Socket uint8

// The sockets: Data carries data, requests, configuration and state; Meta pings, acknowledgements and replies.
const (
	SocketData Socket = iota
	SocketMeta
)

func (s Socket) String() string {
	if s == SocketMeta {
		return "meta"
	}
	return "data"
}

// Limits on what a packet may carry, in bytes.
const (
	// MaxData is the largest block of application or resync data (DRBD_MAX_BIO_SIZE, drbd_int.h).
	MaxData = 1 << 20
	// MaxDiscard is the largest range of a trim, zeroes or write-same (DRBD_MAX_BATCH_BIO_SIZE, drbd_int.h).
	MaxDiscard = 128 << 20
	// MaxBitmapPacket is the largest bitmap packet with its header (DRBD_SOCKET_BUFFER_SIZE, drbd_protocol.h).
	MaxBitmapPacket = 4096
	// MaxDigest is the largest digest that a data, verify or checksum packet may carry (SHA-512).
	MaxDigest = 64
	// MaxAlg is the room for an algorithm's name with its NUL (SHARED_SECRET_MAX, linux/drbd.h).
	MaxAlg = 64
	// MaxChallenge bounds the challenge a peer may send; DRBD sends 64 (CHALLENGE_LEN) and accepts up to twice that.
	MaxChallenge = 128
	// MaxResponse bounds the answer to a challenge.
	MaxResponse = 64
	// SectorSize is the unit of every sector number.
	SectorSize = 512
	// BitSize is how much one bit of the bitmap stands for.
	BitSize = 4096
)

// Sizes of the fixed parts of payloads, in bytes.
const (
	SizeFeatures   = 72
	SizeProtocol   = 24 // without the algorithm
	SizeSyncParam  = 148
	SizeSizes      = 32
	SizeSizesQLim  = 56
	SizeUUIDs      = 48
	SizeState      = 4
	SizeSyncUUID   = 8
	SizeChgReq     = 8
	SizeChgReply   = 4
	SizeData       = 24
	SizeRange      = 28 // Trim, Zeroes, WSame
	SizeBarrier    = 8
	SizeBarrierAck = 8
	SizeBlockAck   = 24
	SizeRequest    = 24
	SizeBlockDesc  = 16
	SizeDelayProbe = 8
	SizeCompressed = 1
)

type rule struct {
	name  string
	sock  Socket
	both  bool
	fixed uint32
	max   uint32 // 0: fixed is all
}

var rules = [0x5a]rule{
	CmdData:             {name: "Data", fixed: SizeData, max: SizeData + MaxDigest + MaxData},
	CmdDataReply:        {name: "DataReply", fixed: SizeData, max: SizeData + MaxDigest + MaxData},
	CmdRSDataReply:      {name: "RSDataReply", fixed: SizeData, max: SizeData + MaxDigest + MaxData},
	CmdBarrier:          {name: "Barrier", fixed: SizeBarrier},
	CmdBitmap:           {name: "Bitmap", max: MaxBitmapPacket - HeaderSizeH100},
	CmdUnplugRemote:     {name: "UnplugRemote"},
	CmdDataRequest:      {name: "DataRequest", fixed: SizeRequest},
	CmdRSDataRequest:    {name: "RSDataRequest", fixed: SizeRequest},
	CmdProtocol:         {name: "Protocol", fixed: SizeProtocol, max: SizeProtocol + MaxAlg},
	CmdUUIDs:            {name: "UUIDs", fixed: SizeUUIDs},
	CmdSizes:            {name: "Sizes", fixed: SizeSizes, max: SizeSizesQLim},
	CmdState:            {name: "State", fixed: SizeState},
	CmdSyncUUID:         {name: "SyncUUID", fixed: SizeSyncUUID},
	CmdAuthChallenge:    {name: "AuthChallenge", fixed: 1, max: MaxChallenge},
	CmdAuthResponse:     {name: "AuthResponse", fixed: 1, max: MaxResponse},
	CmdStateChgReq:      {name: "StateChgReq", fixed: SizeChgReq},
	CmdPing:             {name: "Ping", sock: SocketMeta},
	CmdPingAck:          {name: "PingAck", sock: SocketMeta},
	CmdRecvAck:          {name: "RecvAck", sock: SocketMeta, fixed: SizeBlockAck},
	CmdWriteAck:         {name: "WriteAck", sock: SocketMeta, fixed: SizeBlockAck},
	CmdRSWriteAck:       {name: "RSWriteAck", sock: SocketMeta, fixed: SizeBlockAck},
	CmdSuperseded:       {name: "Superseded", sock: SocketMeta, fixed: SizeBlockAck},
	CmdNegAck:           {name: "NegAck", sock: SocketMeta, fixed: SizeBlockAck},
	CmdNegDReply:        {name: "NegDReply", sock: SocketMeta, fixed: SizeBlockAck},
	CmdNegRSDReply:      {name: "NegRSDReply", sock: SocketMeta, fixed: SizeBlockAck},
	CmdBarrierAck:       {name: "BarrierAck", sock: SocketMeta, fixed: SizeBarrierAck},
	CmdStateChgReply:    {name: "StateChgReply", sock: SocketMeta, fixed: SizeChgReply},
	CmdOVRequest:        {name: "OVRequest", fixed: SizeRequest},
	CmdOVReply:          {name: "OVReply", fixed: SizeRequest, max: SizeRequest + MaxDigest},
	CmdOVResult:         {name: "OVResult", sock: SocketMeta, fixed: SizeBlockAck},
	CmdCSumRSRequest:    {name: "CSumRSRequest", fixed: SizeRequest, max: SizeRequest + MaxDigest},
	CmdRSIsInSync:       {name: "RSIsInSync", sock: SocketMeta, fixed: SizeBlockAck},
	CmdSyncParam89:      {name: "SyncParam89", fixed: SizeSyncParam},
	CmdCompressedBitmap: {name: "CompressedBitmap", fixed: SizeCompressed, max: MaxBitmapPacket - HeaderSizeH100},
	CmdDelayProbe:       {name: "DelayProbe", both: true, fixed: SizeDelayProbe},
	CmdOutOfSync:        {name: "OutOfSync", fixed: SizeBlockDesc},
	CmdRSCancel:         {name: "RSCancel", sock: SocketMeta, fixed: SizeBlockAck},
	CmdConnStChgReq:     {name: "ConnStChgReq", fixed: SizeChgReq},
	CmdConnStChgReply:   {name: "ConnStChgReply", sock: SocketMeta, fixed: SizeChgReply},
	CmdRetryWrite:       {name: "RetryWrite", sock: SocketMeta, fixed: SizeBlockAck},
	CmdProtocolUpdate:   {name: "ProtocolUpdate", fixed: SizeProtocol, max: SizeProtocol + MaxAlg},
	CmdTrim:             {name: "Trim", fixed: SizeRange},
	CmdRSThinReq:        {name: "RSThinReq", fixed: SizeRequest},
	CmdRSDeallocated:    {name: "RSDeallocated", fixed: SizeBlockDesc},
	CmdWSame:            {name: "WSame", fixed: SizeRange, max: SizeRange + MaxDigest + 4096},
	CmdZeroes:           {name: "Zeroes", fixed: SizeRange},
	CmdEnableReplNext:   {name: "EnableReplNext", max: 64},
	CmdEnableRepl:       {name: "EnableRepl", max: 64},
}

var handshakeRules = [3]rule{
	{name: "InitialMeta", sock: SocketMeta},
	{name: "InitialData"},
	{name: "Features", fixed: SizeFeatures},
}

// lookup finds the rule of a command; nil if DRBD 8.4 at protocol 101 has no such command.
func lookup(c Cmd) *rule {
	switch c {
	case CmdInitialMeta:
		return &handshakeRules[0]
	case CmdInitialData:
		return &handshakeRules[1]
	case CmdFeatures:
		return &handshakeRules[2]
	}
	if int(c) < len(rules) && rules[c].name != "" {
		return &rules[c]
	}
	return nil
}

func (c Cmd) String() string {
	if r := lookup(c); r != nil {
		return r.name
	}
	return fmt.Sprintf("Cmd(%#04x)", uint16(c))
}

// Known says whether the command exists at protocol 101.
func (c Cmd) Known() bool { return lookup(c) != nil }

// Fixed is the size of the command's fixed part in bytes, 0 for an unknown command.
func (c Cmd) Fixed() int {
	if r := lookup(c); r != nil {
		return int(r.fixed)
	}
	return 0
}

// Ignorable says whether a receiver must skip the packet without acting on it: DRBD's delay probes, and what DRBD 9
// sends to a peer that never agreed to it.
func (c Cmd) Ignorable() bool {
	return c == CmdDelayProbe || c == CmdEnableRepl || c == CmdEnableReplNext
}

// Check says whether h is legal on socket s: the command exists, belongs there and has a legal length. The error is a
// *PacketError.
func Check(s Socket, h Header) error {
	r := lookup(h.Cmd)
	switch {
	case r == nil:
		return &PacketError{Socket: s, Header: h, Kind: UnknownCommand, Text: "unknown command"}
	case r.sock != s && !r.both:
		return &PacketError{Socket: s, Header: h, Kind: UnknownCommand, Text: "command does not belong on this socket"}
	case h.Length < r.fixed:
		return &PacketError{Socket: s, Header: h, Kind: BadLength, Text: fmt.Sprintf("shorter than %d bytes", r.fixed)}
	case h.Length > max(r.fixed, r.max):
		return &PacketError{Socket: s, Header: h, Kind: BadLength, Text: fmt.Sprintf("longer than %d bytes", max(r.fixed, r.max))}
	case h.Cmd == CmdSizes && h.Length != SizeSizes && h.Length != SizeSizesQLim:
		return &PacketError{Socket: s, Header: h, Kind: BadLength, Text: "neither 32 nor 56 bytes"}
	}
	return nil
}

// ErrorKind says what is wrong with a packet.
type ErrorKind uint8

// The kinds of PacketError. What DRBD 8.4.11 does with them differs by socket (drbd_receiver.c, drbdd and
// drbd_ack_receiver): all of them on data, and nothing but that, are a ProtocolError; on meta BadMagic and BadLength are
// a NetworkFailure.
const (
	BadMagic ErrorKind = iota + 1
	BadLength
	UnknownCommand
	BadPayload
)

// PacketError reports a packet that a correct peer does not send.
type PacketError struct {
	Socket Socket
	Header Header
	Kind   ErrorKind
	Text   string
}

func (e *PacketError) Error() string {
	return fmt.Sprintf("%s socket: packet %v (volume %d, %d bytes): %s",
		e.Socket, e.Header.Cmd, e.Header.Volume, e.Header.Length, e.Text)
}
