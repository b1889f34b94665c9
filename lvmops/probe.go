package lvmops

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/proto"
)

// headSize covers every signature that sniff knows; the farthest is btrfs' at 64 KiB + 64.
const headSize = 68 << 10

// lookLimit bounds a single look at something that may hang: a read of the device, a statfs, a process' maps.
const lookLimit = 2 * time.Second

// errHangs says that an earlier look at the same thing has not come back.
var errHangs = errors.New("does not answer; it may be blocked in the kernel")

// aside runs f in a goroutine of its own and waits for it for at most lookLimit. What does not come back is remembered
// by its key and not tried again until it does, so that at most one goroutine per key can hang; who asks meanwhile waits
// for it, because it may only be slow.
func aside[T any](ctx context.Context, o *Ops, key string, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var zero T
	t := time.NewTimer(lookLimit)
	defer t.Stop()
	for {
		earlier := o.claim(key)
		if earlier == nil {
			break
		}
		select {
		case <-earlier:
		case <-t.C:
			return zero, errHangs
		case <-ctx.Done():
			return zero, ctx.Err()
		}
	}
	c := make(chan answer, 1)
	go func() {
		v, err := f()
		o.release(key)
		c <- answer{v, err}
	}()
	select {
	case a := <-c:
		return a.v, a.err
	case <-t.C:
		return zero, errHangs
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// claim reserves a look that may hang, for the caller to release. If it is another one's, it returns what that one closes then.
func (o *Ops) claim(key string) (earlier <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.stuck[key]; c != nil {
		return c
	}
	o.stuck[key] = make(chan struct{})
	return nil
}

func (o *Ops) release(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.stuck[key])
	delete(o.stuck, key)
}

// Slow says of a look at a stack that part of it did not answer in time: the next one may, if the node is only busy.
func Slow(st proto.Stack) bool { return strings.Contains(st.Err, errHangs.Error()) }

// statDevice is Options.DeviceNumber's default.
func statDevice(path string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("%s is no block device", path)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}

// inDev finds a path of /dev where dev says that /dev is.
func inDev(dev, path string) string {
	if rest, ok := strings.CutPrefix(path, "/dev/"); ok {
		return filepath.Join(dev, rest)
	}
	return path
}

// readHead reads the first bytes of a device. A device smaller than headSize gives what it has.
func (o *Ops) readHead(ctx context.Context, path string) ([]byte, error) {
	return aside(ctx, o, "head "+path, func() ([]byte, error) {
		f, err := os.OpenFile(inDev(o.opt.Dev, path), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		buf := make([]byte, headSize)
		n, err := io.ReadFull(io.NewSectionReader(f, 0, headSize), buf)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return buf[:n], nil
	})
}

// Content classes of a device.
const (
	kindPV = "LVM2_member" // blkid's word
	kindPT = "partition table"
)

// signature is a magic string at an offset, as in libblkid's tables (util-linux, libblkid/src/superblocks).
type signature struct {
	off  int
	mag  string
	name string
}

var signatures = []signature{
	{0, "XFSB", "xfs"},
	{0x10040, "_BHRfS_M", "btrfs"},
	{4086, "SWAPSPACE2", "swap"},
	{4086, "SWAP-SPACE", "swap"},
	{0, "LUKS\xba\xbe", "crypto_LUKS"},
	{1024, "\x10\x20\xf5\xf2", "f2fs"},
	{1024, "\xe2\xe1\xf5\xe0", "erofs"},
	{0, "hsqs", "squashfs"},
	{0, "\xfc\x4e\x2b\xa9", "linux_raid_member"},    // md superblock 1.1
	{4096, "\xfc\x4e\x2b\xa9", "linux_raid_member"}, // and 1.2
	{4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"},
	{0x8001, "CD001", "iso9660"},
	{3, "NTFS    ", "ntfs"},
	{0x52, "FAT32   ", "vfat"},
	{0x36, "FAT16   ", "vfat"},
	{0x36, "FAT12   ", "vfat"},
	{512, "EFI PART", kindPT},
}

// sniff says what the head of a device shows: a file system's type, kindPV, kindPT, or "" if nothing is recognised.
func sniff(head []byte) string {
	if pvLabel(head) != nil {
		return kindPV
	}
	if t := sniffExt(head); t != "" {
		return t
	}
	for _, s := range signatures {
		if len(head) >= s.off+len(s.mag) && string(head[s.off:s.off+len(s.mag)]) == s.mag {
			return s.name
		}
	}
	// A boot sector's 0x55AA alone may be a boot loader's; with a used partition entry it is a table.
	if len(head) >= 512 && head[510] == 0x55 && head[511] == 0xaa {
		for e := 446; e < 510; e += 16 {
			if (head[e] == 0 || head[e] == 0x80) && head[e+4] != 0 {
				return kindPT
			}
		}
	}
	return ""
}

// Feature bits of an ext superblock that ext3 does not know (linux fs/ext4/ext4.h).
const (
	ext3Incompat = 0x0002 | 0x0004 | 0x0010 // FILETYPE, RECOVER, META_BG
	ext3ROCompat = 0x0001 | 0x0002 | 0x0004 // SPARSE_SUPER, LARGE_FILE, BTREE_DIR
	extJournal   = 0x0004                   // compat HAS_JOURNAL
	extJournaldv = 0x0008                   // incompat JOURNAL_DEV
)

func sniffExt(head []byte) string {
	const sb = 1024
	if len(head) < sb+0x68 || head[sb+0x38] != 0x53 || head[sb+0x39] != 0xef {
		return ""
	}
	compat := binary.LittleEndian.Uint32(head[sb+0x5c:])
	incompat := binary.LittleEndian.Uint32(head[sb+0x60:])
	rocompat := binary.LittleEndian.Uint32(head[sb+0x64:])
	switch {
	case incompat&extJournaldv != 0:
		return "jbd"
	case incompat&^uint32(ext3Incompat) != 0 || rocompat&^uint32(ext3ROCompat) != 0:
		return "ext4"
	case compat&extJournal != 0:
		return "ext3"
	default:
		return "ext2"
	}
}

// label is a physical volume's label and the header of its first metadata area.
type label struct {
	pvUUID string // without dashes
	mark   []byte // changes whenever the VG's metadata is committed; nil if it lies beyond the head
}

// pvLabel finds an LVM2 label in the first four sectors: struct label_header and struct pv_header of LVM2's
// lib/format_text/layout.h. It does not verify the checksum: what looks like a label is left to lvm to judge.
func pvLabel(head []byte) *label {
	for sector := 0; sector < 4; sector++ {
		b := head[min(sector*512, len(head)):]
		if len(b) < 512 {
			return nil
		}
		b = b[:512]
		if !bytes.Equal(b[:8], []byte("LABELONE")) || !bytes.Equal(b[24:32], []byte("LVM2 001")) {
			continue
		}
		off := int(binary.LittleEndian.Uint32(b[20:]))
		if off < 32 || off+40 > 512 {
			return &label{}
		}
		l := &label{pvUUID: Printable(string(b[off : off+32]))}
		if at, ok := firstMDA(b[off+40:]); ok && at >= 0 && at+512 <= int64(len(head)) {
			l.mark = bytes.Clone(head[at : at+512])
		}
		return l
	}
	return nil
}

// firstMDA walks the two zero-terminated lists of (offset, size) that follow the PV's uuid and size: data areas, then
// metadata areas.
func firstMDA(b []byte) (int64, bool) {
	inData := true
	for len(b) >= 16 {
		off, size := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
		switch {
		case off == 0 && size == 0 && inData:
			inData = false
		case off == 0 && size == 0:
			return 0, false
		case !inData:
			return int64(min(off, 1<<62)), true
		}
	}
	return 0, false
}

// validPath refuses paths that can not be what the kernel or an operator means: relative, unclean, or with bytes that
// have no place in a path of ours.
func validPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("%q is not an absolute path", p)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("%q contains a NUL byte", p)
	case filepath.Clean(p) != p:
		return fmt.Errorf("%q is not a clean path (%s)", p, filepath.Clean(p))
	case len(p) >= unix.PathMax:
		return fmt.Errorf("path of %d bytes is too long", len(p))
	}
	return nil
}
