package drbd

import "encoding/binary"

// BlockID names a request to the node that made it. It is echoed byte by byte.
type BlockID [8]byte

// IDSyncer is the BlockID of resync traffic (ID_SYNCER, drbd_int.h). DRBD 9 puts handles there instead.
var IDSyncer = BlockID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// BlockIDOf makes a handle of a number; Number gives it back. Only OVResult's BlockID means a number to the receiver.
func BlockIDOf(n uint64) (id BlockID) {
	be.PutUint64(id[:], n)
	return id
}

// Number is the inverse of BlockIDOf.
func (id BlockID) Number() uint64 { return be.Uint64(id[:]) }

// Results of an online verify, as the BlockID of CmdOVResult carries them (ID_IN_SYNC, ID_OUT_OF_SYNC, drbd_int.h).
const (
	OVInSync    = 4711
	OVOutOfSync = 4712
)

// BarrierID names an epoch to the node that opened it. It is echoed byte by byte.
type BarrierID [4]byte

// BarrierIDOf makes a handle of a number, in the byte order in which a kernel on a PC does.
func BarrierIDOf(n uint32) (id BarrierID) {
	binary.LittleEndian.PutUint32(id[:], n)
	return id
}

// Number is the inverse of BarrierIDOf.
func (id BarrierID) Number() uint32 { return binary.LittleEndian.Uint32(id[:]) }

// Flags of Data (DP_*, drbd_protocol.h).
const (
	DPSync         = 2
	DPMaySetInSync = 4
	DPUnplug       = 8
	DPFUA          = 16
	DPFlush        = 32
	DPDiscard      = 64
	DPSendRecvAck  = 128 // protocol B
	DPSendWriteAck = 256 // protocol C, and every protocol while a resync runs
	DPWSame        = 512
	DPZeroes       = 1024 // together with DPDiscard the receiver may unmap
)

// Data is the fixed part of CmdData, CmdDataReply and CmdRSDataReply (p_data). Digest, if the connection has an
// integrity algorithm, and block follow it.
type Data struct {
	Sector uint64
	ID     BlockID
	Seq    uint32 // 0 in replies
	Flags  uint32 // 0 in replies
}

// Append encodes the fixed part.
func (p Data) Append(dst []byte) []byte {
	dst = be.AppendUint64(dst, p.Sector)
	dst = append(dst, p.ID[:]...)
	dst = be.AppendUint32(dst, p.Seq)
	return be.AppendUint32(dst, p.Flags)
}

// ParseData decodes the fixed part.
func ParseData(b []byte) (Data, error) {
	if len(b) < SizeData {
		return Data{}, short(CmdData, b, SizeData)
	}
	return Data{Sector: be.Uint64(b), ID: BlockID(b[8:16]), Seq: be.Uint32(b[16:]), Flags: be.Uint32(b[20:])}, nil
}

// BlockSize gives how many bytes of data follow the fixed part of a packet with block data of total payload length n
// and a digest of digest bytes. The size must be a multiple of 512 and at most MaxData; 0 is legal for CmdData only,
// which DRBD accepts and counts in its epoch.
func BlockSize(c Cmd, n uint32, digest int) (int, error) {
	size := int(n) - c.Fixed() - digest
	h := Header{Cmd: c, Length: n}
	switch {
	case size < 0:
		return 0, &PacketError{Header: h, Kind: BadLength, Text: "no room for the digest"}
	case size%SectorSize != 0:
		return 0, &PacketError{Header: h, Kind: BadLength, Text: "data is not whole sectors"}
	case size > MaxData:
		return 0, &PacketError{Header: h, Kind: BadLength, Text: "more than 1 MiB of data"}
	case size == 0 && c != CmdData:
		return 0, &PacketError{Header: h, Kind: BadLength, Text: "no data"}
	}
	return size, nil
}

// Range is the fixed part of CmdTrim, CmdZeroes and CmdWSame (p_trim, p_wsame). Only WSame has data: a digest, if
// there is an integrity algorithm, and one logical block.
type Range struct {
	Data
	Size uint32 // bytes, at most MaxDiscard
}

// Append encodes the fixed part.
func (p Range) Append(dst []byte) []byte { return be.AppendUint32(p.Data.Append(dst), p.Size) }

// ParseRange decodes the fixed part of command c and checks its size.
func ParseRange(c Cmd, b []byte) (Range, error) {
	if len(b) < SizeRange {
		return Range{}, short(c, b, SizeRange)
	}
	d, err := ParseData(b)
	p := Range{Data: d, Size: be.Uint32(b[SizeData:])}
	if err == nil && (p.Size == 0 || p.Size%SectorSize != 0 || p.Size > MaxDiscard) {
		err = wrong(c, b, "range of %d bytes", p.Size)
	}
	return p, err
}

// BlockRequest is the fixed part of CmdDataRequest, CmdRSDataRequest, CmdRSThinReq, CmdOVRequest, CmdOVReply and
// CmdCSumRSRequest (p_block_req). A digest follows in the last two.
type BlockRequest struct {
	Sector uint64
	ID     BlockID
	Size   uint32 // bytes
}

// Append encodes the fixed part.
func (p BlockRequest) Append(dst []byte) []byte {
	dst = be.AppendUint64(dst, p.Sector)
	dst = append(dst, p.ID[:]...)
	dst = be.AppendUint32(dst, p.Size)
	return be.AppendUint32(dst, 0)
}

// ParseBlockRequest decodes the fixed part of command c and checks its size: whole sectors, at most MaxData.
func ParseBlockRequest(c Cmd, b []byte) (BlockRequest, error) {
	if len(b) < SizeRequest {
		return BlockRequest{}, short(c, b, SizeRequest)
	}
	p := BlockRequest{Sector: be.Uint64(b), ID: BlockID(b[8:16]), Size: be.Uint32(b[16:])}
	if p.Size == 0 || p.Size%SectorSize != 0 || p.Size > MaxData {
		return p, wrong(c, b, "request of %d bytes", p.Size)
	}
	return p, nil
}

// BlockAck is the payload of the acknowledgements on the meta socket (p_block_ack): CmdRecvAck, CmdWriteAck,
// CmdRSWriteAck, CmdSuperseded, CmdRetryWrite, CmdNegAck, CmdNegDReply, CmdNegRSDReply, CmdOVResult, CmdRSIsInSync and
// CmdRSCancel.
type BlockAck struct {
	Sector uint64
	ID     BlockID
	Size   uint32 // bytes
	Seq    uint32
}

// Append encodes the payload.
func (p BlockAck) Append(dst []byte) []byte {
	dst = be.AppendUint64(dst, p.Sector)
	dst = append(dst, p.ID[:]...)
	dst = be.AppendUint32(dst, p.Size)
	return be.AppendUint32(dst, p.Seq)
}

// ParseBlockAck decodes the payload.
func ParseBlockAck(b []byte) (BlockAck, error) {
	if len(b) < SizeBlockAck {
		return BlockAck{}, short(CmdWriteAck, b, SizeBlockAck)
	}
	return BlockAck{Sector: be.Uint64(b), ID: BlockID(b[8:16]), Size: be.Uint32(b[16:]), Seq: be.Uint32(b[20:])}, nil
}

// Barrier closes an epoch of writes (p_barrier).
type Barrier struct {
	ID BarrierID
}

// Append encodes the payload.
func (p Barrier) Append(dst []byte) []byte { return append(append(dst, p.ID[:]...), 0, 0, 0, 0) }

// ParseBarrier decodes the payload.
func ParseBarrier(b []byte) (Barrier, error) {
	if len(b) < SizeBarrier {
		return Barrier{}, short(CmdBarrier, b, SizeBarrier)
	}
	return Barrier{ID: BarrierID(b[:4])}, nil
}

// BarrierAck says that an epoch is on stable storage (p_barrier_ack).
type BarrierAck struct {
	ID      BarrierID
	SetSize uint32 // how many writes the epoch had: Data, Trim, Zeroes and WSame packets
}

// Append encodes the payload.
func (p BarrierAck) Append(dst []byte) []byte {
	return be.AppendUint32(append(dst, p.ID[:]...), p.SetSize)
}

// ParseBarrierAck decodes the payload.
func ParseBarrierAck(b []byte) (BarrierAck, error) {
	if len(b) < SizeBarrierAck {
		return BarrierAck{}, short(CmdBarrierAck, b, SizeBarrierAck)
	}
	return BarrierAck{ID: BarrierID(b[:4]), SetSize: be.Uint32(b[4:])}, nil
}

// BlockDesc is the payload of CmdOutOfSync and CmdRSDeallocated (p_block_desc).
type BlockDesc struct {
	Sector uint64
	Size   uint32 // bytes
}

// Append encodes the payload.
func (p BlockDesc) Append(dst []byte) []byte {
	dst = be.AppendUint64(dst, p.Sector)
	dst = be.AppendUint32(dst, p.Size)
	return be.AppendUint32(dst, 0)
}

// ParseBlockDesc decodes the payload of command c.
func ParseBlockDesc(c Cmd, b []byte) (BlockDesc, error) {
	if len(b) < SizeBlockDesc {
		return BlockDesc{}, short(c, b, SizeBlockDesc)
	}
	p := BlockDesc{Sector: be.Uint64(b), Size: be.Uint32(b[8:])}
	if p.Size == 0 || p.Size%SectorSize != 0 || p.Size > MaxDiscard {
		return p, wrong(c, b, "range of %d bytes", p.Size)
	}
	return p, nil
}
