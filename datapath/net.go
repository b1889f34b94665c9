package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// listenTCP is Config.Listen's default.
func (c *Config) listenTCP(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: c.sizeBuffers}
	return lc.Listen(ctx, "tcp", addr)
}

// dialTCP is Config.Dial's default. Like the kernel, it binds the local address and leaves the port open.
func (c *Config) dialTCP(ctx context.Context, laddr, raddr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(laddr)
	if err != nil {
		return nil, fmt.Errorf("local address %q: %w", laddr, err)
	}
	d := net.Dialer{KeepAlive: 30 * time.Second, Control: c.sizeBuffers}
	if ip := net.ParseIP(host); ip != nil {
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	return d.DialContext(ctx, "tcp", raddr)
}

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	return err
}

func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
