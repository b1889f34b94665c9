package datapath

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"sync"

	"example.com/santui/proto/drbd"
)

// DigestAlgs are the algorithms of verify-alg and csums-alg that this engine knows, by the names that the kernel's
// crypto layer gives them.
var DigestAlgs = []string{"crc32c", "md5", "sha1", "sha224", "sha256", "sha384", "sha512"}

// digest is one block's digest as it travels: n bytes are in use.
type digest struct {
	n int
	b [drbd.MaxDigest]byte
}

func (d *digest) bytes() []byte { return d.b[:d.n] }

// is says whether the peer's digest is the same.
func (d *digest) is(p []byte) bool { return bytes.Equal(d.b[:d.n], p) }

// digester computes digests of one algorithm, from any goroutine.
type digester struct {
	size int
	pool sync.Pool
}

// newDigester gives nil for an algorithm that is not in DigestAlgs.
func newDigester(alg string) *digester {
	var mk func() hash.Hash
	switch alg {
	case "crc32c":
		mk = func() hash.Hash { return littleCRC{crc32.New(crc32.MakeTable(crc32.Castagnoli))} }
	case "md5":
		mk = md5.New
	case "sha1":
		mk = sha1.New
	case "sha224":
		mk = sha256.New224
	case "sha256":
		mk = sha256.New
	case "sha384":
		mk = sha512.New384
	case "sha512":
		mk = sha512.New
	default:
		return nil
	}
	return &digester{size: mk().Size(), pool: sync.Pool{New: func() any { return mk() }}}
}

// sum puts the digest of p into d.
func (g *digester) sum(p []byte, d *digest) {
	h, _ := g.pool.Get().(hash.Hash)
	h.Reset()
	_, _ = h.Write(p) // a hash never fails
	d.n = len(h.Sum(d.b[:0]))
	g.pool.Put(h)
}

// none is the digest that stands for a block that could not be read: zeroes (w_e_end_ov_req, drbd_worker.c).
func (g *digester) none(d *digest) { *d = digest{n: g.size} }

// littleCRC gives a CRC in the byte order of the kernel's crypto layer (chksum_final, crypto/crc32c_generic.c).
type littleCRC struct{ hash.Hash32 }

func (c littleCRC) Sum(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, c.Sum32()) }
