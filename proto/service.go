package proto

// Service is what agent.toml adds to a resource: what moves with the volume groups and mounts on its device. It has to be
// the same on both nodes. Taking the service down goes through the fields from Address to Units to Exports, bringing it up
// the other way round, each list in reverse too.
type Service struct {
	Address []Address `json:"address,omitempty"` // taken away first, added last
	Scripts []Script  `json:"scripts,omitempty"`
	Units   []string  `json:"units,omitempty"` // systemd's
	Exports []Export  `json:"exports,omitempty"`
	Keep    []string  `json:"keep,omitempty"` // mount points that no move may touch
}

// Empty says whether there is nothing to move or keep.
func (s Service) Empty() bool {
	return len(s.Address)+len(s.Scripts)+len(s.Units)+len(s.Exports)+len(s.Keep) == 0
}

// Address is a service address.
type Address struct {
	Address   string `json:"address"` // with its prefix: 10.0.0.100/24
	Interface string `json:"interface"`
}

// Script is a pair of programs; each must end with exit code 0, also when there is nothing to do.
type Script struct {
	Name  string   `json:"name"`
	Stop  []string `json:"stop"` // argv, the first word an absolute path
	Start []string `json:"start"`
	Limit float64  `json:"limit"` // seconds, for each
}

// Export is a directory that the kernel's NFS server offers to a client, in the words of exportfs(8).
type Export struct {
	Path    string `json:"path"`
	Client  string `json:"client"`
	Options string `json:"options"`
}

// ServiceFacts is how a node stands to the Service of a resource.
type ServiceFacts struct {
	Config    Service        `json:"config"` // as this node's agent.toml has it
	Units     []UnitState    `json:"units,omitempty"`
	Scripts   []string       `json:"scripts,omitempty"` // why a script of the configuration is not run here
	Addresses []AddressState `json:"addresses,omitempty"`
	Exports   []Export       `json:"exports,omitempty"`  // all that exportfs has noted down here, with their effective options
	NFS       string         `json:"nfs,omitempty"`      // why nothing can be exported here
	Unserved  bool           `json:"unserved,omitempty"` // the NFS server does not run
	Errs      []string       `json:"errs,omitempty"`
}

// UnitState is a systemd unit in systemd's words, see systemctl(1) show.
type UnitState struct {
	Name   string `json:"name"`
	Load   string `json:"load"`   // loaded, not-found, masked ...
	Active string `json:"active"` // active, inactive, failed ...
	File   string `json:"file"`   // enabled, disabled, static ...
}

// AddressState is where a service address is on a node.
type AddressState struct {
	Address
	Held    string `json:"held,omitempty"`    // the interface that has it, "" if none
	Problem string `json:"problem,omitempty"` // why the interface cannot have it
}

// The kinds of step that move a Service.
const (
	StepDropAddress StepKind = "drop-address"
	StepAddAddress  StepKind = "add-address"
	StepStopScript  StepKind = "stop-script"
	StepStartScript StepKind = "start-script"
	StepStopUnit    StepKind = "stop-unit"
	StepStartUnit   StepKind = "start-unit"
	StepUnexport    StepKind = "unexport"
	StepExport      StepKind = "export"
)

// The check codes of a Service.
const (
	CheckDrift   = "SERVICE-DRIFT"
	CheckUnits   = "UNITS"
	CheckScripts = "SCRIPTS"
	CheckAddress = "ADDRESS"
	CheckExports = "EXPORTS"
	CheckKeep    = "KEEP"
)

// ServiceCodes continues the table of check codes with those of what agent.toml adds to a resource.
var ServiceCodes = []Code{
	{CheckDrift, "agent.toml says the same of the resource on both nodes", true,
		"What one node stops the other would not start.",
		"make the resource's section the same in both files, then restart the agent of the node that changed (a Primary: after a failover)"},
	{CheckUnits, "the configured units are known to systemd on both nodes", true,
		"A unit that cannot be started on the target leaves the service half up.",
		"install the unit where it is missing; stop it where the service is not, and disable it: santui starts it"},
	{CheckScripts, "the configured scripts can be run on both nodes", true,
		"They run as root: nobody else may be able to change them, and a missing one stops the move half way.",
		"install the script owned by root, executable, not writable by others, in directories of which the same is true"},
	{CheckAddress, "the service addresses are on one node, and the target has the interface", true,
		"An address on both nodes answers from either; without its interface it cannot be added.",
		"remove the address where the service is not (ip addr del), or bring the interface up"},
	{CheckExports, "the configured exports can be made on the target", true,
		"Clients would find nothing after the move.",
		"install nfs-kernel-server on the node and start its server there"},
	{CheckKeep, "the mounts to keep are not on the device", true,
		"What is on the device goes with it; it cannot be kept here.",
		"take the mount point out of keep in agent.toml, or move what is there to another disk"},
}
