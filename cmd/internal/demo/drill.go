package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// Report is what a scripted drill prints.
type Report struct {
	Schema   string     `json:"schema"`
	OK       bool       `json:"ok"`
	Size     int64      `json:"size"`
	Started  time.Time  `json:"started"`
	Seconds  float64    `json:"seconds"`
	Phases   []Phase    `json:"phases"`
	Ops      []proto.Op `json:"operations"`
	Verified int64      `json:"verified_bytes"` // read back and compared, all phases together
	Compared int64      `json:"compared_bytes"` // of the two disk files, outside metadata
	Err      string     `json:"error,omitempty"`
}

// Phase is one part of a drill.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail"`
}

// drill is a running script.
type drill struct {
	p     *Pair
	rep   *Report
	files map[string]uint64 // name -> crc64 of what was written
	seed  uint64
}

var table = crc64.MakeTable(crc64.ECMA)

// Drill runs the whole script on a fresh pair: full sync, fill, failover, verify, write more, failback, verify, and at
// last a comparison of the two disk files. The report says how far it came, also when the error is not nil.
func (p *Pair) Drill(ctx context.Context, size int64) (Report, error) {
	rep := Report{Schema: proto.Schema, Size: size, Started: time.Now()}
	d := &drill{p: p, rep: &rep, files: map[string]uint64{}, seed: 1}
	err := d.run(ctx)
	rep.Seconds = time.Since(rep.Started).Seconds()
	rep.OK = err == nil
	if err != nil {
		rep.Err = err.Error()
	}
	return rep, err
}

func (d *drill) run(ctx context.Context) error {
	a, b := Nodes[0], Nodes[1]
	share := d.rep.Size / 8
	for _, ph := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"first full sync from " + a, func(ctx context.Context) (string, error) { return d.p.fullSync(ctx, d.rep.Size) }},
		{"file system on " + a, d.p.makeFS},
		{"fill on " + a, func(ctx context.Context) (string, error) { return d.fill(ctx, a, share) }},
		{"failover to " + b, func(ctx context.Context) (string, error) { return d.failover(ctx, b) }},
		{"verify on " + b, func(ctx context.Context) (string, error) { return d.verify(ctx, b) }},
		{"write more on " + b, func(ctx context.Context) (string, error) { return d.fill(ctx, b, share) }},
		{"failback to " + a, func(ctx context.Context) (string, error) { return d.failover(ctx, a) }},
		{"verify on " + a, func(ctx context.Context) (string, error) { return d.verify(ctx, a) }},
		{"stop both nodes", func(ctx context.Context) (string, error) { return "", d.p.Stop(ctx) }},
		{"compare the two disks", func(context.Context) (string, error) { return d.compare() }},
	} {
		d.p.say("%s ...", ph.name)
		begin := time.Now()
		detail, err := ph.do(ctx)
		d.rep.Phases = append(d.rep.Phases, Phase{ph.name, time.Since(begin).Seconds(), detail})
		if err != nil {
			return fmt.Errorf("%s: %w", ph.name, err)
		}
		d.p.say("  %.1f s  %s", time.Since(begin).Seconds(), detail)
	}
	return nil
}

// StartSync declares the first node's copy the good one.
func (p *Pair) StartSync(ctx context.Context) error {
	c, err := p.Session(ctx, Nodes[0])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return c.Call(ctx, proto.MethodSync, proto.SyncRequest{Resource: "r0", Action: proto.SyncStart, Confirm: Name, By: "demo"}, nil)
}

func (p *Pair) fullSync(ctx context.Context, size int64) (string, error) {
	begin := time.Now()
	if err := p.StartSync(ctx); err != nil {
		return "", err
	}
	limit := time.Minute + time.Duration(size>>20)*time.Second/4
	err := p.Wait(ctx, limit, "both copies are UpToDate", func(a, b proto.Snapshot) bool {
		return a.Resources[0].PeerDisk == proto.UpToDate && b.Resources[0].DiskState == proto.UpToDate &&
			a.Resources[0].Conn == proto.Connected && b.Resources[0].Conn == proto.Connected && a.Resources[0].OutOfSync == 0
	})
	return fmt.Sprintf("%.1f MiB/s", float64(size)/(1<<20)/time.Since(begin).Seconds()), err
}

// makeFS makes and mounts an ext4 file system on the Primary's replicated device. The other node's mount must fail: it
// is not Primary.
func (p *Pair) makeFS(ctx context.Context) (string, error) {
	if err := p.MakeFS(ctx); err != nil {
		return "", err
	}
	if err := p.run(ctx, Nodes[1], "mount", p.nodes[1].device, p.Mount); err == nil {
		return "", errors.New("the Secondary's device could be mounted")
	}
	return "ext4 on " + p.Mount + "; a mount on the Secondary was refused", nil
}

// MakeFS makes and mounts an ext4 file system on the Primary's replicated device.
func (p *Pair) MakeFS(ctx context.Context) error {
	// Without nodiscard mkfs would zero the whole device on both nodes, and the first full sync with it.
	if err := p.run(ctx, Nodes[0], "mkfs.ext4", "-q", "-F", "-E", "nodiscard", p.nodes[0].device); err != nil {
		return err
	}
	return p.run(ctx, Nodes[0], "mount", p.nodes[0].device, p.Mount)
}

// fileSize is the size of the files that fill the file system, 1 MiB.
const fileSize = 1 << 20

// fill writes files of random bytes on a node, syncs them, and remembers their checksums.
func (d *drill) fill(ctx context.Context, name string, bytes int64) (string, error) {
	n := int(max(bytes/fileSize, 4))
	begin := time.Now()
	for range n {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		file := fmt.Sprintf("%s-%04d", name, len(d.files))
		sum, err := d.p.WriteFile(name, file, d.seed)
		d.seed++
		if err != nil {
			return "", err
		}
		d.files[file] = sum
	}
	return fmt.Sprintf("%d files, %.1f MiB/s", n, float64(n)*fileSize/(1<<20)/time.Since(begin).Seconds()), nil
}

// WriteFile writes one file of random bytes on a node's mount, durably, and returns its checksum.
func (p *Pair) WriteFile(name, file string, seed uint64) (uint64, error) {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	buf := make([]byte, fileSize)
	_, _ = mrand.NewChaCha8(key).Read(buf) // never fails
	f, err := os.Create(filepath.Join(p.root(name), p.Mount, file))
	if err != nil {
		return 0, err
	}
	_, err = f.Write(buf)
	return crc64.Checksum(buf, table), errors.Join(err, f.Sync(), f.Close())
}

// verify reads every file back on a node. The page cache of the mount is fresh: the node has just mounted it.
func (d *drill) verify(ctx context.Context, name string) (string, error) {
	var read int64
	for file, want := range d.files {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		b, err := os.ReadFile(filepath.Join(d.p.root(name), d.p.Mount, file))
		if err != nil {
			return "", err
		}
		if got := crc64.Checksum(b, table); got != want || len(b) != fileSize {
			return "", fmt.Errorf("%s on %s has checksum %016x, not %016x", file, name, got, want)
		}
		read += int64(len(b))
	}
	d.rep.Verified += read
	return fmt.Sprintf("%d files, %d MiB, all as written", len(d.files), read>>20), nil
}

// failover moves the service through the agent of the node that becomes Primary, as the command line does.
func (d *drill) failover(ctx context.Context, to string) (string, error) {
	c, err := d.p.Session(ctx, to)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	var o proto.Op
	if err := c.Call(ctx, proto.MethodOpStart, proto.OpStartRequest{
		RequestID: hex.EncodeToString(id[:]), Verb: proto.VerbFailover, Resource: "r0", To: to, Confirm: Name,
		OnFailure: proto.ChoiceUndo, Owner: "demo",
	}, &o); err != nil {
		return "", err
	}
	err = c.Stream(ctx, proto.MethodOpWatch, proto.OpRequest{ID: o.ID}, func(raw json.RawMessage) error {
		o = proto.Op{}
		return json.Unmarshal(raw, &o)
	})
	if err != nil {
		return "", err
	}
	d.rep.Ops = append(d.rep.Ops, o)
	for _, s := range o.Steps {
		d.p.say("    %-8s %d %-7s %-10s %5.2f s", s.Result.State, s.Step.Index, s.Step.Node, s.Step.Kind, s.Result.Seconds)
	}
	if o.State != proto.OpDone {
		return "", fmt.Errorf("%s: %s", o.State, o.Outcome)
	}
	return fmt.Sprintf("service away %.2f s", o.Outage), nil
}

// compare reads both disk files and demands that they are identical outside metadata.
func (d *drill) compare() (string, error) {
	layout, err := meta.LayoutFor(d.rep.Size)
	if err != nil {
		return "", err
	}
	var f [2]*os.File
	for i, n := range d.p.nodes {
		if f[i], err = os.Open(n.disk); err != nil {
			return "", err
		}
		defer func() { _ = f[i].Close() }()
	}
	bufs := [2][]byte{make([]byte, fileSize), make([]byte, fileSize)}
	for off := int64(0); off < layout.UsableSize; off += fileSize {
		n := min(fileSize, layout.UsableSize-off)
		for i := range f {
			if _, err := io.ReadFull(io.NewSectionReader(f[i], off, n), bufs[i][:n]); err != nil {
				return "", err
			}
		}
		if !bytes.Equal(bufs[0][:n], bufs[1][:n]) {
			return "", fmt.Errorf("the disks differ in the MiB at %d", off)
		}
		d.rep.Compared += n
	}
	return fmt.Sprintf("%d bytes identical, all but the metadata", d.rep.Compared), nil
}

// Fill slowly writes files wherever the file system is mounted, up to bytes, until ctx ends. What goes wrong is in log:
// while a failover moves the mount away, there is nothing to write to.
func (p *Pair) Fill(ctx context.Context, bytes int64, log string) {
	f, err := os.Create(log)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for i := uint64(0); int64(i)*fileSize < bytes; {
		for _, n := range p.nodes {
			if !mounted(p.root(n.name), p.Mount) {
				continue
			}
			if _, err := p.WriteFile(n.name, fmt.Sprintf("file-%04d", i), i); err != nil {
				_, _ = fmt.Fprintf(f, "%s on %s: %v\n", time.Now().Format(time.TimeOnly), n.name, err)
			} else {
				i++
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}
