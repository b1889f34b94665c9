package datapath

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Options of drbd.conf that change how something is done, not what.

// TestPlainBitmap: with use-rle no the bitmap is sent as it is, else compressed.
func TestPlainBitmap(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		n := nineNode(t, func(c *Config) { c.PlainBitmap = plain }).good()
		n.hello(proto.Secondary, proto.Inconsistent, drbd.UUIDs{Current: drbd.UUIDJustCreated, Flags: drbd.UUIDInconsistent})
		for {
			h, err := n.rd.Next()
			n.must(err)
			if h.Cmd != drbd.CmdBitmap && h.Cmd != drbd.CmdCompressedBitmap {
				continue
			}
			if (h.Cmd == drbd.CmdBitmap) != plain {
				t.Errorf("use-rle %v: the bitmap came as %v", !plain, h.Cmd)
			}
			break
		}
	}
}

// TestCsumsAfterCrashOnly: checksums are compared by a node that crashed as Primary, and by no other.
func TestCsumsAfterCrashOnly(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.CsumsAlg, c.CsumsAfterCrashOnly = "crc32c", true })
	p.synced()
	a, b := p.node[0], p.node[1]
	before := a.traffic.sentBytes.Load()
	a.ok("invalidate-remote", a.InvalidateRemote(bg()))
	p.await("the resync", inSync)
	if n := a.traffic.sentBytes.Load() - before; n < testSize/2 {
		t.Errorf("an ordinary resync sent %d bytes: checksums were compared", n)
	}
	a.write(0, pattern(1, 4<<20))
	a.ok("flush", a.Flush())
	left := a.disk.(*blocktest.Mem).CrashClone(1, 100) // power is gone here
	p.cable.pull()
	b.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	b.ok("takeover", b.Promote(bg(), false))
	_ = a.Close()
	p.cable.plug()
	a = p.boot(0, left)
	before = b.traffic.sentBytes.Load()
	a.ok("attach", a.Attach(bg()))
	a.ok("connect", a.Connect(bg(), false))
	p.await("the resync", inSync)
	p.equal()
	if n := b.traffic.sentBytes.Load() - before; n > testSize/8 || !a.heard("checksum based resync") {
		t.Errorf("the resync of a crashed Primary sent %d bytes", n)
	}
}

// TestBufferSizes: both ends of a link have the configured buffers.
func TestBufferSizes(t *testing.T) {
	t.Parallel()
	c := &Config{SndBuf: 96 << 10, RcvBuf: 80 << 10}
	addr := freePort(t)
	ln, err := c.listenTCP(bg(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	out, err := c.dialTCP(bg(), addr, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	for name, conn := range map[string]net.Conn{"dialled": out, "accepted": in} {
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var snd, rcv int
		_ = raw.Control(func(fd uintptr) {
			snd, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
			rcv, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		})
		if snd != c.SndBuf || rcv != c.RcvBuf {
			t.Errorf("%s: buffers of %d and %d bytes, want %d and %d", name, snd, rcv, c.SndBuf, c.RcvBuf)
		}
	}
}
