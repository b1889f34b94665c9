package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is the other side, written from proto.md and not from the server.
type client struct {
	net.Conn
	r    *bufio.Reader
	size uint64
	head [28]byte
	rep  [16]byte
}

// start serves b on a Unix socket; the end of the test stops the server.
func start(t testing.TB, b Backend, o Options) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, b, o) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve does not stop")
		}
	}
	t.Cleanup(stop)
	return path, stop
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(60 * time.Second))
	return &client{Conn: nc, r: bufio.NewReader(nc)}
}

// hello reads the greeting and answers it.
func (c *client) hello(flags uint32) error {
	var p [18]byte
	if _, err := io.ReadFull(c.r, p[:]); err != nil {
		return err
	}
	if string(p[:16]) != "NBDMAGICIHAVEOPT" || binary.BigEndian.Uint16(p[16:]) != 3 {
		return fmt.Errorf("greeting % x", p)
	}
	_, err := c.Write(binary.BigEndian.AppendUint32(nil, flags))
	return err
}

func (c *client) sendOption(opt uint32, data []byte) error {
	p := append([]byte("IHAVEOPT"), binary.BigEndian.AppendUint32(nil, opt)...)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	_, err := c.Write(append(p, data...))
	return err
}

func (c *client) optionReply() (opt, kind uint32, data []byte, err error) {
	var p [20]byte
	if _, err = io.ReadFull(c.r, p[:]); err != nil {
		return
	}
	if m := binary.BigEndian.Uint64(p[:]); m != 0x3e889045565a9 {
		return 0, 0, nil, fmt.Errorf("option reply magic %#x", m)
	}
	data = make([]byte, binary.BigEndian.Uint32(p[16:]))
	_, err = io.ReadFull(c.r, data)
	return binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint32(p[12:]), data, err
}

func goData(name string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	return append(append(p, name...), 0, 0)
}

// open negotiates with NBD_OPT_GO.
func (c *client) open(name string) error {
	if err := c.hello(3); err != nil {
		return err
	}
	if err := c.sendOption(7, goData(name)); err != nil {
		return err
	}
	for {
		_, kind, data, err := c.optionReply()
		if err != nil {
			return err
		}
		switch {
		case kind == 1:
			return nil
		case kind == 3 && binary.BigEndian.Uint16(data) == 0:
			c.size = binary.BigEndian.Uint64(data[2:])
		case kind>>31 == 1:
			return fmt.Errorf("refused: %#x", kind)
		}
	}
}

func (c *client) send(cmd, flags uint16, cookie, off uint64, n uint32, data []byte) error {
	h := c.head[:]
	binary.BigEndian.PutUint32(h, 0x25609513)
	binary.BigEndian.PutUint16(h[4:], flags)
	binary.BigEndian.PutUint16(h[6:], cmd)
	binary.BigEndian.PutUint64(h[8:], cookie)
	binary.BigEndian.PutUint64(h[16:], off)
	binary.BigEndian.PutUint32(h[24:], n)
	if _, err := c.Write(h); err != nil {
		return err
	}
	if data == nil {
		return nil
	}
	_, err := c.Write(data)
	return err
}

func (c *client) recv() (cookie uint64, no uint32, err error) {
	if _, err = io.ReadFull(c.r, c.rep[:]); err != nil {
		return
	}
	if binary.BigEndian.Uint32(c.rep[:]) != 0x67446698 {
		return 0, 0, errors.New("reply magic")
	}
	return binary.BigEndian.Uint64(c.rep[8:]), binary.BigEndian.Uint32(c.rep[4:]), nil
}

// call sends one request and waits for its reply; in takes what is read.
func (c *client) call(cmd, flags uint16, off uint64, n uint32, out, in []byte) (uint32, error) {
	cookie := off + uint64(cmd)<<56
	if err := c.send(cmd, flags, cookie, off, n, out); err != nil {
		return 0, err
	}
	got, no, err := c.recv()
	if err == nil && got != cookie {
		err = fmt.Errorf("cookie %#x, want %#x", got, cookie)
	}
	if err == nil && no == 0 && in != nil {
		_, err = io.ReadFull(c.r, in)
	}
	return no, err
}

var never time.Time

// take receives one reply with its data.
func (c *client) take(cmd uint16, buf []byte) error {
	_, no, err := c.recv()
	if err == nil && no != 0 {
		err = fmt.Errorf("error %d", no)
	}
	if err == nil && cmd == 0 {
		_, err = io.ReadFull(c.r, buf)
	}
	return err
}
