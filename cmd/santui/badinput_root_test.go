//go:build root

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/santui/proto"
)

// site is one node's files: disk, drbd.conf and settings.
type site struct {
	dir, disk, conf, settings, socket string
}

// conf is a drbd.conf for otter and weasel. DISK stands for the node's disk.
func conf(secret string, ports [2]int) string {
	return fmt.Sprintf(`resource r0 {
  protocol C;
  net { cram-hmac-alg sha1; shared-secret %q; connect-int 1; }
  on otter  { device /dev/drbd_bad_otter minor 0;  disk DISK; address 127.0.0.1:%d; meta-disk internal; }
  on weasel { device /dev/drbd_bad_weasel minor 0; disk DISK; address 127.0.0.1:%d; meta-disk internal; }
}
`, secret, ports[0], ports[1])
}

func newSite(t *testing.T, node, text string, size int64) *site {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "st-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{dir, filepath.Join(dir, "disk.img"), filepath.Join(dir, "drbd.conf"), filepath.Join(dir, "agent.toml"), filepath.Join(dir, "run", "agent.sock")}
	b := make([]byte, size)
	_, _ = rand.Read(b)
	for name, data := range map[string]string{
		s.disk: string(b), s.conf: strings.ReplaceAll(text, "DISK", s.disk),
		s.settings: fmt.Sprintf("node=%q\ndrbd_conf=%q\nstate_dir=%q\nrun_dir=%q\nfront_end='fuse'\n", node, s.conf, dir+"/state", dir+"/run"),
	} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// sum is what the disk holds; zero if it is no file.
func (s *site) sum(t *testing.T) (sum [32]byte) {
	t.Helper()
	st, err := os.Stat(s.disk)
	if err != nil || !st.Mode().IsRegular() {
		return sum
	}
	b, err := os.ReadFile(s.disk)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// agent runs a command of santui-agent and demands the exit code and the words.
func (s *site) agent(t *testing.T, code int, args string, words ...string) {
	t.Helper()
	r := execute(t, "santui-agent", append([]string{"--config", s.settings}, strings.Fields(args)...)...)
	if r.code != code {
		t.Errorf("santui-agent %s: want exit %d, got %v", args, code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("santui-agent %s: no %q in %v", args, w, r)
		}
	}
}

// start runs the agent until the test ends, or stop is called; it must end in order then.
func (s *site) start(t *testing.T) (stop func()) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "santui-agent"), "--config", s.settings, "run") //nolint:noctx // the cleanup ends it in order
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil || strings.Contains(log.String(), "goroutine ") {
			t.Errorf("the agent ended with %v:\n%s", err, &log)
		} else if t.Failed() {
			t.Logf("agent:\n%s", &log)
		}
	})
	t.Cleanup(stop)
	return stop
}

// resource is what the running agent says of r0 and in its events.
func (s *site) resource(t *testing.T) (r proto.Resource, said string) {
	t.Helper()
	config := writeConfig(t, fmt.Sprintf("[[pair]]\nname='p'\n[[pair.node]]\nname='here'\nsocket=%q\n[[pair.node]]\nname='there'\nsocket='/nonexistent'\n", s.socket))
	res := execute(t, "santui", "--config", config, "status", "--json")
	var st pairStatus
	if err := json.Unmarshal([]byte(res.out), &st); err != nil {
		t.Fatalf("%v: %v", err, res)
	}
	if len(st.Nodes) == 0 || st.Nodes[0].Snapshot == nil || len(st.Nodes[0].Snapshot.Resources) != 1 {
		return r, res.out
	}
	r = st.Nodes[0].Snapshot.Resources[0]
	said = fmt.Sprintf("%v %v %v\n%s", r.Conn, r.DiskState, r.Size, r.Problem)
	for _, e := range st.Nodes[0].Snapshot.Events {
		said += "\n" + e.Text
	}
	return r, said
}

// says waits until the running agent says all the words.
func (s *site) says(t *testing.T, words ...string) {
	t.Helper()
	poll(t, 10*time.Second, fmt.Sprintf("the agent says %q", words), func() (bool, string) {
		_, said := s.resource(t)
		for _, w := range words {
			if !strings.Contains(said, w) {
				return false, said
			}
		}
		return true, ""
	})
}

func freePair(t *testing.T) (ports [2]int) {
	t.Helper()
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			t.Fatal(l.Addr())
		}
		ports[i] = addr.Port
	}
	return ports
}

func TestBadConfig(t *testing.T) {
	good := conf("x", [2]int{7788, 7789})
	for _, tt := range []struct {
		name, node, text string
		words            []string
	}{
		{"syntax", "otter", strings.Replace(good, "protocol C;", "protocol C", 1), []string{"drbd.conf:2:13", `";" is missing`}},
		{"unknown option", "otter", strings.Replace(good, "protocol C;", "protocol C; frobnicate 3;", 1), []string{"drbd.conf:2:", "frobnicate"}},
		{"open brace", "otter", strings.TrimSuffix(good, "}\n"), []string{"drbd.conf:6:", "not closed"}},
		{"unknown host", "badger", good, []string{"badger", "otter", "weasel", "uname -n"}},
		{"empty", "otter", "", []string{"drbd.conf:1:", "no resource"}},
		{"bad address", "otter", strings.Replace(good, "127.0.0.1:7788", "otter:7788", 1), []string{"drbd.conf:4:", "not an IP address"}},
		{"binary", "otter", "\x00\x01\xff resource", []string{"drbd.conf:1:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, tt.node, tt.text, 1<<20)
			before := s.sum(t)
			for _, command := range []string{"check-config", "run", "create-md r0", "dump-md r0"} {
				s.agent(t, 2, command, tt.words...)
			}
			if s.sum(t) != before {
				t.Error("the disk was written to")
			}
		})
	}
	s := newSite(t, "otter", good, 4<<20)
	s.agent(t, 0, "check-config", "resource r0", s.disk, "peer weasel", "no [peer]")
	s.agent(t, 2, "create-md r9", "r9")
	s.agent(t, 2, "create-md", "1 arg")
	s.agent(t, 2, "frob", "frob")
	s.agent(t, 5, "connect", "is santui-agent running on this node?")
	s.agent(t, 2, "check-config --drbd-conf /nonexistent.conf", "/nonexistent.conf")
	s.agent(t, 2, "run --config /nonexistent.toml", "/nonexistent.toml")
}

// badDisks are the ways in which a disk cannot be used. create is what a refused create-md says, dump what dump-md and
// run say; nil means that it works.
var badDisks = []struct {
	name         string
	spoil        func(t *testing.T, s *site)
	create, dump []string
}{
	{"missing", func(t *testing.T, s *site) { remove(t, s.disk) }, []string{"does not exist", "lsblk"}, []string{"does not exist", "lsblk"}},
	{"in use", func(t *testing.T, s *site) { hold(t, s.disk) }, []string{"in use", "fuser"}, []string{"in use", "fuser"}},
	{"a directory", func(t *testing.T, s *site) {
		remove(t, s.disk)
		if err := os.Mkdir(s.disk, 0o700); err != nil {
			t.Fatal(err)
		}
	}, []string{"neither a block device"}, []string{"neither a block device"}},
	{"no metadata", func(*testing.T, *site) {}, nil, []string{"no DRBD metadata", "create-md"}},
	{"too small", func(t *testing.T, s *site) {
		if err := os.Truncate(s.disk, 16<<10); err != nil {
			t.Fatal(err)
		}
	}, []string{"small"}, []string{"disk.img"}},
	{"metadata there", func(t *testing.T, s *site) { s.agent(t, 0, "create-md r0", "metadata written") }, []string{"already has DRBD metadata", "--force"}, nil},
	{"file system there", func(t *testing.T, s *site) {
		if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", s.disk).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}, []string{"ext2/3/4", "shrink", "--force"}, []string{"no DRBD metadata", "create-md"}},
	{"superblock damaged", func(t *testing.T, s *site) {
		s.agent(t, 0, "create-md r0")
		flip(t, s.disk, 8<<20-4096+64) // behind the magic number
	}, []string{"--force"}, []string{"superblock at"}},
}

func TestBadDisk(t *testing.T) {
	for _, tt := range badDisks {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, "otter", conf("x", freePair(t)), 8<<20)
			tt.spoil(t, s)
			before := s.sum(t)
			named := []string{"otter", "disk.img", "r0"}
			if tt.create != nil {
				s.agent(t, 3, "create-md r0", append(named, tt.create...)...)
			}
			if tt.dump == nil {
				s.agent(t, 0, "dump-md r0", "la-size")
			} else {
				s.agent(t, 3, "dump-md r0", append(named, tt.dump...)...)
				t.Run("run", func(t *testing.T) {
					s.start(t)
					s.says(t, append(named, tt.dump...)...)
				})
			}
			if s.sum(t) != before {
				t.Error("the disk was written to")
			}
			if tt.create == nil {
				s.agent(t, 0, "create-md r0", "metadata written")
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// hold locks a file as another agent would.
func hold(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
}

// flip inverts 24 bytes of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, 24)
	_, err = f.ReadAt(b, at)
	for i := range b {
		b[i] ^= 0xff
	}
	_, werr := f.WriteAt(b, at)
	if err := errors.Join(err, werr); err != nil {
		t.Fatal(err)
	}
}

// TestOtherSecret runs two agents that must not come together.
func TestOtherSecret(t *testing.T) {
	ports := freePair(t)
	sites := []*site{newSite(t, "otter", conf("x", ports), 8<<20), newSite(t, "weasel", conf("y", ports), 8<<20)}
	for _, s := range sites {
		s.agent(t, 0, "create-md r0")
		s.start(t)
	}
	for _, s := range sites {
		s.says(t, "secret")
		if r, said := s.resource(t); r.Conn >= proto.Connected {
			t.Errorf("connected all the same: %s", said)
		}
	}
}

// TestSmallerPeer pairs disks of two sizes. Fresh copies agree on the smaller one, or on what size in either drbd.conf says;
// a node with data takes no peer that is too small for it, and no size that its disk does not have.
func TestSmallerPeer(t *testing.T) {
	ports := freePair(t)
	text := conf("x", ports)
	a, b := newSite(t, "otter", text, 16<<20), newSite(t, "weasel", strings.Replace(text, "protocol C;", "protocol C; disk { size 6M; }", 1), 12<<20)
	b.agent(t, 0, "check-config", "at most 6291456 bytes of the disk are used")
	var stop [2]func()
	for i, s := range []*site{a, b} {
		s.agent(t, 0, "create-md r0")
		stop[i] = s.start(t)
	}
	for _, s := range []*site{a, b} {
		poll(t, 15*time.Second, "both agree on 6 MiB", func() (bool, string) {
			r, said := s.resource(t)
			return r.Conn == proto.Connected && r.Size == 6<<20 && r.SizeLimit == 6<<20, said
		})
	}
	a.agent(t, 0, "wait-connect")
	config := writeConfig(t, fmt.Sprintf("[[pair]]\nname='p'\n[[pair.node]]\nname='otter'\nsocket=%q\n[[pair.node]]\nname='weasel'\nsocket=%q\n", a.socket, b.socket))
	if r := execute(t, "santui", "--config", config, "sync", "start", "--from", "otter", "--confirm", "otter-weasel"); r.code != 0 {
		t.Fatal(r)
	}
	poll(t, 15*time.Second, "the sync", func() (bool, string) {
		r, said := a.resource(t)
		return r.DiskState == proto.UpToDate && r.PeerDisk == proto.UpToDate, said
	})
	stop[1]()
	small := newSite(t, "weasel", text, 4<<20)
	small.agent(t, 0, "create-md r0")
	small.start(t)
	a.says(t, "StandAlone", "too small")
	a.agent(t, 3, "wait-connect r0", "StandAlone")
	b.agent(t, 0, "dump-md r0", "la-size      6291456 bytes")
	if err := os.WriteFile(b.conf, []byte(strings.ReplaceAll(strings.Replace(text, "protocol C;", "protocol C; disk { size 60M; }", 1), "DISK", b.disk)), 0o600); err != nil {
		t.Fatal(err)
	}
	before := b.sum(t)
	b.start(t)
	b.says(t, "Diskless", "size in drbd.conf says 122880")
	if b.sum(t) != before {
		t.Error("the disk was written to")
	}
}

// TestWaitConnect: boot does not wait for the peer of a node that went down as Primary without it for as long as it would
// otherwise.
func TestWaitConnect(t *testing.T) {
	text := strings.Replace(conf("x", freePair(t)), "protocol C;", "protocol C; startup { wfc-timeout 300; degr-wfc-timeout 2; }", 1)
	s := newSite(t, "otter", text, 8<<20)
	s.agent(t, 0, "create-md r0")
	f, err := os.OpenFile(s.disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{0, 0, 0, 0x13}, 8<<20-4096+56) // went down as Primary, UpToDate, not connected
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s.agent(t, 2, "wait-connect r1", "r1")
	s.start(t)
	s.agent(t, 3, "wait-connect", "degr-wfc-timeout", "weasel is not there")
}

// TestDamagedLog: blocks of the activity log that are not what they were are named with their place and what was expected,
// by dump-md, which changes nothing, and by run; without a valid one everything counts as out of sync.
func TestDamagedLog(t *testing.T) {
	const superblock, log = 8<<20 - 4096, 8<<20 - 4096 - 32<<10
	for _, blocks := range []int64{1, 8} {
		s := newSite(t, "otter", conf("x", freePair(t)), 8<<20)
		s.agent(t, 0, "create-md r0")
		f, err := os.OpenFile(s.disk, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte{0, 0, 0, 0, 0, 0, 0x30, 0}, superblock) // 6 MiB
		_, err2 := f.WriteAt([]byte{0, 0, 0, 0x13}, superblock+56)        // went down as Primary, UpToDate
		if err := errors.Join(err, err2, f.Close()); err != nil {
			t.Fatal(err)
		}
		for i := range blocks {
			flip(t, s.disk, log+i*4096)
		}
		before := s.sum(t)
		place := fmt.Sprintf("at %d the magic number is 0x", log)
		s.agent(t, 0, "dump-md r0", "must be applied", place, "expected 0x")
		if s.sum(t) != before {
			t.Error("dump-md wrote to the disk")
		}
		stop := s.start(t)
		s.says(t, place, "expected 0x")
		if r, said := s.resource(t); (r.OutOfSync == 6<<20) != (blocks == 8) {
			t.Errorf("%d blocks damaged: %d bytes are out of sync\n%s", blocks, r.OutOfSync, said)
		}
		stop()
	}
}

func TestSecondAgent(t *testing.T) {
	s := newSite(t, "otter", conf("x", freePair(t)), 8<<20)
	s.agent(t, 0, "create-md r0")
	s.start(t)
	poll(t, 10*time.Second, "the agent answers", func() (bool, string) {
		r, said := s.resource(t)
		return r.DiskState == proto.Inconsistent, said
	})
	s.agent(t, 3, "run", "already")
	s.agent(t, 3, "dump-md r0", "in use")
	s.agent(t, 3, "create-md r0 --force", "in use")
	s.agent(t, 0, "support-bundle", "snapshot:", "otter")
}
