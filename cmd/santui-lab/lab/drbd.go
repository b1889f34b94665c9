package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// DRBDConf describes one resource for drbd.conf in DRBD 8.4's syntax. The zero value is r0 on /dev/ubdb with
// internal metadata, protocol C, port 7788, no secret.
type DRBDConf struct {
	Resource string // "r0"
	Minor    int
	Disk     string // "/dev/ubdb" ("/dev/md3" leads there too)
	Port     int    // 7788
	Protocol string // A, B or C; empty: C
	Secret   string // cram-hmac with sha1 if not empty
	Rate     string // fixed resync rate, DRBD's units (4M); empty: 1G
	Control  string // lines for the resync controller, c-plan-ahead among them; the rate is not fixed then
	NetExtra string // more lines for the net section
	DiskEnd  string // more lines for the disk section
	Sections string // more sections
	// MetaDisk is where each node keeps its metadata; a node that is not named: internal.
	MetaDisk map[string]string
}

func (c DRBDConf) complete() DRBDConf {
	for _, d := range []struct {
		field *string
		value string
	}{{&c.Resource, "r0"}, {&c.Protocol, "C"}, {&c.Disk, "/dev/ubdb"}, {&c.Rate, "1G"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.Port == 0 {
		c.Port = 7788
	}
	return c
}

// Text is the configuration file for the given nodes, the same on all of them. al-extents is at the least the module
// takes (67): a Primary's power cut marks the whole activity log for resync. A fixed resync rate needs c-plan-ahead 0.
func (c DRBDConf) Text(nodes ...*Node) string {
	c = c.complete()
	var b strings.Builder
	fmt.Fprintf(&b, "global {\n  usage-count no;\n}\nresource %s {\n  net {\n    protocol %s;\n", c.Resource, c.Protocol)
	if c.Secret != "" {
		fmt.Fprintf(&b, "    cram-hmac-alg sha1;\n    shared-secret \"%s\";\n", c.Secret)
	}
	b.WriteString(c.NetExtra)
	control := cmp.Or(c.Control, "    c-plan-ahead 0;\n")
	fmt.Fprintf(&b, "  }\n  disk {\n    resync-rate %s;\n%s    al-extents 67;\n%s  }\n", c.Rate, control, c.DiskEnd)
	b.WriteString(c.Sections)
	for _, n := range nodes {
		fmt.Fprintf(&b, "  on %s {\n    device /dev/drbd%d;\n    disk %s;\n    address %s:%d;\n    meta-disk %s;\n  }\n",
			n.Name(), c.Minor, c.Disk, n.Addr(), c.Port, cmp.Or(c.MetaDisk[n.Name()], "internal"))
	}
	b.WriteString("}\n")
	return b.String()
}

// DRBD is the kernel's DRBD on one node, worked by drbdadm.
type DRBD struct {
	node *Node
	conf DRBDConf
}

// KernelDRBD returns the handle for a node started with the kernel's DRBD.
func KernelDRBD(n *Node, conf DRBDConf) *DRBD { return &DRBD{node: n, conf: conf.complete()} }

// Device is the replicated device's path in the node.
func (d *DRBD) Device() string { return fmt.Sprintf("/dev/drbd%d", d.conf.Minor) }

// Adm runs drbdadm ARGS RESOURCE.
func (d *DRBD) Adm(ctx context.Context, args ...string) error {
	argv := append(append([]string{"drbdadm"}, args...), d.conf.Resource)
	_, err := d.node.Run(ctx, argv...)
	return err
}

// WriteConf writes /etc/drbd.conf for all nodes of the lab.
func (d *DRBD) WriteConf(ctx context.Context) error {
	return d.node.WriteFile(ctx, "/etc/drbd.conf", []byte(d.conf.Text(d.node.lab.nodes...)), 0o644)
}

// CreateMD writes fresh metadata over whatever the disk holds; the resource must be down.
func (d *DRBD) CreateMD(ctx context.Context) error { return d.Adm(ctx, "create-md", "--force") }

// Up writes the configuration, makes fresh metadata if fresh is set, and brings the resource up. It does not wait for
// the peer.
func (d *DRBD) Up(ctx context.Context, fresh bool) error {
	if err := d.WriteConf(ctx); err != nil {
		return err
	}
	if fresh {
		if err := d.CreateMD(ctx); err != nil {
			return err
		}
	}
	return d.Adm(ctx, "up")
}

// Primary promotes; force makes this side's data the good one, which starts the full sync of a fresh pair.
func (d *DRBD) Primary(ctx context.Context, force bool) error {
	if force {
		return d.Adm(ctx, "primary", "--force")
	}
	return d.Adm(ctx, "primary")
}

// Secondary demotes; it fails while somebody holds the device open.
func (d *DRBD) Secondary(ctx context.Context) error { return d.Adm(ctx, "secondary") }

// Down takes the resource down.
func (d *DRBD) Down(ctx context.Context) error { return d.Adm(ctx, "down") }

// Size is the replicated device's size in bytes: the disk without the metadata.
func (d *DRBD) Size(ctx context.Context) (int64, error) {
	text, err := d.node.Sh(ctx, "blockdev --getsize64 "+d.Device())
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("lab: size of %s on %s: %w", d.Device(), d.node.name, err)
	}
	return size, nil
}

// DRBDStatus is one minor's entry in the 8.4 module's /proc/drbd.
type DRBDStatus struct {
	Conn               string // WFConnection, Connected, SyncSource ...; Unconfigured when the minor is not up
	Role, PeerRole     string
	Disk, PeerDisk     string
	OutOfSync          int64 // bytes
	Sent, Received     int64 // bytes
	Written, ReadBytes int64 // bytes
	Text               string
}

var (
	statusLine   = regexp.MustCompile(`^\s*(\d+): cs:(\S+)(?: ro:([^/\s]+)/(\S+) ds:([^/\s]+)/(\S+))?`)
	statusNumber = regexp.MustCompile(`\b(ns|nr|dw|dr|oos):(\d+)`)
)

// parseStatus finds one minor in /proc/drbd. A minor that is not listed is Unconfigured.
func parseStatus(text string, minor int) DRBDStatus {
	st := DRBDStatus{Conn: "Unconfigured"}
	var entry []string
	for line := range strings.Lines(text) {
		m := statusLine.FindStringSubmatch(line)
		if m == nil {
			if len(entry) > 0 {
				entry = append(entry, line)
			}
			continue
		}
		if len(entry) > 0 {
			break
		}
		if m[1] == strconv.Itoa(minor) {
			entry = append(entry, line)
			st.Conn, st.Role, st.PeerRole, st.Disk, st.PeerDisk = m[2], m[3], m[4], m[5], m[6]
		}
	}
	st.Text = strings.Join(entry, "")
	fields := map[string]*int64{"ns": &st.Sent, "nr": &st.Received, "dw": &st.Written, "dr": &st.ReadBytes, "oos": &st.OutOfSync}
	for _, m := range statusNumber.FindAllStringSubmatch(st.Text, -1) {
		kib, err := strconv.ParseInt(m[2], 10, 64)
		if err == nil {
			*fields[m[1]] = kib << 10
		}
	}
	return st
}

// InSync reports that the two are connected and both disks are good.
func (s DRBDStatus) InSync() bool {
	return s.Conn == "Connected" && s.Disk == "UpToDate" && s.PeerDisk == "UpToDate"
}

// Status reads the kernel's view of the resource.
func (d *DRBD) Status(ctx context.Context) (DRBDStatus, error) {
	text, err := d.node.ReadFile(ctx, "/proc/drbd")
	if err != nil {
		return DRBDStatus{}, err
	}
	return parseStatus(string(text), d.conf.Minor), nil
}

// Wait polls the status until ok says so; the error of a ctx that ended first carries the last status and the kernel's
// last messages.
func (d *DRBD) Wait(ctx context.Context, what string, ok func(DRBDStatus) bool) (DRBDStatus, error) {
	for {
		st, err := d.Status(ctx)
		if err != nil && ctx.Err() == nil {
			return st, err
		}
		if err == nil && ok(st) {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return st, errors.Join(fmt.Errorf("lab: %s: waited for %s: %w; last seen:\n%s", d.node.name, what, ctx.Err(), st.Text), d.messages())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// WaitConnected waits until the peers have shaken hands (a sync may run).
func (d *DRBD) WaitConnected(ctx context.Context) error {
	_, err := d.Wait(ctx, "a connection", func(s DRBDStatus) bool { return s.PeerRole == "Primary" || s.PeerRole == "Secondary" })
	return err
}

// WaitSynced waits until both sides are connected and UpToDate.
func (d *DRBD) WaitSynced(ctx context.Context) error {
	_, err := d.Wait(ctx, "both sides UpToDate", DRBDStatus.InSync)
	return err
}

// messages returns the module's last kernel messages, as an error text.
func (d *DRBD) messages() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	text, err := d.node.Sh(ctx, "dmesg | grep -i -e drbd -e block | tail -20")
	if err != nil {
		return nil
	}
	return fmt.Errorf("kernel messages of %s:\n%s", d.node.name, text)
}
