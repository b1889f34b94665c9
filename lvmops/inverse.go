package lvmops

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"time"

	"example.com/santui/proto"
)

// underWay refuses a step while a program runs that does the opposite: one of an earlier attempt that hangs in the kernel, or
// that its agent left behind when it died, may have its effect at any time, also after this step has found everything as it
// should be. words are the program's name, then what its command line must hold, the last one at its end.
func (o *Ops) underWay(ctx context.Context, doing string, words ...string) error {
	list, err := o.processes()
	if err != nil {
		return o.failed(err, "%s: looking whether an earlier %s still runs", doing, words[0])
	}
	for _, p := range list {
		pid, dir := p.pid, o.dirOf(p.pid)
		if readLine(dir+"/comm") != words[0] {
			continue
		}
		// A command line is read from the memory of a process that may hang.
		line, err := aside(ctx, o, "command line of "+strconv.Itoa(pid), func() ([]byte, error) { return readBounded(dir+"/cmdline", 1<<16) })
		if err != nil && gone(err) || err == nil && !says(line, words[1:]) {
			continue
		}
		return o.refuse(proto.CodeBusy, "%s: %s (pid %d) has been started before, has not ended and may take effect at any time", doing, words[0], pid).
			WithRemedy("look at dmesg and at the replicated device; when the program has ended, try again")
	}
	return nil
}

// says looks for words in a command line as /proc shows it.
func says(line []byte, words []string) bool {
	args := bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})
	for _, w := range words {
		if !slices.ContainsFunc(args, func(a []byte) bool { return string(a) == w }) {
			return false
		}
	}
	return len(words) == 0 || string(args[len(args)-1]) == words[len(words)-1]
}

// limitOf is how long a step may take: as its context says, or else as long as is usual.
func limitOf(ctx context.Context, usual time.Duration) time.Duration {
	if at, ok := ctx.Deadline(); ok {
		return time.Until(at)
	}
	return usual
}

// shorter leaves time to look at the state after a program was ended.
func shorter(limit time.Duration) time.Duration { return limit - min(limit/10, 2*time.Second) }
