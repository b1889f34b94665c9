package agent

import (
	"testing"
	"time"

	"example.com/santui/agent/drbdconf"
	"example.com/santui/proto"
)

func TestPatience(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, c := range []struct {
		conf     drbdconf.Startup
		degraded bool
		disk     proto.DiskState
		limit    time.Duration
		option   string
	}{
		{drbdconf.Startup{}, false, proto.UpToDate, 0, "wfc-timeout"},
		{drbdconf.Startup{}, true, proto.Outdated, 0, "wfc-timeout"},
		{drbdconf.Startup{WFCTimeout: 60 * s, DegrWFCTimeout: 20 * s, OutdatedWFCTimeout: 10 * s}, false, proto.UpToDate, 60 * s, "wfc-timeout"},
		{drbdconf.Startup{WFCTimeout: 60 * s, DegrWFCTimeout: 20 * s, OutdatedWFCTimeout: 10 * s}, true, proto.UpToDate, 20 * s, "degr-wfc-timeout"},
		{drbdconf.Startup{WFCTimeout: 60 * s, DegrWFCTimeout: 20 * s, OutdatedWFCTimeout: 10 * s}, false, proto.Outdated, 10 * s, "outdated-wfc-timeout"},
		{drbdconf.Startup{WFCTimeout: 60 * s, DegrWFCTimeout: 20 * s}, false, proto.Outdated, 20 * s, "degr-wfc-timeout"},
		{drbdconf.Startup{WFCTimeout: 60 * s, DegrWFCTimeout: 90 * s}, true, proto.UpToDate, 60 * s, "wfc-timeout"},
		{drbdconf.Startup{DegrWFCTimeout: 90 * s}, true, proto.UpToDate, 90 * s, "degr-wfc-timeout"},
		{drbdconf.Startup{DegrWFCTimeout: 90 * s}, false, proto.UpToDate, 0, "wfc-timeout"},
	} {
		p := Patience{"r0": c.conf}
		if limit, option := p.Limit(proto.Resource{Name: "r0", Degraded: c.degraded, DiskState: c.disk}); limit != c.limit || option != c.option {
			t.Errorf("%+v degraded %v %v: %v by %s, want %v by %s", c.conf, c.degraded, c.disk, limit, option, c.limit, c.option)
		}
	}
}
