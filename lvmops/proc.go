package lvmops

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A walk over thousands of processes is what a look costs most, so the kernel's small files and directories are read with
// as few calls as can be: os.Open would also offer each one to the poller, and take it back.

// readBounded reads a file of the kernel's up to a limit; what is longer is an error, never a silent cut.
func readBounded(path string, limit int) ([]byte, error) {
	return appendFile(make([]byte, 0, 4096), path, limit, false)
}

// appendFile reads a file to the end of b, which grows if need be. piece says that the kernel makes the file in one piece, as it
// does an attribute of sysfs and what belongs to one process but for its tables: a read that leaves room has then come to the end
// (fs/seq_file.c, single_open).
func appendFile(b []byte, path string, limit int, piece bool) ([]byte, error) {
	fd, err := openRead(path, 0)
	if err != nil {
		return b, err
	}
	defer func() { _ = unix.Close(fd) }()
	start := len(b)
	for {
		if cap(b)-len(b) < 64 {
			b = slices.Grow(b, 512)
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return b, &os.PathError{Op: "read", Path: path, Err: err}
		case n <= 0:
			return b, nil
		}
		b = b[:len(b)+max(n, 0)]
		if len(b)-start > limit {
			return b, fmt.Errorf("%s is longer than %d bytes", path, limit)
		}
		if piece && n > 0 && len(b) < cap(b) {
			return b, nil
		}
	}
}

func openRead(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		if err == nil {
			return fd, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// direntBufs are buffers for getdents64.
var direntBufs = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// eachEntry calls f with the names and inode numbers in a directory of procfs or sysfs, in no order; f must not keep the name. One
// that fits into the buffer needs one call: their readers go on until it is full (fs/proc/base.c, fs/proc/fd.c, fs/kernfs/dir.c).
func eachEntry(dir string, f func(name []byte, inode uint64)) error {
	fd, err := openRead(dir, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	pooled := direntBufs.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
	defer direntBufs.Put(pooled)
	for {
		n, err := unix.Getdents(fd, *pooled)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "read", Path: dir, Err: err}
		}
		for b := (*pooled)[:max(n, 0)]; len(b) > direntName; {
			// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, a name that ends with NUL (getdents(2)).
			l := int(binary.NativeEndian.Uint16(b[16:]))
			if l <= direntName || l > len(b) {
				return fmt.Errorf("%s: an entry of %d bytes", dir, l)
			}
			name := b[direntName:l]
			if i := slices.Index(name, 0); i >= 0 {
				name = name[:i]
			}
			f(name, binary.NativeEndian.Uint64(b))
			b = b[l:]
		}
		if n <= 0 || n < len(*pooled)-direntMost {
			return nil
		}
	}
}

// direntName is where an entry's name begins, direntMost the most that an entry takes.
const (
	direntName = 19
	direntMost = direntName + unix.NAME_MAX + 1 + 8
)

// entries lists a directory in order, without the dots; nothing if it can not be read.
func entries(dir string) []string {
	var names []string
	err := eachEntry(dir, func(name []byte, _ uint64) {
		if s := string(name); s != "." && s != ".." {
			names = append(names, s)
		}
	})
	if err != nil {
		return nil
	}
	slices.Sort(names)
	return names
}

// numbered appends the entries of a directory of procfs that are numbers to a list: threads or descriptors. What has ended has
// none.
func numbered(list []int, dir string) []int {
	_ = eachEntry(dir, func(name []byte, _ uint64) {
		if n, ok := number(name); ok {
			list = append(list, n)
		}
	})
	return list
}

func number(name []byte) (n int, ok bool) {
	for _, c := range name {
		if c < '0' || c > '9' || n > 1<<30 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(name) > 0
}

// process is a process as /proc lists it.
type process struct {
	pid   int
	inode uint64 // of its directory: the next process with that number has another one
}

// processes lists the processes of this machine but for this one, in order.
func (o *Ops) processes() ([]process, error) {
	var list []process
	self := os.Getpid()
	err := eachEntry(o.opt.Proc, func(name []byte, inode uint64) {
		if pid, ok := number(name); ok && pid != 0 && pid != self {
			list = append(list, process{pid, inode})
		}
	})
	slices.SortFunc(list, func(a, b process) int { return a.pid - b.pid })
	if err == nil && len(list) > maxProcs {
		list, err = list[:maxProcs], fmt.Errorf("more than %d processes; the rest was not looked at", maxProcs)
	}
	return list, err
}

func (o *Ops) dirOf(pid int) string { return o.opt.Proc + "/" + strconv.Itoa(pid) }

// program returns the directory of a process in /proc and the program that it runs, "" if it has let go of its memory: a
// process that ends does so before it closes its files. ok is false for kernel threads. Where only the first thread has ended
// (pthread_exit in main), the directory is another thread's: the first one's shows nothing any more.
func (o *Ops) program(pid int) (dir, exe string, ok bool) {
	dir = o.dirOf(pid)
	exe, err := os.Readlink(dir + "/exe")
	if err == nil || !gone(err) {
		return dir, exe, true
	}
	if kernelThread(dir) {
		return "", "", false
	}
	for _, tid := range numbered(nil, dir+"/task") {
		task := dir + "/task/" + strconv.Itoa(tid)
		if exe, err := os.Readlink(task + "/exe"); err == nil {
			return task, exe, true
		}
		if tid != pid && len(numbered(nil, task+"/fd")) > 0 {
			return task, "", true
		}
	}
	return dir, "", true
}

// kernelThread reads the flags in a process' stat, the seventh word behind its name (proc(5)); PF_KTHREAD is in the kernel's
// include/linux/sched.h. What has ended is none.
func kernelThread(dir string) bool {
	const flagsAt, pfKthread = 6, 0x00200000
	stat := readLine(dir + "/stat")
	words := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(words) <= flagsAt {
		return false
	}
	flags, err := strconv.ParseUint(words[flagsAt], 10, 32)
	return err == nil && flags&pfKthread != 0
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// Running lists which of some programs, given by the names of their files, run on this node.
func (o *Ops) Running(programs []string) ([]string, error) {
	var found []string
	list, err := o.processes()
	if err != nil {
		err = o.failed(err, "looking which programs run")
	}
	for _, p := range list {
		exe, err := os.Readlink(o.dirOf(p.pid) + "/exe")
		if err != nil {
			continue
		}
		exe = strings.TrimSuffix(exe, " (deleted)") // an update replaced it while it runs (proc(5))
		if name := filepath.Base(exe); slices.Contains(programs, name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	return found, err
}
