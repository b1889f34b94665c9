package datapath

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// sizeBuffers gives a socket buffers of the configured sizes, before it connects or listens (drbd_setbufsize,
// drbd_receiver.c). As in DRBD the system's limit (net.core.wmem_max) does not apply where the right to pass it is there.
func (c *Config) sizeBuffers(_, _ string, s syscall.RawConn) error {
	if c.SndBuf == 0 && c.RcvBuf == 0 {
		return nil
	}
	var err error
	if e := s.Control(func(fd uintptr) {
		err = errors.Join(bufferSize(int(fd), unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, c.SndBuf), bufferSize(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, c.RcvBuf))
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("sndbuf-size %d, rcvbuf-size %d: %w", c.SndBuf, c.RcvBuf, err)
	}
	return nil
}

// bufferSize sets one of them; the kernel doubles what it is told (socket(7)).
func bufferSize(fd, force, limited, n int) error {
	if n == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, n/2); err != nil {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, limited, n/2)
	}
	return nil
}
