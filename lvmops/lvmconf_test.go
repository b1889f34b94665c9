package lvmops

import (
	"strings"
	"testing"
)

func TestConfReject(t *testing.T) {
	patterns := []string{"r|^/dev/sdb$|"}
	cases := []struct{ name, before, want string }{
		{"empty", "", "devices {\n\t# the disks behind replicated devices, written by santui doctor\n\tglobal_filter = [ \"r|^/dev/sdb$|\" ]\n}\n"},
		{"no final line break", "log { verbose = 0 }", "global_filter = [ \"r|^/dev/sdb$|\" ]\n}\n"},
		{"section", "devices {\n\tfilter = [ \"a|.*|\" ]\n}\n", "devices {\n\t# the disks behind replicated devices, written by santui doctor\n\tglobal_filter = [ \"r|^/dev/sdb$|\" ]\n\tfilter = [ \"a|.*|\" ]\n}\n"},
		{"list", "devices {\n\tglobal_filter = [ \"a|sda|\", # mine ]\n\t\t\"r|.*|\" ]\n\tdir = \"/dev\"\n}\n", "devices {\n\tglobal_filter = [ \"r|^/dev/sdb$|\", \"a|sda|\", \"r|.*|\" ]\n\tdir = \"/dev\"\n}\n"},
		{"one string", "devices { global_filter = \"a|.*|\" }\n", "devices { global_filter = [ \"r|^/dev/sdb$|\", \"a|.*|\" ] }\n"},
		{"flat", "devices/global_filter = [ \"a|.*|\" ]\n", "devices/global_filter = [ \"r|^/dev/sdb$|\", \"a|.*|\" ]\n"},
		{"commented out", "devices {\n\t# global_filter = [ \"a|.*|\" ]\n}\n", "global_filter = [ \"r|^/dev/sdb$|\" ]\n\t# global_filter"},
		{"another section's", "activation { global_filter = [ \"x\" ] }\n", "devices {"},
		{"there already", "devices { global_filter = [ \"r|^/dev/sdb$|\" ] }\n", "devices { global_filter = [ \"r|^/dev/sdb$|\" ] }\n"},
		{"braces in a string", "log { file = \"a}b{\" }\ndevices {\n}\n", "devices {\n\t# the"},
	}
	for _, c := range cases {
		got, err := confReject(c.before, patterns)
		if err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, got, c.want)
		}
		again, err := confReject(got, patterns)
		if err != nil || again != got {
			t.Errorf("%s: written twice: %v\n%s", c.name, err, again)
		}
	}
	for _, bad := range []string{"devices {", "}", "devices { global_filter = 7 }", "devices { global_filter = [ \"a", "x = \"", "devices { global_filter = [ 1 ] }"} {
		if got, err := confReject(bad, patterns); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func FuzzConfReject(f *testing.F) {
	f.Add("devices {\n\tglobal_filter = [ \"a|.*|\" ]\n}\n")
	f.Add("devices/global_filter=\"x\" # c\nlog { a = 'b' }")
	f.Fuzz(func(t *testing.T, text string) {
		once, err := confReject(text, []string{"r|^/dev/x$|"})
		if err != nil {
			return
		}
		if twice, err := confReject(once, []string{"r|^/dev/x$|"}); err != nil || twice != once {
			t.Errorf("not stable: %v\n%q\n%q", err, once, twice)
		}
	})
}

func TestRejectPattern(t *testing.T) {
	for name, want := range map[string]string{
		"/dev/sdb":                 "r|^/dev/sdb$|",
		"/dev/disk/by-id/wwn+0x.1": "r|^/dev/disk/by-id/wwn.0x.1$|",
		"/dev/a|b\"c":              "r|^/dev/a.b.c$|",
	} {
		if got := rejectPattern(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if d := diffLines("a\nb\nc\n", "a\nB\nB2\nc\n"); strings.Join(d, "|") != " a|-b|+B|+B2| c" {
		t.Errorf("%q", d)
	}
}
