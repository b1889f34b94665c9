package drbdconf

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/santui/proto"
)

// kind is what an option takes.
type kind uint8

const (
	kNum    kind = iota // a number without unit
	kSize               // a number with an optional K, M, G or s
	kBool               // yes, no, or nothing for yes
	kEnum               // one of the words
	kWord               // any one word
	kWords              // one or more words
	kSecret             // any one word, which is never shown
)

// option describes one option. Numbers are in the unit of the kernel's limits: scale says how many bytes an unscaled
// number of kind kSize counts for (K: 1024, s: 512), min and max are in that unit.
type option struct {
	section, name string
	kind          kind
	scale         int64
	min, max      int64
	unit          string // of a plain number, for messages
	def           string
	words         []string // of kEnum
	set           func(r *Resource, v parsed)
	// ignored and refused say why a value other than the default has no effect, or cannot be had.
	ignored, refused string
	not84            bool // DRBD 0.7 or 9 has it, 8.4 does not
}

// parsed is a checked value.
type parsed struct {
	num    int64 // kNum; kSize in bytes
	yes    bool
	text   string
	secret Secret
}

const (
	notYet     = "not in this version"
	flushed    = "ignored: santui always flushes"
	tenths     = "tenths of a second"
	seconds    = "seconds"
	drbd9      = "belongs to DRBD 9"
	manualOnly = "ignored: nothing is promoted by itself, a failover is an operator's decision"
)

// afterSBWords are those of after-sb-0pri, -1pri and -2pri (drbdsetup.c of drbd-utils).
var afterSBWords = [3][]string{
	{"disconnect", "discard-younger-primary", "discard-older-primary", "discard-zero-changes", "discard-least-changes", "discard-local", "discard-remote"},
	{"disconnect", "consensus", "discard-secondary", "call-pri-lost-after-sb", "violently-as0p"},
	{"disconnect", "call-pri-lost-after-sb", "violently-as0p"},
}

// options is the table of all options; drbd_limits.h has the numbers, drbd_nla and config_flags.c the words.
var options = slices.Concat(netOptions(), diskOptions(), otherOptions())

func netOptions() []option {
	dur := func(unit time.Duration, f func(*Net) *time.Duration) func(*Resource, parsed) {
		return func(r *Resource, v parsed) { *f(&r.Net) = time.Duration(v.num) * unit }
	}
	num := func(f func(*Net) *int) func(*Resource, parsed) {
		return func(r *Resource, v parsed) { *f(&r.Net) = int(v.num) }
	}
	str := func(f func(*Net) *string) func(*Resource, parsed) {
		return func(r *Resource, v parsed) { *f(&r.Net) = v.text }
	}
	afterSB := func(i int) option {
		return option{section: "net", name: fmt.Sprintf("after-sb-%dpri", i), kind: kEnum, words: afterSBWords[i], def: "disconnect",
			set: func(r *Resource, v parsed) { r.Net.AfterSB[i] = v.text }}
	}
	return []option{
		{section: "net", name: "protocol", kind: kEnum, words: []string{"A", "B", "C"}, def: "C",
			set: func(r *Resource, v parsed) {
				r.Protocol = map[string]proto.Protocol{"A": proto.ProtocolA, "B": proto.ProtocolB, "C": proto.ProtocolC}[v.text]
			}},
		{section: "net", name: "timeout", min: 1, max: 600, unit: tenths, def: "60", set: dur(time.Second/10, func(n *Net) *time.Duration { return &n.Timeout })},
		{section: "net", name: "ping-timeout", min: 1, max: 300, unit: tenths, def: "5", set: dur(time.Second/10, func(n *Net) *time.Duration { return &n.PingTimeout })},
		{section: "net", name: "ping-int", min: 1, max: 120, unit: seconds, def: "10", set: dur(time.Second, func(n *Net) *time.Duration { return &n.PingInt })},
		{section: "net", name: "connect-int", min: 1, max: 120, unit: seconds, def: "10", set: dur(time.Second, func(n *Net) *time.Duration { return &n.ConnectInt })},
		{section: "net", name: "ko-count", min: 0, max: 200, unit: "timeouts", def: "7", set: num(func(n *Net) *int { return &n.KoCount })},
		{section: "net", name: "max-buffers", kind: kSize, scale: 1, min: 32, max: 131072, unit: "pages", def: "2048", set: num(func(n *Net) *int { return &n.MaxBuffers })},
		{section: "net", name: "max-epoch-size", kind: kSize, scale: 1, min: 1, max: 20000, unit: "writes", def: "2048", set: num(func(n *Net) *int { return &n.MaxEpochSize })},
		{section: "net", name: "sndbuf-size", kind: kSize, scale: 1, max: 10 << 20, unit: "bytes", def: "0", set: num(func(n *Net) *int { return &n.SndbufSize })},
		{section: "net", name: "rcvbuf-size", kind: kSize, scale: 1, max: 10 << 20, unit: "bytes", def: "0", set: num(func(n *Net) *int { return &n.RcvbufSize })},
		{section: "net", name: "unplug-watermark", kind: kSize, scale: 1, min: 1, max: 131072, unit: "requests", def: "128", ignored: "ignored: it has no meaning outside a kernel"},
		{section: "net", name: "socket-check-timeout", min: 0, max: 300, unit: tenths, def: "0", ignored: notYet},
		{section: "net", name: "cram-hmac-alg", kind: kWord, set: str(func(n *Net) *string { return &n.CRAMAlg })},
		{section: "net", name: "shared-secret", kind: kSecret, set: func(r *Resource, v parsed) { r.Net.Secret = v.secret }},
		{section: "net", name: "verify-alg", kind: kWord, set: str(func(n *Net) *string { return &n.VerifyAlg })},
		{section: "net", name: "csums-alg", kind: kWord, set: str(func(n *Net) *string { return &n.CsumsAlg })},
		{section: "net", name: "csums-after-crash-only", kind: kBool, def: "no", set: func(r *Resource, v parsed) { r.Net.CsumsAfterCrashOnly = v.yes }},
		{section: "net", name: "data-integrity-alg", kind: kWord, set: str(func(n *Net) *string { return &n.DataIntegrityAlg })},
		{section: "net", name: "allow-two-primaries", kind: kBool, def: "no", set: func(r *Resource, v parsed) { r.Net.AllowTwoPrimaries = v.yes }, refused: "santui keeps one Primary"},
		{section: "net", name: "always-asbp", kind: kBool, def: "no", set: func(r *Resource, v parsed) { r.Net.AlwaysASBP = v.yes }},
		afterSB(0), afterSB(1), afterSB(2),
		{section: "net", name: "rr-conflict", kind: kEnum, words: []string{"disconnect", "call-pri-lost", "violently", "retry-connect", "auto-discard"}, def: "disconnect",
			set: str(func(n *Net) *string { return &n.RRConflict })},
		{section: "net", name: "on-congestion", kind: kEnum, words: []string{"block", "pull-ahead", "disconnect"}, def: "block", set: str(func(n *Net) *string { return &n.OnCongestion })},
		{section: "net", name: "congestion-fill", kind: kSize, scale: 512, max: 10 << 21, unit: "sectors", def: "0",
			set: func(r *Resource, v parsed) { r.Net.CongestionFill = v.num }},
		{section: "net", name: "congestion-extents", min: 67, max: 65534, unit: "extents", def: "1237", set: num(func(n *Net) *int { return &n.CongestionExtents })},
		{section: "net", name: "tcp-cork", kind: kBool, def: "yes", ignored: "ignored: packets are sent whole"},
		{section: "net", name: "use-rle", kind: kBool, def: "yes", set: func(r *Resource, v parsed) { r.Net.UseRLE = v.yes }},
		{section: "net", name: "discard-my-data", kind: kBool, def: "no", refused: "which copy is discarded is decided when a split brain is resolved, not in a file"},
		{section: "net", name: "on-disconnect", not84: true, kind: kEnum, words: []string{"reconnect", "stand_alone", "freeze_io"}, def: "reconnect", refused: "only reconnect is in this version (an option of DRBD 0.7)"},
		{section: "net", name: "allow-remote-read", not84: true, kind: kBool, def: "yes", refused: drbd9},
		{section: "net", name: "transport", not84: true, kind: kWord, def: "tcp", refused: drbd9},
		{section: "net", name: "tls", not84: true, kind: kBool, def: "no", refused: drbd9},
	}
}

func diskOptions() []option {
	size := func(f func(*Disk) *int64) func(*Resource, parsed) {
		return func(r *Resource, v parsed) { *f(&r.Disk) = v.num }
	}
	str := func(f func(*Disk) *string) func(*Resource, parsed) {
		return func(r *Resource, v parsed) { *f(&r.Disk) = v.text }
	}
	return []option{
		{section: "disk", name: "on-io-error", kind: kEnum, words: []string{"detach", "pass_on", "call-local-io-error", "panic"}, def: "detach",
			set: func(r *Resource, v parsed) {
				r.Disk.OnIOError = v.text
				if v.text == "panic" { // 0.7; a program in user space cannot stop the kernel
					r.Disk.OnIOError = "call-local-io-error"
				}
			}},
		{section: "disk", name: "fencing", kind: kEnum, words: []string{"dont-care", "resource-only", "resource-and-stonith"}, def: "dont-care",
			set: str(func(d *Disk) *string { return &d.Fencing })},
		{section: "disk", name: "resync-rate", kind: kSize, scale: 1024, min: 1, max: 4 << 20, unit: "KiB/s", def: "250", set: size(func(d *Disk) *int64 { return &d.ResyncRate })},
		{section: "disk", name: "al-extents", min: 7, max: 65534, unit: "extents", def: "1237", set: func(r *Resource, v parsed) { r.Disk.ALExtents = int(v.num) }},
		{section: "disk", name: "size", kind: kSize, scale: 512, max: 2 << 40, unit: "sectors", def: "0", set: size(func(d *Disk) *int64 { return &d.Size })},
		{section: "disk", name: "resync-after", kind: kWord},
		{section: "disk", name: "group", not84: true, min: 0, max: 1 << 20, unit: "", def: "0", set: func(r *Resource, v parsed) { r.group = int(v.num) }},
		{section: "disk", name: "disk-timeout", min: 0, max: 6000, unit: tenths, def: "0", set: func(r *Resource, v parsed) { r.Disk.Timeout = time.Duration(v.num) * time.Second / 10 }, refused: "an answer that does not come is waited for; dropping a disk after a time is " + notYet},
		{section: "disk", name: "c-plan-ahead", min: 0, max: 300, unit: tenths, def: "20", set: func(r *Resource, v parsed) { r.Disk.CPlanAhead = int(v.num) }},
		{section: "disk", name: "c-delay-target", min: 1, max: 100, unit: tenths, def: "10", set: func(r *Resource, v parsed) { r.Disk.CDelayTarget = int(v.num) }},
		{section: "disk", name: "c-fill-target", kind: kSize, scale: 512, max: 1 << 20, unit: "sectors", def: "100", set: size(func(d *Disk) *int64 { return &d.CFillTarget })},
		{section: "disk", name: "c-max-rate", kind: kSize, scale: 1024, min: 250, max: 4 << 20, unit: "KiB/s", def: "102400", set: size(func(d *Disk) *int64 { return &d.CMaxRate })},
		{section: "disk", name: "c-min-rate", kind: kSize, scale: 1024, max: 4 << 20, unit: "KiB/s", def: "250", set: size(func(d *Disk) *int64 { return &d.CMinRate })},
		{section: "disk", name: "disk-barrier", kind: kBool, def: "no", ignored: flushed},
		{section: "disk", name: "disk-flushes", kind: kBool, def: "yes", set: func(r *Resource, v parsed) { r.Disk.Flushes = v.yes }, ignored: flushed},
		{section: "disk", name: "disk-drain", kind: kBool, def: "yes", ignored: flushed},
		{section: "disk", name: "md-flushes", kind: kBool, def: "yes", set: func(r *Resource, v parsed) { r.Disk.MDFlushes = v.yes }, ignored: flushed},
		{section: "disk", name: "al-updates", kind: kBool, def: "yes", ignored: "ignored: the activity log is always kept"},
		{section: "disk", name: "read-balancing", kind: kEnum, words: []string{"prefer-local", "prefer-remote", "round-robin", "least-pending", "when-congested-remote",
			"32K-striping", "64K-striping", "128K-striping", "256K-striping", "512K-striping", "1M-striping"}, def: "prefer-local", ignored: "ignored: reads come from the local disk"},
		{section: "disk", name: "rs-discard-granularity", kind: kSize, scale: 1, max: 1 << 20, unit: "bytes", def: "0", set: func(r *Resource, v parsed) { r.Disk.RSDiscardGranularity = int(v.num) }},
		{section: "disk", name: "discard-zeroes-if-aligned", kind: kBool, def: "yes", ignored: notYet},
		{section: "disk", name: "disable-write-same", kind: kBool, def: "no", set: func(r *Resource, v parsed) { r.Disk.DisableWriteSame = v.yes }},
		{section: "disk", name: "max-bio-bvecs", min: 0, max: 128, unit: "", def: "0", ignored: "ignored: it has no meaning outside a kernel"},
		{section: "disk", name: "use-bmbv", kind: kBool, def: "no", ignored: "ignored: it has no meaning outside a kernel"},
	}
}

func otherOptions() []option {
	dur := func(f func(*Startup) *time.Duration) func(*Resource, parsed) {
		return func(r *Resource, v parsed) { *f(&r.Startup) = time.Duration(v.num) * time.Second }
	}
	const noWait = "ignored: see santui-agent wait-connect for what waits at boot"
	out := []option{
		{section: "startup", name: "wfc-timeout", max: 300000, unit: seconds, def: "0", set: dur(func(s *Startup) *time.Duration { return &s.WFCTimeout })},
		{section: "startup", name: "degr-wfc-timeout", max: 300000, unit: seconds, def: "0", set: dur(func(s *Startup) *time.Duration { return &s.DegrWFCTimeout })},
		{section: "startup", name: "outdated-wfc-timeout", max: 300000, unit: seconds, def: "0", set: dur(func(s *Startup) *time.Duration { return &s.OutdatedWFCTimeout })},
		{section: "startup", name: "wait-after-sb", kind: kBool, def: "no", ignored: noWait},
		{section: "startup", name: "stacked-timeouts", kind: kBool, def: "no", ignored: noWait},
		{section: "startup", name: "become-primary-on", kind: kWords, ignored: manualOnly},
		{section: "options", name: "cpu-mask", kind: kWord, ignored: "ignored: it has no meaning outside a kernel"},
		{section: "options", name: "on-no-data-accessible", kind: kEnum, words: []string{"io-error", "suspend-io"}, def: "io-error",
			set: func(r *Resource, v parsed) { r.OnNoData = v.text }},
		{section: "options", name: "auto-promote", not84: true, kind: kBool, def: "no", ignored: manualOnly},
		{section: "options", name: "auto-promote-timeout", not84: true, kind: kWord, ignored: manualOnly},
		{section: "options", name: "quorum", not84: true, kind: kWord, def: "off", refused: drbd9},
		{section: "options", name: "on-no-quorum", not84: true, kind: kWord, ignored: drbd9},
		{section: "global", name: "usage-count", kind: kEnum, words: []string{"yes", "no", "ask"}, def: "ask"},
		{section: "global", name: "minor-count", min: 1, max: 1 << 20, unit: "minors"},
		{section: "global", name: "dialog-refresh", min: 0, max: 600, unit: seconds},
		{section: "global", name: "disable-ip-verification", kind: kBool},
		{section: "global", name: "disable-io-hints", kind: kBool},
		{section: "global", name: "udev-always-use-vnr", kind: kBool},
		{section: "global", name: "cmd-timeout-short", min: 0, max: 300000, unit: seconds},
		{section: "global", name: "cmd-timeout-medium", min: 0, max: 300000, unit: seconds},
		{section: "global", name: "cmd-timeout-long", min: 0, max: 300000, unit: seconds},
	}
	handler := func(ignored string, names ...string) {
		for _, h := range names {
			out = append(out, option{section: "handlers", name: h, kind: kWord, not84: ignored == drbd9, ignored: ignored,
				set: func(r *Resource, v parsed) {
					if v.text != "" {
						r.Handlers[h] = v.text
					}
				}})
		}
	}
	handler("", "pri-on-incon-degr", "initial-split-brain", "split-brain", "local-io-error", "before-resync-target",
		"after-resync-target", "before-resync-source", "out-of-sync", "fence-peer", "unfence-peer", "pri-lost-after-sb", "pri-lost")
	handler(drbd9, "quorum-lost", "disconnected")
	return out
}

// aliases are older names: of an option in its section, or of one that moved out of syncer.
var aliases = map[key]key{
	{"handlers", "outdate-peer"}: {"handlers", "fence-peer"},
	{"disk", "rate"}:             {"disk", "resync-rate"},
	{"disk", "after"}:            {"disk", "resync-after"},
}

// syncer says where an option of the old section syncer belongs today.
var syncer = map[string]key{
	"rate": {"disk", "resync-rate"}, "after": {"disk", "resync-after"}, "al-extents": {"disk", "al-extents"}, "group": {"disk", "group"},
	"c-plan-ahead": {"disk", "c-plan-ahead"}, "c-delay-target": {"disk", "c-delay-target"}, "c-fill-target": {"disk", "c-fill-target"},
	"c-max-rate": {"disk", "c-max-rate"}, "c-min-rate": {"disk", "c-min-rate"},
	"verify-alg": {"net", "verify-alg"}, "csums-alg": {"net", "csums-alg"}, "use-rle": {"net", "use-rle"},
	"cpu-mask": {"options", "cpu-mask"}, "on-no-data-accessible": {"options", "on-no-data-accessible"},
}

// table finds an option.
var table = func() map[key]*option {
	m := make(map[key]*option, len(options))
	for i := range options {
		m[key{options[i].section, options[i].name}] = &options[i]
	}
	return m
}()

// lookup finds the option that a name in a section means. no reports the old form "no-disk-flushes".
func lookup(section, name string) (k key, o *option, no bool) {
	if section == "syncer" {
		if k, ok := syncer[name]; ok {
			return k, table[k], false
		}
		return key{}, nil, false
	}
	k = key{section, name}
	if to, ok := aliases[k]; ok {
		k = to
	}
	if o := table[k]; o != nil {
		return k, o, false
	}
	if rest, ok := strings.CutPrefix(name, "no-"); ok {
		if o := table[key{section, rest}]; o != nil && o.kind == kBool {
			return key{section, rest}, o, true
		}
	}
	return key{}, nil, false
}

// names lists the options of a section, and elsewhere says in which section another option lives.
func names(section string) []string {
	var out []string
	if section == "syncer" {
		out = slices.Collect(maps.Keys(syncer))
	}
	for k := range table {
		if k.section == section {
			out = append(out, k.name)
		}
	}
	for k := range aliases {
		if k.section == section {
			out = append(out, k.name)
		}
	}
	slices.Sort(out)
	return out
}

func elsewhere(name string) string {
	for i := range options {
		if options[i].name == name {
			return options[i].section
		}
	}
	return ""
}

// check turns what was written into a value, or says what is wrong with it.
func (o *option) check(v value) (p parsed, problem, hint string) {
	p.text = v.text()
	switch o.kind {
	case kSecret:
		p.text, p.secret = "", v.secret
		if n := len(v.secret.Reveal()); n > 64 {
			return p, fmt.Sprintf("the shared secret is %d bytes long; the limit is 64", n), ""
		}
	case kBool:
		switch p.text {
		case "yes":
			p.yes = true
		case "no":
		default:
			return p, fmt.Sprintf("%s is yes or no, not %q", o.name, p.text), ""
		}
	case kEnum:
		if !slices.Contains(o.words, p.text) {
			if c := closest(p.text, o.words); c != "" {
				hint = fmt.Sprintf("did you mean %q?", c)
			}
			return p, fmt.Sprintf("%s is %s, not %q", o.name, oneOf(o.words), p.text), hint
		}
	case kNum, kSize:
		return o.number(p)
	case kWord, kWords:
		if p.text == "" {
			return p, o.name + " needs a value", ""
		}
	}
	return p, "", ""
}

// number reads a number. Units are binary; "s" is a sector of 512 bytes.
func (o *option) number(p parsed) (_ parsed, problem, hint string) {
	digits, unit := p.text, int64(0)
	if n := len(digits); n > 0 && o.kind == kSize {
		if unit = unitOf(digits[n-1]); unit != 0 {
			digits = digits[:n-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || digits[0] == '+' || digits[0] == '-' || len(digits) > 13 {
		what := "a whole number"
		if o.kind == kSize {
			what += ", perhaps with K, M or G behind it"
		} else if o.unit != "" {
			hint = "it counts " + o.unit
		}
		return p, fmt.Sprintf("%s is %s, not %q", o.name, what, p.text), hint
	}
	if o.kind == kNum {
		p.num = n
	} else {
		if unit == 0 {
			unit = o.scale
		}
		if n > 1<<62/unit {
			n = 1 << 62 / unit
		}
		p.num = n * unit
		n = p.num / o.scale
	}
	if n < o.min || n > o.max {
		return p, strings.TrimSpace(fmt.Sprintf("%s %s is out of range: %d to %d %s", o.name, p.text, o.min, o.max, o.unit)), ""
	}
	return p, "", ""
}

// unitOf is what a letter behind a number stands for, 0 if it is none.
func unitOf(c byte) int64 {
	switch c {
	case 's', 'S':
		return 512
	case 'k', 'K':
		return 1 << 10
	case 'm', 'M':
		return 1 << 20
	case 'g', 'G':
		return 1 << 30
	default:
		return 0
	}
}

// isDefault says whether a value changes nothing.
func (o *option) isDefault(p parsed) bool {
	d, problem, _ := o.check(defaultValue(o))
	if o.def == "" || problem != "" {
		return false
	}
	switch o.kind {
	case kBool:
		return p.yes == d.yes
	case kNum, kSize:
		return p.num == d.num
	default:
		return p.text == d.text
	}
}

func defaultValue(o *option) value {
	if o.def == "" {
		return value{}
	}
	return value{words: []string{o.def}}
}
