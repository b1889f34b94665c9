package torture

// expected is what every run of the default seeds must have met.
var expected = []string{
	"cable: down", "cable: one direction down", "cable: reset", "cable: breaks after some bytes", "cable: stands still", "cable: new connections break",
	"cable: damages RSDataReply",

	"config: protocol A", "config: protocol B", "config: protocol C",
	"config: max-epoch-size 1", "config: max-epoch-size 2048", "config: few max-buffers",
	"config: csums-alg", "config: data-integrity-alg", "config: rs-discard-granularity", "config: c-plan-ahead", "config: external metadata",
	"config: on-io-error detach", "config: on-io-error pass_on", "config: on-io-error call-local-io-error",
	"config: fencing resource-only", "config: fencing resource-and-stonith", "config: on-no-data-accessible suspend-io",
	"config: on-congestion pull-ahead", "config: on-congestion disconnect", "config: always-asbp", "config: rr-conflict call-pri-lost",

	"conn: StandAlone", "conn: Disconnecting", "conn: BrokenPipe", "conn: NetworkFailure", "conn: ProtocolError",
	"conn: WFReportParams", "conn: WFBitMapS", "conn: WFBitMapT", "conn: WFSyncUUID", "conn: SyncSource", "conn: SyncTarget",
	"conn: PausedSyncS", "conn: PausedSyncT", "conn: VerifyS", "conn: VerifyT", "conn: Ahead", "conn: Behind",

	"state: Primary UpToDate/UpToDate", "state: Primary UpToDate/DUnknown", "state: Primary UpToDate/Outdated",
	"state: Primary UpToDate/Diskless", "state: Primary Diskless/UpToDate", "state: Primary Diskless/DUnknown",
	"state: Primary Inconsistent/UpToDate", "state: Primary Negotiating/UpToDate", "state: Secondary Consistent/DUnknown",
	"state: Secondary Outdated/DUnknown", "state: suspended",

	"disk: to fail, all calls", "disk: to fail, writes", "disk: to fail, flushes", "disk: to fail, reads", "disk: to fail, of metadata", "disk: to fail, of a target",
	"disk: fails while the node is Primary", "disk: fails while the node is Secondary", "disk: an old one put back",
	"disk: a new one", "disk: stands still",

	"power: after a call of disk", "power: after a call of net", "power: at any time", "power: together with the peer",
	"power: shot by its peer", "power: lost for good", "power: when its Primary was lost",

	"done: attach and connect", "done: disconnect", "done: detach", "done: promote", "done: demote", "done: takeover from a node without power",
	"done: promote by force", "done: promote beside a Primary", "done: pause true", "done: pause false",
	"done: verify", "done: invalidate", "done: invalidate-remote", "done: resize", "done: skip the initial sync", "done: outdate",
	"done: suspend-io", "done: comb", "refused: promote", "refused: verify",

	"fence-peer: exit code 1, error false", "fence-peer: exit code 4, error false",
	"fence-peer: exit code 5, error false", "fence-peer: exit code 7, error false",

	"handler: before-resync-source", "handler: before-resync-target", "handler: after-resync-target", "handler: fence-peer",
	"handler: unfence-peer", "handler: initial-split-brain", "handler: split-brain", "handler: local-io-error", "handler: pri-on-incon-degr",

	"packet: Data", "packet: WSame", "packet: Zeroes", "packet: Barrier", "packet: BarrierAck", "packet: RecvAck", "packet: WriteAck", "packet: NegAck", "packet: RSWriteAck",
	"packet: DataRequest", "packet: DataReply", "packet: RSDataRequest", "packet: RSDataReply", "packet: RSThinReq",
	"packet: RSDeallocated", "packet: CSumRSRequest", "packet: RSIsInSync", "packet: OVRequest", "packet: OVReply", "packet: OVResult",
	"packet: Bitmap", "packet: CompressedBitmap", "packet: OutOfSync", "packet: SyncUUID", "packet: UUIDs", "packet: Sizes", "packet: State",
	"packet: StateChgReq", "packet: StateChgReply", "packet: ConnStChgReq", "packet: ConnStChgReply", "packet: Ping", "packet: PingAck",
}
