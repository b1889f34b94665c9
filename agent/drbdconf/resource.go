package drbdconf

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// maxMinor is DRBD_MINOR_NUMBER_MAX.
const maxMinor = 1<<20 - 1

// maxResources bounds a configuration.
const maxResources = 256

// resourceWords are the statements of a resource beside its sections.
var resourceWords = append([]string{"protocol", "on", "device", "disk", "meta-disk", "volume", "incon-degr-cmd"}, sections...)

// refusedBlocks are statements of a resource that this version does not do.
var refusedBlocks = map[string]string{
	"floating":          "hosts without a name are not in this version",
	"stacked-on-top-of": "stacked resources are not in this version",
	"proxy":             "DRBD Proxy is not in this version",
	"connection":        drbd9, "connection-mesh": drbd9, "template-file": drbd9,
}

// volume is what device, disk and meta-disk say, for a host or, as a default, for the whole resource.
type volume struct {
	device, disk, metaDisk token
	metaIndex              int
	minor                  int
	hasDevice              bool
}

// place is where a volume's statements stand: in a host's section or at the resource's top.
type place struct {
	r     *Resource
	where string
	vol   *volume
}

// draft is a resource being read: what its hosts leave out comes from the resource.
type draft struct {
	vol   volume
	hosts []*hostDraft
}

type hostDraft struct {
	host *Host
	vol  volume
}

func (p *parser) resource(l *lexer) error {
	t, err := p.text(l, "the name of a resource")
	if err != nil {
		return err
	}
	p.checkResourceName(t)
	if len(p.conf.Resources) >= maxResources {
		return p.fail(t.pos, "", "more than %d resources", maxResources)
	}
	r := newResource(t.text, t.pos)
	if first := p.resources[r.Name]; first != nil {
		p.errorf(t.pos, fmt.Sprintf("the first is at %s", first.Pos), "a second resource %s", r.Name)
	} else {
		p.resources[r.Name] = r
	}
	p.conf.Resources = append(p.conf.Resources, r)
	d := &draft{vol: volume{minor: -1}}
	if err := p.block(l, func(t token) error { return p.resourceBody(l, r, d, t) }); err != nil {
		return err
	}
	for _, h := range d.hosts {
		p.complete(r, d, h)
		r.Hosts = append(r.Hosts, h.host)
	}
	return nil
}

// checkResourceName keeps to names that are safe as a file name and on a command line.
func (p *parser) checkResourceName(t token) {
	bad := t.text == "" || t.text == "all" || t.text[0] == '-' || t.text[0] == '.' ||
		strings.ContainsFunc(t.text, func(r rune) bool { return r > 0x7e || !isWordByte(byte(r)) || r == '/' || r == '%' })
	if bad {
		p.errorf(t.pos, "use letters, digits, - _ and .; not \"all\"", "%q cannot be the name of a resource", t.text)
	}
}

func (p *parser) resourceBody(l *lexer, r *Resource, d *draft, t token) error {
	next, err := l.look()
	if err != nil {
		return err
	}
	switch t.text {
	case "protocol":
		return p.setOption(l, r, "net", t)
	case "incon-degr-cmd":
		return p.inconDegr(l, r)
	case "on":
		return p.host(l, r, d)
	case "volume":
		return p.volume(l, place{r, "resource " + r.Name, &d.vol})
	case "device", "meta-disk", "flexible-meta-disk":
		return p.volumeStatement(l, place{r, "resource " + r.Name, &d.vol}, t)
	case "disk":
		if !next.is("{") {
			return p.volumeStatement(l, place{r, "resource " + r.Name, &d.vol}, t)
		}
		return p.section(l, r, t)
	case "net", "syncer", "startup", "handlers", "options":
		return p.section(l, r, t)
	}
	if why, ok := refusedBlocks[t.text]; ok {
		p.refuse(r, t.pos, t.text, why, t.text != "proxy")
		return p.skipStatement(l)
	}
	return p.unknown(t, "resource "+r.Name, resourceWords)
}

// skipStatement passes over words up to ";" or over words and a block.
func (p *parser) skipStatement(l *lexer) error {
	for {
		t, err := l.look()
		switch {
		case err != nil:
			return err
		case t.is("{"):
			return p.skipBlock(l)
		case t.is("}"), t.kind == tokEOF:
			return p.fail(t.pos, "", "expected \";\" or \"{\", found %s", t.describe())
		}
		if _, err := l.next(); err != nil || t.is(";") {
			return err
		}
	}
}

// host reads "on NAME { ... }".
func (p *parser) host(l *lexer, r *Resource, d *draft) error {
	t, err := p.text(l, "the name of a node")
	if err != nil {
		return err
	}
	more, err := l.look()
	if err != nil {
		return err
	}
	if more.kind == tokWord || more.kind == tokQuoted {
		p.refuse(r, more.pos, "on "+t.text+" "+more.text, "several nodes in one section are not in this version", true)
		return p.skipStatement(l)
	}
	for _, h := range d.hosts {
		if h.host.Name == t.text {
			p.errorf(t.pos, fmt.Sprintf("the first is at %s", h.host.Pos), "a second section \"on %s\" in resource %s", t.text, r.Name)
		}
	}
	h := &hostDraft{host: &Host{Name: t.text, Pos: t.pos, Minor: -1}, vol: volume{minor: -1}}
	d.hosts = append(d.hosts, h)
	at := place{r, "on " + t.text, &h.vol}
	return p.block(l, func(t token) error { return p.hostBody(l, at, h, t) })
}

func (p *parser) hostBody(l *lexer, at place, h *hostDraft, t token) error {
	switch t.text {
	case "address":
		return p.address(l, at.r, h.host, t)
	case "device", "disk", "meta-disk", "flexible-meta-disk":
		return p.volumeStatement(l, at, t)
	case "volume":
		return p.volume(l, at)
	case "node-id": // DRBD 9 numbers its nodes; two nodes need no numbers
		_, err := p.statement(l, "a number")
		return err
	case "alternate-link-address", "proxy", "options":
		p.refuse(at.r, t.pos, at.where+": "+t.text, notYet, false)
		return p.skipStatement(l)
	}
	return p.unknown(t, at.where, []string{"device", "disk", "address", "meta-disk", "volume"})
}

// volume reads "volume N { ... }"; only volume 0 exists here.
func (p *parser) volume(l *lexer, at place) error {
	t, err := p.text(l, "a volume's number")
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(t.text); err != nil || n < 0 || n > 65535 {
		p.errorf(t.pos, "", "a volume's number is 0 to 65535, not %q", t.text)
	} else if n != 0 {
		p.refuse(at.r, t.pos, "volume "+t.text, "more than one volume, or one other than 0, is not in this version", true)
		return p.skipBlock(l)
	}
	return p.block(l, func(t token) error {
		switch t.text {
		case "device", "disk", "meta-disk", "flexible-meta-disk":
			return p.volumeStatement(l, at, t)
		}
		return p.unknown(t, "volume 0", []string{"device", "disk", "meta-disk"})
	})
}

// volumeStatement reads device, disk or meta-disk.
func (p *parser) volumeStatement(l *lexer, at place, t token) error {
	twice := func(first token) {
		if first.pos.Line != 0 {
			p.errorf(t.pos, fmt.Sprintf("the first is at %s", first.pos), "a second %s in %s", t.text, at.where)
		}
	}
	switch t.text {
	case "device":
		twice(at.vol.device)
		return p.device(l, at.vol, t)
	case "disk":
		twice(at.vol.disk)
		return p.disk(l, at, t)
	default:
		twice(at.vol.metaDisk)
		return p.metaDisk(l, at, t)
	}
}

func (p *parser) disk(l *lexer, at place, t token) error {
	next, err := l.look()
	if err != nil {
		return err
	}
	if next.is("{") {
		return p.section(l, at.r, t) // options of the volume; there is only one
	}
	d, err := p.statement(l, "the path of the backing disk")
	if err != nil {
		return err
	}
	at.vol.disk = d
	switch {
	case d.text == "none":
		p.refuse(at.r, d.pos, "disk none", "a node without a disk is not in this version", true)
	case !path.IsAbs(d.text):
		p.errorf(d.pos, "write the whole path, as in /dev/md3", "the disk's path %q is not absolute", d.text)
	}
	return nil
}

// maxMetaIndex is the last slot of a device for external metadata (drbdmeta.c).
const maxMetaIndex = 255

// metaDisk reads "internal;", "/dev/sdd;" or "/dev/sdd[0];".
func (p *parser) metaDisk(l *lexer, at place, t token) error {
	m, err := p.text(l, "internal, or the path of a device")
	if err != nil {
		return err
	}
	at.vol.metaDisk, at.vol.metaIndex = m, Flexible
	next, err := l.look()
	if err != nil {
		return err
	}
	external := m.text != "internal"
	if external && !path.IsAbs(m.text) {
		p.errorf(m.pos, "write the whole path, as in /dev/md3, or internal", "the path of the device for metadata %q is not absolute", m.text)
	}
	if next.is("[") {
		if !external || t.text == "flexible-meta-disk" {
			return p.fail(next.pos, "", "%s %s takes no index", t.text, m.text)
		}
		if err := p.metaIndex(l, at.vol); err != nil {
			return err
		}
	}
	_, err = p.want(l, ";")
	return err
}

// metaIndex reads "[0]".
func (p *parser) metaIndex(l *lexer, v *volume) error {
	if _, err := p.want(l, "["); err != nil {
		return err
	}
	i, err := p.text(l, "an index")
	if err != nil {
		return err
	}
	if v.metaIndex, err = strconv.Atoi(i.text); err != nil || v.metaIndex < 0 || v.metaIndex > maxMetaIndex {
		p.errorf(i.pos, "", "an index on a device for metadata is 0 to %d, not %q", maxMetaIndex, i.text)
	}
	_, err = p.want(l, "]")
	return err
}

// device reads "device /dev/drbd0 [minor 0];" or "device minor 0;".
func (p *parser) device(l *lexer, v *volume, t token) error {
	d, err := p.text(l, "a device, as in /dev/drbd0")
	if err != nil {
		return err
	}
	v.device, v.hasDevice = d, true
	name := d.text
	if name == "minor" {
		return p.minor(l, v, "")
	}
	if strings.HasPrefix(name, "drbd") {
		name = "/dev/" + name
	}
	rest, ok := strings.CutPrefix(name, "/dev/drbd")
	if !ok {
		p.errorf(d.pos, "as in /dev/drbd0", "a device's name must begin with /dev/drbd, %q does not", d.text)
	}
	v.device.text = name
	next, err := l.look()
	if err != nil {
		return err
	}
	if next.kind == tokWord && next.text == "minor" {
		if _, err := l.next(); err != nil {
			return err
		}
		return p.minor(l, v, rest)
	}
	if n, err := strconv.Atoi(rest); ok && err == nil && rest[0] >= '0' && rest[0] <= '9' && n <= maxMinor {
		v.minor = n
	} else if ok {
		p.errorf(d.pos, "as in: device "+name+" minor 0;", "the device's name %q holds no minor number", d.text)
	}
	_, err = p.want(l, ";")
	return err
}

// minor reads "0;" and compares it with the digits in the device's name.
func (p *parser) minor(l *lexer, v *volume, digits string) error {
	m, err := p.statement(l, "a minor number")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(m.text)
	switch {
	case err != nil || n < 0 || n > maxMinor:
		p.errorf(m.pos, "", "a minor number is 0 to %d, not %q", maxMinor, m.text)
		return nil
	case digits != "" && digits[0] >= '0' && digits[0] <= '9' && digits != strconv.Itoa(n):
		p.errorf(m.pos, fmt.Sprintf("device /dev/drbd%d minor %d;", n, n), "the device's name says %s, the minor number %d", digits, n)
	}
	v.minor = n
	if v.device.text == "minor" {
		v.device.text = fmt.Sprintf("/dev/drbd%d", n)
	}
	return nil
}

// address reads "[ipv4] 10.0.0.1:7788;" or "ipv6 [fd00::1]:7788;".
func (p *parser) address(l *lexer, r *Resource, h *Host, t token) error {
	if h.Address.IsValid() {
		p.errorf(t.pos, "", "a second address in \"on %s\"", h.Name)
	}
	if next, err := l.look(); err == nil && next.is("[") {
		return p.fail(next.pos, "as in: address ipv6 [fd00::1]:7788;", "an IPv6 address needs the word ipv6 before it")
	}
	a, err := p.text(l, "an address, as in 10.0.0.1:7788")
	if err != nil {
		return err
	}
	family := ""
	switch a.text {
	case "ipv4", "ipv6":
		family = a.text
	case "sdp", "ssocks", "sci":
		p.refuse(r, a.pos, "address "+a.text, "only TCP over IPv4 or IPv6 is in this version", true)
		return p.skipStatement(l)
	}
	host, port, at, err := p.hostPort(l, a, family)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		p.errorf(at, "names are not looked up: write the address in digits, as in 10.0.0.1:7788", "%q is not an IP address", host)
		return nil
	case family == "ipv4" && !ip.Is4(), family != "ipv6" && ip.Is6():
		p.errorf(at, "as in: address ipv6 [fd00::1]:7788;", "%q is not an IPv4 address", host)
		return nil
	case family == "ipv6" && ip.Is4():
		p.errorf(at, "as in: address ipv4 10.0.0.1:7788;", "%q is not an IPv6 address", host)
		return nil
	case ip.IsUnspecified() || ip.IsMulticast():
		p.errorf(at, "", "%s is not the address of one node", host)
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		p.errorf(at, "", "the port is 1 to 65535, not %q", port)
		return nil
	}
	h.Address = netip.AddrPortFrom(ip, uint16(n))
	return nil
}

// hostPort takes the tokens of an address up to the semicolon. a is the first one.
func (p *parser) hostPort(l *lexer, a token, family string) (host, port string, at Pos, err error) {
	t := a
	if family != "" {
		if t, err = l.next(); err != nil {
			return "", "", at, err
		}
	}
	at = t.pos
	if t.is("[") {
		for range 2 * maxWord {
			if t, err = l.next(); err != nil {
				return "", "", at, err
			}
			if t.is("]") || t.is(";") || t.kind == tokEOF {
				break
			}
			host += t.text
		}
		if !t.is("]") {
			return "", "", at, p.fail(t.pos, "", "expected \"]\" behind the address, found %s", t.describe())
		}
	} else if t.kind == tokWord || t.kind == tokQuoted {
		host = t.text
	} else {
		return "", "", at, p.fail(t.pos, "", "expected an address, found %s", t.describe())
	}
	if _, err = p.want(l, ":"); err != nil {
		return "", "", at, err
	}
	q, err := p.statement(l, "a port")
	return host, q.text, at, err
}
