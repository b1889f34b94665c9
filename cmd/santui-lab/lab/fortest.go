package lab

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// TB is the part of testing.TB that ForTest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Failed() bool
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// ForTest starts a lab that lives as long as the test. When the test has failed, the ends of the nodes' consoles are
// logged. Ctrl-c and SIGTERM close the lab too, before they end the process.
func ForTest(t TB, o Options) *Lab {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := onSignal(cancel)
	l, err := Start(ctx, o)
	stop()
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	stop = onSignal(func() {
		_ = l.Close() // the process ends here; what stays is swept by the next lab
		os.Exit(130)
	})
	t.Logf("lab %s is up after %.1f s", l.Namespace(), time.Since(began).Seconds())
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%v", l.consoles())
		}
		if err := l.Close(); err != nil {
			t.Logf("%v", err)
		}
	})
	return l
}

// onSignal calls f when the process is asked to end; the returned function undoes that and waits for a call under way.
func onSignal(f func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ended:
		case <-signals:
			f()
		}
	})
	return func() {
		signal.Stop(signals)
		close(ended)
		wg.Wait()
	}
}
