//go:build !linux

package datapath

import (
	"errors"
	"syscall"
)

// sizeBuffers refuses sizes: they are set on Linux only.
func (c *Config) sizeBuffers(_, _ string, _ syscall.RawConn) error {
	if c.SndBuf == 0 && c.RcvBuf == 0 {
		return nil
	}
	return errors.New("sndbuf-size and rcvbuf-size are for Linux only")
}
