package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"example.com/santui/datapath/export/nbd"
)

// The kernel's generic netlink family "nbd" (linux/nbd-netlink.h).
const (
	nbdFamily = "nbd"

	nbdCmdConnect     = 1
	nbdCmdDisconnect  = 2
	nbdCmdReconfigure = 3

	nbdAttrIndex             = 1
	nbdAttrSizeBytes         = 2
	nbdAttrBlockSizeBytes    = 3
	nbdAttrServerFlags       = 5
	nbdAttrSockets           = 7
	nbdAttrDeadConnTimeout   = 8
	nbdAttrBackendIdentifier = 10

	nbdSockItem = 1
	nbdSockFD   = 1
)

// nbdDriver is a device of the kernel's NBD client and the server behind it.
type nbdDriver struct {
	index  int
	mark   string
	stop   context.CancelFunc
	served chan struct{} // closed when the server has ended
	meant  atomic.Bool   // its end is ours
	// cut: disconnected, but somebody still has the dead device open.
	cut bool
}

func startNBD(ctx context.Context, b Backend, o Options, ended func(error)) (driver, error) {
	if err := nbdOffered(); err != nil {
		return nil, err
	}
	ours, kernels, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(kernels)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d := &nbdDriver{mark: mark(o.RunDir, o.Name), stop: stop, served: make(chan struct{})}
	go func() {
		err := nbd.Transmit(run, ours, b, nbd.Options{Name: o.Name, Workers: o.Queue, Logger: o.Logger})
		close(d.served)
		if err == nil {
			err = errors.New("the kernel disconnected")
		}
		if !d.meant.Load() {
			ended(err)
		}
	}()
	// The kernel reads from the device (partitions) before it answers.
	if d.index, err = nbdConnect(kernels, b.Size(), d.mark, o.DeadConnTimeout); err != nil {
		d.meant.Store(true)
		stop()
		<-d.served
		return nil, err
	}
	return d, nil
}

// socketPair returns one end as a connection, the other as a descriptor.
func socketPair() (net.Conn, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("make a socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "nbd")
	defer func() { _ = f.Close() }() // FileConn has its own copy
	c, err := net.FileConn(f)
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, -1, fmt.Errorf("make a socket pair: %w", err)
	}
	return c, fds[1], nil
}

// nbdConnect gives the kernel the other end and gets a free device for it.
// Requests have no time limit of their own: a suspended resource may well take
// longer than any, and the kernel would then fail them.
func nbdConnect(fd int, size int64, m string, dead time.Duration) (int, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Uint64(nbdAttrSizeBytes, uint64(size))
	ae.Uint64(nbdAttrBlockSizeBytes, SectorSize)
	ae.Uint64(nbdAttrServerFlags, nbd.Flags)
	if s := uint64(dead / time.Second); s > 0 {
		ae.Uint64(nbdAttrDeadConnTimeout, s)
	}
	ae.Nested(nbdAttrSockets, func(list *netlink.AttributeEncoder) error {
		list.Nested(nbdSockItem, func(item *netlink.AttributeEncoder) error {
			item.Uint32(nbdSockFD, uint32(fd))
			return nil
		})
		return nil
	})
	ae.String(nbdAttrBackendIdentifier, m)
	msgs, err := nbdCall(nbdCmdConnect, ae, netlink.Request)
	if err != nil {
		return 0, fmt.Errorf("connect an nbd device (all in use?): %w", err)
	}
	for _, msg := range msgs {
		ad, err := netlink.NewAttributeDecoder(msg.Data)
		if err != nil {
			return 0, fmt.Errorf("connect an nbd device: answer: %w", err)
		}
		for ad.Next() {
			if ad.Type() == nbdAttrIndex {
				return int(ad.Uint32()), ad.Err()
			}
		}
	}
	return 0, errors.New("connect an nbd device: the kernel's answer has no index")
}

// resize: the kernel tells users of the device itself. Kernels since 5.14 want the
// identifier that the device was connected with.
func (d *nbdDriver) resize(size int64) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(nbdAttrIndex, uint32(d.index))
	ae.Uint64(nbdAttrSizeBytes, uint64(size))
	ae.String(nbdAttrBackendIdentifier, d.mark)
	if _, err := nbdCall(nbdCmdReconfigure, ae, netlink.Request|netlink.Acknowledge); err != nil {
		return fmt.Errorf("reconfigure: %w", err)
	}
	return nil
}

func nbdDisconnect(index int) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(nbdAttrIndex, uint32(index))
	_, err := nbdCall(nbdCmdDisconnect, ae, netlink.Request|netlink.Acknowledge)
	if err != nil {
		return fmt.Errorf("disconnect /dev/nbd%d: %w", index, err)
	}
	return nil
}

func nbdCall(cmd uint8, ae *netlink.AttributeEncoder, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	data, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	c, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("open generic netlink: %w", err)
	}
	defer func() { _ = c.Close() }()
	fam, err := c.GetFamily(nbdFamily)
	if err != nil {
		return nil, fmt.Errorf("netlink family nbd: %w", err)
	}
	return c.Execute(genetlink.Message{Header: genetlink.Header{Command: cmd, Version: fam.Version}, Data: data}, fam.ID, flags)
}

func (d *nbdDriver) name() string { return "nbd" + strconv.Itoa(d.index) }
func (d *nbdDriver) node() string { return "/dev/" + d.name() }

// there: connected, and not for somebody else. Kernels before 5.14 do not show
// the identifier.
func (d *nbdDriver) there() bool {
	if d.cut || sysfs(d.name(), "pid") == "" {
		return false
	}
	id := sysfs(d.name(), "backend")
	return id == d.mark || id == ""
}

// detach disconnects the device. The kernel does not tell whether others have
// it open without O_EXCL; /proc does, for ordinary processes. One that appears
// after that look finds a dead device: no request reaches us any more, and the
// kernel keeps the device (its pid attribute) until the last close.
func (d *nbdDriver) detach(ctx context.Context, fd int) error {
	var who string
	if !waitFor(ctx, settle, func() bool { who = holders(d.node(), fd); return who == "" }) {
		_ = unix.Close(fd)
		return busy(d.node(), who)
	}
	d.meant.Store(true)
	err := nbdDisconnect(d.index)
	_ = unix.Close(fd)
	if err != nil {
		return err
	}
	d.cut = true
	return nil
}

func (d *nbdDriver) cleanup(ctx context.Context) error {
	d.meant.Store(true)
	d.stop()
	select {
	case <-d.served:
	case <-ctx.Done():
		return fmt.Errorf("requests of %s are still in the engine: %w: %w", d.node(), ErrBusy, ctx.Err())
	}
	if !waitFor(ctx, settle, func() bool { return !nbdOurs(d.name(), d.mark) }) {
		return fmt.Errorf("%s is disconnected but still open: %w", d.node(), busy(d.node(), holders(d.node(), -1)))
	}
	return nil
}

func nbdOurs(name, m string) bool { return sysfs(name, "pid") != "" && sysfs(name, "backend") == m }

// findNBDs finds the indexes of nbd devices that carry the mark m.
func findNBDs(m string) (found []int) {
	for _, attr := range glob("/sys/block/nbd*/backend") {
		name := strings.Split(attr, "/")[3]
		if i, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), "nbd")); err == nil && sysfs(name, "backend") == m {
			found = append(found, i)
		}
	}
	return found
}
