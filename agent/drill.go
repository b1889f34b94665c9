package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"example.com/santui/agent/op"
	"example.com/santui/proto"
)

// Sizes of a drill's files, bytes: some that share a block with nothing and some that do not fill one.
var sentinelSizes = []int{2 << 20, 1 << 20, 512 << 10, 4096, 4097, 511, 1, 0}

// sumsFile lists the checksums of a set, in the format of sha256sum.
const sumsFile = "SHA256SUMS"

// probePeriod is how often the probe writes. It bounds how exactly the storage outage is known.
const probePeriod = 20 * time.Millisecond

// drillStep does what a drill does with files. A file system may not answer; the work is then left behind and the step
// ends with its limit.
func (l local) drillStep(ctx context.Context, kind proto.StepKind, req proto.PeerStepRequest, res *proto.StepResult) error {
	if req.Step.Mount == nil {
		return l.cfg.errorf(proto.CodeInvalid, "step %d names no mount", req.Step.Index)
	}
	target := req.Step.Mount.Target
	if at := l.ops.MountPoint(target); at.Mounted == "" {
		if kind == proto.StepClean {
			res.State, res.Now = proto.StepAlready, "nothing is mounted at "+target
			return nil
		}
		return l.cfg.errorf(proto.CodeState, "nothing is mounted at %s", target)
	}
	type outcome struct {
		res proto.StepResult
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = l.drillFiles(kind, target, req, &o.res)
		done <- o
	}()
	select {
	case o := <-done:
		o.res.Started = res.Started
		*res = o.res
		if o.err != nil {
			return fmt.Errorf("%s at %s: %w", kind, target, o.err)
		}
		return nil
	case <-ctx.Done():
		return l.cfg.errorf(proto.CodeTimeout, "%s at %s: the file system does not answer", kind, target)
	}
}

func (l local) drillFiles(kind proto.StepKind, target string, req proto.PeerStepRequest, res *proto.StepResult) error {
	root, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	switch kind {
	case proto.StepSentinel:
		return writeSet(root, target, req.Step.Set, res)
	case proto.StepVerify:
		return verifySets(root, target, req.Sentinels, res)
	case proto.StepClean:
		l.probes.stop(target)
		if _, err := root.Lstat(op.SentinelDir); errors.Is(err, fs.ErrNotExist) {
			res.State, res.Now = proto.StepAlready, "no files of a drill are at "+target
			return nil
		}
		res.Now = "the files of the drill are gone from " + target
		return root.RemoveAll(op.SentinelDir)
	default:
		first, err := l.probes.start(target)
		if err != nil {
			return err
		}
		res.Probe, res.Now = first.report(target), fmt.Sprintf("writing every %s at %s", probePeriod, target)
		return nil
	}
}

// writeSet writes one set of files with their checksums, all synced. What an earlier drill left is removed.
func writeSet(root *os.Root, target, set string, res *proto.StepResult) error {
	if set != path.Base(set) || set == "." || set == ".." {
		return fmt.Errorf("set %q is no name", set)
	}
	dir := path.Join(op.SentinelDir, set)
	if set == op.FirstSet {
		if err := root.RemoveAll(op.SentinelDir); err != nil {
			return err
		}
	}
	if err := root.RemoveAll(dir); err != nil {
		return err
	}
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var sums bytes.Buffer
	out := proto.Sentinel{Target: target, Set: set}
	for i, size := range sentinelSizes {
		b := make([]byte, size)
		_, _ = rand.Read(b) // never fails
		name := fmt.Sprint(i + 1)
		if err := writeSynced(root, path.Join(dir, name), b); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), name)
		out.Files, out.Bytes = out.Files+1, out.Bytes+int64(size)
	}
	if err := writeSynced(root, path.Join(dir, sumsFile), sums.Bytes()); err != nil {
		return err
	}
	sum := sha256.Sum256(sums.Bytes())
	out.Sum = hex.EncodeToString(sum[:])
	res.Sentinel, res.Now = &out, fmt.Sprintf("%d files, %d KiB, are on disk at %s", out.Files, out.Bytes>>10, target)
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(root *os.Root, name string, b []byte) error {
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// verifySets reads all sets back. The lists of checksums are compared with what the operation remembers, so an old copy
// of everything does not pass.
func verifySets(root *os.Root, target string, want []proto.Sentinel, res *proto.StepResult) error {
	if len(want) == 0 {
		return errors.New("no files were written to compare with")
	}
	got := proto.Sentinel{Target: target}
	for _, w := range want {
		dir := path.Join(op.SentinelDir, path.Base(w.Set))
		sums, err := readBounded(root, path.Join(dir, sumsFile), 1<<16)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(sums); hex.EncodeToString(sum[:]) != w.Sum {
			return fmt.Errorf("the list of checksums in %s/%s is not the one that was written", target, dir)
		}
		for line := range strings.Lines(string(sums)) {
			sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
			b, err := readBounded(root, path.Join(dir, path.Base(name)), int64(sentinelSizes[0]))
			if err != nil {
				return err
			}
			if have := sha256.Sum256(b); hex.EncodeToString(have[:]) != sum {
				return fmt.Errorf("%s/%s/%s is not as it was written", target, dir, name)
			}
			got.Files, got.Bytes = got.Files+1, got.Bytes+int64(len(b))
		}
	}
	res.Sentinel, res.Now = &got, fmt.Sprintf("%d files, %d KiB, all as written", got.Files, got.Bytes>>10)
	return nil
}

func readBounded(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// probes are the probe writers of this node, at most one a mount point. The zero value is ready.
type probes struct {
	mu  sync.Mutex // protects run
	run map[string]*probe
}

// probe writes and syncs a counter until it is stopped. Between two writes it holds nothing open, so it keeps no file
// system busy.
type probe struct {
	target string
	quit   chan struct{}
	done   chan struct{}
	last   write // owned by the goroutine until done is closed
}

// write is the newest write of a probe that was synced.
type write struct {
	at    time.Time
	count int64
}

func (w write) report(target string) *proto.ProbeWrite {
	if w.count == 0 {
		return nil
	}
	return &proto.ProbeWrite{Target: target, Count: w.count, Age: time.Since(w.at).Seconds()}
}

// start begins to write below a mount point and returns the first write.
func (p *probes) start(target string) (write, error) {
	p.stop(target)
	b := &probe{target: target, quit: make(chan struct{}), done: make(chan struct{})}
	if err := b.write(); err != nil {
		return write{}, err
	}
	first := b.last
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		p.run = map[string]*probe{}
	}
	p.run[target] = b
	go b.loop()
	return first, nil
}

// loop ends when quit is closed; stop waits for it.
func (b *probe) loop() {
	defer close(b.done)
	tick := time.NewTicker(probePeriod)
	defer tick.Stop()
	for {
		select {
		case <-b.quit:
			return
		case <-tick.C:
			if b.write() != nil {
				return // the outage has begun; the last good write stands
			}
		}
	}
}

func (b *probe) write() error {
	root, err := os.OpenRoot(b.target)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.MkdirAll(op.SentinelDir, 0o700); err != nil {
		return err
	}
	if err := writeSynced(root, path.Join(op.SentinelDir, "probe"), fmt.Appendf(nil, "%d\n", b.last.count+1)); err != nil {
		return err
	}
	b.last = write{time.Now(), b.last.count + 1}
	return nil
}

// stop ends the probe at a mount point and returns its last write. A probe whose write does not come back is left to end
// by itself, with nothing to report.
func (p *probes) stop(target string) write {
	p.mu.Lock()
	b := p.run[target]
	delete(p.run, target)
	p.mu.Unlock()
	if b == nil {
		return write{}
	}
	close(b.quit)
	select {
	case <-b.done:
		return b.last
	case <-time.After(5 * time.Second):
		return write{}
	}
}

func (p *probes) stopAll() {
	p.mu.Lock()
	targets := make([]string, 0, len(p.run))
	for t := range p.run {
		targets = append(targets, t)
	}
	p.mu.Unlock()
	for _, t := range targets {
		p.stop(t)
	}
}
