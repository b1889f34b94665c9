package state

import (
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

const off = syncUUIDOffset

func TestCompareRules(t *testing.T) {
	const a, b, c, d, e, f, x, y = 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0, 0x100, 0x110
	sec, pri := proto.Secondary, proto.Primary
	all := Caps{Features: drbd.FeatureWSame}
	tie := Caps{Features: drbd.FeatureWSame, ResolveConflicts: true}
	for _, tt := range []struct {
		name       string
		self, peer Side
		caps       Caps
		result     int
		rule       int
		fixSelf    *UUIDs
		fixPeer    *UUIDs
	}{
		{"both fresh", Side{UUIDs: UUIDs{Current: 4}}, Side{UUIDs: UUIDs{Current: 5}}, all, 0, 10, nil, nil},
		{"self fresh", Side{UUIDs: UUIDs{Current: 4}}, Side{UUIDs: UUIDs{Current: a}}, all, -2, 20, nil, nil},
		{"self empty", Side{}, Side{UUIDs: UUIDs{Current: a}}, all, -2, 20, nil, nil},
		{"peer fresh", Side{UUIDs: UUIDs{Current: a}}, Side{UUIDs: UUIDs{Current: 4}}, all, 2, 30, nil, nil},
		{"peer empty", Side{UUIDs: UUIDs{Current: a}}, Side{}, all, 2, 30, nil, nil},
		{"missed the end", Side{UUIDs: UUIDs{a, b, c, d}}, Side{UUIDs: UUIDs{a, 0, b, c}}, all, 1, 34, &UUIDs{a, 0, b, c}, nil},
		{"peer missed the end", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{a, b, c, d}}, all, -1, 35, nil, &UUIDs{a, 0, b, c}},
		{"peer missed the start", Side{UUIDs: UUIDs{a, b, c, d}}, Side{UUIDs: UUIDs{a, 0, x, y}}, all, 1, 36, nil, nil},
		{"missed the start", Side{UUIDs: UUIDs{a, 0, x, y}}, Side{UUIDs: UUIDs{a, b, c, d}}, all, -1, 37, nil, nil},
		{"same", Side{UUIDs: UUIDs{a | 1, 0, b, c}, Role: pri}, Side{UUIDs: UUIDs{a, 0, b, c}, Role: sec}, all, 0, 40, nil, nil},
		{"self crashed", Side{UUIDs{a, 0, b, c}, sec, true}, Side{UUIDs{a, 0, b, c}, sec, false}, all, 1, 40, nil, nil},
		{"peer crashed", Side{UUIDs{a, 0, b, c}, sec, false}, Side{UUIDs{a, 0, b, c}, sec, true}, all, -1, 40, nil, nil},
		{"both crashed", Side{UUIDs{a, 0, b, c}, sec, true}, Side{UUIDs{a, 0, b, c}, sec, true}, all, 1, 40, nil, nil},
		{"both crashed, tie breaker", Side{UUIDs{a, 0, b, c}, sec, true}, Side{UUIDs{a, 0, b, c}, sec, true}, tie, -1, 40, nil, nil},
		{"crash, self Primary", Side{UUIDs{a, 0, b, c}, pri, false}, Side{UUIDs{a, 0, b, c}, sec, true}, all, 1, 41, nil, nil},
		{"crash, peer Primary", Side{UUIDs{a, 0, b, c}, sec, true}, Side{UUIDs{a, 0, b, c}, pri, false}, all, -1, 41, nil, nil},
		{"crash, both Primary", Side{UUIDs{a, 0, b, c}, pri, false}, Side{UUIDs{a, 0, b, c}, pri, true}, all, -100, 41, nil, nil},
		{"crash, Primary, old peer", Side{UUIDs{a, 0, b, c}, pri, false}, Side{UUIDs{a, 0, b, c}, sec, true}, Caps{}, NeedFeature, 41, nil, nil},
		{"peer ahead", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{x, a | 1, b, c}}, all, -1, 50, nil, nil},
		{"sync start lost", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{x, a + off, a, b}}, all, -1, 51, nil, &UUIDs{x, a, b, b}},
		{"peer far ahead", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{x, y, a, d}}, all, -2, 60, nil, &UUIDs{x, a, y, d}},
		{"peer further ahead", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{x, y, d, a}}, all, -2, 60, nil, &UUIDs{x, a, y, d}},
		{"self ahead", Side{UUIDs: UUIDs{x, a | 1, b, c}}, Side{UUIDs: UUIDs{a, 0, b, c}}, all, 1, 70, nil, nil},
		{"own sync start lost", Side{UUIDs: UUIDs{x, a + off, a, b}}, Side{UUIDs: UUIDs{a, 0, b, c}}, all, 1, 71, &UUIDs{x, a, b, b}, nil},
		{"self far ahead", Side{UUIDs: UUIDs{x, y, d, a}}, Side{UUIDs: UUIDs{a, 0, b, c}}, all, 2, 80, nil, nil},
		{"sync start lost, peer alone since", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{x, a + off, y, a}}, all, -1, 52, nil, &UUIDs{x, a, y, a}},
		{"own sync start lost, alone since", Side{UUIDs: UUIDs{x, a + off, y, a}}, Side{UUIDs: UUIDs{a, 0, b, c}}, all, 1, 72, &UUIDs{x, a, y, a}, nil},
		{"peer missed the end, alone since", Side{UUIDs: UUIDs{a, 0, b, c}}, Side{UUIDs: UUIDs{x, b, a, d}}, all, -1, 53, nil, &UUIDs{x, a, b, d}},
		{"missed the end, alone since", Side{UUIDs: UUIDs{x, b, a, d}}, Side{UUIDs: UUIDs{a, 0, b, c}}, all, 1, 73, &UUIDs{x, a, b, d}, nil},
		{"split brain since a generation of old", Side{UUIDs: UUIDs{x, a, b, c}}, Side{UUIDs: UUIDs{y, b, d, e}}, all, -100, 100, nil, nil},
		{"split brain", Side{UUIDs: UUIDs{x, a | 1, b, c}}, Side{UUIDs: UUIDs{y, a, d, e}}, all, 100, 90, nil, nil},
		{"split brain by history", Side{UUIDs: UUIDs{x, a, b, c}}, Side{UUIDs: UUIDs{y, d, e, c}}, all, -100, 100, nil, nil},
		{"empty histories", Side{UUIDs: UUIDs{x, a, b, 0}}, Side{UUIDs: UUIDs{y, d, e, 0}}, all, -100, 100, nil, nil},
		{"split brain, sync start lost", Side{UUIDs: UUIDs{x, a + off, a, 0}}, Side{UUIDs: UUIDs{y, a | 1, 0, 0}}, all, -100, 100, nil, nil},
		{"created alike", Side{UUIDs: UUIDs{x, 0, b, 4}}, Side{UUIDs: UUIDs{y, 0, e, 4}}, all, -100, 100, nil, nil},
		{"unrelated", Side{UUIDs: UUIDs{x, a, b, c}}, Side{UUIDs: UUIDs{y, d, e, f}}, all, -1000, 100, nil, nil},
	} {
		v := Compare(tt.self, tt.peer, tt.caps)
		if v.Result != tt.result || v.Rule != tt.rule || v.Text == "" {
			t.Errorf("%s: result %d by rule %d, want %d by rule %d", tt.name, v.Result, v.Rule, tt.result, tt.rule)
		}
		if v.Strangers != (tt.name == "empty histories" || tt.name == "created alike") {
			t.Errorf("%s: strangers %v", tt.name, v.Strangers)
		}
		wantSelf, wantPeer := tt.self.UUIDs, tt.peer.UUIDs
		if tt.fixSelf != nil {
			wantSelf = *tt.fixSelf
		}
		if tt.fixPeer != nil {
			wantPeer = *tt.fixPeer
		}
		if v.Self != wantSelf || v.Peer != wantPeer {
			t.Errorf("%s: repaired to %v and %v", tt.name, v.Self, v.Peer)
		}
		mirrored := Compare(tt.peer, tt.self, Caps{tt.caps.Features, !tt.caps.ResolveConflicts})
		if abs := tt.result; abs > -100 && abs < 100 && mirrored.Result != -tt.result {
			t.Errorf("%s: the other side gets %d", tt.name, mirrored.Result)
		}
	}
}
