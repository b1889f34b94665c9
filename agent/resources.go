package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/santui/agent/drbdconf"
	"example.com/santui/agent/engine"
	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/datapath/export"
	"example.com/santui/datapath/meta"
	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// resourceConf is what drbd.conf says of one resource, seen from this node.
type resourceConf struct {
	name     string
	peer     string
	device   string
	minor    int
	diskPath string
	datapath datapath.Config
	findings []drbdconf.Finding
	handlers *engine.Handlers
	service  proto.Service // what agent.toml adds
	startup  drbdconf.Startup
}

// loadResources reads drbd.conf and returns the resources that this node takes part in. They all must have the same peer.
func loadResources(cfg Config) ([]resourceConf, error) {
	conf, err := drbdconf.Parse(cfg.DRBDConf)
	if err != nil {
		return nil, err
	}
	var out []resourceConf
	for _, r := range conf.Resources {
		c, err := fromDRBDConf(r, cfg)
		if err != nil {
			return nil, err
		}
		if len(out) > 0 && c.peer != out[0].peer {
			return nil, cfg.errorf(proto.CodeUnsupported, "%s: resource %s replicates with %s, %s with %s; an agent has one peer",
				cfg.DRBDConf, out[0].name, out[0].peer, c.name, c.peer)
		}
		c.service = cfg.Resource[c.name]
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, cfg.errorf(proto.CodeInvalid, "%s names no resource", cfg.DRBDConf)
	}
	for name := range cfg.Resource {
		if !slices.ContainsFunc(out, func(c resourceConf) bool { return c.name == name }) {
			return nil, cfg.serviceError(name, fmt.Errorf("there is no such resource in %s", cfg.DRBDConf))
		}
	}
	return out, nil
}

// fromDRBDConf translates one resource for this node. What this version cannot do is refused here, by name.
func fromDRBDConf(r *drbdconf.Resource, cfg Config) (resourceConf, error) {
	var c resourceConf
	node := cfg.Node
	if err := r.Refused(); err != nil {
		return c, err
	}
	here, err := r.Host(node)
	if err != nil {
		return c, err
	}
	there, err := r.Peer(node)
	if err != nil {
		return c, err
	}
	h := &engine.Handlers{Commands: r.Handlers, Env: handlerEnv(r.Name, cfg.DRBDConf, here, there), MayHalt: cfg.HandlersMayHalt, Runner: lvmops.NewExec()}
	c = resourceConf{
		name: r.Name, handlers: h, peer: there.Name, device: here.Device, minor: here.Minor, diskPath: here.Disk, findings: r.Unsupported,
		startup: r.Startup,
		datapath: datapath.Config{
			Helper:   h,
			Resource: r.Name, Device: here.Device, Node: node, Peer: there.Name, DiskPath: here.Disk,
			Open:      func() (block.Device, error) { return block.Open(here.Disk, block.Options{}) },
			LocalAddr: here.Address.String(), PeerAddr: there.Address.String(),
			Protocol: r.Protocol, CRAMAlg: r.Net.CRAMAlg, Secret: r.Net.Secret.Reveal(), ResyncRate: r.Disk.ResyncRate,
			SyncControl: syncControl(r.Disk), YieldRate: r.YieldRate(),
			PingInt: r.Net.PingInt, PingTimeout: r.Net.PingTimeout, ConnectInt: r.Net.ConnectInt, Timeout: r.Net.Timeout,
			KoCount: koCount(r.Net.KoCount), ALExtents: r.Disk.ALExtents, Size: r.Disk.Size, ResyncAfter: r.ResyncAfter, MaxBuffers: r.Net.MaxBuffers, MaxEpochSize: r.Net.MaxEpochSize,
			AfterSB: r.Net.AfterSB, AlwaysASBP: r.Net.AlwaysASBP, RRConflict: datapath.RRConflict(r.Net.RRConflict),
			Fencing: datapath.FencingPolicy(r.Disk.Fencing), SuspendOnNoData: r.OnNoData == "suspend-io",
			OnIOError: datapath.IOErrorPolicy(r.Disk.OnIOError), DataIntegrityAlg: r.Net.DataIntegrityAlg,
			CsumsAlg: r.Net.CsumsAlg, VerifyAlg: r.Net.VerifyAlg, AllowTwoPrimaries: r.Net.AllowTwoPrimaries,
			OnCongestion: datapath.CongestionPolicy(r.Net.OnCongestion), CongestionFill: r.Net.CongestionFill, CongestionExtents: r.Net.CongestionExtents,
			RSDiscardGranularity: int64(r.Disk.RSDiscardGranularity), DisableWriteSame: r.Disk.DisableWriteSame,
			SndBuf: r.Net.SndbufSize, RcvBuf: r.Net.RcvbufSize, PlainBitmap: !r.Net.UseRLE, CsumsAfterCrashOnly: r.Net.CsumsAfterCrashOnly,
		},
	}
	if here.External() {
		c.datapath.MetaPath, c.datapath.MetaIndex = here.MetaDisk, here.MetaIndex
		c.datapath.OpenMeta = func() (block.Device, error) { return metaSlots.Open(here.MetaDisk, here.MetaIndex) }
	}
	return c, nil
}

// metaSlots shares devices for external metadata between the resources of this process.
var metaSlots block.Slots

// handlerEnv is what a handler finds in its environment (adm_khelper, user/v84/drbdadm_main.c of drbd-utils).
func handlerEnv(name, conf string, here, there *drbdconf.Host) []string {
	family := "ipv4"
	if there.Address.Addr().Is6() {
		family = "ipv6"
	}
	return []string{
		"TERM=linux", "DRBD_RESOURCE=" + name, "DRBD_CONF=" + conf, fmt.Sprintf("DRBD_MINOR=%d", here.Minor), "DRBD_VOLUME=0",
		"DRBD_LL_DISK=" + here.Disk, "DRBD_PEER_AF=" + family, "DRBD_PEER_ADDRESS=" + there.Address.Addr().String(),
		"DRBD_PEER=" + there.Name, "DRBD_PEERS=" + there.Name,
	}
}

// withheld words which handlers do not run.
func (c *resourceConf) withheld() []string {
	var out []string
	for _, h := range c.handlers.Withheld() {
		out = append(out, fmt.Sprintf("handler %s is not run, because it would stop this node: %q; handlers_may_halt = true in agent.toml lets it", h, c.handlers.Commands[h]))
	}
	return out
}

// syncControl translates the options of the resync controller; nil means a fixed rate.
func syncControl(d drbdconf.Disk) *datapath.SyncControl {
	if d.CPlanAhead == 0 {
		return nil
	}
	const tenth = time.Second / 10
	return &datapath.SyncControl{
		PlanAhead: time.Duration(d.CPlanAhead) * tenth, DelayTarget: time.Duration(d.CDelayTarget) * tenth,
		FillTarget: d.CFillTarget, MaxRate: d.CMaxRate, MinRate: min(d.CMinRate, d.CMaxRate),
	}
}

// koCount translates drbd.conf's ko-count, of which 0 means that a peer is never given up.
func koCount(n int) int {
	if n == 0 {
		return datapath.KoNever
	}
	return n
}

// newResource makes the engine of one resource.
func (a *Agent) newResource(c resourceConf) (*resource, error) {
	dp := c.datapath
	dp.Logger, dp.SyncOrder = a.log, &a.syncOrder
	dp.Events = func(level proto.Level, text string) { a.hub.list(level, c.name, "", text) }
	kind := export.Kind(a.cfg.FrontEnd)
	if kind == "" {
		var err error
		if kind, err = export.Pick(); err != nil {
			return nil, a.cfg.errorf(proto.CodeUnsupported, "no front end can make %s a block device: %v", c.device, err)
		}
	}
	eng, err := engine.NewNative(engine.NativeConfig{
		Datapath: dp, FrontEnd: kind, RunDir: filepath.Join(a.cfg.RunDir, "export"), Minor: c.minor,
		StateDir: a.cfg.StateDir,
	})
	if err != nil {
		return nil, err
	}
	for _, f := range c.findings {
		a.hub.event(proto.LevelInfo, c.name, "", f.String())
	}
	for _, w := range c.withheld() {
		a.hub.event(proto.LevelWarn, c.name, "", w)
	}
	return &resource{name: c.name, conf: c, eng: eng, look: make(chan struct{}, 1), news: make(chan struct{}, 1)}, nil
}

// Backing are the devices that a resource has on one node, for tools that open them while it is down.
type Backing struct {
	Where    string        // of the metadata, for messages
	Disk     block.Device  // nil until Open
	MetaDisk meta.MetaDisk // zero: the metadata is on the disk
	conf     *datapath.Config
}

// BackingOf are the devices of a resource on this node.
func BackingOf(cfg Config, resource string) (*Backing, error) {
	confs, err := loadResources(cfg)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(confs, func(c resourceConf) bool { return c.name == resource })
	if i < 0 {
		return nil, cfg.errorf(proto.CodeNotFound, "resource %q is not in %s", resource, cfg.DRBDConf)
	}
	d := &confs[i].datapath
	return &Backing{Where: metaPlace(d), conf: d}, nil
}

// Open claims the devices: those of a resource that is up are block.ErrInUse.
func (b *Backing) Open() (err error) {
	if b.Disk, err = b.conf.Open(); err != nil || b.conf.OpenMeta == nil {
		return err
	}
	b.MetaDisk.Index = b.conf.MetaIndex
	if b.MetaDisk.Device, err = b.conf.OpenMeta(); err != nil {
		return errors.Join(fmt.Errorf("the device for metadata: %w", err), b.Disk.Close())
	}
	return nil
}

// Close gives them back.
func (b *Backing) Close() error {
	err := b.Disk.Close()
	if b.MetaDisk.Device != nil {
		err = errors.Join(err, b.MetaDisk.Device.Close())
	}
	return err
}

// metaPlace words where a resource's metadata is.
func metaPlace(d *datapath.Config) string {
	switch {
	case d.OpenMeta == nil:
		return d.DiskPath
	case d.MetaIndex == meta.Flexible:
		return d.MetaPath
	}
	return fmt.Sprintf("%s[%d]", d.MetaPath, d.MetaIndex)
}

// Describe words what the settings and drbd.conf mean on this node, and returns what is wrong with them.
func Describe(cfg Config) ([]string, error) {
	lines := []string{fmt.Sprintf("node %s, settings %s", cfg.Node, cfg.DRBDConf)}
	confs, err := loadResources(cfg)
	if err != nil {
		return lines, err
	}
	lines = append(lines, fmt.Sprintf("pair %s", cfg.pairName(confs[0].peer)))
	if cfg.Peer.Address == "" {
		lines = append(lines, "no [peer]: without the other agent no failover can run")
	} else {
		lines = append(lines, fmt.Sprintf("control port %s, %s's agent at %s", cfg.Peer.Listen, confs[0].peer, cfg.Peer.Address))
	}
	for _, c := range confs {
		d := c.datapath
		lines = append(lines, fmt.Sprintf("resource %s: %s on %s, %s > %s, protocol %s, resync %d KiB/s, peer %s",
			c.name, c.device, c.diskPath, d.LocalAddr, d.PeerAddr, d.Protocol, d.ResyncRate>>10, c.peer))
		if len(d.ResyncAfter) > 0 {
			lines = append(lines, "  its resync waits for that of "+strings.Join(d.ResyncAfter, ", "))
		}
		if d.Size > 0 {
			lines = append(lines, fmt.Sprintf("  at most %d bytes of the disk are used (size)", d.Size))
		}
		if d.OpenMeta != nil {
			lines = append(lines, "  its metadata is on "+metaPlace(&d))
		}
		if d.CRAMAlg == "" {
			lines = append(lines, "  the nodes do not authenticate each other on the replication link (cram-hmac-alg, shared-secret)")
		}
		lines = append(lines, describeService(c.service)...)
		for _, f := range c.findings {
			lines = append(lines, "  "+strings.ReplaceAll(f.String(), "\n", "\n  "))
		}
		for _, w := range c.withheld() {
			lines = append(lines, "  "+w)
		}
	}
	return lines, nil
}
