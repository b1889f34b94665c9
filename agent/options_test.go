package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/santui/agent/drbdconf"
	"example.com/santui/agent/engine"
	"example.com/santui/datapath"
)

// samples are values other than the default for every option of drbd.conf; a second line is what it needs besides.
var samples = map[string]string{
	"net protocol": "A", "net timeout": "70", "net ping-timeout": "9", "net ping-int": "11", "net connect-int": "11", "net ko-count": "3",
	"net max-buffers": "4096", "net max-epoch-size": "100", "net sndbuf-size": "512k", "net rcvbuf-size": "512k", "net unplug-watermark": "16",
	"net socket-check-timeout": "5", "net cram-hmac-alg": "sha256", "net shared-secret": `"another"`, "net verify-alg": "md5",
	"net csums-alg": "md5", "net csums-after-crash-only": "yes", "net data-integrity-alg": "md5", "net allow-two-primaries": "yes",
	"net always-asbp": "yes", "net after-sb-0pri": "discard-zero-changes", "net after-sb-1pri": "consensus", "net after-sb-2pri": "violently-as0p",
	"net rr-conflict": "call-pri-lost", "net on-congestion": "pull-ahead;\nprotocol A", "net congestion-fill": "1M", "net congestion-extents": "100",
	"net tcp-cork": "no", "net use-rle": "no", "net discard-my-data": "yes", "net on-disconnect": "stand_alone", "net allow-remote-read": "no",
	"net transport": "rdma", "net tls": "yes",
	"disk on-io-error": "pass_on", "disk fencing": "resource-only", "disk resync-rate": "5M", "disk al-extents": "257", "disk size": "1M",
	"disk resync-after": "r1", "disk group": "1", "disk disk-timeout": "5", "disk c-plan-ahead": "5", "disk c-delay-target": "5",
	"disk c-fill-target": "1M", "disk c-max-rate": "1M", "disk c-min-rate": "1M", "disk disk-barrier": "yes", "disk disk-flushes": "no",
	"disk disk-drain": "no", "disk md-flushes": "no", "disk al-updates": "no", "disk read-balancing": "prefer-remote",
	"disk rs-discard-granularity": "64k", "disk discard-zeroes-if-aligned": "no", "disk disable-write-same": "yes", "disk max-bio-bvecs": "1",
	"disk use-bmbv":       "yes",
	"startup wfc-timeout": "5", "startup degr-wfc-timeout": "5", "startup outdated-wfc-timeout": "5", "startup wait-after-sb": "yes",
	"startup stacked-timeouts": "yes", "startup become-primary-on": "otter",
	"options cpu-mask": "3", "options on-no-data-accessible": "suspend-io", "options auto-promote": "yes", "options auto-promote-timeout": "5",
	"options quorum": "majority", "options on-no-quorum": "io-error",
	"global usage-count": "no", "global minor-count": "64", "global dialog-refresh": "5", "global disable-ip-verification": "yes",
	"global disable-io-hints": "yes", "global udev-always-use-vnr": "yes", "global cmd-timeout-short": "5", "global cmd-timeout-medium": "50",
	"global cmd-timeout-long": "100",
}

// aboutTools are options that tell drbdadm how to go about its work, not DRBD.
const aboutTools = "global"

// optionConf is a drbd.conf of two resources with one option in the first.
func optionConf(t *testing.T, section, name, value string) string {
	t.Helper()
	global := ""
	inner := ""
	switch {
	case name == "":
	case section == aboutTools:
		global = fmt.Sprintf("global { %s %s; }", name, value)
	default:
		inner = fmt.Sprintf("%s { %s %s; }", section, name, value)
	}
	host := func(node string, ip, nr int) string {
		return fmt.Sprintf("on %s { device /dev/drbd%d; disk /dev/md%d; address 10.0.0.%d:77%02d; meta-disk internal; }\n", node, nr, nr, ip, nr)
	}
	f := global + "\nresource r0 {\nnet { shared-secret \"one\"; cram-hmac-alg sha1; csums-alg sha1; }\n" + inner + "\n" + host("otter", 1, 0) + host("weasel", 2, 0) +
		"}\nresource r1 {\n" + host("otter", 1, 1) + host("weasel", 2, 1) + "}\n"
	path := filepath.Join(t.TempDir(), "drbd.conf")
	if err := os.WriteFile(path, []byte(f), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryOptionActs: no option of drbd.conf is ignored in silence: it changes what the engine is told, or check-config
// reports it, or it is refused by name.
func TestEveryOptionActs(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("drbdconf/options.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\{section: "(\w+)", name: "([\w-]+)"`).FindAllStringSubmatch(string(src), -1) {
		if _, ok := samples[m[1]+" "+m[2]]; !ok {
			t.Errorf("%s %s: the option has no line in this test", m[1], m[2])
		}
	}
	told := func(section, name, value string) (resourceConf, error) {
		conf, err := drbdconf.Parse(optionConf(t, section, name, value))
		if err != nil {
			t.Errorf("%s { %s %s; }: %v", section, name, value, err)
			return resourceConf{}, err
		}
		if err := conf.Resources[0].Refused(); err != nil {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s { %s %s; } is refused, but not by name: %v", section, name, value, err)
			}
			return resourceConf{}, err
		}
		c, err := fromDRBDConf(conf.Resources[0], Config{Node: "otter"})
		if err != nil {
			return c, err
		}
		for _, f := range c.findings {
			if strings.Contains(f.String(), name) {
				return c, fmt.Errorf("reported: %v", f)
			}
		}
		return c, nil
	}
	plain, err := told("net", "", "")
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Options{cmpopts.IgnoreTypes((func() int64)(nil)), cmpopts.IgnoreFields(datapath.Config{}, "Open", "OpenMeta", "Helper")}
	for option, value := range samples {
		section, name, _ := strings.Cut(option, " ")
		c, err := told(section, name, value)
		if section != aboutTools && err == nil && cmp.Equal(plain.datapath, c.datapath, same) && plain.startup == c.startup {
			t.Errorf("%s { %s %s; } changes nothing, and nobody is told", section, name, value)
		}
	}
}

// TestHandlersReach: the handlers of drbd.conf are the engine's.
func TestHandlersReach(t *testing.T) {
	t.Parallel()
	for _, h := range []string{"pri-on-incon-degr", "initial-split-brain", "split-brain", "local-io-error", "before-resync-target", "after-resync-target",
		"before-resync-source", "out-of-sync", "fence-peer", "outdate-peer", "unfence-peer", "pri-lost-after-sb", "pri-lost"} {
		conf, err := drbdconf.Parse(optionConf(t, "handlers", h, `"/bin/true"`))
		if err != nil {
			t.Fatal(err)
		}
		c, err := fromDRBDConf(conf.Resources[0], Config{Node: "otter"})
		if err != nil {
			t.Fatal(err)
		}
		if h == "outdate-peer" {
			h = "fence-peer"
		}
		if helper, ok := c.datapath.Helper.(*engine.Handlers); !ok || !helper.Has(h) {
			t.Errorf("handler %s is not the engine's", h)
		}
	}
}
