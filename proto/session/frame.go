package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"example.com/santui/proto"
)

// frameKind says what a frame holds.
type frameKind uint8

// The kinds of frame. The numbers are fixed by SPEC.md.
const (
	frameRequest  frameKind = 1 // request
	frameResponse frameKind = 2 // the result of a call, JSON
	frameEvent    frameKind = 3 // one item of a stream, JSON
	frameChunk    frameKind = 4 // raw bytes; reserved, refused by this version
	frameEnd      frameKind = 5 // empty; the last frame of every answer
	frameError    frameKind = 6 // proto.Error, JSON; end follows
)

// frameHeader is the size of a frame's header: u32 big-endian payload length, u8 kind.
const frameHeader = 5

// frame is one decoded frame.
type frame struct {
	kind    frameKind
	payload []byte
}

// appendFrame appends a frame to b. The payload must not be larger than proto.MaxFrame.
func appendFrame(b []byte, k frameKind, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, byte(k))
	return append(b, payload...)
}

// readFrame reads one frame. It returns io.EOF only at a frame boundary, and a *proto.Error for a frame that breaks the
// limits or has an unknown kind.
func readFrame(r io.Reader) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	n, k := binary.BigEndian.Uint32(h[:4]), frameKind(h[4])
	if n > proto.MaxFrame {
		return frame{}, proto.Errorf(proto.CodeLimit, "a frame of %d bytes was announced, the limit is %d", n, proto.MaxFrame)
	}
	if k < frameRequest || k > frameError {
		return frame{}, proto.Errorf(proto.CodeInvalid, "a frame of unknown kind %d arrived", k)
	}
	// The buffer grows with what arrives, so an announced length alone costs no memory.
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, fmt.Errorf("inside a frame of %d bytes: %w", n, err)
	}
	return frame{k, buf.Bytes()}, nil
}
