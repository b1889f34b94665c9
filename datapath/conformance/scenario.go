package conformance

import "slices"

// Pairing says who is Primary, and who the other.
type Pairing string

// The pairings. The kernel is DRBD 8.4's module.
const (
	SantuiSantui Pairing = "santui with santui"
	SantuiKernel Pairing = "santui Primary, kernel Secondary"
	KernelSantui Pairing = "kernel Primary, santui Secondary"
)

// Pairings are the columns of the table.
var Pairings = []Pairing{SantuiSantui, SantuiKernel, KernelSantui}

// Scenario is a behaviour that both nodes of a pair have to show. The names are those of DRBD's own test suite
// (LINBIT/drbd9-tests), as far as its tests make sense for two nodes.
type Scenario struct {
	Name  string
	About string
	// Not says why a scenario does not apply to a pairing.
	Not map[Pairing]string
}

// Scenarios are the rows of the table.
var Scenarios = []Scenario{
	{Name: "resync-initial", About: "the first full sync of fresh disks, while the Primary is used or after it"},
	{Name: "skip-initial-sync", About: "two fresh disks are declared the same; nothing is copied"},
	{Name: "resync-bitmap", About: "after a cut only what changed is copied"},
	{Name: "resync-finish", About: "the word that a resync has ended gets lost; the next one is complete all the same"},
	{Name: "busy-resync", About: "a resync under many writes ends with equal copies"},
	{Name: "c-min-rate", About: "a resync gives way to applications, but not below its least rate"},
	{Name: "resync-controller", About: "c-plan-ahead: a resync finds its own rate, within c-max-rate, also beside applications"},
	{Name: "checksum-resync", About: "with a csums-alg only blocks that differ travel"},
	{Name: "ahead-behind", About: "a congested link: the Primary runs ahead, and a resync brings the peer back"},
	{Name: "fencing", About: "the exit codes of the fence-peer handler, and what each leads to"},
	{Name: "suspend-io", About: "resource-and-stonith: I/O waits until the peer is known to be fenced"},
	{Name: "io-errors", About: "errors of a disk; applications go on through the peer"},
	{Name: "invalidate", About: "a copy is declared void, from either node, and copied anew"},
	{Name: "protocol-a-io", About: "many writes under protocol A"},
	{Name: "promote-while-connecting", About: "a promotion in the middle of a handshake ends, one way or the other"},
	{Name: "switch-primaries", About: "the Primary role goes there and back"},
	{Name: "toggle-disk", About: "a disk is detached and attached again, twice, in use"},
	{Name: "two-primaries-reject", About: "a second Primary is refused"},
	{Name: "split-brain", About: "both nodes changed the data on their own: seen on both, nothing is resynced unasked"},
	{Name: "verify", About: "an online verify finds exactly what was planted, with start and stop"},
	{Name: "integrity", About: "every block travels with a digest; damage ends the connection"},
	{Name: "revert-older-data", About: "a disk set back to an older state is noticed and resynced"},
	{Name: "resize", About: "the device grows while it is used"},
	{Name: "attach-while-connected-not-uptodate", About: "a disk that is not UpToDate comes back; no needless full sync"},
	{Name: "attach-while-connected-resize", About: "a disk comes back after the device grew; the bitmap stays"},
	{Name: "resync-snapshot", About: "a disk that is a snapshot taken under load comes up and is resynced"},
	{Name: "resync-write-during-pause", About: "writes while a resync is paused reach the target or are marked"},
	{Name: "stress-al", About: "writes all over the device, with an activity log that is too small for them"},
	{Name: "connect-differing-sizes", About: "disks of different sizes meet, in several orders"},
	{Name: "size-option", About: "the size of the disk section limits the device; a larger one counts at the next connection"},
	{Name: "attach-foreign", About: "the disk of another pair, attached while connected: nobody takes it, nothing is copied"},
	{Name: "resync-after", About: "of two resources the second one is resynced when the first one has been, whichever node wants it"},
	{Name: "unusual-bios", About: "odd sizes, discards, zeroes"},
	{Name: "power-cut", About: "a whole node loses power under load, as Primary and as Secondary"},
	{Name: "disk-in-place", About: "a disk changes between the kernel and santui, in place",
		Not: map[Pairing]string{SantuiSantui: "no kernel takes part"}},
	{Name: "upgrade", About: "a newer version takes over, the data stays",
		Not: map[Pairing]string{SantuiKernel: "the kernel's module is the distribution's", KernelSantui: "the kernel's module is the distribution's"}},
}

func known(name string) bool {
	return slices.ContainsFunc(Scenarios, func(s Scenario) bool { return s.Name == name })
}
