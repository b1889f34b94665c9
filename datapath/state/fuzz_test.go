package state

import (
	"encoding/binary"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// FuzzStep throws any event, with any content, at a machine. Nothing may panic, and the invariants hold.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 5, 0, 12, 0, 20, 1, 2, 3})
	f.Add([]byte{0, 1, 5, 12, 16, 17, 18, 19, 20, 21, 22, 13, 14, 6, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(IOErrorPolicy(len(b)%2), 42)
		s.CanVerify, s.OnCongestion = len(b)%3 > 0, CongestionPolicy(len(b)/4%3)
		s.Fencing, s.OnNoData = FencingPolicy(len(b)/3%3), NoDataPolicy(len(b)/9%2)
		s.AfterSB = [3]uint32{uint32(len(b) % 12), uint32(len(b) / 5 % 12), uint32(len(b) / 7 % 12)}
		s.AlwaysASBP, s.RRConflict = len(b)%5 == 0, RRConflict(len(b)/2%2)
		take := func(n int) uint64 {
			var v [8]byte
			n = min(n, len(b))
			copy(v[:], b[:n])
			b = b[n:]
			return binary.LittleEndian.Uint64(v[:])
		}
		id := CommandID(0)
		for len(b) > 0 {
			id++
			ev := fuzzEvent(int(take(1)), id, take)
			ns, fx, err := Step(s, ev)
			if err != nil {
				if ns != s || fx != nil {
					t.Fatalf("refusal of %T with a change", ev)
				}
				continue
			}
			if again, _, _ := Step(s, ev); again != ns {
				t.Fatalf("%T: not deterministic", ev)
			}
			if msg := invariants(s, ns, fx, ev); msg != "" {
				t.Fatalf("%T%+v: %s\n old %+v\n new %+v\n %T", ev, ev, msg, s, ns, fx)
			}
			s = ns
		}
	})
}

func fuzzEvent(kind int, id CommandID, take func(int) uint64) Event {
	flag := take(1)
	on := flag&1 == 1
	uuid := func() uint64 { return take(1) &^ 3 << (flag & 7) }
	uuids := func() UUIDs { return UUIDs{uuid(), uuid(), uuid(), uuid()} }
	switch kind % 37 {
	case 0:
		return AttachStart{}
	case 1:
		return Attached{ID: id, UUIDs: uuids(), Flags: MDFlags(take(2)), Size: take(1), OwnSize: take(1) + 100}
	case 2:
		return AttachFailed{ID: id}
	case 3:
		return Detach{ID: id, Force: on}
	case 4:
		return Connect{ID: id, DiscardMyData: on}
	case 5:
		return Connect{ID: id}
	case 6:
		return Disconnect{ID: id, Force: on}
	case 7:
		return Promote{ID: id, Force: on}
	case 8:
		return Demote{ID: id, InUse: on}
	case 9:
		return PauseSync{ID: id}
	case 10:
		return ResumeSync{ID: id}
	case 11:
		return Invalidate{ID: id, Peer: on}
	case 26:
		return Verify{ID: id}
	case 28:
		return SkipInitialSync{ID: id}
	case 27:
		return VerifyDone{}
	case 32:
		return Outdate{ID: id}
	case 33:
		return Congested{}
	case 34:
		return CaughtUp{}
	case 35:
		return ResyncAfter{Wait: on}
	case 36:
		return AttachUnanswered{}
	case 29:
		return SuspendIO{ID: id}
	case 30:
		return ResumeIO{ID: id}
	case 31:
		return FencePeerDone{Exit: int(take(1) & 7)}
	case 12, 24, 25:
		return LinkUp{ResolveConflicts: on, Features: uint32(flag)}
	case 13:
		return LinkLost{Reason: proto.ConnState(take(1))}
	case 14:
		return LinkClosed{}
	case 15:
		return PeerRejected{Text: "fuzz"}
	case 16:
		return PeerSizes{Sizes: drbd.Sizes{Disk: take(1), User: take(1), Current: take(1)}}
	case 17:
		u := uuids()
		return PeerUUIDsReceived{drbd.UUIDs{Current: u.Current, Bitmap: u.Bitmap, History0: u.History0, History1: u.History1, Flags: take(1)}}
	case 18:
		return PeerState{State: drbd.StateOf(uint32(take(3))), Bits: take(1), Failed: take(1)}
	case 19:
		return PeerChangeReq{Change: drbd.Change{Mask: uint32(take(3)), Val: uint32(take(3))}, ConnWide: on}
	case 20:
		return PeerChangeReply{Code: drbd.RetCode(int8(take(1)))}
	case 21:
		return BitmapReceived{}
	case 22:
		return SyncUUIDReceived{uuid()}
	default:
		return []Event{ResyncDone{Failed: take(1)}, DiskError{Meta: on}, DiskReleased{}}[take(1)%3]
	}
}
