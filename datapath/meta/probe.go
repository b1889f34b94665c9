package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"example.com/santui/datapath/block"
)

// Content is something that Probe recognised on a device.
type Content struct {
	// Kind in words, for messages: "ext file system", "LVM physical volume".
	Kind string
	// Offset of the signature in bytes.
	Offset int64
	// Size is how many bytes from the start of the device it claims; 0 when
	// that is not known, or when it lies at the end of the device.
	Size int64
	// DRBD is the metadata's version, "v07" to "v09", for DRBD's superblocks.
	DRBD string
}

const (
	probeHead = 128 << 10
	probeTail = 128 << 10
	// v07 metadata is a fixed 128 MiB at the end (MD_RESERVED_SECT_07).
	md07Size = 128 << 20
)

// Probe looks for DRBD metadata of any version and for what else people keep on
// disks: ext2/3/4, XFS, Btrfs, NTFS, swap, LVM physical volumes, LUKS, GPT and md
// RAID. An empty answer means that none of these was found, not that the disk is
// empty.
func Probe(dev block.Device) ([]Content, error) {
	size := dev.Size()
	head, err := readAt(dev, 0, min(probeHead, size))
	if err != nil {
		return nil, err
	}
	tailLen := min(probeTail, size)
	tail, err := readAt(dev, size-tailLen, tailLen)
	if err != nil {
		return nil, err
	}
	var found []Content
	aligned := size - size%BlockSize
	for _, off := range []int64{aligned - SuperblockSize, aligned - md07Size} {
		if off < 0 {
			continue
		}
		p, err := readAt(dev, off, SuperblockSize)
		if err != nil {
			return nil, err
		}
		if v := detectVersion(p); v != "" {
			found = append(found, Content{Kind: "DRBD metadata", Offset: off, DRBD: v})
		}
	}
	for _, probe := range []func(p []byte) *Content{probeExt, probeXFS, probeBtrfs, probeNTFS, probeSwap, probeLVM, probeLUKS, probeGPT} {
		if c := probe(head); c != nil {
			found = append(found, *c)
		}
	}
	if c := probeTailOf(tail, size); c != nil {
		found = append(found, *c)
	}
	return found, nil
}

// probeSlots looks for external metadata of any version, in every slot.
func probeSlots(dev block.Device) ([]Content, error) {
	var found []Content
	for off := int64(0); off <= MaxIndex*SlotSize && off+SuperblockSize <= dev.Size(); off += SlotSize {
		p, err := readAt(dev, off, SuperblockSize)
		if err != nil {
			return nil, err
		}
		if v := detectVersion(p); v != "" {
			end := off + int64(binary.BigEndian.Uint32(p[64:]))*sectorSize
			found = append(found, Content{Kind: "DRBD metadata", Offset: off, Size: end, DRBD: v})
		}
	}
	return found, nil
}

func readAt(dev block.Device, off, n int64) ([]byte, error) {
	p := block.Buffer(int(n))
	if _, err := dev.ReadAt(p, off); err != nil {
		return nil, fmt.Errorf("look for data at %d: %w", off, err)
	}
	return p, nil
}

// field returns n bytes at off, or zeroes where p is too short.
func field(p []byte, off, n int) []byte {
	if off < 0 || off+n > len(p) {
		return make([]byte, n)
	}
	return p[off : off+n]
}

func le32(p []byte, off int) uint32 { return binary.LittleEndian.Uint32(field(p, off, 4)) }
func le64(p []byte, off int) uint64 { return binary.LittleEndian.Uint64(field(p, off, 8)) }

// content makes a Content; a size that cannot be is taken as unknown.
func content(kind string, off int64, blocks, blockSize uint64) *Content {
	size := int64(0)
	if blockSize > 0 && blockSize <= 1<<24 && blocks <= uint64(maxDevice)/blockSize {
		size = int64(blocks * blockSize)
	}
	return &Content{Kind: kind, Offset: off, Size: size}
}

// probeExt: Documentation/filesystems/ext4/super.rst.
func probeExt(p []byte) *Content {
	const sb = 1024
	if binary.LittleEndian.Uint16(field(p, sb+0x38, 2)) != 0xef53 {
		return nil
	}
	blocks := uint64(le32(p, sb+0x4))
	if le32(p, sb+0x60)&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= uint64(le32(p, sb+0x150)) << 32
	}
	return content("an ext2/3/4 file system", sb, blocks, 1024<<min(le32(p, sb+0x18), 20))
}

// probeXFS: struct xfs_dsb, fs/xfs/libxfs/xfs_format.h.
func probeXFS(p []byte) *Content {
	if !bytes.Equal(field(p, 0, 4), []byte("XFSB")) {
		return nil
	}
	be := binary.BigEndian
	return content("an XFS file system", 0, be.Uint64(field(p, 8, 8)), uint64(be.Uint32(field(p, 4, 4))))
}

// probeBtrfs: struct btrfs_super_block with its dev_item (the size of this device,
// not of the whole file system), include/uapi/linux/btrfs_tree.h.
func probeBtrfs(p []byte) *Content {
	const sb = 64 << 10
	if !bytes.Equal(field(p, sb+0x40, 8), []byte("_BHRfS_M")) {
		return nil
	}
	return content("a Btrfs file system", sb, le64(p, sb+0xc9+8), 1)
}

// probeNTFS: the boot sector; its copy lies in the sector behind the volume.
func probeNTFS(p []byte) *Content {
	if !bytes.Equal(field(p, 3, 8), []byte("NTFS    ")) {
		return nil
	}
	return content("an NTFS file system", 0, le64(p, 0x28)+1, uint64(binary.LittleEndian.Uint16(field(p, 0xb, 2))))
}

// probeSwap: union swap_header, include/linux/swap.h, with pages of 4 KiB.
func probeSwap(p []byte) *Content {
	if !bytes.Equal(field(p, 4096-10, 10), []byte("SWAPSPACE2")) {
		return nil
	}
	return content("swap space", 4096-10, uint64(le32(p, 1024+4))+1, 4096)
}

// probeLVM: struct label_header and struct pv_header, LVM2 lib/label/label.h and
// lib/format_text/layout.h; the label is in one of the first four sectors.
func probeLVM(p []byte) *Content {
	for off := 0; off < 4*sectorSize; off += sectorSize {
		if bytes.Equal(field(p, off, 8), []byte("LABELONE")) && bytes.Equal(field(p, off+24, 8), []byte("LVM2 001")) {
			return content("an LVM physical volume", int64(off), le64(p, off+int(le32(p, off+20)%sectorSize)+32), 1)
		}
	}
	return nil
}

func probeLUKS(p []byte) *Content {
	if !bytes.Equal(field(p, 0, 6), []byte("LUKS\xba\xbe")) {
		return nil
	}
	return &Content{Kind: "a LUKS volume"}
}

// probeGPT: UEFI 2.10 section 5.3.2; the backup lies in the last sector.
func probeGPT(p []byte) *Content {
	for _, off := range []int{512, 4096} {
		if bytes.Equal(field(p, off, 8), []byte("EFI PART")) {
			return content("a GPT partition table", int64(off), le64(p, off+32)+1, uint64(off))
		}
	}
	return nil
}

// probeTailOf looks for what sits at the end: md RAID 1.0 (8 KiB before the end,
// 4 KiB aligned) and 0.90 (the last 64 KiB block) superblocks, and a lone backup GPT.
func probeTailOf(p []byte, size int64) *Content {
	const mdMagic = 0xa92b4efc
	base := size - int64(len(p))
	for _, off := range []int64{(size - 8<<10) &^ 4095, size&^(64<<10-1) - 64<<10} {
		if off >= base && (le32(p, int(off-base)) == mdMagic) {
			return &Content{Kind: "an md RAID superblock", Offset: off}
		}
	}
	for _, back := range []int64{512, 4096} {
		if back <= int64(len(p)) && bytes.Equal(field(p, len(p)-int(back), 8), []byte("EFI PART")) {
			return &Content{Kind: "a GPT partition table's backup", Offset: size - back}
		}
	}
	return nil
}
