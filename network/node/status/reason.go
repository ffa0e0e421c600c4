package status

// Text is written for people. No program compares, searches or cuts it: what a program needs is a separate field. A
// test of this package checks this for the product's packages.
type Text string

// Texts converts a list of strings.
func Texts[T ~string](all []T) (texts []Text) {
	for _, x := range all {
		texts = append(texts, Text(x))
	}
	return texts
}

// Reason says why something is wrong, for programs. New ones may be added within a version of the answers.
type Reason string

// Reasons of a [Problem].
const (
	ConfigMissing  Reason = "config-missing"   // no network config has been written yet
	ConfigDeleted  Reason = "config-deleted"   // it was deleted; the daemon keeps the one in use
	ConfigRejected Reason = "config-rejected"  // the network config is invalid, or needs a restart of the daemon
	NoUplink       Reason = "no-uplink"        // no interface can carry the overlay
	StartFailed    Reason = "start-failed"     // the backend cannot be set up; the daemon retries
	NoLease        Reason = "no-lease"         // no lease could be acquired, for example because no subnet is free
	NotAllocated   Reason = "not-allocated"    // Kubernetes has not given this node a podCIDR yet
	SubnetOutside  Reason = "subnet-outside"   // the podCIDR of this node is not inside the network config's Network
	AdviceBad      Reason = "advice-bad"       // an annotation of this node has a value that cannot be used
	NotAnnounced   Reason = "not-announced"    // the Node's condition NetworkUnavailable cannot be set to False
	PublicIPShared Reason = "public-ip-shared" // another node's lease has this node's public IP
	FileNotWritten Reason = "file-not-written"
	// KeyFile: the file of the key in use is missing or changed, or other users can read or change a file with a
	// secret.
	KeyFile        Reason = "key-file"
	KernelUnread   Reason = "kernel-unread" // the kernel's tables cannot be read
	EntriesPending Reason = "entries-pending"
	Conflict       Reason = "conflict"       // another process keeps changing an entry
	RouteShadowed  Reason = "route-shadowed" // a route of another program takes precedence over the overlay's
	// A permanent neighbour entry of another program has the address of one of this node's pods.
	NeighbourShadowed Reason = "neighbour-shadowed"
	// GatewayDuplicate: another host had an address of this node's pods' bridge not long ago.
	GatewayDuplicate Reason = "gateway-duplicate"
	// The kernel answers no ARP request on the bridge of this node's pods.
	ARPIgnored Reason = "arp-ignored"
	// An FDB entry of another program on the bridge sends frames for one of this node's pods to another port.
	FDBShadowed    Reason = "fdb-shadowed"
	SubnetOverlaps Reason = "subnet-overlaps" // another interface has an address whose subnet overlaps this node's
	PodDetached    Reason = "pod-detached"    // the interface of a running pod is gone
	SubnetChanged  Reason = "subnet-changed"  // running pods have addresses of a subnet that this node had before
	RecordDamaged  Reason = "record-damaged"  // the CNI plugin's record of a pod cannot be read
	PacketsDropped Reason = "packets-dropped"
	RulesNotSet    Reason = "rules-not-set" // the packet filter rules cannot be set
	CachedLeases   Reason = "cached-leases" // the store has not answered yet; the node uses its cached leases
	StoreDown      Reason = "store-down"    // the store has not answered for a while
	LeasesUnread   Reason = "leases-unread" // the store answers, and some leases cannot be read
	// Leases name the same subnet, and are not verified yet because too many are to be.
	LeasesDisputed Reason = "leases-disputed"
)

// Reasons of a [Problem] that concerns network policies.
const (
	PolicyNotApplied Reason = "policy-not-applied" // nf_tables refuses the rules; the daemon retries
	PolicyBridge     Reason = "policy-bridge"      // packets between two pods of the node cannot be judged
	PolicyIPVS       Reason = "policy-ipvs"        // egress to Services is not judged, since IPVS has them
	PolicyPodClosed  Reason = "policy-pod-closed"  // a pod is denied all connections until its rules are known
	PolicyPodWaiting Reason = "policy-pod-waiting" // the rules of a pod are not in the kernel for a while
	PolicySourceLost Reason = "policy-source-lost" // changes of policies, namespaces or pods are not seen
	// PolicyNotRemoved: the node enforces no policies, but the rules of an earlier run cannot be removed.
	PolicyNotRemoved Reason = "policy-not-removed"
	// PolicyDropsUnread: denied packets are not reported, because what the rules log cannot be read.
	PolicyDropsUnread Reason = "policy-drops-unread"
)

// Reasons why a node enforces no network policies: [Status.PoliciesOff]. Another is [Unsupported] if the kernel has no
// nf_tables.
const (
	PolicyDisabled    Reason = "policy-disabled"     // the daemon's flags say so
	PolicyOtherEngine Reason = "policy-other-engine" // --network-policy=auto has found another program's rules
)

// Reasons why the fast path is not in use, or not by a port: [FastPath.Code] and [SlowPort.Code]. Others are
// [Unsupported] and [NotPermitted].
const (
	FastPathStarting Reason = "fast-path-starting" // it is being set up
	FastPathBackend  Reason = "fast-path-backend"  // the backend, or the family, has none
	FastPathFailed   Reason = "fast-path-failed"   // the kernel refuses it; the daemon retries
	// Fast packets would pass by something of another program that has to see them: a queueing discipline or filter
	// of tc, a BPF program, or a chain of nf_tables.
	FastPathQueue   Reason = "fast-path-queue"
	FastPathProgram Reason = "fast-path-program"
	FastPathChain   Reason = "fast-path-chain"
)

// Further reasons of a [Problem] that concerns the fast path.
const (
	FastPathNotPinned  Reason = "fast-path-not-pinned"  // it ends with the daemon
	FastPathNotRemoved Reason = "fast-path-not-removed" // what an earlier run has left cannot be removed
)

// Reasons of a [Problem] that concerns the paths to other nodes.
const (
	// UnderlayRoute: the kernel does not send packets to other nodes' public IPs by the uplink.
	UnderlayRoute Reason = "underlay-route"
	// PolicyRule: the kernel does not route packets of the overlay as its routes say, because of another program's rule
	// or routing table.
	PolicyRule    Reason = "policy-rule"
	ForwardingOff Reason = "forwarding-off" // on an interface that the overlay's packets arrive on
	ReversePath   Reason = "reverse-path"   // the strict reverse path filter drops the overlay's packets
	RoutingUnread Reason = "routing-unread" // the kernel cannot be asked how it routes packets
	// PeerUnreachable: some probed peers do not answer; AllUnreachable: none of them does.
	PeerUnreachable Reason = "peer-unreachable"
	AllUnreachable  Reason = "all-unreachable"
	PacketLoss      Reason = "packet-loss" // probed peers answer, but not all probes
)

// Reasons why a [Peer] has the reachability [NotProbed].
const (
	NotChosen   Reason = "not-chosen" // other nodes probe it
	ProbesOff   Reason = "probes-off" // the daemon's flags turn probes off
	NoAnswerYet Reason = "no-answer-yet"
	NoPath      Reason = "no-path" // its lease is not accepted, or this node has none yet
)

// Reasons why a kernel entry cannot be written: of a [Problem] with Kind and Key, and of a [Peer] that is pending.
const (
	EntryMissing Reason = "entry-missing" // not tried yet, or no error is known
	EntryFailed  Reason = "entry-failed"
	Unsupported  Reason = "unsupported"   // the kernel lacks the feature
	NotPermitted Reason = "not-permitted" // the daemon lacks a capability
)

// Reasons why a [Peer] is not programmed although no entry is missing, and of a [Refusal].
const (
	LeaseWithdrawn Reason = "lease-withdrawn"
	LeaseOverlaps  Reason = "lease-overlaps"  // with the subnet of an older lease
	LeaseDuplicate Reason = "lease-duplicate" // of a value that must be unique, such as a MAC address
	LeaseOwnIP     Reason = "lease-own-ip"    // its public IP is this node's
	LeaseInvalid   Reason = "lease-invalid"
)

// Reasons for the mode of a [Filter]. Others are [NoIPTables], [NoNFTables], and [RulesNotSet] if the rules cannot be
// set in another mode.
const (
	ModeDefault     Reason = "mode-default"       // nothing requires another mode
	ModeConfigured  Reason = "mode-configured"    // the network config asks for it
	ModeLegacyInUse Reason = "mode-legacy-in-use" // the legacy iptables has rules
	ModeForeignDrop Reason = "mode-foreign-drop"  // a chain drops overlay traffic: only an iptables rule helps
)

// Reasons of a [FilterTrouble].
const (
	NoNFTables   Reason = "no-nftables"   // the config asks for nftables, which cannot be used
	NoIPTables   Reason = "no-iptables"   // the config asks for iptables, which is not installed
	FilterUnread Reason = "filter-unread" // the rules of others cannot be read
)
