package nbd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Backend is what is served; export.Backend describes it. Lengths and offsets
// are bytes, inside the device and multiples of BlockSize.
type Backend interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Discard(off, n int64) error
	WriteZeroes(off, n int64, unmap bool) error
	Size() int64
}

// Options of a server. The zero value serves the default export only.
type Options struct {
	// Name of the export; the empty name reaches it too. At most 255 bytes.
	Name string
	// Workers per connection: how many requests are in the Backend at a time.
	// 0: 64.
	Workers int
	// MaxConns is how many connections Serve keeps; more are hung up on.
	// Several connections see one another's writes at once, but a flush on one
	// is promised to cover that one only. 0: 16.
	MaxConns int
	// Handshake is how long a client may take to choose the export. 0: 10 s.
	Handshake time.Duration
	// Logger gets one line per connection that ends badly. Nil: slog.Default().
	Logger *slog.Logger
}

func (o *Options) check(b Backend) error {
	if o.Workers < 0 || o.MaxConns < 0 || o.Handshake < 0 || len(o.Name) > 255 {
		return errors.New("nbd: bad server options")
	}
	if size := b.Size(); size <= 0 || size%BlockSize != 0 {
		return fmt.Errorf("nbd: size %d is not a positive multiple of %d", size, BlockSize)
	}
	if o.Workers == 0 {
		o.Workers = 64
	}
	if o.MaxConns == 0 {
		o.MaxConns = 16
	}
	if o.Handshake == 0 {
		o.Handshake = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// readBuffer holds some small writes, so that a queue of them costs one system
// call; larger payloads go past it.
const readBuffer = 64 << 10

// Serve accepts clients on ln until ctx is done, then lets requests in
// progress finish and closes everything. It returns nil then, or why accepting
// failed. It owns ln.
func Serve(ctx context.Context, ln net.Listener, b Backend, o Options) error {
	defer func() { _ = ln.Close() }()
	if err := o.check(b); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	slots := make(chan struct{}, o.MaxConns)
	for {
		nc, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("nbd: accepting on %s: %w", ln.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = nc.Close()
			o.Logger.Warn("nbd: too many connections", "limit", o.MaxConns)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := ServeConn(ctx, nc, b, o); err != nil && ctx.Err() == nil {
				o.Logger.Warn("nbd: connection ended", "name", o.Name, "err", err)
			}
		})
	}
}

// accept waits out what passes by itself, such as too many open files.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for {
		nc, err := ln.Accept()
		var ne net.Error
		if err == nil || !errors.As(err, &ne) || !ne.Temporary() { //nolint:staticcheck // the only way net tells EMFILE and ECONNABORTED
			return nc, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ServeConn negotiates with one client and serves it until it leaves (nil), it
// breaks the protocol (ErrProtocol) or ctx is done. It owns nc.
func ServeConn(ctx context.Context, nc net.Conn, b Backend, o Options) error {
	defer func() { _ = nc.Close() }()
	if err := o.check(b); err != nil {
		return err
	}
	r := bufio.NewReaderSize(nc, readBuffer)
	_ = nc.SetDeadline(time.Now().Add(o.Handshake))
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	err := (&handshake{r: r, w: nc, name: o.Name, size: b.Size()}).run()
	if !stop() || err != nil {
		if errors.Is(err, errAborted) {
			return nil
		}
		return errors.Join(err, ctx.Err())
	}
	_ = nc.SetDeadline(time.Time{})
	return transmit(ctx, nc, r, b, o.Workers)
}

// Transmit serves one client that needs no handshake, the kernel. Returns and
// ownership are ServeConn's.
func Transmit(ctx context.Context, nc net.Conn, b Backend, o Options) error {
	defer func() { _ = nc.Close() }()
	if err := o.check(b); err != nil {
		return err
	}
	return transmit(ctx, nc, bufio.NewReaderSize(nc, readBuffer), b, o.Workers)
}
