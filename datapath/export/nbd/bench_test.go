package nbd

import (
	"fmt"
	"testing"

	"example.com/santui/datapath/export/exporttest"
)

// BenchmarkServer drives the server through a Unix socket with an in-process
// client that allocates nothing either: allocs/op is the server's.
func BenchmarkServer(b *testing.B) {
	const size = 64 << 20
	for name, be := range map[string]Backend{"null": exporttest.Null(size), "memory": exporttest.NewMemory(size)} {
		for _, n := range []int{4 << 10, 1 << 20} {
			for _, depth := range []int{1, 32} {
				b.Run(fmt.Sprintf("%s/write/%dk/qd%d", name, n>>10, depth), func(b *testing.B) { drive(b, be, cmdWrite, n, depth) })
				b.Run(fmt.Sprintf("%s/read/%dk/qd%d", name, n>>10, depth), func(b *testing.B) { drive(b, be, cmdRead, n, depth) })
			}
		}
	}
}

func drive(b *testing.B, be Backend, cmd uint16, n, depth int) {
	path, stop := start(b, be, Options{})
	defer stop()
	c := dial(b, path)
	defer c.Close()
	_ = c.SetDeadline(never)
	if err := c.open(""); err != nil {
		b.Fatal(err)
	}
	var out []byte
	buf := make([]byte, n)
	if cmd == cmdWrite {
		out = buf
	}
	left := make(chan struct{}, depth)
	b.ReportAllocs()
	b.SetBytes(int64(n))
	b.ResetTimer()
	done := make(chan error, 1)
	go func() {
		for range b.N {
			if err := c.take(cmd, buf); err != nil {
				done <- err
				return
			}
			<-left
		}
		done <- nil
	}()
	blocks := be.Size() / int64(n)
	for i := range b.N {
		left <- struct{}{}
		off := int64(i) * 7919 % blocks * int64(n)
		if err := c.send(cmd, 0, uint64(i), uint64(off), uint32(n), out); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
}
