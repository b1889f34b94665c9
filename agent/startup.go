package agent

import (
	"time"

	"example.com/santui/agent/drbdconf"
	"example.com/santui/proto"
)

// Patience is how long boot waits for the peer of each resource, as section startup of drbd.conf says.
type Patience map[string]drbdconf.Startup

// LoadPatience reads it for the resources of this node.
func LoadPatience(cfg Config) (Patience, error) {
	confs, err := loadResources(cfg)
	if err != nil {
		return nil, err
	}
	p := Patience{}
	for _, c := range confs {
		p[c.name] = c.startup
	}
	return p, nil
}

// Limit is how long to wait for the peer of r, 0 for ever, and the option that says so. As with DRBD a degraded node waits no
// longer than any other one, an outdated one no longer than a degraded one (wait_connect, drbdsetup.c).
func (p Patience) Limit(r proto.Resource) (time.Duration, string) {
	s := p[r.Name]
	limit, option := s.WFCTimeout, "wfc-timeout"
	outdated := r.DiskState == proto.Outdated
	if (r.Degraded || outdated) && shorter(s.DegrWFCTimeout, limit) {
		limit, option = s.DegrWFCTimeout, "degr-wfc-timeout"
	}
	if outdated && shorter(s.OutdatedWFCTimeout, limit) {
		limit, option = s.OutdatedWFCTimeout, "outdated-wfc-timeout"
	}
	return limit, option
}

// shorter compares two limits of which 0 is none.
func shorter(a, b time.Duration) bool { return a > 0 && (b == 0 || a < b) }
