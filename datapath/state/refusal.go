package state

import (
	"fmt"

	"example.com/santui/proto/drbd"
)

// Refusal says why a change was not made. The state is as before.
type Refusal struct {
	Code   drbd.RetCode // DRBD's code for it
	Text   string       // what was refused and why
	Remedy string       // what the operator can do
	Retry  bool         // it is refused only for now: try again after the next change of state
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("%s (%v)", r.Text, r.Code)
	if r.Remedy != "" {
		s += ": " + r.Remedy
	}
	return s
}

// refusalTexts has one row per code: why, and what to do.
var refusalTexts = map[drbd.RetCode]struct{ text, remedy string }{
	drbd.SSTwoPrimaries:       {"the peer is Primary", "demote the peer first"},
	drbd.SSNoUpToDateDisk:     {"there would be no UpToDate copy of the data", "connect to the node that has one, or use force if this copy is to become the good one"},
	drbd.SSNoLocalDisk:        {"this node has no usable disk", "attach the disk first"},
	drbd.SSNoRemoteDisk:       {"the peer has no usable disk", "attach the peer's disk first"},
	drbd.SSConnectedOutdates:  {"an Outdated disk cannot be the source", "let it resync from the peer"},
	drbd.SSPrimaryNOP:         {"the peer is not known to be Outdated or down, which fencing demands", "connect to it, let the handler fence-peer fence it, or use force if you know that it is off"},
	drbd.SSOutdateWithoutConn: {"the peer cannot be told that its copy is Outdated", "connect first"},
	drbd.SSResyncRunning:      {"a resync or a verify runs", "wait until it is finished"},
	drbd.SSNoVerifyAlg:        {"no verify-alg is configured", "set verify-alg in the net section of both nodes' drbd.conf, for example sha1"},
	drbd.SSAlreadyStandAlone:  {"the link is down already", ""},
	drbd.SSCWFailedByPeer:     {"the peer refused", "look at the peer's events"},
	drbd.SSIsDiskless:         {"this node has no disk", "attach the disk first"},
	drbd.SSDeviceInUse:        {"the device is held open", "unmount and deactivate what uses it, then demote"},
	drbd.SSNoNetConfig:        {"the link is not configured", "connect first"},
	drbd.SSNeedConnection:     {"there is no connection", "connect first"},
	drbd.SSLowerThanOutdated:  {"the disk is less than Outdated", ""},
	drbd.SSNotSupported:       {"this version of santui does not do that", ""},
	drbd.SSInTransientState:   {"a change is under way", "try again when it is finished"},
	drbd.SSConcurrentStChg:    {"the peer changes something at the same time", "try again"},
}

// refuse builds the Refusal of a code; what names the attempt.
func refuse(code drbd.RetCode, what string) *Refusal {
	t, ok := refusalTexts[code]
	if !ok {
		t.text = "not possible in this state"
	}
	return &Refusal{
		Code: code, Text: what + ": " + t.text, Remedy: t.remedy,
		Retry: code == drbd.SSInTransientState || code == drbd.SSConcurrentStChg,
	}
}
