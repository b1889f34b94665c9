package drbdconf

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Dump writes the configuration in DRBD 8.4's syntax, common{} merged into the resources, as `drbdadm dump` does. What
// is not set is not written; what 8.4 does not have becomes a comment. The shared secrets are: w must not be a log. A resource whose structure is not supported
// cannot be written.
func (c *Config) Dump(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i, r := range c.Resources {
		if r.structural {
			return fmt.Errorf("resource %s cannot be written: %w", r.Name, r.Refused())
		}
		if i > 0 {
			fmt.Fprintln(b)
		}
		r.dump(b)
	}
	return b.Flush()
}

func (r *Resource) dump(w io.Writer) {
	fmt.Fprintf(w, "resource %s {\n", quote(r.Name))
	for _, h := range r.Hosts {
		fmt.Fprintf(w, "    on %s {\n", quote(h.Name))
		fmt.Fprintf(w, "        device %s minor %d;\n", quote(h.Device), h.Minor)
		fmt.Fprintf(w, "        disk %s;\n", quote(h.Disk))
		slot := ""
		if h.External() && h.MetaIndex != Flexible {
			slot = fmt.Sprintf(" [%d]", h.MetaIndex)
		}
		fmt.Fprintf(w, "        meta-disk %s%s;\n", quote(h.MetaDisk), slot)
		family := "ipv4"
		if h.Address.Addr().Is6() {
			family = "ipv6"
		}
		fmt.Fprintf(w, "        address %s %s;\n    }\n", family, h.Address)
	}
	keys := slices.SortedFunc(maps.Keys(r.set), func(a, b key) int { return strings.Compare(a.section+" "+a.name, b.section+" "+b.name) })
	for _, section := range []string{"net", "disk", "startup", "options", "handlers"} {
		open := false
		for _, k := range keys {
			if k.section != section {
				continue
			}
			if !open {
				fmt.Fprintf(w, "    %s {\n", section)
				open = true
			}
			if table[k].not84 {
				fmt.Fprint(w, "        # not in DRBD 8.4:\n        #")
			}
			r.set[k].dump(w, k.name)
		}
		if open {
			fmt.Fprintln(w, "    }")
		}
	}
	fmt.Fprintln(w, "}")
}

func (v value) dump(w io.Writer, name string) {
	words := v.words
	if name == "on-io-error" && v.text() == "panic" { // 0.7's word
		words = []string{"call-local-io-error"}
	}
	if secret := v.secret.Reveal(); secret != nil {
		words = []string{string(secret)}
	}
	fmt.Fprintf(w, "        %s", name)
	for _, s := range words {
		fmt.Fprintf(w, " %s", quote(s))
	}
	fmt.Fprintln(w, ";")
}

// quote puts a string in double quotes unless it is a word.
func quote(s string) string {
	plain := s != "" && len(s) <= maxWord
	for i := range len(s) {
		plain = plain && isWordByte(s[i]) && s[i] != '%'
	}
	if plain {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
