package nbd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"example.com/santui/datapath/export/exporttest"
)

const testSize = 1 << 20

func opened(t *testing.T, b Backend, o Options) *client {
	t.Helper()
	path, _ := start(t, b, o)
	c := dial(t, path)
	if err := c.open(o.Name); err != nil {
		t.Fatal(err)
	}
	return c
}

func mustCall(t *testing.T, c *client, cmd, flags uint16, off uint64, n uint32, out, in []byte, want uint32) {
	t.Helper()
	no, err := c.call(cmd, flags, off, n, out, in)
	if err != nil || no != want {
		t.Fatalf("cmd %d flags %d off %d len %d: error %d, %v; want error %d", cmd, flags, off, n, no, err, want)
	}
}

func TestReadBackWhatWasWritten(t *testing.T) {
	m := exporttest.NewMemory(testSize)
	c := opened(t, m, Options{Name: "r0"})
	if c.size != testSize {
		t.Fatalf("size %d", c.size)
	}
	data, got := bytes.Repeat([]byte{7}, 8192), make([]byte, 8192)
	mustCall(t, c, cmdWrite, 0, 4096, 8192, data, nil, 0)
	mustCall(t, c, cmdRead, 0, 4096, 8192, nil, got, 0)
	if !bytes.Equal(data, got) {
		t.Fatal("read something else")
	}
	mustCall(t, c, cmdWriteZeroes, 0, 4096, 4096, nil, nil, 0)
	mustCall(t, c, cmdWriteZeroes, cmdFlagNoHole, 8192, 512, nil, nil, 0)
	mustCall(t, c, cmdRead, 0, 4096, 8192, nil, got, 0)
	if !bytes.Equal(got[:4608], make([]byte, 4608)) || got[4608] != 7 {
		t.Fatal("zeroes are not where they belong")
	}
	if z, u := m.Counts.Zeroes.Load(), m.Counts.Unmaps.Load(); z != 2 || u != 1 {
		t.Fatalf("zeroes %d, of them unmap %d", z, u)
	}
	mustCall(t, c, cmdTrim, 0, 0, 65536, nil, nil, 0)
	mustCall(t, c, cmdFlush, 0, 0, 0, nil, nil, 0)
	mustCall(t, c, cmdWrite, cmdFlagFUA, 0, 512, data[:512], nil, 0)
	if d, f := m.Counts.Discards.Load(), m.Counts.Flushes.Load(); d != 1 || f != 2 {
		t.Fatalf("discards %d, flushes %d", d, f)
	}
	if err := c.send(cmdDisc, 0, 1, 0, 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatalf("after DISC: %v", err)
	}
}

func TestRefusedRequestsKeepTheConnection(t *testing.T) {
	m := exporttest.NewMemory(testSize)
	c := opened(t, m, Options{})
	block := make([]byte, 1024)
	for _, q := range []struct {
		cmd  uint16
		off  uint64
		n    uint32
		out  []byte
		want uint32
	}{
		{cmdRead, testSize, 512, nil, errInval},
		{cmdRead, testSize - 512, 1024, nil, errInval},
		{cmdRead, 1 << 63, 512, nil, errInval},
		{cmdRead, ^uint64(0) - 511, 512, nil, errInval},
		{cmdRead, 0, MaxRequest + 512, nil, errInval},
		{cmdRead, 0, 1<<32 - 512, nil, errInval},
		{cmdRead, 1, 512, nil, errInval},
		{cmdRead, 0, 100, nil, errInval},
		{cmdWrite, testSize - 512, 1024, block, errNoSpace},
		{cmdWrite, 3, 1024, block, errInval},
		{cmdTrim, testSize, 512, nil, errInval},
		{cmdWriteZeroes, testSize, 512, nil, errNoSpace},
		{99, 0, 512, nil, errInval},
		{7, 0, 512, nil, errInval}, // BLOCK_STATUS was not negotiated
		{cmdRead, 0, 0, nil, 0},
		{cmdWrite, 0, 0, nil, 0},
		{cmdTrim, testSize, 0, nil, 0},
	} {
		mustCall(t, c, q.cmd, 0, q.off, q.n, q.out, nil, q.want)
	}
	if n := m.Counts.Reads.Load() + m.Counts.Writes.Load() + m.Counts.Discards.Load() + m.Counts.Zeroes.Load(); n != 0 {
		t.Fatalf("%d refused or empty requests reached the backend", n)
	}
	mustCall(t, c, cmdRead, 0, 0, 1024, nil, block, 0)
}

func TestLargestRequest(t *testing.T) {
	m := exporttest.NewMemory(2 * MaxRequest)
	c := opened(t, m, Options{})
	data := bytes.Repeat([]byte("abcdefgh"), MaxRequest/8)
	mustCall(t, c, cmdWrite, 0, MaxRequest, MaxRequest, data, nil, 0)
	got := make([]byte, MaxRequest)
	mustCall(t, c, cmdRead, 0, MaxRequest, MaxRequest, nil, got, 0)
	if !bytes.Equal(data, got) {
		t.Fatal("read something else")
	}
	if err := c.send(cmdWrite, 0, 1, 0, MaxRequest+512, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatalf("oversized write: %v", err)
	}
}

func TestBackendErrors(t *testing.T) {
	m := exporttest.NewMemory(testSize)
	var fail atomic.Pointer[error]
	m.Fail = func(string, int64, int64) error { return *fail.Load() }
	c := opened(t, m, Options{})
	block := make([]byte, 512)
	for _, q := range []struct {
		err  error
		want uint32
	}{
		{errors.New("anything"), errIO},
		{fmt.Errorf("wrapped: %w", syscall.ENOSPC), errNoSpace},
		{syscall.EROFS, errPerm},
		{syscall.EOPNOTSUPP, errNotSup},
		{syscall.ENOMEM, errNoMem},
		{syscall.ETIMEDOUT, errIO},
		{nil, 0},
	} {
		fail.Store(&q.err)
		mustCall(t, c, cmdWrite, 0, 0, 512, block, nil, q.want)
		mustCall(t, c, cmdRead, 0, 0, 512, nil, block, q.want)
		mustCall(t, c, cmdFlush, 0, 0, 0, nil, nil, q.want)
		mustCall(t, c, cmdTrim, 0, 0, 512, nil, nil, q.want)
		mustCall(t, c, cmdWriteZeroes, 0, 0, 512, nil, nil, q.want)
	}
}

// short returns less than asked for without an error.
type short struct{ *exporttest.Memory }

func (s short) ReadAt(p []byte, off int64) (int, error)  { return len(p) - 512, nil }
func (s short) WriteAt(p []byte, off int64) (int, error) { return 0, nil }

func TestShortTransferIsAnError(t *testing.T) {
	c := opened(t, short{exporttest.NewMemory(testSize)}, Options{})
	mustCall(t, c, cmdRead, 0, 0, 1024, nil, nil, errIO)
	mustCall(t, c, cmdWrite, 0, 0, 1024, make([]byte, 1024), nil, errIO)
}

// A stalled write must not hold up anything else, and its reply comes late.
func TestOutOfOrder(t *testing.T) {
	m := exporttest.NewMemory(testSize)
	gate := make(chan struct{})
	m.Fail = func(op string, off, _ int64) error {
		if op == "write" && off == 0 {
			<-gate
		}
		return nil
	}
	c := opened(t, m, Options{Workers: 4})
	block := make([]byte, 512)
	for i := range uint64(8) {
		if err := c.send(cmdWrite, 0, i, i*512, 512, block); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[uint64]bool{}
	for range 7 {
		cookie, no, err := c.recv()
		if err != nil || no != 0 || cookie == 0 {
			t.Fatal(cookie, no, err)
		}
		seen[cookie] = true
	}
	close(gate)
	if cookie, _, err := c.recv(); err != nil || cookie != 0 || len(seen) != 7 {
		t.Fatal(cookie, err, seen)
	}
}

// Never more requests in the backend than workers.
func TestWorkersAreBounded(t *testing.T) {
	m := exporttest.NewMemory(testSize)
	var mu sync.Mutex
	now, most := 0, 0
	m.Fail = func(string, int64, int64) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	}
	c := opened(t, m, Options{Workers: 3})
	go func() {
		for i := range uint64(100) {
			_ = c.send(cmdFlush, 0, i, 0, 0, nil)
		}
	}()
	for range 100 {
		if _, _, err := c.recv(); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if most > 3 || most < 2 {
		t.Fatalf("%d at a time", most)
	}
}

// A client that asks and never listens must not make the server hoard.
func TestDeafClientIsHeldBack(t *testing.T) {
	path, stop := start(t, exporttest.Null(1<<30), Options{})
	c := dial(t, path)
	if err := c.open(""); err != nil {
		t.Fatal(err)
	}
	_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	sent := 0
	for {
		if err := c.send(cmdRead, 0, 1, 0, 1<<20, nil); err != nil {
			break
		}
		if sent++; sent > 1_000_000 {
			t.Fatal("the server takes requests without end")
		}
	}
	_ = c.Close()
	stop()
}

func TestStopAnswersWhatIsInProgress(t *testing.T) {
	m := exporttest.NewMemory(testSize)
	entered, gate := make(chan struct{}), make(chan struct{})
	m.Fail = func(string, int64, int64) error { close(entered); <-gate; return nil }
	path, stop := start(t, m, Options{})
	c := dial(t, path)
	if err := c.open(""); err != nil {
		t.Fatal(err)
	}
	if err := c.send(cmdFlush, 0, 42, 0, 0, nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	time.AfterFunc(50*time.Millisecond, func() { close(gate) })
	stop()
	if cookie, no, err := c.recv(); cookie != 42 || no != 0 || err != nil {
		t.Fatal(cookie, no, err)
	}
}

func TestHandshakeOptions(t *testing.T) {
	path, _ := start(t, exporttest.Null(testSize), Options{Name: "r0"})
	c := dial(t, path)
	if err := c.hello(1); err != nil {
		t.Fatal(err)
	}
	ask := func(opt uint32, data []byte, want ...uint32) []byte {
		t.Helper()
		if err := c.sendOption(opt, data); err != nil {
			t.Fatal(err)
		}
		var last []byte
		for _, w := range want {
			o, kind, data, err := c.optionReply()
			if err != nil || o != opt || kind != w {
				t.Fatalf("option %d: reply to %d, kind %#x, %v; want %#x", opt, o, kind, err, w)
			}
			if kind != repAck {
				last = data
			}
		}
		return last
	}
	if d := ask(optList, nil, repServer, repAck); string(d) != "\x00\x00\x00\x02r0" {
		t.Fatalf("list %q", d)
	}
	ask(optList, []byte{1}, repErrInvalid)
	ask(5, nil, repErrUnsup) // STARTTLS
	ask(8, nil, repErrUnsup) // STRUCTURED_REPLY
	ask(10, []byte("junk"), repErrUnsup)
	ask(1234, nil, repErrUnsup)
	ask(optInfo, goData("nosuch"), repErrUnknown)
	ask(optInfo, nil, repErrInvalid)
	ask(optInfo, []byte("\xff\xff\xff\xff\x00\x00"), repErrInvalid)
	ask(optGo, []byte("\x00\x00\x00\x00\x00\x09"), repErrInvalid)
	ask(optInfo, make([]byte, maxOption+1), repErrTooBig)
	d := ask(optInfo, goData("r0"), repInfo, repInfo, repAck)
	if binary.BigEndian.Uint32(d[2:]) != 512 || binary.BigEndian.Uint32(d[10:]) != MaxRequest {
		t.Fatalf("block sizes % x", d)
	}
	// The old way in, with the 124 zeroes this client did not wave off.
	if err := c.sendOption(optExportName, []byte("r0")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 134)
	if _, err := io.ReadFull(c.r, p); err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint64(p) != testSize || binary.BigEndian.Uint16(p[8:]) != Flags {
		t.Fatalf("% x", p[:10])
	}
	mustCall(t, c, cmdFlush, 0, 0, 0, nil, nil, 0)
}

func TestAbort(t *testing.T) {
	path, _ := start(t, exporttest.Null(testSize), Options{})
	c := dial(t, path)
	if err := c.hello(3); err != nil {
		t.Fatal(err)
	}
	if err := c.sendOption(optAbort, nil); err != nil {
		t.Fatal(err)
	}
	if _, kind, _, err := c.optionReply(); kind != repAck || err != nil {
		t.Fatal(kind, err)
	}
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// What breaks the protocol ends the connection, and nothing else.
func TestHungUpOn(t *testing.T) {
	flags := "\x00\x00\x00\x03"
	option := "IHAVEOPT"
	for name, in := range map[string]string{
		"unknown client flags": "\x00\x00\x00\xff" + option,
		"option magic":         flags + "IHAVENOT\x00\x00\x00\x07\x00\x00\x00\x00",
		"unknown export name":  flags + option + "\x00\x00\x00\x01\x00\x00\x00\x02xx",
		"long export name":     flags + option + "\x00\x00\x00\x01\x00\x00\xff\xff",
		"huge option":          flags + option + "\x00\x00\x00\x07\xff\xff\xff\xff",
		"endless options":      flags + strings.Repeat(option+"\x00\x00\x00\x63\x00\x00\x00\x00", maxOptions+1),
		"request magic":        flags + option + "\x00\x00\x00\x01\x00\x00\x00\x00" + strings.Repeat("x", requestLen),
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := start(t, exporttest.Null(testSize), Options{Name: "r0"})
			c := dial(t, path)
			if _, err := io.WriteString(c, in); err != nil && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
			// A reset instead of an end is what unread input causes.
			if _, err := io.Copy(io.Discard, c.r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			if err := dial(t, path).open("r0"); err != nil {
				t.Fatalf("the next client: %v", err)
			}
		})
	}
}

func TestSilentClientIsHungUpOn(t *testing.T) {
	path, _ := start(t, exporttest.Null(testSize), Options{Handshake: 50 * time.Millisecond})
	c := dial(t, path)
	if _, err := io.Copy(io.Discard, c.r); err != nil {
		t.Fatal(err)
	}
}

func TestTooManyConnections(t *testing.T) {
	path, _ := start(t, exporttest.Null(testSize), Options{MaxConns: 1})
	c := dial(t, path)
	if err := c.open(""); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, path).open(""); err == nil {
		t.Fatal("a second connection was served")
	}
	mustCall(t, c, cmdFlush, 0, 0, 0, nil, nil, 0)
	_ = c.Close()
	for end := time.Now().Add(5 * time.Second); ; {
		if dial(t, path).open("") == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the place is not given back")
		}
	}
}

// Random reads and writes of many clients' requests at a time, checked against
// a plain slice. Requests in flight never overlap.
func TestManyAtATime(t *testing.T) {
	const lanes, lane = 32, 64 << 10
	m := exporttest.NewMemory(lanes * lane)
	path, _ := start(t, m, Options{})
	var wg sync.WaitGroup
	for l := range lanes / 8 {
		c := dial(t, path)
		if err := c.open(""); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { lanesOf(t, c, l*8, lane) })
	}
	wg.Wait()
}

func lanesOf(t *testing.T, c *client, first, lane int) {
	rnd := rand.New(rand.NewPCG(uint64(first), 1))
	want := make([]byte, 8*lane)
	base := uint64(first * lane)
	for range 100 {
		for i := range 8 { // eight in flight
			n := (1 + rnd.IntN(lane/512)) * 512
			p := want[i*lane : i*lane+n]
			for j := range p {
				p[j] = byte(rnd.Uint32())
			}
			if err := c.send(cmdWrite, 0, uint64(i), base+uint64(i*lane), uint32(n), p); err != nil {
				t.Error(err)
				return
			}
		}
		for range 8 {
			if _, no, err := c.recv(); err != nil || no != 0 {
				t.Error(no, err)
				return
			}
		}
		got := make([]byte, len(want))
		if no, err := c.call(cmdRead, 0, base, uint32(len(got)), nil, got); err != nil || no != 0 || !bytes.Equal(got, want) {
			t.Error("read back differs", no, err)
			return
		}
	}
}

func TestOptionsChecked(t *testing.T) {
	for _, b := range []Backend{exporttest.Null(0), exporttest.Null(513)} {
		x, y := net.Pipe()
		if err := Transmit(context.Background(), x, b, Options{}); err == nil {
			t.Errorf("size %d accepted", b.Size())
		}
		_ = y.Close()
	}
}

func TestBuffers(t *testing.T) {
	for _, n := range []int{1, 512, 4096, 4097, 8192, 1 << 20, 1<<20 + 1, MaxRequest} {
		b := getBuffer(n)
		if len(b.mem) < n || len(b.mem) >= 2*max(n, 4096) || !aligned(b.mem) {
			t.Errorf("buffer for %d has %d bytes, aligned %v", n, len(b.mem), aligned(b.mem))
		}
		putBuffer(b)
	}
}

// canned is a connection whose other side has said all it will ever say.
type canned struct {
	net.Conn
	r io.Reader
}

func (c *canned) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *canned) Write(p []byte) (int, error) { return len(p), nil }
func (c *canned) Close() error                { return nil }

func aligned(p []byte) bool { return uintptr(unsafe.Pointer(&p[0]))%4096 == 0 }

func FuzzRequest(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, requestLen))
	f.Add(append(binary.BigEndian.AppendUint32(nil, magicRequest), make([]byte, 24)...))
	f.Add(append(binary.BigEndian.AppendUint32(nil, magicRequest), bytes.Repeat([]byte{0, 1}, 12)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		m := exporttest.NewMemory(64 << 10)
		if err := Transmit(context.Background(), &canned{r: bytes.NewReader(in)}, m, Options{Workers: 2}); err != nil && !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
	})
}

func FuzzHaggling(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x08\x00\x00\x00\x02r0\x00\x00"))
	f.Add([]byte("0"))
	f.Add([]byte("\x00\x00\x00\x01IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x02r0"))
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x00IHAVEOPT\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		err := (&handshake{r: bufio.NewReader(bytes.NewReader(in)), w: &out, name: "r0", size: testSize}).run()
		if err != nil && !errors.Is(err, errAborted) && !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
		if out.Len() > 200+maxOptions*200 {
			t.Fatalf("%d bytes in, %d bytes out", len(in), out.Len())
		}
	})
}
