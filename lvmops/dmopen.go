package lvmops

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/dm-ioctl.h: struct dm_ioctl is 312 bytes here, version[3] at 0, data_size at 12, data_start at 16,
// open_count (a signed 32-bit number) at 24, dev at 40. DM_DEV_STATUS is number 7 of type 0xfd, both ways.
const (
	dmIoctlSize  = 312
	dmOpenAt     = 24
	dmDevAt      = 40
	dmDevStatus  = 3<<30 | dmIoctlSize<<16 | 0xfd<<8 | 7
	dmVersion    = 4
	dmControlDev = "/dev/mapper/control"
)

// openCounts asks device-mapper how often each device is open. It needs no program and no report of lvm's, so it is
// never old. Devices that are gone are left out.
func openCounts(list []devno) (map[devno]int, error) {
	f, err := os.OpenFile(dmControlDev, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	counts := make(map[devno]int, len(list))
	for _, no := range list {
		var buf [dmIoctlSize]byte
		binary.NativeEndian.PutUint32(buf[0:], dmVersion)
		binary.NativeEndian.PutUint32(buf[12:], dmIoctlSize)
		binary.NativeEndian.PutUint32(buf[16:], dmIoctlSize)
		// huge_encode_dev (linux/kdev_t.h) is what mkdev gives for the numbers that device-mapper uses.
		binary.NativeEndian.PutUint64(buf[dmDevAt:], unix.Mkdev(no.major, no.minor))
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), dmDevStatus, uintptr(unsafe.Pointer(&buf[0])))
		switch errno {
		case 0:
			counts[no] = int(int32(binary.NativeEndian.Uint32(buf[dmOpenAt:])))
		case unix.ENXIO:
		default:
			return counts, fmt.Errorf("DM_DEV_STATUS of %v: %w", no, errno)
		}
	}
	return counts, nil
}
