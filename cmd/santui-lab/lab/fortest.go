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

// open counts the labs of ForTest. Whoever ends the process waits for all of them, and lets nobody start another one.
var open struct {
	sync.Mutex
	ending bool
	labs   sync.WaitGroup
}

func enter() bool {
	open.Lock()
	defer open.Unlock()
	if !open.ending {
		open.labs.Add(1)
	}
	return !open.ending
}

func ending() {
	open.Lock()
	defer open.Unlock()
	open.ending = true
}

// ForTest starts a lab that lives as long as the test. When the test has failed, the ends of the nodes' consoles are
// logged. Ctrl-c and SIGTERM close the labs of all tests that run, too, before they end the process.
func ForTest(t TB, o Options) *Lab {
	t.Helper()
	if !enter() {
		t.Fatalf("no lab is started: the process is about to end")
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := onSignal(func() { ending(); cancel() })
	l, err := Start(ctx, o)
	stop()
	if err != nil {
		open.labs.Done()
		t.Fatalf("%v", err)
		return nil
	}
	left := sync.OnceFunc(open.labs.Done)
	stop = onSignal(func() {
		ending()
		_ = l.Close() // the process ends here; what stays is swept by the next lab
		left()
		open.labs.Wait()
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
		left()
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
