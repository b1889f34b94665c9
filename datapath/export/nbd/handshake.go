package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errAborted: the client ended the handshake in an orderly way.
var errAborted = errors.New("nbd: client left during the handshake")

// handshake is the server's side of the fixed newstyle negotiation.
type handshake struct {
	r        *bufio.Reader
	w        io.Writer
	name     string
	size     int64
	noZeroes bool
	opt      [maxOption]byte
}

// run negotiates until the client has chosen the export. errAborted is an
// orderly end, ErrProtocol one that is not.
func (s *handshake) run() error {
	var hello [18]byte
	binary.BigEndian.PutUint64(hello[0:], magicInit)
	binary.BigEndian.PutUint64(hello[8:], magicOption)
	binary.BigEndian.PutUint16(hello[16:], flagFixedNewstyle|flagNoZeroes)
	if _, err := s.w.Write(hello[:]); err != nil {
		return err
	}
	var cf [4]byte
	if _, err := io.ReadFull(s.r, cf[:]); err != nil {
		return leftEarly(err)
	}
	flags := binary.BigEndian.Uint32(cf[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: client flags %#x", ErrProtocol, flags)
	}
	s.noZeroes = flags&flagNoZeroes != 0
	for range maxOptions {
		done, err := s.option()
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d options", ErrProtocol, maxOptions)
}

// option reads one option and answers it; done means transmission follows.
func (s *handshake) option() (done bool, err error) {
	var h [16]byte
	if _, err := io.ReadFull(s.r, h[:]); err != nil {
		return false, leftEarly(err)
	}
	if m := binary.BigEndian.Uint64(h[0:]); m != magicOption {
		return false, fmt.Errorf("%w: option magic %#016x", ErrProtocol, m)
	}
	opt, n := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
	if n > maxOption {
		return false, s.oversized(opt, n)
	}
	data := s.opt[:n]
	if _, err := io.ReadFull(s.r, data); err != nil {
		return false, fmt.Errorf("%w: option %d cut short: %w", ErrProtocol, opt, err)
	}
	switch opt {
	case optExportName:
		return s.exportName(string(data))
	case optAbort:
		_ = s.reply(opt, repAck, nil) // the client may be gone already
		return false, errAborted
	case optList:
		return false, s.list(data)
	case optInfo, optGo:
		return s.info(opt, data)
	}
	return false, s.reply(opt, repErrUnsup, nil)
}

// oversized answers an option that is too long and skips its data, unless it
// is longer than any honest client's.
func (s *handshake) oversized(opt, n uint32) error {
	if n > 16*maxOption || opt == optExportName {
		return fmt.Errorf("%w: option %d has %d bytes, limit %d", ErrProtocol, opt, n, maxOption)
	}
	if _, err := io.CopyN(io.Discard, s.r, int64(n)); err != nil {
		return fmt.Errorf("%w: option %d cut short: %w", ErrProtocol, opt, err)
	}
	return s.reply(opt, repErrTooBig, nil)
}

// known: the empty name asks for the default export, which is ours.
func (s *handshake) known(name string) bool { return name == "" || name == s.name }

// exportName is the old way in. It has no way to refuse but hanging up.
func (s *handshake) exportName(name string) (bool, error) {
	if !s.known(name) {
		return false, fmt.Errorf("%w: export %q does not exist", ErrProtocol, name)
	}
	var p [10 + 124]byte
	binary.BigEndian.PutUint64(p[0:], uint64(s.size))
	binary.BigEndian.PutUint16(p[8:], Flags)
	n := len(p)
	if s.noZeroes {
		n = 10
	}
	_, err := s.w.Write(p[:n])
	return err == nil, err
}

func (s *handshake) list(data []byte) error {
	if len(data) != 0 {
		return s.reply(optList, repErrInvalid, nil)
	}
	p := binary.BigEndian.AppendUint32(nil, uint32(len(s.name)))
	if err := s.reply(optList, repServer, append(p, s.name...)); err != nil {
		return err
	}
	return s.reply(optList, repAck, nil)
}

// info answers NBD_OPT_INFO and NBD_OPT_GO. The block sizes are told whether
// asked for or not: we insist on them.
func (s *handshake) info(opt uint32, data []byte) (bool, error) {
	name, ok := infoName(data)
	if !ok {
		return false, s.reply(opt, repErrInvalid, nil)
	}
	if !s.known(name) {
		return false, s.reply(opt, repErrUnknown, nil)
	}
	p := binary.BigEndian.AppendUint16(nil, infoExport)
	p = binary.BigEndian.AppendUint64(p, uint64(s.size))
	p = binary.BigEndian.AppendUint16(p, Flags)
	if err := s.reply(opt, repInfo, p); err != nil {
		return false, err
	}
	p = binary.BigEndian.AppendUint16(p[:0], infoBlockSize)
	p = binary.BigEndian.AppendUint32(p, BlockSize)
	p = binary.BigEndian.AppendUint32(p, preferredBlock)
	p = binary.BigEndian.AppendUint32(p, MaxRequest)
	if err := s.reply(opt, repInfo, p); err != nil {
		return false, err
	}
	err := s.reply(opt, repAck, nil)
	return opt == optGo && err == nil, err
}

// infoName takes the name out of the data of INFO or GO: u32 length, name, u16
// count, that many u16 information requests and nothing more.
func infoName(data []byte) (string, bool) {
	if len(data) < 6 {
		return "", false
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-6) {
		return "", false
	}
	name, rest := data[4:4+n], data[4+n:]
	if int(binary.BigEndian.Uint16(rest))*2 != len(rest)-2 {
		return "", false
	}
	return string(name), true
}

func (s *handshake) reply(opt, kind uint32, data []byte) error {
	p := binary.BigEndian.AppendUint64(make([]byte, 0, 20+len(data)), magicOptReply)
	p = binary.BigEndian.AppendUint32(p, opt)
	p = binary.BigEndian.AppendUint32(p, kind)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	_, err := s.w.Write(append(p, data...))
	return err
}

// leftEarly makes a plain end of the stream between options orderly.
func leftEarly(err error) error {
	if errors.Is(err, io.EOF) {
		return errAborted
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: handshake cut short", ErrProtocol)
	}
	return err
}
