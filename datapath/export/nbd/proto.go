package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Numbers of the handshake (proto.md, "Values", "Option types", "Reply types").
const (
	magicInit     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply = 0x0003e889045565a9

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7

	repAck        = 1
	repServer     = 2
	repInfo       = 3
	repErrUnsup   = 1<<31 + 1
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
	repErrTooBig  = 1<<31 + 9

	infoExport    = 0
	infoBlockSize = 3
)

// Numbers of the transmission phase (proto.md, "Transmission flags",
// "Command flags", "Request types", "Error values"; also linux/nbd.h).
const (
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	transHasFlags        = 1 << 0
	transSendFlush       = 1 << 2
	transSendFUA         = 1 << 3
	transSendTrim        = 1 << 5
	transSendWriteZeroes = 1 << 6

	cmdFlagFUA    = 1 << 0
	cmdFlagNoHole = 1 << 1

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6

	requestLen = 28
	replyLen   = 16

	errPerm     = 1
	errIO       = 5
	errNoMem    = 12
	errInval    = 22
	errNoSpace  = 28
	errNotSup   = 95
	errShutdown = 108
)

// Flags are the transmission flags of every export of this package, as the
// handshake sends them and as the kernel wants them in NBD_ATTR_SERVER_FLAGS.
const Flags = transHasFlags | transSendFlush | transSendFUA | transSendTrim | transSendWriteZeroes

const (
	// MaxRequest is the largest read or write in bytes; the limit proto.md
	// recommends to clients that do not ask.
	MaxRequest = 32 << 20
	// BlockSize is the smallest unit, and the alignment, of a request in bytes.
	BlockSize = 512
	// preferredBlock is the request size we like best, in bytes.
	preferredBlock = 4096
	// maxOption is the longest option we read; the names in it are at most
	// 4096 bytes by proto.md, and ours are far shorter.
	maxOption = 4096
	// maxOptions ends a handshake that leads nowhere.
	maxOptions = 64
)

// ErrProtocol is wrapped by every error that a peer caused by breaking the
// protocol or one of our limits; the connection ends then.
var ErrProtocol = errors.New("nbd: protocol error")

// header is a request without its payload.
type header struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	off    uint64
	len    uint32
}

// decode reads a header from p. It accepts any content but a wrong magic,
// after which nothing in the stream can be trusted.
func (h *header) decode(p *[requestLen]byte) error {
	if m := binary.BigEndian.Uint32(p[0:]); m != magicRequest {
		return fmt.Errorf("%w: request magic %#08x", ErrProtocol, m)
	}
	h.flags = binary.BigEndian.Uint16(p[4:])
	h.cmd = binary.BigEndian.Uint16(p[6:])
	h.cookie = binary.BigEndian.Uint64(p[8:])
	h.off = binary.BigEndian.Uint64(p[16:])
	h.len = binary.BigEndian.Uint32(p[24:])
	if h.cmd == cmdWrite && h.len > MaxRequest {
		// Its payload would have to be read to find the next request.
		return fmt.Errorf("%w: write of %d bytes, limit %d", ErrProtocol, h.len, MaxRequest)
	}
	return nil
}

// check returns the error number for a request that must not reach the
// Backend, or 0. proto.md: a write past the end is ENOSPC, a read EINVAL.
func (h *header) check(size int64) uint32 {
	switch h.cmd {
	case cmdFlush:
		return 0
	case cmdRead, cmdWrite, cmdTrim, cmdWriteZeroes:
	default:
		return errInval
	}
	if h.off%BlockSize != 0 || h.len%BlockSize != 0 {
		return errInval
	}
	if h.off > uint64(size) || uint64(h.len) > uint64(size)-h.off {
		if h.cmd == cmdWrite || h.cmd == cmdWriteZeroes {
			return errNoSpace
		}
		return errInval
	}
	if h.cmd == cmdRead && h.len > MaxRequest {
		return errInval
	}
	return 0
}

// payload is how many bytes of data the request or its reply carries.
func (h *header) payload() int {
	if h.cmd == cmdWrite || h.cmd == cmdRead {
		return int(h.len)
	}
	return 0
}

// errorNumber maps a Backend's error to one of the values proto.md allows.
func errorNumber(err error) uint32 {
	if err == nil {
		return 0
	}
	var no syscall.Errno
	if !errors.As(err, &no) {
		return errIO
	}
	switch no {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return errPerm
	case syscall.ENOMEM:
		return errNoMem
	case syscall.EINVAL:
		return errInval
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return errNoSpace
	case syscall.EOPNOTSUPP:
		return errNotSup
	case syscall.ESHUTDOWN:
		return errShutdown
	}
	return errIO
}
