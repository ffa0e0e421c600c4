package enforce

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/recent"
)

// ErrUnsupported means that this kernel has no nf_tables, or denies access to it.
var ErrUnsupported = nft.ErrUnsupported

// Names of the tables in the default scope: see [network.Scope.Name].
const (
	Table        = "selvage-policy"        // of family inet
	ClosedTable  = "selvage-policy-closed" // of family inet
	SourcesTable = "selvage-policy-source" // of family bridge
)

// DefaultResync is how often all of the tables is read, as a safety net.
const DefaultResync = 5 * time.Minute

// Options are the options of an [Engine].
type Options struct {
	Node  string        // the name of this node, as in the pods' spec.nodeName
	Scope network.Scope // of the tables' names
	// Reject answers to the sender of a denied packet, which is dropped otherwise.
	Reject bool
	// KeepConnections keeps connections open that policies deny by now.
	KeepConnections bool
	// AnySource lets pods send from addresses that are not theirs.
	AnySource bool
	// LogGroup is the group of nf_tables' log to which denied packets are logged; 0: none are.
	LogGroup uint16
	Resync   time.Duration // 0: DefaultResync
	Log      logrus.FieldLogger
	// Changed is called, from any goroutine, after [Engine.Enforcing] or [Engine.Status] has changed. It must not block
	// nor call the engine. nil: nothing is called.
	Changed func()
	// Decided is called, from any goroutine, after a change of what is decided about packets is in force: a table was
	// changed, or connections were cut. It must not block. nil: nothing is called.
	Decided func()
}

// Engine enforces policies for the pods of one node. Its methods are safe for concurrent use.
type Engine struct {
	options Options
	conn    *nft.Conn
	wake    chan struct{} // size one: something is to be applied
	broken  chan struct{} // size one: another process has changed a table
	peers   chan struct{} // size one: NeedsPeers has changed
	cutter  chan struct{} // size one: connections are to be judged again
	hurry   chan struct{} // size one: those that began before a repair are among them

	mu       sync.Mutex
	compiler *policy.Compiler
	local    map[string]policy.Pod // pods of this node, as the API has them, by UID
	attached map[string]*attached  // by container ID
	closed   map[netip.Addr]bool
	synced   bool // as last set, unless peers are needed that are not complete
	known    bool // the lists have been complete once
	needs    bool // peers
	state    State
	passed   chan struct{} // closed after a pass

	version, applied uint64 // of the objects and attachments: the last one, and the last one that is in the kernel

	concerned   map[netip.Addr]bool        // their connections are to be judged again
	cuts        map[ruleset.Flow]time.Time // answers that are denied, and since when
	cutsChanged bool
	cutCount    uint64 // connections that were cut

	bypassed time.Time // when packets between pods of this node last passed unjudged, as far as is known
	nextAt   time.Time // of the next look since; zero: none

	dropped     recent.Log[Drop]
	reading     bool  // what the rules log is received
	dropsUnread error // why not, or nil

	dropCounts map[DropKind]uint64

	attachments    uint64 // so many there were
	recorded       bool   // SetAttachments was called
	sourcesChanged bool   // since the last pass
	// Calls of Isolate are numbered: the last one, the last one that a pass has seen, and the error of that pass.
	closings, closingsApplied uint64
	closingErr                error

	ended chan struct{} // closed when Run returns
	pass  pass          // of Run alone
}

// New connects to nf_tables in the network namespace of the calling thread, or returns [ErrUnsupported]. It changes
// nothing before [Engine.Run].
func New(o Options) (*Engine, error) {
	conn, err := nft.Dial()
	if err != nil {
		return nil, err
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Decided == nil {
		o.Decided = func() {}
	}
	if o.Resync == 0 {
		o.Resync = DefaultResync
	}
	e := &Engine{
		options: o, conn: conn, wake: make(chan struct{}, 1), broken: make(chan struct{}, 1),
		peers: make(chan struct{}, 1), compiler: policy.NewCompiler(o.Node), local: map[string]policy.Pod{},
		attached: map[string]*attached{}, closed: map[netip.Addr]bool{}, passed: make(chan struct{}),
		cutter: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		concerned: map[netip.Addr]bool{}, cuts: map[ruleset.Flow]time.Time{},
		ended: make(chan struct{}), dropCounts: map[DropKind]uint64{},
	}
	options := ruleset.Options{Reject: o.Reject, LogGroup: o.LogGroup}
	e.pass = pass{
		Engine: e, rules: ruleset.New(options), common: options,
		policies: e.keeper(nftables.TableFamilyINet, Table),
		closing:  e.keeper(nftables.TableFamilyINet, ClosedTable),
		sources:  e.keeper(nftables.TableFamilyBridge, SourcesTable),
	}
	return e, nil
}

// Run keeps the tables in sync until ctx ends. It runs once. The tables stay when it returns.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.ended)
	err := e.pass.run(ctx)
	return errors.Join(err, e.conn.Close())
}

// Update changes objects. f must not keep what it is called with. All that it does is one transaction.
func (e *Engine) Update(f func(policy.Objects)) {
	e.mu.Lock()
	f(objects{e.compiler, e})
	e.notePeers()
	e.change()
	e.mu.Unlock()
}

// SetSynced says whether the lists of all objects are complete, and with [Engine.NeedsPeers] that of the pods of other
// nodes. While they are not, the table of policies stays as it is.
func (e *Engine) SetSynced(synced bool) {
	e.mu.Lock()
	e.synced = synced
	e.change()
	e.mu.Unlock()
}

// NeedsPeers reports whether a policy that selects a pod of this node names other pods. Otherwise only the pods of this
// node are needed.
//
// When it becomes true, the engine takes the lists for incomplete, as if SetSynced(false) had been called: list the
// pods of other nodes, and call SetSynced(true) again. When it becomes false, they may be deleted.
func (e *Engine) NeedsPeers() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.needs
}

// PeersChanged has a value after NeedsPeers has changed.
func (e *Engine) PeersChanged() <-chan struct{} { return e.peers }

// notePeers compares the need for peers with that before.
func (e *Engine) notePeers() {
	needs := e.compiler.NeedsPeers()
	if needs == e.needs {
		return
	}
	if e.needs = needs; needs {
		e.synced = false
	}
	notify(e.peers)
}

// Verdict judges a packet as this node does, by what the API says now: the kernel may be a few milliseconds behind.
// Pods of the verdicts must not be changed.
func (e *Engine) Verdict(p policy.Packet) [2]policy.Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	return policy.Judge(e.compiler, e.options.Node, p)
}

// View calls f with all that is known, which f must neither change nor keep.
func (e *Engine) View(f func(*policy.Compiler)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e.compiler)
}

// change wakes Run for a change.
func (e *Engine) change() {
	e.version++
	notify(e.wake)
}

// notify puts a value into a channel of size one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
