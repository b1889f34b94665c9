package main

import (
	"errors"
	"io"
	"net"

	"example.com/santui/datapath/block"
)

// bareHead is as much as DRBD's header and the fixed part of its data packet take.
const bareHead = 16 + 24

// bare is the least that a write to both copies can be on this machine: over a socket of its own each lane sends the block,
// writes its own disk, and waits until the other end has written the other one. There is no order, no log, no recovery.
type bare struct {
	ln    net.Listener
	local block.Device
	lanes chan *lane
	conns []net.Conn
}

type lane struct {
	conn net.Conn
	buf  []byte
}

func newBare(local, remote block.Device, depth int) (*bare, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &bare{ln: ln, local: local, lanes: make(chan *lane, depth)}
	for range depth {
		near, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.conns = append(b.conns, near)
		far, err := ln.Accept()
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.conns = append(b.conns, far)
		b.lanes <- &lane{conn: near, buf: make([]byte, bareHead)}
		go answer(far, remote)
	}
	return b, nil
}

// answer writes each block that comes to the disk and says so. The block's place is in its head.
func answer(c net.Conn, d block.Device) {
	head, data := make([]byte, bareHead), block.Buffer(4096)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		off := int64(0)
		for i := range 8 {
			off |= int64(head[i]) << (8 * i)
		}
		if _, err := d.WriteAt(data, off); err != nil {
			_ = c.Close() // the other end finds it closed
			return
		}
		if _, err := c.Write(head); err != nil {
			return
		}
	}
}

func (b *bare) WriteAt(p []byte, off int64) (int, error) {
	l := <-b.lanes
	defer func() { b.lanes <- l }()
	for i := range 8 {
		l.buf[i] = byte(off >> (8 * i))
	}
	if _, err := (&net.Buffers{l.buf, p}).WriteTo(l.conn); err != nil {
		return 0, err
	}
	if _, err := b.local.WriteAt(p, off); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(l.conn, l.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (b *bare) close() error {
	errs := []error{b.ln.Close()}
	for _, c := range b.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// both writes two disks at once, with no network between: what is left of a disk when the peer's copy lies on it too.
type both struct {
	local block.Device
	lanes chan *half
	all   []*half
}

// half is a goroutine that writes the other disk.
type half struct {
	ask  chan int64
	data []byte
	done chan error
}

func newBoth(local, remote block.Device, depth int) *both {
	b := &both{local: local, lanes: make(chan *half, depth)}
	for range depth {
		h := &half{ask: make(chan int64), done: make(chan error)}
		go func() {
			for off := range h.ask {
				_, err := remote.WriteAt(h.data, off)
				h.done <- err
			}
		}()
		b.all = append(b.all, h)
		b.lanes <- h
	}
	return b
}

func (b *both) WriteAt(p []byte, off int64) (int, error) {
	h := <-b.lanes
	defer func() { b.lanes <- h }()
	h.data = p
	h.ask <- off
	_, err := b.local.WriteAt(p, off)
	if err = errors.Join(err, <-h.done); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (b *both) close() {
	for _, h := range b.all {
		close(h.ask)
	}
}
