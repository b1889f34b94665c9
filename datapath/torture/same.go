package torture

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"

	"example.com/santui/datapath/block"
	"example.com/santui/proto/drbd"
)

// anywhere stands for the sector in content that is the same in every sector of a write.
const anywhere = 0xffffffff

// fillSame makes the content of write id, one block over and over.
func fillSame(p []byte, id uint32) {
	for k := 0; k < len(p); k += 8 {
		binary.LittleEndian.PutUint64(p[k:], uint64(id)<<32|anywhere)
	}
}

// writeSame writes one block all over a range.
func (w *world) writeSame(inc *incarnation, off, n int64) bool {
	return w.write(inc, off, n, func(id uint32) error {
		p := block.Buffer(int(n))
		fillSame(p, id)
		_, err := inc.res.WriteAt(p, off)
		return err
	}, false)
}

// sameWire stands between an engine and the wire and makes the node look like one whose kernel knows write-same: it sends a
// write of one block over and over as P_WSAME, which this engine takes but never sends.
type sameWire struct {
	digest bool   // there is a data-integrity-alg, md5
	held   []byte // a header, and the payload of a packet of data, not complete yet
	head   int    // bytes of header among it
	need   int    // bytes of it that are still to come
	pass   int    // bytes of another packet that pass as they are
}

// turn gives what goes onto the wire for p.
func (s *sameWire) turn(p []byte) (out []byte) {
	for len(p) > 0 {
		n := max(1, min(s.pass+s.need, len(p)))
		b := p[:n]
		p = p[n:]
		switch {
		case s.pass > 0:
			out, s.pass = append(out, b...), s.pass-n
			continue
		case s.need > 0:
			s.held, s.need = append(s.held, b...), s.need-n
		default:
			s.held = append(s.held, b...)
			t := tap{head: s.held}
			if !t.header() {
				continue
			}
			if s.head = len(s.held); t.cmd == drbd.CmdData {
				s.need = t.n
			} else {
				s.pass = t.n
			}
		}
		if s.need == 0 {
			out, s.held = append(out, s.packet()...), s.held[:0]
		}
	}
	return out
}

// packet is what is held, or the write-same that it can be.
func (s *sameWire) packet() []byte {
	sum := 0
	if s.digest {
		sum = md5.Size
	}
	if s.head != drbd.HeaderSizeH100 || len(s.held) <= s.head+drbd.SizeData+sum {
		return s.held
	}
	d, err := drbd.ParseData(s.held[s.head:])
	data := s.held[s.head+drbd.SizeData+sum:]
	if err != nil || binary.LittleEndian.Uint32(data) != anywhere {
		return s.held
	}
	for k := 8; k < len(data); k += 8 {
		if !bytes.Equal(data[k:k+8], data[:8]) {
			return s.held
		}
	}
	unit := sector
	if d.Sector%8 == 0 && len(data)%4096 == 0 && d.Seq%2 == 0 {
		unit = 4096
	}
	d.Flags |= drbd.DPWSame
	pl := drbd.Range{Data: d, Size: uint32(len(data))}.Append(nil)
	if s.digest {
		h := md5.Sum(data[:unit])
		pl = append(pl, h[:]...)
	}
	return drbd.AppendPacket(nil, drbd.H100, 0, drbd.CmdWSame, drbd.Bytes(append(pl, data[:unit]...)), 0)
}
