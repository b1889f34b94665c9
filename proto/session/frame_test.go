package session

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"example.com/santui/proto"
)

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, frameRequest, []byte(`{"method":"x"}`)))
	f.Add(appendFrame(appendFrame(nil, frameResponse, []byte("7")), frameEnd, nil))
	f.Add([]byte{0, 0x10, 0, 1, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 6})
	f.Add([]byte{0, 0, 0, 4, 4, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for off := 0; ; {
			fr, err := readFrame(r)
			if err != nil {
				var pe *proto.Error
				switch {
				case err == io.EOF && off != len(b):
					t.Fatalf("io.EOF at %d of %d bytes", off, len(b))
				case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &pe):
					return
				}
				t.Fatalf("an error of no kind: %v", err)
			}
			again := appendFrame(nil, fr.kind, fr.payload)
			if !bytes.Equal(again, b[off:off+len(again)]) {
				t.Fatalf("frame at %d changed", off)
			}
			off += len(again)
		}
	})
}

func FuzzPrologue(f *testing.F) {
	f.Add([]byte("SANTUI\x00\x01\x00\x01\x00\x1c{\"node\":\"a\",\"kind\":\"peer\"}"), true)
	f.Add([]byte("SANTUI\x00\x00\x01\x00\x1d{\"node\":\"a\",\"kind\":\"agent\"}"), false)
	f.Fuzz(func(t *testing.T, b []byte, server bool) {
		conn := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}
		p := callerPrologue
		if server {
			p = serverPrologue
		}
		if h, err := p(conn, Options{}.withDefaults()); err == nil && (h.Proto < VersionMin || h.Proto > VersionMax || len(h.Node) > maxName) {
			t.Fatalf("accepted %+v", h)
		}
	})
}

func TestReadFrameLimit(t *testing.T) {
	b := appendFrame(nil, frameEvent, make([]byte, proto.MaxFrame))
	if f, err := readFrame(bytes.NewReader(b)); err != nil || len(f.payload) != proto.MaxFrame {
		t.Errorf("the largest frame: %v", err)
	}
	b = appendFrame(nil, frameEvent, make([]byte, proto.MaxFrame+1))
	if _, err := readFrame(bytes.NewReader(b)); !errors.Is(err, &proto.Error{Code: proto.CodeLimit}) {
		t.Errorf("one byte more: %v", err)
	}
	// An announced length must not cost memory before the bytes are there.
	announced := []byte{0, 0x0f, 0xff, 0xff, 3}
	if n := testing.AllocsPerRun(10, func() { _, _ = readFrame(bytes.NewReader(announced)) }); n > 20 {
		t.Errorf("%v allocations", n)
	}
}
