package op

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/proto"
)

// Journal keeps the operations of an agent, one JSON file each, so that an operation survives the death of its agent.
// A file is replaced atomically and is on disk when Put returns. Safe for concurrent use.
type Journal struct {
	dir string

	mu  sync.Mutex // protects ops
	ops map[string]proto.Op

	knowing sync.Mutex           // protects what follows, see known.go
	known   map[string]Known     // by resource
	shrunk  map[string]time.Time // since when less was there than is known
}

var validID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// OpenJournal reads the journal in dir and creates it if needed. Operations that node ran and that did not come to an end
// are marked orphaned: their agent died. A file that cannot be read is left alone and reported in the error, with the
// journal still usable.
func OpenJournal(dir, node string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make journal %s: %w", dir, err)
	}
	j := &Journal{dir: dir, ops: map[string]proto.Op{}, known: map[string]Known{}, shrunk: map[string]time.Time{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list journal %s: %w", dir, err)
	}
	var bad []error
	for _, name := range names {
		o, err := readOp(name)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		if o.Runner == node && !o.State.Final() {
			o.State, o.Outcome, o.Choices = proto.OpOrphaned, "the agent on "+node+" ended while the operation ran: "+progress(o), nil
			o.Rev += 2 // the peer may have stored one revision that did not get here any more
			if err := j.write(o); err != nil {
				bad = append(bad, err)
			}
		}
		j.ops[o.ID] = o
	}
	return j, errors.Join(bad...)
}

func readOp(name string) (proto.Op, error) {
	var o proto.Op
	b, err := os.ReadFile(name)
	if err != nil {
		return o, fmt.Errorf("read journal: %w", err)
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return o, fmt.Errorf("journal file %s is damaged (move it away once you have read it): %w", name, err)
	}
	if !validID.MatchString(o.ID) || o.ID+".json" != filepath.Base(name) {
		return o, fmt.Errorf("journal file %s holds operation %q", name, o.ID)
	}
	return o, nil
}

// Put stores o. An older revision of the same operation is ignored, so late copies from the peer do no harm.
func (j *Journal) Put(o proto.Op) error {
	if !validID.MatchString(o.ID) {
		return proto.Errorf(proto.CodeInvalid, "operation id %q is not acceptable", o.ID)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if old, ok := j.ops[o.ID]; ok && old.Rev > o.Rev {
		return nil
	}
	if err := j.write(o); err != nil {
		return err
	}
	j.ops[o.ID] = o
	return j.trim()
}

func (j *Journal) write(o proto.Op) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode operation %s: %w", o.ID, err)
	}
	name := filepath.Join(j.dir, o.ID+".json")
	if err := replace(name, b); err != nil {
		return proto.Errorf(proto.CodeFailed, "write journal %s: %v", name, err).WithRemedy("make room there, or mount it read-write again")
	}
	return nil
}

// What an operation needs: its file is replaced, so old and new are there at the same time.
const (
	journalRoom  = 1 << 20 // bytes
	journalFiles = 8       // inodes
)

// Problem says why an operation could not be journalled now, "" if it could. It writes nothing.
func (j *Journal) Problem() string {
	if err := unix.Access(j.dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Sprintf("%s cannot be written: %v", j.dir, err)
	}
	var st unix.Statfs_t
	switch err := unix.Statfs(j.dir, &st); {
	case err != nil:
		return fmt.Sprintf("%s cannot be looked at: %v", j.dir, err)
	case int64(st.Bavail)*st.Frsize < journalRoom:
		return fmt.Sprintf("%s has %d KiB free, %d are needed", j.dir, int64(st.Bavail)*st.Frsize>>10, journalRoom>>10)
	case st.Files > 0 && st.Ffree < journalFiles:
		return fmt.Sprintf("the file system of %s has %d inodes free, %d are needed", j.dir, st.Ffree, journalFiles)
	}
	return ""
}

// replace gives a file new contents, all or nothing, on disk when it returns.
func replace(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	if err != nil {
		return errors.Join(err, removeIfThere(f.Name()))
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// trim forgets the oldest finished operations beyond proto.MaxOps. Callers hold mu.
func (j *Journal) trim() error {
	if len(j.ops) <= proto.MaxOps {
		return nil
	}
	for _, o := range slices.Backward(j.sorted()) {
		if o.State == proto.OpDone || o.State == proto.OpUndone || o.State == proto.OpAborted {
			delete(j.ops, o.ID)
			return removeIfThere(filepath.Join(j.dir, o.ID+".json"))
		}
	}
	return nil
}

// Get returns one operation.
func (j *Journal) Get(id string) (proto.Op, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	o, ok := j.ops[id]
	return o, ok
}

// requested returns the operation that a request has begun, also before the agent's last start.
func (j *Journal) requested(id string) (proto.Op, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range j.ops {
		if id != "" && o.RequestID == id {
			return o, true
		}
	}
	return proto.Op{}, false
}

// All returns the operations, newest first.
func (j *Journal) All() []proto.Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sorted()
}

func (j *Journal) sorted() []proto.Op {
	out := make([]proto.Op, 0, len(j.ops))
	for _, o := range j.ops {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b proto.Op) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return out
}

// Unfinished returns the newest operation on the resource if it was left half way, nil otherwise: an operation that
// came to an end after it makes older ones irrelevant. One that was undone left everything as it had found it, and a
// rejoin or resolve moves no service, so these hide nothing.
func (j *Journal) Unfinished(resource string) *proto.Op {
	for _, o := range j.All() {
		still := o.State == proto.OpDone && (o.Plan.Verb == proto.VerbRejoin || o.Plan.Verb == proto.VerbResolve)
		if o.Plan.Resource != resource || o.State == proto.OpAborted || o.State == proto.OpUndone || still {
			continue
		}
		if o.State == proto.OpKept || o.State == proto.OpOrphaned {
			return &o
		}
		return nil
	}
	return nil
}

// abandoned returns the newest operation on the resource if runner, whose agent is gone, had not brought it to an end.
func (j *Journal) abandoned(resource, runner string) *proto.Op {
	for _, o := range j.All() {
		if o.Plan.Resource != resource || o.State == proto.OpAborted {
			continue
		}
		if o.Runner != runner || o.State.Final() {
			return nil
		}
		o.State, o.Outcome = proto.OpOrphaned, "the agent of "+runner+" does not answer: "+progress(o)
		return &o
	}
	return nil
}

// lastMove returns the newest operation that brought the service up on a node and came to its end, nil if there is none.
func (j *Journal) lastMove(resource string) *proto.Op {
	for _, o := range j.All() {
		moves := o.Plan.Verb == proto.VerbFailover || o.Plan.Verb == proto.VerbTakeover
		if moves && o.Plan.Resource == resource && o.State == proto.OpDone {
			return &o
		}
	}
	return nil
}

// LastOutage is how long the service was away in the newest completed operation on the resource, 0 if there is none.
func (j *Journal) LastOutage(resource string) float64 {
	for _, o := range j.All() {
		if o.Plan.Resource == resource && o.State == proto.OpDone && o.Outage > 0 {
			return o.Outage
		}
	}
	return 0
}
