package datapath

import (
	"context"
	"net"
)

func (r *Resource) Close() error {
	r.closeOnce.Do(func() { _ = r.ask(context.Background(), cmdClose{}); <-r.gone })
	return r.closeErr
}
func (r *Resource) ReadAt(p []byte, off int64) (int, error)    { return 0, ErrNotPrimary }
func (r *Resource) WriteAt(p []byte, off int64) (int, error)   { return 0, ErrNotPrimary }
func (r *Resource) Flush() error                               { return ErrNotPrimary }
func (r *Resource) Discard(off, n int64) error                 { return ErrNotPrimary }
func (r *Resource) WriteZeroes(off, n int64, unmap bool) error { return ErrNotPrimary }
func (r *Resource) Size() int64                                { return r.Status().Size }
func (r *Resource) own() {
	defer close(r.gone)
	var q []any
	for {
		<-r.inbox.wake
		q = r.inbox.take(q)
		for _, m := range q {
			rq := m.(*request)
			if _, ok := rq.cmd.(cmdClose); ok {
				rq.reply <- nil
				r.inbox.close()
				return
			}
			rq.reply <- r.cfg.unsupported("this command")
		}
	}
}
func listenTCP(ctx context.Context, addr string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}
func dialTCP(ctx context.Context, laddr, raddr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", raddr)
}
