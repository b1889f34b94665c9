// Package drbd speaks the packets of DRBD 8.4 at protocol version 101: it encodes and decodes them and does no other
// I/O than reading from an io.Reader. It holds no state beyond a Reader's buffer and starts no goroutine.
//
// A connection has two sockets, Data and Meta. Every packet is a Header and a payload. The first packets of a socket
// (CmdInitialData or CmdInitialMeta, then CmdFeatures on Data) are framed H80; everything after the features is H100.
//
// A Reader checks the header, which commands are legal on its socket and how long they may be, and hands out the
// fixed part of a packet without copying it. Block data is left to the caller, who reads it from the Reader.
// Payload types have an Append method that encodes and a ParseX function that decodes; the ones on the hot path
// (Data, BlockAck, Barrier, BlockRequest) do not allocate.
//
// Handles (BlockID, BarrierID) belong to whoever made them and are echoed as they are, never swapped.
//
// Two peers are meant: DRBD 8.4 itself, and DRBD 9.3 in its 8.4 dialect, which differs where the comments say so.
// Sources of formats and constants: LINBIT/drbd-8.4, drbd/drbd_protocol.h and drbd/linux/drbd.h.
package drbd
