package service

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// AddAddressArgv is the command line of AddAddress. The kernel's own search for a duplicate of an IPv6 address would leave it
// unusable for a second; AddAddress has searched already.
func AddAddressArgv(a proto.Address) []string {
	argv := []string{"ip", "addr", "add", a.Address, "dev", a.Interface}
	if p, err := netip.ParsePrefix(a.Address); err == nil && p.Addr().Is6() {
		argv = append(argv, "nodad")
	}
	return argv
}

// DropAddressArgv is the command line of DropAddress.
func DropAddressArgv(a proto.Address) []string {
	return []string{"ip", "addr", "del", a.Address, "dev", a.Interface}
}

// Interface is a network interface of this node.
type Interface struct {
	Name    string
	Index   int
	Up      bool
	MAC     net.HardwareAddr // nil if it has none, and needs neither ARP nor neighbour discovery
	Addrs   []netip.Prefix
	NoProbe bool // it has no broadcast
	No6     bool // IPv6 is off on it
	Router  bool // it forwards IPv6
}

// Network is what the address steps see and say on the network.
type Network interface {
	Interfaces() ([]Interface, error)
	// Probe asks on an interface whether somebody else has an address, and returns who answered, nil if nobody did.
	Probe(ctx context.Context, on Interface, addr netip.Addr) (net.HardwareAddr, error)
	// Announce tells the neighbours on an interface that this node has an address, and returns what that is called, "" if
	// there are none to be told.
	Announce(ctx context.Context, on Interface, addr netip.Addr) (string, error)
}

// holder finds who has an address, nil if nobody.
func holder(list []Interface, addr netip.Addr) *Interface {
	for i := range list {
		if slices.ContainsFunc(list[i].Addrs, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return &list[i]
		}
	}
	return nil
}

func named(list []Interface, name string) *Interface {
	if i := slices.IndexFunc(list, func(x Interface) bool { return x.Name == name }); i >= 0 {
		return &list[i]
	}
	return nil
}

func (o *Ops) addresses(want []proto.Address) ([]proto.AddressState, error) {
	if len(want) == 0 {
		return nil, nil
	}
	list, err := o.opt.Net.Interfaces()
	if err != nil {
		return nil, o.failed(err, "reading the network interfaces")
	}
	noIP := ""
	if l, ok := o.opt.Runner.(looker); ok {
		if _, err := l.Look("ip"); err != nil {
			noIP = err.Error()
		}
	}
	var out []proto.AddressState
	for _, a := range want {
		s := proto.AddressState{Address: a, Problem: noIP}
		p, err := netip.ParsePrefix(a.Address)
		if err != nil {
			s.Problem = err.Error()
		} else if h := holder(list, p.Addr()); h != nil {
			s.Held = h.Name
		}
		switch at := named(list, a.Interface); {
		case at == nil:
			s.Problem = "there is no interface " + a.Interface
		case !at.Up:
			s.Problem = "the interface " + a.Interface + " is down"
		case at.No6 && err == nil && p.Addr().Is6():
			s.Problem = "IPv6 is off on the interface " + a.Interface + " (net.ipv6.conf." + a.Interface + ".disable_ipv6)"
		}
		out = append(out, s)
	}
	return out, nil
}

// AddAddress gives an address to its interface, proves it by reading it back, and tells the neighbours. An address that
// somebody else on the network answers for is not added.
func (o *Ops) AddAddress(ctx context.Context, a proto.Address) (out lvmops.Outcome, err error) {
	begin := time.Now()
	defer out.Since(begin)
	p, list, err := o.look(a)
	if err != nil {
		return out, err
	}
	on := named(list, a.Interface)
	switch h := holder(list, p.Addr()); {
	case on == nil || !on.Up:
		return out, o.refuse(proto.CodeNotFound, "adding %s: the interface %s is not there, or down", a.Address, a.Interface)
	case h != nil && h.Name != a.Interface:
		return out, o.refuse(proto.CodeState, "adding %s to %s: %s has it", a.Address, a.Interface, h.Name).WithRemedy("ip addr del %s dev %s", a.Address, h.Name)
	case h != nil:
		out.Already, out.Now = true, fmt.Sprintf("%s has %s", a.Interface, a.Address)
		o.announce(ctx, *on, p.Addr(), &out)
		return out, nil
	}
	if other, err := o.opt.Net.Probe(ctx, *on, p.Addr()); err != nil {
		out.Findings = append(out.Findings, fmt.Sprintf("whether somebody else has %s could not be asked: %v", p.Addr(), err))
	} else if other != nil {
		return out, o.refuse(proto.CodeState, "adding %s to %s: the machine with the hardware address %s has it", a.Address, a.Interface, other).
			WithRemedy("take it away there: two machines with one address answer in turns")
	}
	_, runErr := o.run(ctx, &out, lvmops.Cmd{Argv: AddAddressArgv(a), Limit: LimitAddress})
	if p, list, err = o.look(a); err != nil {
		return out, err
	}
	if h := holder(list, p.Addr()); h == nil || h.Name != a.Interface {
		return out, o.failed(runErr, "adding %s to %s: the interface does not have it", a.Address, a.Interface)
	}
	out.Now = fmt.Sprintf("%s has %s", a.Interface, a.Address)
	o.announce(ctx, *on, p.Addr(), &out)
	return out, nil
}

// announce is part of adding. That it failed is a finding, because the address is there and the neighbours' tables expire.
func (o *Ops) announce(ctx context.Context, on Interface, addr netip.Addr, out *lvmops.Outcome) {
	switch how, err := o.opt.Net.Announce(ctx, on, addr); {
	case err != nil:
		out.Findings = append(out.Findings, fmt.Sprintf("the neighbours could not be told that %s is here: %v", addr, err))
	case how != "":
		out.Now += ", announced to the neighbours (" + how + ")"
	}
}

// DropAddress takes an address away and proves it by reading it back.
func (o *Ops) DropAddress(ctx context.Context, a proto.Address) (out lvmops.Outcome, err error) {
	begin := time.Now()
	defer out.Since(begin)
	p, list, err := o.look(a)
	if err != nil {
		return out, err
	}
	h := holder(list, p.Addr())
	switch {
	case h == nil:
		out.Already, out.Now = true, fmt.Sprintf("no interface has %s", p.Addr())
		return out, nil
	case h.Name != a.Interface || !slices.Contains(h.Addrs, p):
		return out, o.refuse(proto.CodeState, "taking %s away from %s: %s has %s otherwise than agent.toml says", a.Address, a.Interface, h.Name, p.Addr()).
			WithRemedy("take it away by hand, or make agent.toml say how it is")
	}
	before := slices.Clone(h.Addrs)
	_, runErr := o.run(ctx, &out, lvmops.Cmd{Argv: DropAddressArgv(a), Limit: LimitAddress})
	if _, list, err = o.look(a); err != nil {
		return out, err
	}
	if h := holder(list, p.Addr()); h != nil {
		return out, o.failed(runErr, "taking %s away from %s: %s has it still", a.Address, a.Interface, h.Name)
	}
	out.Now = fmt.Sprintf("no interface has %s", p.Addr())
	// The kernel takes the other addresses of a subnet away with its first one, unless promote_secondaries is set.
	if on := named(list, a.Interface); on != nil {
		var lost []string
		for _, b := range before {
			if b != p && !slices.Contains(on.Addrs, b) {
				lost = append(lost, b.String())
			}
		}
		if len(lost) > 0 {
			out.Findings = append(out.Findings, fmt.Sprintf("%s lost %s too: set net.ipv4.conf.%s.promote_secondaries", a.Interface, strings.Join(lost, ", "), a.Interface))
		}
	}
	return out, nil
}

func (o *Ops) look(a proto.Address) (netip.Prefix, []Interface, error) {
	p, err := netip.ParsePrefix(a.Address)
	if err != nil {
		return p, nil, o.refuse(proto.CodeInvalid, "address %q: %v", a.Address, err)
	}
	list, err := o.opt.Net.Interfaces()
	if err != nil {
		return p, nil, o.failed(err, "reading the network interfaces")
	}
	return p, list, nil
}
