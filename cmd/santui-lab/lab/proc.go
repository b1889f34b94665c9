package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// proc names a process so that its number, given to another process later, is not mistaken for it.
type proc struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, field 22 of /proc/PID/stat
}

// procStat is the part of /proc/PID/stat that the lab reads (see proc(5)).
type procStat struct {
	state   byte
	session int
	start   uint64
}

// parseStat reads a line of /proc/PID/stat. The command's name is skipped by its last bracket: it may hold anything.
func parseStat(line []byte) (procStat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return procStat{}, errors.New("lab: no command name in a process's stat line")
	}
	fields := bytes.Fields(line[end+1:]) // fields[0] is field 3, the state
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("lab: %d fields in a process's stat line", len(fields))
	}
	session, err := strconv.Atoi(string(fields[3]))
	if err != nil {
		return procStat{}, fmt.Errorf("lab: session in a process's stat line: %w", err)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("lab: start time in a process's stat line: %w", err)
	}
	return procStat{state: fields[0][0], session: session, start: start}, nil
}

func readStat(pid int) (procStat, error) {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(line)
}

// findProc names a process that runs now.
func findProc(pid int) (proc, error) {
	st, err := readStat(pid)
	if err != nil {
		return proc{}, fmt.Errorf("lab: process %d: %w", pid, err)
	}
	return proc{PID: pid, Start: st.start}, nil
}

// alive reports that this very process runs (a zombie does not).
func (p proc) alive() bool {
	if p.PID == 0 {
		return false
	}
	st, err := readStat(p.PID)
	return err == nil && st.start == p.Start && st.state != 'Z'
}

// tick sends a timer signal to a kernel that runs and has booted; see Node.keepTime.
func (p proc) tick() {
	if p.alive() {
		_ = unix.Kill(p.PID, unix.SIGALRM) // it may have died this moment
	}
}

// members lists the processes of the session that p leads. A UML kernel keeps one host process per address space of
// its guest; all stay in the session of the first.
func (p proc) members() []int {
	if p.PID == 0 {
		return nil
	}
	if st, err := readStat(p.PID); err == nil && st.start != p.Start {
		return nil // the number belongs to somebody else now
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.session == p.PID && st.start >= p.Start && st.state != 'Z' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killSession ends the whole session at once, with SIGKILL, and returns when nothing of it runs.
func (p proc) killSession(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		pids := p.members()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("lab: kill process %d: %w", pid, err)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: processes %v still run %s after SIGKILL", pids, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
