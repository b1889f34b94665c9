// Package service does on one node what agent.toml adds to a move: it stops and starts systemd units and scripts, takes a
// service address away and adds it, and exports directories over NFS. It also says how the node stands to each of them,
// for the checks.
//
// The rules are those of lvmops, whose Runner runs every program: a step is idempotent, and its success is read back
// (systemd's ActiveState, the interface's addresses, exportfs' table), never derived from an exit code alone. A script is
// the exception: nothing but its exit code tells what it did.
//
// A script runs as root, so it must belong to root (or to whom the agent runs as), and nobody else may be able to write to
// it or to a directory above it. It gets no other environment than lvmops' fixed one and SANTUI_ACTION (stop or start),
// SANTUI_NODE, SANTUI_RESOURCE, SANTUI_DEVICE and SANTUI_OPERATION.
//
// Before an address is added, a probe asks whether somebody else has it; afterwards, announcements tell the neighbours. For
// IPv4 that is ARP (RFC 5227), for IPv6 neighbour discovery (RFC 4861, RFC 4862). They go out through a packet socket that
// lives for the call.
//
// No state and no goroutines beyond a call.
package service
