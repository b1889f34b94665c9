package datapath

import (
	"testing"
)

const testSize = 16 << 20

func TestInitialSync(t *testing.T) {
	p := newPair(t, testSize, testSize, nil)
	p.up()
	p.await("connection", connected)
	a := p.node[0]
	a.ok("promote", a.Promote(bg(), true))
	for i := range 32 {
		a.write(int64(i)*400<<10, pattern(uint64(i), 64<<10))
	}
	p.await("the sync", inSync)
	a.ok("flush", a.Flush())
	p.equal()
}
