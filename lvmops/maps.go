package lvmops

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxMaps bounds what is read of one process' maps, in bytes.
const maxMaps = 8 << 20

// mapping is a file of the family that a process has mapped.
type mapping struct {
	no   devno
	path string
}

// mapsReader reads the maps of processes, one after the other. Reading maps waits for the process' memory lock, which one that
// hangs in a page fault may hold. So a goroutine of its own does it, and one that does not come back is left to that process
// while another goes on with the next.
type mapsReader struct {
	o      *Ops
	mapped map[devno]devno
	dirs   []string
	done   chan struct{} // closed when nothing is left to read

	mu    sync.Mutex // protects what follows
	next  int
	cur   int   // what is read now, -1 if nothing
	later []int // what another look has been reading since before this one
	steps int
	left  chan struct{} // closed when nobody waits for the goroutine any more that got it
	found []mapped
}

// mapped is what was found of one process.
type mapped struct {
	list []mapping
	err  error
}

// readMaps begins to read the maps of all tasks.
func (s *scan) readMaps(tasks []task) *mapsReader {
	r := &mapsReader{o: s.f.o, mapped: s.mapped, done: make(chan struct{}), cur: -1, left: make(chan struct{}), found: make([]mapped, len(tasks))}
	if len(s.ids) == 0 || len(tasks) == 0 {
		close(r.done)
		return r
	}
	r.dirs = make([]string, len(tasks))
	for i := range tasks {
		r.dirs[i] = tasks[i].dir
	}
	go r.run(r.left)
	return r
}

func (r *mapsReader) path(i int) string { return r.dirs[i] + "/maps" }

func (r *mapsReader) run(left chan struct{}) {
	buf := make([]byte, 0, 32<<10)
	for {
		i, earlier, more := r.take(left)
		switch {
		case !more:
			return
		case earlier != nil:
			select {
			case <-earlier:
			case <-left:
			}
			continue
		}
		var err error
		buf, err = appendFile(buf[:0], r.path(i), maxMaps, false)
		found := mapped{mappings(buf, r.mapped), err}
		r.o.release(r.path(i))
		r.mu.Lock()
		if r.left == left {
			r.cur, r.found[i] = -1, found
		}
		r.mu.Unlock()
	}
}

// take claims the next process to read. What somebody else reads comes last: earlier is then closed once that is over.
func (r *mapsReader) take(left chan struct{}) (i int, earlier <-chan struct{}, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left != left {
		return 0, nil, false
	}
	r.steps++
	for ; r.next < len(r.dirs); r.next++ {
		if r.o.claim(r.path(r.next)) != nil {
			r.later = append(r.later, r.next)
			continue
		}
		r.cur = r.next
		r.next++
		return r.cur, nil, true
	}
	if len(r.later) == 0 {
		close(r.done)
		return 0, nil, false
	}
	if earlier := r.o.claim(r.path(r.later[0])); earlier != nil {
		return 0, earlier, true
	}
	r.cur, r.later = r.later[0], r.later[1:]
	return r.cur, nil, true
}

// leave ends the reading. What is in the middle of a process ends when that lets go.
func (r *mapsReader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.abandon()
}

func (r *mapsReader) abandon() {
	close(r.left)
	r.left = make(chan struct{})
}

// pass gives the process up that does not answer. Those that are read by others have been waited for together.
func (r *mapsReader) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur >= 0 {
		r.found[r.cur].err, r.cur = errHangs, -1
	} else {
		for _, i := range r.later {
			r.found[i].err = errHangs
		}
		r.later = nil
	}
	r.abandon()
	go r.run(r.left)
}

func (r *mapsReader) progress() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.steps
}

// mapsOf waits until the maps have been read and notes what was found.
func (s *scan) mapsOf(ctx context.Context, r *mapsReader, tasks []task) error {
	const looks = 4 // in lookLimit
	tick := time.NewTicker(lookLimit / looks)
	defer tick.Stop()
	for stalled, last, over := 0, 0, false; !over; {
		select {
		case <-r.done:
			over = true
		case <-ctx.Done():
			r.leave()
			return ctx.Err()
		case <-tick.C:
			steps := r.progress()
			if stalled++; steps != last {
				stalled, last = 0, steps
			}
			if stalled == looks {
				r.pass()
				stalled = 0
			}
		}
	}
	for i := range r.dirs {
		if err := r.found[i].err; err != nil && !gone(err) {
			s.notes = append(s.notes, fmt.Sprintf("the memory of process %s could not be looked at: %v", filepath.Base(r.dirs[i]), err))
			tasks[i].vague = true
		}
		for _, m := range r.found[i].list {
			if s.only == nil || within(m.path, s.only.target) {
				s.hold(&tasks[i], m.no, "mmap", m.path)
			}
		}
	}
	return nil
}

// mappings finds the files of some devices in a process' maps. Most lines are of no device, or of the one before.
func mappings(maps []byte, devices map[devno]devno) (list []mapping) {
	var other []byte // a device that is none of them
	for line := range bytes.Lines(maps) {
		// address perms offset dev inode pathname; dev is hexadecimal (proc(5))
		rest := line
		for range 3 {
			_, rest, _ = bytes.Cut(rest, []byte(" "))
		}
		dev, _, _ := bytes.Cut(rest, []byte(" "))
		if bytes.Equal(dev, other) || string(dev) == "00:00" {
			continue
		}
		a, c, ok := strings.Cut(string(dev), ":")
		ma, err1 := strconv.ParseUint(a, 16, 32)
		mi, err2 := strconv.ParseUint(c, 16, 32)
		no, mine := devices[devno{uint32(ma), uint32(mi)}]
		if !ok || err1 != nil || err2 != nil || !mine {
			other = dev
			continue
		}
		_, rest, _ = bytes.Cut(rest, []byte(" "))
		_, path, _ := bytes.Cut(rest, []byte(" "))
		list = append(list, mapping{no, unescape(strings.Trim(string(path), " \n"))})
	}
	return list
}
