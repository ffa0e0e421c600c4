package ruleset

import (
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
)

// Reason is a code for why a packet is denied. Programs compare codes.
type Reason string

// The reasons of a [Denial]. The first three are causes of a [policy.Verdict].
const (
	Isolated   = Reason(policy.CauseIsolated)    // NetworkPolicies isolate the pod, no rule matches
	Invalid    = Reason(policy.CauseInvalid)     // the pod is isolated, and the packet belongs to no connection
	Denied     = Reason(policy.CauseClusterDeny) // a rule of a ClusterNetworkPolicy
	NoRulesYet = Reason("no-rules-yet")          // the pod is closed until its rules are in the kernel
	Cut        = Reason("cut")                   // the other direction of a connection that policies deny by now
	Spoofed    = Reason("spoofed-source")        // the source is not an address of the pod
	LinkLocal  = Reason("link-local")            // between pods, from an address that no policy can name
)

// Denial is why a packet is denied: what the prefix of a logged packet says.
type Denial struct {
	Direction policy.Direction
	Reason    Reason
	Policy    string // the name of the ClusterNetworkPolicy whose rule denies
	Rule      int    // the rule's index in the policy's list of the direction
}

// mark begins the prefix of our packets.
const mark = "selvage"

// maxPrefix is the size of the longest prefix that the kernel takes, in bytes: NF_LOG_PREFIXLEN with a zero.
const maxPrefix = 127

// Prefix returns the denial as the prefix of a logged packet: words, of which the last may be cut off.
func (d Denial) Prefix() string {
	text := mark + " " + d.Direction.String() + " " + string(d.Reason)
	if d.Policy != "" {
		text += " " + strconv.Itoa(d.Rule) + " " + d.Policy
	}
	return text[:min(len(text), maxPrefix)]
}

// ParsePrefix is the inverse of [Denial.Prefix]. A policy's name of more than 90 bytes can be cut off.
func ParsePrefix(prefix string) (d Denial, ok bool) {
	words := strings.Fields(prefix)
	if len(words) < 3 || words[0] != mark {
		return d, false
	}
	for _, direction := range policy.Directions() {
		if words[1] == direction.String() {
			d.Direction, ok = direction, true
		}
	}
	d.Reason = Reason(words[2])
	if len(words) > 4 {
		d.Rule, _ = strconv.Atoi(words[3])
		d.Policy = words[4]
	}
	return d, ok
}

// Of packets that one rule denies, so many a second are logged, and a few more at once.
const (
	logRate  = 10
	logBurst = 20
)

// deny returns the rules that deny packets under conditions: one logs them, the other drops or answers. The limit is a
// condition of the first, so it cannot be in the second.
func (o Options) deny(why Denial, conditions []expr.Any) (rules []nft.Rule) {
	comment := why.Direction.String() + ": " + string(why.Reason)
	if why.Policy != "" {
		comment += " by [" + strconv.Itoa(why.Rule) + "] of " + why.Policy
	}
	if o.LogGroup != 0 {
		rules = append(rules, nft.Rule{Comment: "log " + comment, Exprs: slices.Concat(conditions, []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: logRate, Unit: expr.LimitTimeSecond, Burst: logBurst},
			&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: o.LogGroup,
				Data: []byte(why.Prefix())},
		})})
	}
	final := verdict(expr.VerdictDrop)
	if o.Reject && why.Reason != Invalid && why.Reason != Spoofed { // the sender may be another one
		final = []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: rejectChain}}
	}
	exprs := slices.Concat(conditions, []expr.Any{&expr.Counter{}}, final)
	return append(rules, nft.Rule{Comment: comment, Exprs: exprs})
}
