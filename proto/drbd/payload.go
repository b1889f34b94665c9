package drbd

import (
	"encoding/binary"
	"fmt"

	"example.com/santui/proto"
)

var be = binary.BigEndian

// Payload is what a packet carries after its header.
type Payload interface {
	// Append encodes the payload behind dst.
	Append(dst []byte) []byte
}

// AppendPacket encodes header and payload. extra is how many bytes of data the caller sends behind it; they count in
// the header's length.
func AppendPacket[P Payload](dst []byte, f Framing, volume uint16, cmd Cmd, p P, extra int) []byte {
	start := len(dst)
	dst = AppendHeader(dst, f, Header{Cmd: cmd, Volume: volume})
	dst = p.Append(dst)
	n := uint32(len(dst) - start - f.Size() + extra)
	switch f {
	case H100:
		be.PutUint32(dst[start+8:], n)
	case H95:
		be.PutUint32(dst[start+4:], n)
	default:
		be.PutUint16(dst[start+6:], uint16(n))
	}
	return dst
}

// Empty is the payload of packets that are a bare header: pings, UnplugRemote, the labels of the sockets.
type Empty struct{}

// Append appends nothing.
func (Empty) Append(dst []byte) []byte { return dst }

// Bytes is a payload that is encoded already: a challenge or its response, a bitmap chunk.
type Bytes []byte

// Append appends the bytes.
func (b Bytes) Append(dst []byte) []byte { return append(dst, b...) }

func wrong(c Cmd, b []byte, format string, args ...any) error {
	return &PacketError{Header: Header{Cmd: c, Length: uint32(len(b))}, Kind: BadPayload, Text: fmt.Sprintf(format, args...)}
}

func short(c Cmd, b []byte, want int) error {
	return wrong(c, b, "payload is shorter than %d bytes", want)
}

// Feature flags (DRBD_FF_*, drbd_protocol.h). Both nodes use what both offer.
const (
	FeatureTrim       = 1
	FeatureThinResync = 2
	FeatureWSame      = 4 // also: 56-byte Sizes, ranges up to 128 MiB, and rule 41 of the comparison of UUIDs
	FeatureZeroes     = 8 // not together with a data integrity algorithm: sender and receiver disagree about the digest
)

// ProtocolVersion is the version this package speaks.
const ProtocolVersion = 101

// Features opens the conversation on the data socket (p_connection_features).
type Features struct {
	Min, Max uint32 // protocol versions; a Max of 0 on the wire means Max = Min
	Flags    uint32
	NodeIDs  bool // DRBD 9's node ids are there, where 8.4 has zero; decoded only
}

// Append encodes the payload.
func (p Features) Append(dst []byte) []byte {
	dst = be.AppendUint32(dst, p.Min)
	dst = be.AppendUint32(dst, p.Flags)
	dst = be.AppendUint32(dst, p.Max)
	var zero [SizeFeatures - 12]byte // DRBD 9 puts node ids here and takes zero
	return append(dst, zero[:]...)
}

// ParseFeatures decodes the payload.
func ParseFeatures(b []byte) (Features, error) {
	if len(b) < SizeFeatures {
		return Features{}, short(CmdFeatures, b, SizeFeatures)
	}
	p := Features{Min: be.Uint32(b), Flags: be.Uint32(b[4:]), Max: be.Uint32(b[8:]), NodeIDs: be.Uint64(b[12:]) != 0}
	if p.Max == 0 {
		p.Max = p.Min
	}
	return p, nil
}

// Flags of Protocol.
const (
	ConnDiscardMyData = 1
	ConnDryRun        = 2
)

// Automatic split-brain policies as Protocol carries them (enum drbd_after_sb_p, linux/drbd.h). Both nodes must be
// configured alike.
const (
	AfterSBDisconnect = iota
	AfterSBDiscardYoungerPri
	AfterSBDiscardOlderPri
	AfterSBDiscardZeroChanges
	AfterSBDiscardLeastChanges
	AfterSBDiscardLocal
	AfterSBDiscardRemote
	AfterSBConsensus
	AfterSBDiscardSecondary
	AfterSBCallHelper
	AfterSBViolently
)

// MirrorAfterSB is what the peer must have if this node has a policy: local and remote change places (convert_after_sb,
// drbd_receiver.c).
func MirrorAfterSB(policy uint32) uint32 {
	switch policy {
	case AfterSBDiscardLocal:
		return AfterSBDiscardRemote
	case AfterSBDiscardRemote:
		return AfterSBDiscardLocal
	default:
		return policy
	}
}

// Protocol holds the options on which both nodes must agree (p_protocol).
type Protocol struct {
	Protocol                        proto.Protocol
	AfterSB0P, AfterSB1P, AfterSB2P uint32
	Flags                           uint32
	TwoPrimaries                    bool
	IntegrityAlg                    string // "" for none
}

// Append encodes the payload.
func (p Protocol) Append(dst []byte) []byte {
	dst = be.AppendUint32(dst, uint32(p.Protocol))
	dst = be.AppendUint32(dst, p.AfterSB0P)
	dst = be.AppendUint32(dst, p.AfterSB1P)
	dst = be.AppendUint32(dst, p.AfterSB2P)
	dst = be.AppendUint32(dst, p.Flags)
	dst = be.AppendUint32(dst, bit(p.TwoPrimaries, 0))
	dst = append(dst, p.IntegrityAlg...)
	return append(dst, 0)
}

// ParseProtocol decodes the payload.
func ParseProtocol(b []byte) (Protocol, error) {
	if len(b) < SizeProtocol {
		return Protocol{}, short(CmdProtocol, b, SizeProtocol)
	}
	p := Protocol{
		AfterSB0P: be.Uint32(b[4:]), AfterSB1P: be.Uint32(b[8:]), AfterSB2P: be.Uint32(b[12:]),
		Flags: be.Uint32(b[16:]), TwoPrimaries: be.Uint32(b[20:]) != 0, IntegrityAlg: cstring(b[SizeProtocol:]),
	}
	v := be.Uint32(b)
	if v < uint32(proto.ProtocolA) || v > uint32(proto.ProtocolC) {
		return p, wrong(CmdProtocol, b, "no replication protocol has number %d", v)
	}
	p.Protocol = proto.Protocol(v)
	return p, nil
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func appendField(dst []byte, s string, n int) []byte {
	if len(s) > n-1 {
		s = s[:n-1]
	}
	dst = append(dst, s...)
	for range n - len(s) {
		dst = append(dst, 0)
	}
	return dst
}

// SyncParam holds the resync controller's settings (p_rs_param_95).
type SyncParam struct {
	Rate        uint32 // KiB a second
	VerifyAlg   string
	CSumsAlg    string
	PlanAhead   uint32 // 0.1 s
	DelayTarget uint32 // 0.1 s
	FillTarget  uint32 // sectors
	MaxRate     uint32 // KiB a second
}

// Append encodes the payload. Names longer than 63 bytes are cut.
func (p SyncParam) Append(dst []byte) []byte {
	dst = be.AppendUint32(dst, p.Rate)
	dst = appendField(dst, p.VerifyAlg, MaxAlg)
	dst = appendField(dst, p.CSumsAlg, MaxAlg)
	dst = be.AppendUint32(dst, p.PlanAhead)
	dst = be.AppendUint32(dst, p.DelayTarget)
	dst = be.AppendUint32(dst, p.FillTarget)
	return be.AppendUint32(dst, p.MaxRate)
}

// ParseSyncParam decodes the payload.
func ParseSyncParam(b []byte) (SyncParam, error) {
	if len(b) < SizeSyncParam {
		return SyncParam{}, short(CmdSyncParam89, b, SizeSyncParam)
	}
	t := b[4+2*MaxAlg:]
	return SyncParam{
		Rate: be.Uint32(b), VerifyAlg: cstring(b[4 : 4+MaxAlg]), CSumsAlg: cstring(b[4+MaxAlg : 4+2*MaxAlg]),
		PlanAhead: be.Uint32(t), DelayTarget: be.Uint32(t[4:]), FillTarget: be.Uint32(t[8:]), MaxRate: be.Uint32(t[12:]),
	}, nil
}

// Flags of Sizes (enum dds_flags, drbd_int.h).
const (
	SizesForced   = 1
	SizesNoResync = 2
)

// Sizes tells the peer about the disk (p_sizes). Sizes are in sectors of 512 bytes.
type Sizes struct {
	Disk       uint64 // usable size of the backing disk, 0 when diskless
	User       uint64 // size asked for by the user, 0 for none
	Current    uint64 // size exported at present
	MaxBio     uint32 // largest request in bytes, not always a multiple of 4096
	QueueOrder uint16
	Flags      uint16
	Limits     *QueueLimits // only, and always, when FeatureWSame is agreed
}

// QueueLimits describes the sender's block device (o_qlim).
type QueueLimits struct {
	PhysicalBlock, LogicalBlock, AlignmentOffset, IOMin, IOOpt uint32 // bytes
	Discard, DiscardZeroes, WriteSame                          bool
}

// Append encodes the payload: 56 bytes with Limits, else 32.
func (p Sizes) Append(dst []byte) []byte {
	dst = be.AppendUint64(dst, p.Disk)
	dst = be.AppendUint64(dst, p.User)
	dst = be.AppendUint64(dst, p.Current)
	dst = be.AppendUint32(dst, p.MaxBio)
	dst = be.AppendUint16(dst, p.QueueOrder)
	dst = be.AppendUint16(dst, p.Flags)
	if q := p.Limits; q != nil {
		dst = be.AppendUint32(dst, q.PhysicalBlock)
		dst = be.AppendUint32(dst, q.LogicalBlock)
		dst = be.AppendUint32(dst, q.AlignmentOffset)
		dst = be.AppendUint32(dst, q.IOMin)
		dst = be.AppendUint32(dst, q.IOOpt)
		dst = append(dst, byte(bit(q.Discard, 0)), byte(bit(q.DiscardZeroes, 0)), byte(bit(q.WriteSame, 0)), 0)
	}
	return dst
}

// MaxSectors is the largest device that a kernel's DRBD can have: 1 PiB (DRBD_MAX_SECTORS_FLEX, drbd_int.h).
const MaxSectors = 1 << 41

// ParseSizes decodes either form of the payload.
func ParseSizes(b []byte) (Sizes, error) {
	if len(b) != SizeSizes && len(b) != SizeSizesQLim {
		return Sizes{}, wrong(CmdSizes, b, "neither %d nor %d bytes", SizeSizes, SizeSizesQLim)
	}
	p := Sizes{
		Disk: be.Uint64(b), User: be.Uint64(b[8:]), Current: be.Uint64(b[16:]),
		MaxBio: be.Uint32(b[24:]), QueueOrder: be.Uint16(b[28:]), Flags: be.Uint16(b[30:]),
	}
	if n := max(p.Disk, p.User, p.Current); n > MaxSectors {
		return p, wrong(CmdSizes, b, "a device of %d sectors, there can be %d", n, uint64(MaxSectors))
	}
	if len(b) == SizeSizesQLim {
		b = b[SizeSizes:]
		p.Limits = &QueueLimits{
			PhysicalBlock: be.Uint32(b), LogicalBlock: be.Uint32(b[4:]), AlignmentOffset: be.Uint32(b[8:]),
			IOMin: be.Uint32(b[12:]), IOOpt: be.Uint32(b[16:]),
			Discard: b[20] != 0, DiscardZeroes: b[21] != 0, WriteSame: b[22] != 0,
		}
	}
	return p, nil
}

// UUIDJustCreated is the current UUID of fresh metadata (UUID_JUST_CREATED, linux/drbd.h).
const UUIDJustCreated = 4

// Flags of UUIDs (drbd_send_uuids, drbd_main.c).
const (
	UUIDDiscardMyData   = 1
	UUIDCrashedPrimary  = 2
	UUIDInconsistent    = 4 // the sender would be Inconsistent if the connection came to be
	UUIDSkipInitialSync = 8
	uuidFlags84         = 15
)

// UUIDs tells the history of the sender's data (p_uuids).
type UUIDs struct {
	Current, Bitmap, History0, History1 uint64
	Bits                                uint64 // how many bits of the bitmap are set
	Flags                               uint64
}

// Append encodes the payload.
func (p UUIDs) Append(dst []byte) []byte {
	for _, v := range [...]uint64{p.Current, p.Bitmap, p.History0, p.History1, p.Bits, p.Flags} {
		dst = be.AppendUint64(dst, v)
	}
	return dst
}

// ParseUUIDs decodes the payload. Flags that 8.4 does not know are dropped.
func ParseUUIDs(b []byte) (UUIDs, error) {
	if len(b) < SizeUUIDs {
		return UUIDs{}, short(CmdUUIDs, b, SizeUUIDs)
	}
	u := func(i int) uint64 { return be.Uint64(b[i*8:]) }
	return UUIDs{
		Current: u(0), Bitmap: u(1), History0: u(2), History1: u(3),
		Bits: u(4), Flags: u(5) & uuidFlags84,
	}, nil
}

// Append encodes the state word, the payload of CmdState.
func (s State) Append(dst []byte) []byte { return be.AppendUint32(dst, s.Word()) }

// ParseState decodes the payload of CmdState.
func ParseState(b []byte) (State, error) {
	if len(b) < SizeState {
		return State{}, short(CmdState, b, SizeState)
	}
	s := StateOf(be.Uint32(b))
	if !s.Valid() {
		return s, wrong(CmdState, b, "state word %#08x names no state", be.Uint32(b))
	}
	return s, nil
}

// SyncUUID is the current UUID of the target while a resync runs.
type SyncUUID uint64

// Append encodes the payload.
func (u SyncUUID) Append(dst []byte) []byte { return be.AppendUint64(dst, uint64(u)) }

// ParseSyncUUID decodes the payload.
func ParseSyncUUID(b []byte) (SyncUUID, error) {
	if len(b) < SizeSyncUUID {
		return 0, short(CmdSyncUUID, b, SizeSyncUUID)
	}
	return SyncUUID(be.Uint64(b)), nil
}

// Append encodes a change request, the payload of CmdStateChgReq and CmdConnStChgReq.
func (c Change) Append(dst []byte) []byte {
	return be.AppendUint32(be.AppendUint32(dst, c.Mask), c.Val)
}

// ParseChange decodes a change request. DRBD 9 numbers the disk states of a request differently: its UpToDate is 9.
func ParseChange(b []byte) (Change, error) {
	if len(b) < SizeChgReq {
		return Change{}, short(CmdStateChgReq, b, SizeChgReq)
	}
	return Change{Mask: be.Uint32(b), Val: be.Uint32(b[4:])}, nil
}

// Append encodes the payload of CmdStateChgReply and CmdConnStChgReply.
func (c RetCode) Append(dst []byte) []byte { return be.AppendUint32(dst, uint32(c)) }

// ParseRetCode decodes the reply to a change request.
func ParseRetCode(b []byte) (RetCode, error) {
	if len(b) < SizeChgReply {
		return 0, short(CmdStateChgReply, b, SizeChgReply)
	}
	return RetCode(int32(be.Uint32(b))), nil
}

// DelayProbe93 is skipped by receivers (p_delay_probe93).
type DelayProbe93 struct {
	Seq, Offset uint32 // Offset in microseconds
}

// Append encodes the payload.
func (p DelayProbe93) Append(dst []byte) []byte {
	return be.AppendUint32(be.AppendUint32(dst, p.Seq), p.Offset)
}

// ParseDelayProbe decodes the payload.
func ParseDelayProbe(b []byte) (DelayProbe93, error) {
	if len(b) < SizeDelayProbe {
		return DelayProbe93{}, short(CmdDelayProbe, b, SizeDelayProbe)
	}
	return DelayProbe93{Seq: be.Uint32(b), Offset: be.Uint32(b[4:])}, nil
}
