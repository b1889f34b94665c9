package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"example.com/santui/proto"
)

// Bounds of a resource's section in agent.toml.
const (
	maxEntries    = 32       // of each list
	maxArgv       = 4096     // bytes of a command line
	defaultLimit  = 60       // seconds
	maxLimit      = 600      // seconds, what the agent allows any step
	maxInterface  = 15       // IFNAMSIZ - 1, net/if.h
	maxUnit       = 255      // UNIT_NAME_MAX, systemd's src/basic/unit-def.h
	maxExportText = 1000     // bytes of an export's options
	maxPath       = 4096 - 1 // PATH_MAX, limits.h
	sectionPrefix = "resource"
)

var (
	unitPattern    = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(service|socket|timer|target|path)$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	clientPattern  = regexp.MustCompile(`^[A-Za-z0-9*?@\[][A-Za-z0-9_.*?@/\[\]-]{0,254}$`)
	optionsPattern = regexp.MustCompile(`^[A-Za-z0-9_=:,.@/-]+$`)
	ifacePattern   = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)
)

// settingError is a setting that cannot be used: which key, the how many-th of its table, and why.
type settingError struct {
	table string // scripts, address, exports, or "" for the section itself
	index int    // which of the tables, from 0
	key   string
	err   error
}

func (e *settingError) Error() string {
	name := e.key
	if e.table != "" {
		name = fmt.Sprintf("%s[%d].%s", e.table, e.index, e.key)
	}
	return fmt.Sprintf("%s: %v", name, e.err)
}

// checkService refuses what must not reach a command line, and fills in defaults.
func checkService(s *proto.Service) error {
	for _, n := range []struct {
		key string
		n   int
	}{{"units", len(s.Units)}, {"scripts", len(s.Scripts)}, {"address", len(s.Address)}, {"exports", len(s.Exports)}, {"keep", len(s.Keep)}} {
		if n.n > maxEntries {
			return &settingError{key: n.key, err: fmt.Errorf("%d entries; at most %d are allowed", n.n, maxEntries)}
		}
	}
	for i, u := range s.Units {
		if err := checkUnit(u, s.Units[:i]); err != nil {
			return &settingError{key: "units", err: err}
		}
	}
	for i := range s.Scripts {
		if key, err := checkScript(&s.Scripts[i], s.Scripts[:i]); err != nil {
			return &settingError{table: "scripts", index: i, key: key, err: err}
		}
	}
	for i, a := range s.Address {
		if key, err := checkAddress(a, s.Address[:i]); err != nil {
			return &settingError{table: "address", index: i, key: key, err: err}
		}
	}
	for i, e := range s.Exports {
		if key, err := checkExport(e, s.Exports[:i]); err != nil {
			return &settingError{table: "exports", index: i, key: key, err: err}
		}
	}
	for _, k := range s.Keep {
		if err := checkPath(k); err != nil {
			return &settingError{key: "keep", err: err}
		}
	}
	return nil
}

func checkUnit(u string, before []string) error {
	switch {
	case strings.HasSuffix(u, ".mount"), strings.HasSuffix(u, ".automount"):
		return fmt.Errorf("%q: mounts on the device are found and moved without being named", u)
	case len(u) > maxUnit, !unitPattern.MatchString(u):
		return fmt.Errorf("%q is no unit of systemd that can be moved (service, socket, timer, target or path, with its suffix)", u)
	case slices.Contains(before, u):
		return fmt.Errorf("%q is named twice", u)
	}
	return nil
}

func checkScript(s *proto.Script, before []proto.Script) (key string, err error) {
	switch {
	case !namePattern.MatchString(s.Name):
		return "name", fmt.Errorf("%q: 1 to 64 letters, digits, and any of _ . -", s.Name)
	case slices.ContainsFunc(before, func(b proto.Script) bool { return b.Name == s.Name }):
		return "name", fmt.Errorf("%q is named twice", s.Name)
	case s.Limit == 0:
		s.Limit = defaultLimit
	case !(s.Limit >= 1 && s.Limit <= maxLimit): // false for NaN too
		return "limit", fmt.Errorf("%v seconds: 1 to %d are possible", s.Limit, maxLimit)
	}
	if err := checkArgv(s.Stop); err != nil {
		return "stop", err
	}
	return "start", checkArgv(s.Start)
}

func checkArgv(argv []string) error {
	if len(argv) == 0 {
		return errors.New("a list of words is missing; the first is the program's absolute path")
	}
	n := 0
	for _, a := range argv {
		n += len(a) + 1
		if strings.ContainsAny(a, "\x00\n\r") {
			return fmt.Errorf("%q contains a NUL or the end of a line", a)
		}
	}
	if n > maxArgv {
		return fmt.Errorf("%d bytes; at most %d are allowed", n, maxArgv)
	}
	if err := checkPath(argv[0]); err != nil {
		return fmt.Errorf("%w; no shell is involved: write [\"/bin/sh\", \"-c\", \"...\"] where one is wanted", err)
	}
	return nil
}

func checkPath(p string) error {
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || len(p) > maxPath || strings.ContainsAny(p, "\x00\n\r") {
		return fmt.Errorf("%q is not an absolute path without . and .. and double slashes", p)
	}
	return nil
}

func checkAddress(a proto.Address, before []proto.Address) (key string, err error) {
	p, err := netip.ParsePrefix(a.Address)
	switch {
	case err != nil:
		return "address", fmt.Errorf("%q is not an address with its prefix, like 10.0.0.100/24 or fd00::100/64", a.Address)
	case p.Addr().Is4In6(), p.Addr().Is6() && p.Addr().IsLinkLocalUnicast():
		return "address", fmt.Errorf("%q: an address of one link (fe80::) or an IPv4 one in disguise (::ffff:) is no service's", a.Address)
	case p.String() != a.Address || p.Bits() == 0 || p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsUnspecified(),
		p.Bits() < p.Addr().BitLen()-1 && p.Masked().Addr() == p.Addr():
		return "address", fmt.Errorf("%q is not the address of a host", a.Address)
	case slices.ContainsFunc(before, func(b proto.Address) bool { return b.Address == a.Address }):
		return "address", fmt.Errorf("%q is named twice", a.Address)
	case len(a.Interface) > maxInterface, !ifacePattern.MatchString(a.Interface), a.Interface[0] == '-':
		return "interface", fmt.Errorf("%q is no name of a network interface", a.Interface)
	}
	return "", nil
}

func checkExport(e proto.Export, before []proto.Export) (key string, err error) {
	if err := checkPath(e.Path); err != nil {
		return "path", err
	}
	switch {
	case strings.Contains(e.Client, ":"):
		return "client", fmt.Errorf("%q: IPv6 clients are not in this version", e.Client)
	case !clientPattern.MatchString(e.Client):
		return "client", fmt.Errorf("%q is no client in exportfs' words: *, a host, @netgroup, 10.0.0.0/24", e.Client)
	case len(e.Options) > maxExportText, !optionsPattern.MatchString(e.Options), e.Options[0] == '-':
		return "options", fmt.Errorf("%q are no options in exportfs' words: rw,sync,no_subtree_check", e.Options)
	case slices.ContainsFunc(before, func(b proto.Export) bool { return b.Path == e.Path && b.Client == e.Client }):
		return "path", fmt.Errorf("%s is exported twice to %s", e.Path, e.Client)
	}
	return "", nil
}

// lineOf finds, from 1, the line of a TOML text that sets a key: in table resource.NAME, or in the index-th array table
// resource.NAME.TABLE. Where the key is not set, it is the table's own line; 0 if that is not written as a header.
func lineOf(text, resource, table string, index int, key string) int {
	line, at, seen, inside := 0, 0, -1, false
	want := sectionPrefix + "." + resource
	if table != "" {
		want += "." + table
	}
	for l := range strings.Lines(text) {
		line++
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "[") {
			header, _, _ := strings.Cut(strings.TrimLeft(l, "["), "]")
			name := strings.NewReplacer(`"`, "", "'", "", " ", "").Replace(header)
			inside = name == want
			if inside {
				if seen++; table == "" || seen == index {
					at = line
				}
			}
			inside = inside && (table == "" || seen == index)
			continue
		}
		if k, _, ok := strings.Cut(l, "="); ok && inside && strings.Trim(strings.TrimSpace(k), `"'`) == key {
			return line
		}
	}
	return at
}

// setsKey says whether a line of a TOML text sets a key.
func setsKey(text string, line int, key string) bool {
	for l := range strings.Lines(text) {
		if line--; line == 0 {
			k, _, ok := strings.Cut(l, "=")
			return ok && strings.Trim(strings.TrimSpace(k), `"'`) == key
		}
	}
	return false
}

// describeService words what moves with a resource, in the order in which it is brought up.
func describeService(s proto.Service) []string {
	var lines []string
	for _, e := range slices.Backward(s.Exports) {
		lines = append(lines, fmt.Sprintf("  exports %s to %s (%s)", e.Path, e.Client, e.Options))
	}
	for _, u := range slices.Backward(s.Units) {
		lines = append(lines, "  starts "+u)
	}
	for _, x := range slices.Backward(s.Scripts) {
		lines = append(lines, fmt.Sprintf("  runs %s (%s), limit %v s", strings.Join(x.Start, " "), x.Name, x.Limit))
	}
	for _, a := range slices.Backward(s.Address) {
		lines = append(lines, fmt.Sprintf("  adds %s to %s", a.Address, a.Interface))
	}
	if len(lines) > 0 {
		lines = append([]string{"  after the mounts, on the node that becomes Primary (undone in reverse before the unmount on the other):"}, lines...)
	}
	for _, k := range s.Keep {
		lines = append(lines, "  keeps "+k)
	}
	return lines
}
