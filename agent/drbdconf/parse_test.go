package drbdconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"example.com/santui/proto"
)

var update = flag.Bool("update", false, "write the golden messages anew")

func parseFile(t *testing.T, path string) *Config {
	t.Helper()
	c, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGuide(t *testing.T) {
	c := parseFile(t, "testdata/guide.conf")
	r, err := c.Resource("")
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "r0" || r.Protocol != proto.ProtocolC || r.Disk.ResyncRate != 30<<20 || r.Disk.OnIOError != "detach" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.Handlers["pri-on-incon-degr"], "halt -f") {
		t.Errorf("handlers %v", r.Handlers)
	}
	me, err := r.Host("otter")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := r.Peer("otter")
	if err != nil {
		t.Fatal(err)
	}
	if me.Device != "/dev/drbd0" || me.Minor != 0 || me.Disk != "/dev/md3" || me.MetaDisk != "internal" || me.Address.String() != "10.0.0.1:7788" {
		t.Errorf("otter: %+v", me)
	}
	if peer.Name != "weasel" || peer.Address.String() != "10.0.0.2:7788" {
		t.Errorf("peer: %+v", peer)
	}
	if err := r.Refused(); err != nil {
		t.Errorf("refused: %v", err)
	}
	if len(r.Unsupported) != 0 {
		t.Errorf("findings: %v", r.Unsupported)
	}
	_, err = r.Host("ferret")
	if err == nil || !strings.Contains(err.Error(), `no section "on ferret"; it has otter or weasel`) {
		t.Errorf("an unknown host: %v", err)
	}
	if _, err := c.Resource("r1"); err == nil || !strings.Contains(err.Error(), `no resource "r1"; it has r0`) {
		t.Errorf("an unknown resource: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	r := parseFile(t, "testdata/guide.conf").Resources[0]
	wantNet := Net{Timeout: 6 * time.Second, PingInt: 10 * time.Second, PingTimeout: 500 * time.Millisecond, ConnectInt: 10 * time.Second,
		KoCount: 7, MaxBuffers: 2048, MaxEpochSize: 2048, UseRLE: true, OnCongestion: "block", CongestionExtents: 1237,
		AfterSB: [3]string{"disconnect", "disconnect", "disconnect"}, RRConflict: "disconnect"}
	if d := cmp.Diff(wantNet, r.Net); d != "" {
		t.Error(d)
	}
	wantDisk := Disk{OnIOError: "detach", Fencing: "dont-care", ResyncRate: 30 << 20, ALExtents: 1237, CDelayTarget: 10, CFillTarget: 50 << 10,
		CMinRate: 250 << 10, CMaxRate: 100 << 20, Flushes: true, MDFlushes: true}
	if d := cmp.Diff(wantDisk, r.Disk); d != "" {
		t.Error(d)
	}
}

func TestModern(t *testing.T) {
	c := parseFile(t, "testdata/modern/drbd.conf")
	if len(c.Files) != 4 {
		t.Errorf("files %v", c.Files)
	}
	mail, err := c.Resource("mail")
	if err != nil {
		t.Fatal(err)
	}
	n := mail.Net
	if string(n.Secret.Reveal()) != "rosebud" || n.CRAMAlg != "sha1" || n.PingTimeout != 2*time.Second || n.Timeout != 9*time.Second || n.MaxBuffers != 36<<10 {
		t.Errorf("net: %+v", n)
	}
	if d := mail.Disk; d.ResyncRate != 100<<20 || d.OnIOError != "pass_on" || d.Flushes || d.CPlanAhead != 0 {
		t.Errorf("disk: %+v", d)
	}
	if mail.Startup.DegrWFCTimeout != 2*time.Minute {
		t.Errorf("startup: %+v", mail.Startup)
	}
	otter, weasel := mail.Hosts[0], mail.Hosts[1]
	if otter.Disk != "/dev/vg 0/mail" || otter.Device != "/dev/drbd1" || otter.Minor != 1 || otter.Address.String() != "[fd00::1]:7789" {
		t.Errorf("otter: %+v", otter)
	}
	if weasel.Name != "weasel" || weasel.Disk != "/dev/sdb" || weasel.MetaDisk != "internal" {
		t.Errorf("weasel: %+v", weasel)
	}
	if err := mail.Refused(); err != nil {
		t.Errorf("mail: %v", err)
	}

	news, err := c.Resource("news")
	if err != nil {
		t.Fatal(err)
	}
	if news.Protocol != proto.ProtocolA || string(news.Net.Secret.Reveal()) != "other" || news.Disk.ResyncRate != 10240<<10 {
		t.Errorf("news: %+v", news)
	}
	var refused []string
	for _, f := range news.Unsupported {
		if f.Refused {
			refused = append(refused, f.Option)
		}
	}
	slices.Sort(refused)
	if d := cmp.Diff([]string{"net allow-two-primaries yes"}, refused); d != "" {
		t.Error(d)
	}
	if h := news.Hosts[0]; !h.External() || h.MetaDisk != "/dev/sdd" || h.MetaIndex != 1 {
		t.Errorf("news: %+v", h)
	}
	if err := news.Refused(); err == nil || !strings.Contains(err.Error(), "news.res:3:8: resource news: net allow-two-primaries yes: santui keeps one Primary") {
		t.Errorf("news: %v", err)
	}
}

// TestMetaDisk: where the metadata is, as 0.7, 8.3 and 8.4 write it.
func TestMetaDisk(t *testing.T) {
	for text, want := range map[string]Host{
		"meta-disk internal":          {MetaDisk: "internal", MetaIndex: Flexible},
		"flexible-meta-disk internal": {MetaDisk: "internal", MetaIndex: Flexible},
		"meta-disk /dev/md1[0]":       {MetaDisk: "/dev/md1", MetaIndex: 0},
		"meta-disk /dev/md1 [ 255 ]":  {MetaDisk: "/dev/md1", MetaIndex: 255},
		"meta-disk /dev/md1":          {MetaDisk: "/dev/md1", MetaIndex: Flexible},
		"flexible-meta-disk /dev/md1": {MetaDisk: "/dev/md1", MetaIndex: Flexible},
	} {
		c, err := ParseReader(strings.NewReader(`resource r0 { `+text+`;
on a { device minor 0; disk /dev/sda; address 10.0.0.1:1; }
on b { device minor 0; disk /dev/sda; address 10.0.0.2:1; meta-disk internal; } }`), "x")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		a, b := c.Resources[0].Hosts[0], c.Resources[0].Hosts[1]
		if a.MetaDisk != want.MetaDisk || a.MetaIndex != want.MetaIndex || a.External() != (want.MetaDisk != "internal") || b.External() {
			t.Errorf("%s: %+v, %+v", text, a, b)
		}
		if err := c.Resources[0].Refused(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	const in = `resource r0 { net { cram-hmac-alg sha1; shared-secret "hunter2"; }
on a { device minor 0; disk /dev/sda; meta-disk internal; address 10.0.0.1:1; }
on b { device minor 0; disk /dev/sda; meta-disk internal; address 10.0.0.2:1; } }`
	c, err := ParseReader(strings.NewReader(in), "x")
	if err != nil {
		t.Fatal(err)
	}
	r := c.Resources[0]
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "r", r, "net", r.Net, "secret", r.Net.Secret)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "r", r, "net", r.Net, "secret", r.Net.Secret)
	for _, s := range []string{fmt.Sprint(c, r, *r, r.Net), fmt.Sprintf("%+v %+v %#v %#v %v", *r, r.Net, *r, r.Net, r.set), fmt.Sprint(r.Unsupported), string(j), logged.String()} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("the secret is in %q", s)
		}
	}
	if string(r.Net.Secret.Reveal()) != "hunter2" {
		t.Error("Reveal")
	}
	for _, bad := range []string{
		`resource r0 { net { shared-secret "hunter2" }`, `resource r0 { net { shared-secret "hunter2`,
		`resource r0 { net { shared-secret` + "\n" + `hunter2 =; }`, `resource r0 { net { shared-secret hunter2 hunter2; } }`,
		`resource r0 { net { timeout x; shared-secret "hunter2"; } }`, `bogus # shared-secret hunter2`,
		`resource r0 { net { timeout x; shared-secret` + "\n" + `"hunter2"; timeout y; } }`,
		`resource r0 { net { shared-secret hunter2` + "\n" + ` } }`, `resource r0 { net { shared-secret "` + strings.Repeat("hunter2", 20) + `"; } }`,
		`resource r0 { net { shared-secret [hunter2]; } }`, `resource r0 { net { shared-secert "hunter2"; } }`,
		`resource r0 { net { Shared-Secret "hunter2"; bogus; } }`,
	} {
		_, err := ParseReader(strings.NewReader(bad), "x")
		if err == nil {
			t.Errorf("accepted %q", bad)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the secret is in the message:\n%v", err)
		}
	}
}

// badConfig is one entry of testdata/errors.txt.
type badConfig struct{ name, text, message string }

const errorsFile = "testdata/errors.txt"

// badConfigs reads entries of the form "-- name.conf --", text, "-- name.err --", message.
func badConfigs(t testing.TB) (intro string, out []badConfig) {
	t.Helper()
	b, err := os.ReadFile(errorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var to *string = &intro
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "-- "); ok {
			if base, ok := strings.CutSuffix(name, ".conf --\n"); ok {
				out = append(out, badConfig{name: base + ".conf"})
				to = &out[len(out)-1].text
			} else {
				to = &out[len(out)-1].message
			}
			continue
		}
		*to += line
	}
	return intro, out
}

// TestErrors compares every message for bad input, word for word.
func TestErrors(t *testing.T) {
	intro, bad := badConfigs(t)
	var b strings.Builder
	b.WriteString(intro)
	for _, c := range bad {
		_, err := ParseReader(strings.NewReader(c.text), c.name)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		var list ErrorList
		if !errors.As(err, &list) || len(list) == 0 {
			t.Errorf("%s: %T is no ErrorList", c.name, err)
		}
		got := err.Error() + "\n"
		fmt.Fprintf(&b, "-- %s --\n%s-- %s.err --\n%s", c.name, c.text, strings.TrimSuffix(c.name, ".conf"), got)
		if !*update && got != c.message {
			t.Errorf("%s: %s", c.name, cmp.Diff(c.message, got))
		}
	}
	if *update {
		if err := os.WriteFile(errorsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, c := range []struct{ section, want string }{
		{"net { on-disconnect freeze_io; }", "net on-disconnect freeze_io: only reconnect"},
		{"net { transport rdma; }", "net transport rdma: belongs to DRBD 9"},
		{"net { rr-conflict violently; }", "net rr-conflict violently: the copy of a Primary"},
		{"disk { on-io-error panic; }", "disk on-io-error panic: a program in user space"},

		{"volume 1 { device minor 9; }", "volume 1: more than one volume"},
		{"floating 10.0.0.9:1 { }", "floating: hosts without a name"},
		{"stacked-on-top-of r1 { }", "stacked-on-top-of: stacked resources"},
		{"connection-mesh { hosts a b; }", "connection-mesh: belongs to DRBD 9"},
		{"on c d { }", "on c d: several nodes in one section"},
	} {
		in := "resource r0 { " + c.section + pairOfHosts + "}"
		conf, err := ParseReader(strings.NewReader(in), "x")
		if err != nil {
			t.Errorf("%s: %v", c.section, err)
			continue
		}
		if err := conf.Resources[0].Refused(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: refused as %v, want %q", c.section, err, c.want)
		}
	}
	for _, ignored := range []string{"startup { become-primary-on both; }", "syncer { cpu-mask f; }",
		"disk { no-md-flushes; }", "disk { fencing resource-only; }", "disk { al-extents 7; }", "net { shared-secret x; }", "options { cpu-mask f; }"} {
		conf, err := ParseReader(strings.NewReader("resource r0 { "+ignored+pairOfHosts+"}"), "x")
		if err != nil {
			t.Errorf("%s: %v", ignored, err)
			continue
		}
		if r := conf.Resources[0]; r.Refused() != nil || len(r.Unsupported) == 0 {
			t.Errorf("%s: findings %v", ignored, r.Unsupported)
		}
	}
	for _, silent := range []string{"net { verify-alg sha1; csums-alg md5; data-integrity-alg sha256; }", "net { protocol C; after-sb-0pri discard-zero-changes; after-sb-1pri consensus; always-asbp; rr-conflict call-pri-lost; use-rle no; }", "handlers { pri-lost x; }", "disk { fencing dont-care; md-flushes yes; }", "disk { fencing resource-only; } handlers { outdate-peer x; }", "options { on-no-data-accessible suspend-io; }", "protocol C;", "disk { al-extents 257; }",
		"disk { c-plan-ahead 7; c-delay-target 4; c-fill-target 1M; c-max-rate 10M; c-min-rate 1M; }"} {
		conf, err := ParseReader(strings.NewReader("resource r0 { "+silent+pairOfHosts+"}"), "x")
		if err != nil || len(conf.Resources[0].Unsupported) != 0 {
			t.Errorf("%s: %v, %v", silent, conf, err)
		}
	}
}

// TestYieldRate: a fixed rate yields to applications only if the files say so.
func TestYieldRate(t *testing.T) {
	for in, want := range map[string]int64{"": 250 << 10, "disk { c-min-rate 0; }": 0, "disk { c-plan-ahead 0; }": 0, "syncer { rate 30M; }": 0,
		"disk { c-plan-ahead 0; c-min-rate 4M; }": 4 << 20, "syncer { rate 30M; } disk { c-min-rate 1M; }": 1 << 20} {
		c, err := ParseReader(strings.NewReader("resource r0 { "+in+pairOfHosts+"}"), "x")
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if got := c.Resources[0].YieldRate(); got != want {
			t.Errorf("%s: %d bytes a second, want %d", in, got, want)
		}
	}
}

func TestCongestion(t *testing.T) {
	c, err := ParseReader(strings.NewReader("resource r0 { net { protocol A; on-congestion pull-ahead; congestion-fill 2M; congestion-extents 1000; } disk { rs-discard-granularity 64K; } "+pairOfHosts+"}"), "x")
	if err != nil {
		t.Fatal(err)
	}
	r := c.Resources[0]
	if n := r.Net; n.OnCongestion != "pull-ahead" || n.CongestionFill != 2<<20 || n.CongestionExtents != 1000 || len(r.Unsupported) > 0 || r.Refused() != nil || r.Disk.RSDiscardGranularity != 65536 {
		t.Errorf("%+v, %v", n, r.Unsupported)
	}
}

// TestFixedOrFound: a rate in an old file is the rate; one in a file of 8.4 is where the controller begins.
func TestFixedOrFound(t *testing.T) {
	for in, want := range map[string]int{"": 20, "disk { resync-rate 30M; }": 20, "syncer { rate 30M; }": 0, "disk { c-plan-ahead 0; }": 0,
		"disk { c-plan-ahead 7; } syncer { rate 30M; }": 7, "syncer { rate 30M; c-plan-ahead 5; }": 5, "syncer { al-extents 257; }": 20} {
		c, err := ParseReader(strings.NewReader("resource r0 { "+in+pairOfHosts+"}"), "x")
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if got := c.Resources[0].Disk.CPlanAhead; got != want {
			t.Errorf("%s: c-plan-ahead %d, want %d", in, got, want)
		}
	}
}

const pairOfHosts = `
on a { device minor 0; disk /dev/sda; meta-disk internal; address 10.0.0.1:1; }
on b { device minor 0; disk /dev/sda; meta-disk internal; address 10.0.0.2:1; }
`

func TestUnits(t *testing.T) {
	for in, want := range map[string]int64{"1": 1 << 10, "250": 250 << 10, "1K": 1 << 10, "30M": 30 << 20, "30m": 30 << 20, "1G": 1 << 30, "2s": 1 << 10} {
		c, err := ParseReader(strings.NewReader("resource r0 { syncer { rate "+in+"; }"+pairOfHosts+"}"), "x")
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := c.Resources[0].Disk.ResyncRate; got != want {
			t.Errorf("rate %s is %d, want %d", in, got, want)
		}
	}
	for _, in := range []string{"0", "5G", "1X", "-1", "+1", "M", "1.5M", "99999999999999999999", "9999999999999G", `""`, "1s"} {
		if _, err := ParseReader(strings.NewReader("resource r0 { syncer { rate "+in+"; }"+pairOfHosts+"}"), "x"); err == nil {
			t.Errorf("rate %s was accepted", in)
		}
	}
}

func TestIncludes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := "resource r0 {" + pairOfHosts + "}"
	fails := func(path, want string) {
		t.Helper()
		if _, err := Parse(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	c, err := Parse(write("self.conf", "include \"self.conf\";\ninclude \"nothing-?.conf\";\n"+good))
	if err != nil || len(c.Files) != 1 {
		t.Errorf("a file that includes itself: %v, %v", c, err)
	}
	fails(write("gone.conf", "include gone-too.conf;\n"+good), `gone.conf:1:9: cannot include "gone-too.conf": file does not exist`)
	fails(write("dir.conf", "include \".\";\n"+good), "is not a regular file")
	fails(write("glob.conf", "include \"[\";\n"+good), "syntax error in pattern")
	write("bad.inc", "resource {")
	fails(write("bad.conf", good+"\ninclude bad.inc;"), "bad.inc:1:10: expected the name of a resource")
	for i := range maxInclude + 2 {
		write(fmt.Sprintf("deep%d.conf", i), fmt.Sprintf("include deep%d.conf;", i+1))
	}
	fails(filepath.Join(dir, "deep0.conf"), "nested more than 10 deep")
	many := ""
	for i := range maxFiles + 1 {
		write(fmt.Sprintf("many%d.inc", i), "")
	}
	fails(write("many.conf", many+"include \"many*.inc\";"), "more than 256 files")
	fails(write("big.conf", strings.Repeat(" ", maxFile+1)), "larger than")
	fails(filepath.Join(dir, "none.conf"), "no such file")
	if _, err := Parse(filepath.Join(dir, "none.conf")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not fs.ErrNotExist: %v", err)
	}
}

// same compares configurations without places.
var same = cmp.Options{
	cmpopts.IgnoreTypes(Pos{}), cmpopts.IgnoreFields(Config{}, "Files"), cmp.AllowUnexported(Resource{}, value{}),
	cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty(),
}

func dumped(t interface {
	Fatalf(string, ...any)
	Helper()
}, c *Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Dump(&b); err != nil {
		t.Fatalf("Dump: %v", err)
	}
	return b.String()
}

// drawConfig makes the text of a valid configuration, with comments and odd spacing.
func drawConfig(t *rapid.T) string {
	var b strings.Builder
	word := rapid.StringMatching(`[a-z][a-z0-9_.-]{0,8}`)
	str := rapid.StringMatching(`[ -~]{1,40}`)
	for i := range rapid.IntRange(1, 3).Draw(t, "resources") {
		fmt.Fprintf(&b, "resource r%d{ # %s\n", i, str.Draw(t, "comment"))
		for _, o := range options {
			if o.section == "global" || o.not84 || rapid.IntRange(0, 3).Draw(t, o.name) > 0 {
				continue
			}
			v := ""
			switch o.kind {
			case kNum:
				v = fmt.Sprint(rapid.Int64Range(o.min, o.max).Draw(t, o.name))
			case kSize:
				v = fmt.Sprint(rapid.Int64Range(o.min, o.max).Draw(t, o.name))
			case kBool:
				v = rapid.SampledFrom([]string{"yes", "no", ""}).Draw(t, o.name)
			case kEnum:
				v = rapid.SampledFrom(slices.DeleteFunc(slices.Clone(o.words), func(w string) bool { return w == "panic" })).Draw(t, o.name)
			case kWord, kSecret:
				v = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(str.Draw(t, o.name)) + `"`
			case kWords:
				v = word.Draw(t, "first") + " " + word.Draw(t, "second")
			}
			if o.name == "resync-after" { // a resource that exists, and no loop
				if v = fmt.Sprintf("r%d", i-1); i == 0 {
					continue
				}
			}
			if o.name == "cram-hmac-alg" {
				fmt.Fprintf(&b, "net{ shared-secret x; }")
			}
			fmt.Fprintf(&b, "%s\n{%s %s;}", o.section, o.name, v)
		}
		for j, h := range []string{"one", "two"} {
			metaDisk := rapid.SampledFrom([]string{"meta-disk internal", fmt.Sprintf("meta-disk /md[%d]", 3*i), fmt.Sprintf("meta-disk \"/md 2\" [ %d ]", i),
				fmt.Sprintf("meta-disk /md%d", i), fmt.Sprintf("flexible-meta-disk /md%d", i), "flexible-meta-disk internal"}).Draw(t, "meta-disk")
			fmt.Fprintf(&b, "\ton %s { device /dev/drbd%d ; disk %q; address 10.0.%d.%d:%d; %s; }\n",
				h, i, "/dev/"+word.Draw(t, "disk")+fmt.Sprint(i), i, j+1, rapid.IntRange(1, 65535).Draw(t, "port"), metaDisk)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawConfig(t)
		c, err := ParseReader(strings.NewReader(text), "drawn")
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		roundTrip(t, c)
	})
	roundTrip(t, parseFile(t, "testdata/guide.conf"))
	roundTrip(t, parseFile(t, "testdata/modern/drbd.conf"))
}

func roundTrip(t interface {
	Fatalf(string, ...any)
	Helper()
}, c *Config) {
	t.Helper()
	text := dumped(t, c)
	again, err := ParseReader(strings.NewReader(text), "dumped")
	if err != nil {
		t.Fatalf("its own dump: %v\n%s", err, text)
	}
	for _, r := range c.Resources {
		delete(r.set, key{"net", "on-disconnect"})
	}
	for _, r := range slices.Concat(c.Resources, again.Resources) {
		for i := range r.Unsupported { // places, and the order that they give
			r.Unsupported[i].Pos = Pos{}
		}
		slices.SortFunc(r.Unsupported, func(a, b Finding) int { return strings.Compare(a.Option, b.Option) })
	}
	if d := cmp.Diff(c.Resources, again.Resources, same); d != "" {
		t.Fatalf("%s\n%s", d, text)
	}
	if first, second := dumped(t, c), dumped(t, again); first != second {
		t.Fatalf("the dump of the dump: %s", cmp.Diff(first, second))
	}
}

func TestDumpToday(t *testing.T) {
	text := dumped(t, parseFile(t, "testdata/guide.conf"))
	for _, want := range []string{"        # not in DRBD 8.4:\n        #        on-disconnect reconnect;\n", "resync-rate 30M;", "pri-on-incon-degr \"echo", "protocol C;"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	c, err := ParseReader(strings.NewReader("resource r0 { on c d { } "+pairOfHosts+"}"), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Dump(&strings.Builder{}); err == nil || !strings.Contains(err.Error(), "several nodes") {
		t.Errorf("dumping what is not understood: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, path := range []string{"testdata/guide.conf", "testdata/modern/drbd.d/mail.res", "testdata/modern/drbd.d/global_common.conf"} {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	_, bad := badConfigs(f)
	for _, c := range bad {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseReader(strings.NewReader(text), "fuzz")
		if err != nil {
			if n := len(err.Error()); n > 64<<10 {
				t.Fatalf("a message of %d bytes", n)
			}
			return
		}
		for _, r := range c.Resources {
			if r.structural {
				return
			}
			if len(r.Hosts) != 2 || r.Hosts[0].Disk == "" || !r.Hosts[1].Address.IsValid() || r.Protocol == 0 || r.Disk.ResyncRate <= 0 {
				t.Fatalf("accepted an incomplete resource: %+v", r)
			}
			for k, v := range r.set {
				if table[k].not84 || v.text() == "panic" { // not kept by a dump
					return
				}
			}
		}
		roundTrip(t, c)
	})
}

// TestResyncOrder: resync-after and 0.7's group say which resources go first; what is unknown or goes round is a mistake.
func TestResyncOrder(t *testing.T) {
	conf := func(disk ...string) string {
		var b strings.Builder
		for i, d := range disk {
			fmt.Fprintf(&b, "resource r%d { %s\n", i, d)
			for n, node := range []string{"otter", "weasel"} {
				fmt.Fprintf(&b, "on %s { device /dev/drbd%d; disk /dev/md%d; address 10.0.0.%d:%d; meta-disk internal; }\n", node, i, i, n+1, 7000+i)
			}
			b.WriteString("}\n")
		}
		return b.String()
	}
	for _, c := range []struct {
		disk  []string
		after string // of each resource, or a part of the message
		wrong bool
	}{
		{disk: []string{"", "disk { resync-after r0; }", "syncer { after r1; }"}, after: "[[] [r0] [r1]]"},
		{disk: []string{"disk { resync-after r1/0; }", ""}, after: "[[r1] []]"},
		{disk: []string{"syncer { group 2; }", "syncer { group 1; }", "", "syncer { group 1; }"}, after: "[[r1 r2 r3] [r2] [] [r2]]"},
		{disk: []string{"disk { resync-after r9; }"}, after: `r0 is to be resynced after "r9", which is not configured`, wrong: true},
		{disk: []string{"disk { resync-after r1/1; }", ""}, after: "after volume 1 of r1", wrong: true},
		{disk: []string{"disk { resync-after r0; }"}, after: "r0 would be resynced after itself: r0 after r0", wrong: true},
		{disk: []string{"disk { resync-after r1; }", "disk { resync-after r2; }", "disk { resync-after r1; }"}, after: "r1 after r2 after r1", wrong: true},
		{disk: []string{"syncer { group 1; }", "disk { resync-after r0; }"}, after: "after itself", wrong: true},
	} {
		got, err := ParseReader(strings.NewReader(conf(c.disk...)), "x")
		if c.wrong {
			if err == nil || !strings.Contains(err.Error(), c.after) {
				t.Errorf("%q: %v", c.disk, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.disk, err)
			continue
		}
		var after [][]string
		for _, r := range got.Resources {
			after = append(after, r.ResyncAfter)
			if len(r.Unsupported) > 0 {
				t.Errorf("%q: %v", c.disk, r.Unsupported)
			}
		}
		if s := fmt.Sprint(after); s != c.after {
			t.Errorf("%q: %s, want %s", c.disk, s, c.after)
		}
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf("syncer { group %d; }", i)
	}
	if _, err := ParseReader(strings.NewReader(conf(many...)), "x"); err != nil { // 20,000 dependencies, and 2^199 ways through them
		t.Errorf("200 groups: %v", err)
	}
}
