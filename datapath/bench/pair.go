package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// ram is a disk of plain memory: as little work as a disk can do.
type ram struct{ b []byte }

func (r ram) ReadAt(p []byte, off int64) (int, error)  { return copy(p, r.b[off:]), nil }
func (r ram) WriteAt(p []byte, off int64) (int, error) { return copy(r.b[off:], p), nil }
func (r ram) Flush() error                             { return nil }
func (r ram) Discard(off, n int64) error               { clear(r.b[off : off+n]); return nil }
func (r ram) WriteZeroes(off, n int64, _ bool) error   { clear(r.b[off : off+n]); return nil }
func (r ram) Size() int64                              { return int64(len(r.b)) }
func (r ram) LogicalBlockSize() int                    { return block.SectorSize }
func (r ram) Close() error                             { return nil }

// opener opens a node's disk; it may be called again after a close.
type opener func() (block.Device, error)

func ramDisk(size int64) opener {
	d := ram{make([]byte, size)}
	return func() (block.Device, error) { return d, nil }
}

// fileDisk makes a file whose blocks are all written, so that no write has to allocate.
func (s *settings) fileDisk(name string) (opener, error) {
	path := filepath.Join(s.dir, name)
	if err := sparse(path, s.size); err != nil {
		return nil, err
	}
	d, err := block.Open(path, block.Options{})
	if err != nil {
		return nil, err
	}
	buf := block.Buffer(1 << 20)
	for off := int64(0); off < s.size; off += int64(len(buf)) {
		for i := 0; i < len(buf); i += 512 {
			buf[i], buf[i+1] = byte(off>>20), byte(i>>9)
		}
		if _, err := d.WriteAt(buf, off); err != nil {
			_ = d.Close()
			return nil, err
		}
	}
	if err := errors.Join(d.Flush(), d.Close()); err != nil {
		return nil, err
	}
	return func() (block.Device, error) { return block.Open(path, block.Options{}) }, nil
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// format makes metadata on a disk, with inSync that of a copy which is in sync with its peer.
func format(open opener, inSync bool) error {
	d, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	ctx := context.Background()
	if err := meta.Create(ctx, d, meta.CreateOptions{Force: true}); err != nil || !inSync {
		return err
	}
	md, err := meta.Open(d, meta.OpenOptions{})
	if err != nil {
		return err
	}
	if err := md.SetAgreedSize(ctx, md.Layout().UsableSize, false); err != nil {
		return err
	}
	md.Bitmap().ClearAll()
	err = md.Update(ctx, func(sb *meta.Superblock) {
		sb.UUIDs = meta.UUIDs{Current: 0x5a17da7a5a17da7a &^ 1}
		sb.Flags = meta.FlagConsistent | meta.FlagWasUpToDate
	})
	return errors.Join(err, md.Bitmap().WriteDirty(ctx), md.MarkClean(ctx), md.Close())
}

// pair is two nodes; the first one is to be Primary.
type pair struct{ node [2]*datapath.Resource }

func newPair(disks [2]opener, tweak func(*datapath.Config)) (*pair, error) {
	var addr [2]string
	for i := range addr {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addr[i] = ln.Addr().String()
		_ = ln.Close()
	}
	p, names := &pair{}, [2]string{"otter", "weasel"}
	for i := range p.node {
		cfg := datapath.Config{
			Resource: "r0", Device: "/dev/drbd0", Node: names[i], Peer: names[1-i], Open: disks[i], DiskPath: names[i],
			LocalAddr: addr[i], PeerAddr: addr[1-i], ResyncRate: 16 << 30, ConnectInt: time.Second, MaxBuffers: 8000,
			Logger: slog.New(slog.DiscardHandler),
		}
		if tweak != nil {
			tweak(&cfg)
		}
		var err error
		if p.node[i], err = datapath.New(cfg); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pair) close() {
	for _, n := range p.node {
		_ = n.Close()
	}
}

// up attaches and connects both nodes and makes the first one Primary.
func (p *pair) up() error {
	ctx := context.Background()
	for _, n := range p.node {
		if err := errors.Join(n.Attach(ctx), n.Connect(ctx, false)); err != nil {
			return err
		}
	}
	if err := p.await("connection", func(s *datapath.Status) bool { return s.Conn >= proto.Connected }); err != nil {
		return err
	}
	return p.node[0].Promote(ctx, true)
}

func (p *pair) await(what string, ok func(*datapath.Status) bool) error {
	late := time.After(5 * time.Minute)
	for _, n := range p.node {
		for {
			ch, s := n.Changed(), n.Status()
			if ok(s) {
				break
			}
			select {
			case <-ch:
			case <-late:
				return fmt.Errorf("waited too long for %s: %v %v/%v, %s", what, s.Conn, s.Disk, s.PeerDisk, s.Problem)
			}
		}
	}
	return nil
}

func inSync(s *datapath.Status) bool {
	return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate && s.OutOfSync == 0
}

// synced is a pair on two disks whose content is taken for equal.
func synced(disks [2]opener, tweak func(*datapath.Config)) (*pair, error) {
	for _, d := range disks {
		if err := format(d, true); err != nil {
			return nil, err
		}
	}
	p, err := newPair(disks, tweak)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.up(), p.await("both copies", inSync)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}
