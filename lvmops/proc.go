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
	return appendFile(make([]byte, 0, 1024), path, limit)
}

// appendFile reads a file to the end of b, which grows if need be.
func appendFile(b []byte, path string, limit int) ([]byte, error) {
	fd, err := openRead(path, 0)
	if err != nil {
		return b, err
	}
	defer func() { _ = unix.Close(fd) }()
	start := len(b)
	for {
		b = slices.Grow(b, 512)
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

// direntBufs are buffers for getdents64, mapsBufs for what is read of maps.
var (
	direntBufs = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
	mapsBufs   = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}
)

// eachEntry calls f with the names in a directory, in no order; f must not keep the name.
func eachEntry(dir string, f func(name []byte)) error {
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
		if n <= 0 {
			return nil
		}
		for b := (*pooled)[:n]; len(b) > direntName; {
			// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, a name that ends with NUL (getdents(2)).
			l := int(binary.NativeEndian.Uint16(b[16:]))
			if l <= direntName || l > len(b) {
				return fmt.Errorf("%s: an entry of %d bytes", dir, l)
			}
			name := b[direntName:l]
			if i := slices.Index(name, 0); i >= 0 {
				name = name[:i]
			}
			f(name)
			b = b[l:]
		}
	}
}

const direntName = 19

// entries lists a directory in order, without the dots; nothing if it can not be read.
func entries(dir string) []string {
	var names []string
	err := eachEntry(dir, func(name []byte) {
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

// numbered appends the entries that are numbers to a list: processes, threads or descriptors. What has ended has none.
func numbered(list []int, dir string) []int {
	_ = eachEntry(dir, func(name []byte) {
		n := 0
		for _, c := range name {
			if c < '0' || c > '9' || n > 1<<30 {
				return
			}
			n = n*10 + int(c-'0')
		}
		list = append(list, n)
	})
	return list
}

// processes lists the processes of this machine but for this one, in order.
func (o *Ops) processes() []int {
	pids := numbered(nil, o.opt.Proc)
	self := os.Getpid()
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == 0 || pid == self })
	slices.Sort(pids)
	return pids[:min(len(pids), maxProcs)]
}

// program returns the directory of a process in /proc and the program that it runs, "" if it has let go of its memory: a
// process that ends does so before it closes its files. ok is false for kernel threads. Where only the first thread has ended
// (pthread_exit in main), the directory is another thread's: the first one's shows nothing any more.
func (o *Ops) program(pid int) (dir, exe string, ok bool) {
	dir = o.opt.Proc + "/" + strconv.Itoa(pid)
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
func (o *Ops) Running(programs []string) []string {
	var found []string
	for _, pid := range o.processes() {
		exe, err := os.Readlink(o.opt.Proc + "/" + strconv.Itoa(pid) + "/exe")
		if err != nil {
			continue
		}
		exe = strings.TrimSuffix(exe, " (deleted)") // an update replaced it while it runs (proc(5))
		if name := filepath.Base(exe); slices.Contains(programs, name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	return found
}
