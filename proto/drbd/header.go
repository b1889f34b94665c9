package drbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Framing is a header's layout.
type Framing uint8

// The framings: H80 until the features are exchanged and for good below version 95, H95 for big packets of versions 95
// to 99, H100 afterwards.
const (
	H80 Framing = iota
	H95
	H100
)

// Header sizes in bytes, without payload.
const (
	HeaderSizeH80  = 8
	HeaderSizeH95  = 8
	HeaderSizeH100 = 16
)

// Magic numbers of the framings (linux/drbd.h).
const (
	MagicH80  = 0x83740267
	MagicH95  = 0x835a
	MagicH100 = 0x8620ec20
)

// VolumeAny is what DRBD 9 puts in the volume field of packets that concern the connection; 8.4 puts 0. Receivers
// ignore the field there.
const VolumeAny = 0xffff

// Header is the decoded head of a packet.
type Header struct {
	Cmd    Cmd
	Volume uint16
	Length uint32 // of the payload, in bytes
}

// Size is the header's size in bytes.
func (f Framing) Size() int {
	if f == H100 {
		return HeaderSizeH100
	}
	return HeaderSizeH80
}

// AppendHeader encodes h. H80 holds lengths below 64 KiB only; longer ones are cut to 16 bits, so use H95 or H100.
func AppendHeader(dst []byte, f Framing, h Header) []byte {
	be := binary.BigEndian
	switch f {
	case H100:
		dst = be.AppendUint32(dst, MagicH100)
		dst = be.AppendUint16(dst, h.Volume)
		dst = be.AppendUint16(dst, uint16(h.Cmd))
		dst = be.AppendUint32(dst, h.Length)
		return be.AppendUint32(dst, 0)
	case H95:
		dst = be.AppendUint16(dst, MagicH95)
		dst = be.AppendUint16(dst, uint16(h.Cmd))
		return be.AppendUint32(dst, h.Length)
	default:
		dst = be.AppendUint32(dst, MagicH80)
		dst = be.AppendUint16(dst, uint16(h.Cmd))
		return be.AppendUint16(dst, uint16(h.Length))
	}
}

// ParseHeader decodes the first f.Size() bytes of b. It checks magic and padding, not the command. The error is a
// *PacketError, or io.ErrUnexpectedEOF if b is too short.
func ParseHeader(b []byte, f Framing) (Header, error) {
	if len(b) < f.Size() {
		return Header{}, io.ErrUnexpectedEOF
	}
	be := binary.BigEndian
	switch f {
	case H100:
		h := Header{Cmd: Cmd(be.Uint16(b[6:])), Volume: be.Uint16(b[4:]), Length: be.Uint32(b[8:])}
		if be.Uint32(b) != MagicH100 {
			return Header{}, badMagic(b)
		}
		if be.Uint32(b[12:]) != 0 {
			return Header{}, &PacketError{Header: h, Kind: BadMagic, Text: "padding of the header is not zero"}
		}
		return h, nil
	case H95:
		if be.Uint16(b) != MagicH95 {
			return Header{}, badMagic(b)
		}
		return Header{Cmd: Cmd(be.Uint16(b[2:])), Length: be.Uint32(b[4:])}, nil
	default:
		if be.Uint32(b) != MagicH80 {
			return Header{}, badMagic(b)
		}
		return Header{Cmd: Cmd(be.Uint16(b[4:])), Length: uint32(be.Uint16(b[6:]))}, nil
	}
}

func badMagic(b []byte) error {
	return &PacketError{Kind: BadMagic, Text: fmt.Sprintf("no DRBD header: % x", b[:8])}
}

// ReadHeader reads and decodes one header and checks it for socket s. A stream that ends before its first byte gives
// io.EOF.
func ReadHeader(r io.Reader, s Socket, f Framing) (Header, error) {
	var buf [HeaderSizeH100]byte
	return readHeader(r, s, f, buf[:])
}

func readHeader(r io.Reader, s Socket, f Framing, buf []byte) (Header, error) {
	b := buf[:f.Size()]
	if _, err := io.ReadFull(r, b); err != nil {
		return Header{}, err
	}
	h, err := ParseHeader(b, f)
	if err == nil {
		err = Check(s, h)
	}
	if err != nil { // a variable for As is only made where there is an error: this is the hot path
		var pe *PacketError
		if errors.As(err, &pe) {
			pe.Socket = s
		}
	}
	return h, err
}

// Reader reads the packets of one socket. It is not for concurrent use. It reads no byte beyond the packet at hand, so
// it may be put aside between packets; give it a buffered reader for speed.
type Reader struct {
	r       io.Reader
	sock    Socket
	framing Framing
	left    uint32
	head    Header
	buf     [MaxBitmapPacket]byte
}

// NewReader reads packets of socket s from r.
func NewReader(r io.Reader, s Socket, f Framing) *Reader {
	return &Reader{r: r, sock: s, framing: f}
}

// SetFraming changes the framing of the packets that follow.
func (r *Reader) SetFraming(f Framing) { r.framing = f }

// Next skips what is left of the current packet and reads the header of the next one, checked against the table of
// commands. Errors: *PacketError, io.EOF between packets, io.ErrUnexpectedEOF inside one, and the stream's own.
func (r *Reader) Next() (Header, error) {
	if err := r.Skip(); err != nil {
		return Header{}, err
	}
	h, err := readHeader(r.r, r.sock, r.framing, r.buf[:])
	if err != nil {
		return h, err
	}
	r.head, r.left = h, h.Length
	return h, nil
}

// Header is that of the current packet.
func (r *Reader) Header() Header { return r.head }

// Left is how many bytes of the current payload have not been read, in bytes.
func (r *Reader) Left() int { return int(r.left) }

// Fixed reads the command's fixed part. The slice is valid until the next call to any method of r.
func (r *Reader) Fixed() ([]byte, error) { return r.Take(r.head.Cmd.Fixed()) }

// Rest reads all that is left of the payload, which must fit the buffer of 4096 bytes; so not block data. The slice is
// valid until the next call.
func (r *Reader) Rest() ([]byte, error) { return r.Take(int(r.left)) }

// Take reads the next n bytes of the payload, at most 4096. The slice is valid until the next call.
func (r *Reader) Take(n int) ([]byte, error) {
	if n < 0 || n > int(r.left) || n > len(r.buf) {
		return nil, r.Bad("%d bytes wanted, %d left", n, r.left)
	}
	b := r.buf[:n]
	if err := r.full(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Read reads of the payload only; io.EOF at its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(p) > int(r.left) {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.left -= uint32(n)
	if err == io.EOF && r.left > 0 {
		err = io.ErrUnexpectedEOF
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

// ReadBlock fills p with the next len(p) bytes of the payload.
func (r *Reader) ReadBlock(p []byte) error {
	if len(p) > int(r.left) {
		return r.Bad("%d bytes of data wanted, %d left", len(p), r.left)
	}
	return r.full(p)
}

func (r *Reader) full(p []byte) error {
	n, err := io.ReadFull(r.r, p)
	r.left -= uint32(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Skip discards what is left of the current payload.
func (r *Reader) Skip() error {
	for r.left > 0 {
		if err := r.full(r.buf[:min(int(r.left), len(r.buf))]); err != nil {
			return err
		}
	}
	return nil
}

// Bad builds a PacketError about the current packet.
func (r *Reader) Bad(format string, args ...any) error {
	return &PacketError{Socket: r.sock, Header: r.head, Kind: BadPayload, Text: fmt.Sprintf(format, args...)}
}
