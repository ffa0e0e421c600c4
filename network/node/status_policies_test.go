package node

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/feed"
	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// TestPolicyTroubles: what is wrong with network policies has a code, and a text that names the cause.
func TestPolicyTroubles(t *testing.T) {
	cause := errors.New("the cause")
	closed := []netip.Addr{
		netip.MustParseAddr("10.5.1.2"), netip.MustParseAddr("10.5.1.3"), netip.MustParseAddr("10.5.1.4"), netip.MustParseAddr("fd00::2"),
	}
	began := time.Unix(1e9, 0)
	lost := func(complete bool) []feed.SourceState {
		return []feed.SourceState{
			{Source: feed.Namespaces, Complete: true},
			{Source: feed.Pods, Complete: complete, Since: began, Problem: subnet.Problem{Err: cause}},
		}
	}
	for _, x := range []struct {
		name    string
		find    func(policyTroubles)
		code    status.Reason // empty: none
		warning bool
		since   time.Time
		text    string
	}{
		{"in sync", func(f policyTroubles) { f.state(enforce.State{Synced: true, Enforcing: true, Pods: 7}, false) }, "", false, time.Time{}, ""},
		{"a table", func(f policyTroubles) {
			f.state(enforce.State{Failures: []enforce.Failure{{Part: enforce.Sources, Err: cause}}}, false)
		}, status.PolicyNotApplied, false, time.Time{}, "the table of sources in nf_tables: the cause"},
		{"no settings for bridges", func(f policyTroubles) { f.state(enforce.State{Enforcing: true}, true) },
			status.PolicyBridge, false, time.Time{}, "the kernel module br_netfilter is not loaded"},
		{"no settings for bridges, and no policy for a pod of the node", func(f policyTroubles) { f.state(enforce.State{}, true) }, "", false, time.Time{}, ""},
		{"services of IPVS", func(f policyTroubles) { f.services(true) },
			status.PolicyIPVS, false, time.Time{}, "because IPVS sends their packets past the forward hook"},
		{"no services of IPVS", func(f policyTroubles) { f.services(false) }, "", false, time.Time{}, ""},
		{"closed pods", func(f policyTroubles) { f.state(enforce.State{Closed: closed[:2], Waiting: 2}, false) },
			status.PolicyPodClosed, false, time.Time{}, "until their rules are in the kernel: 10.5.1.2, 10.5.1.3"},
		{"many closed pods", func(f policyTroubles) { f.state(enforce.State{Closed: closed}, false) },
			status.PolicyPodClosed, false, time.Time{}, "10.5.1.2, 10.5.1.3, 10.5.1.4 and 1 more"},
		{"pods that wait", func(f policyTroubles) { f.state(enforce.State{Waiting: 3}, false) },
			status.PolicyPodWaiting, true, time.Time{}, "3 pods are not judged"},
		{"unread drops", func(f policyTroubles) { f.state(enforce.State{DropsUnread: cause}, false) },
			status.PolicyDropsUnread, true, time.Time{}, "denied packets are not reported: the cause"},
		{"a source after its first list", func(f policyTroubles) { f.sources(lost(true)) },
			status.PolicySourceLost, true, began, "changes of pods are not seen: the cause"},
		{"a source before its first list", func(f policyTroubles) { f.sources(lost(false)) },
			status.PolicySourceLost, false, began, "changes of pods are not seen: the cause"},
		{"rules of an earlier run", func(f policyTroubles) { f.left(&problem{err: cause, since: began}) },
			status.PolicyNotRemoved, false, began, "the rules of an earlier run cannot be removed, and deny packets: the cause"},
		{"no rules of an earlier run", func(f policyTroubles) { f.left(nil) }, "", false, time.Time{}, ""},
	} {
		found := policyTroubles{}
		x.find(found)
		p, is := found[x.code]
		switch {
		case x.code == "" && len(found) > 0, x.code != "" && (!is || len(found) != 1):
			t.Errorf("%s: %+v, want the code %q alone", x.name, found, x.code)
		case p.Warning != x.warning || !p.Since.Equal(x.since) || !strings.HasSuffix(string(p.Text), x.text) && x.code != status.PolicyPodWaiting:
			t.Errorf("%s: %+v, want a warning: %t, since %v, %q", x.name, p, x.warning, x.since, x.text)
		}
	}
}

// here is the namespace of the test.
type here struct{}

// Do implements [nfttest.Namespace].
func (here) Do(f func() error) error { return f() }

// TestPoliciesNotRemoved: while the kernel refuses to remove the rules of an earlier run, that is a problem of a node
// that enforces no policies.
func TestPoliciesNotRemoved(t *testing.T) {
	name := PolicyScope("").Name(enforce.Table)
	f := nfttest.New(t, here{})
	f.Own(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
	var out bytes.Buffer
	n := &node{Options: Options{Log: textLog(&out), PoliciesOff: status.PolicyDisabled}, kernelChanged: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { defer close(done); n.removePolicies(t.Context()) }()
	<-n.kernelChanged
	p := policyProblems{}.list(n.policyTroubles(), time.Now().Add(time.Hour))
	if len(p) != 1 || p[0].Code != status.PolicyNotRemoved || !degrades(p[0]) || !strings.Contains(string(p[0].Text), name) {
		t.Errorf("problems %+v, want %s alone, with the name of the table", p, status.PolicyNotRemoved)
	}
	f.CloseLasting() // the kernel removes what the program owned
	<-done
	if found := n.policyTroubles(); len(found) > 0 {
		t.Errorf("without a table of an earlier run: %+v", found)
	}
	if got := strings.Count(out.String(), "cannot remove the network policy rules"); got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, out.String())
	}
}

// TestPolicyProblems: a trouble that lasts is a problem, by its code, since it began; one that is over begins again.
func TestPolicyProblems(t *testing.T) {
	known, began := policyProblems{}, time.Unix(1e9, 0)
	at := func(after time.Duration, found policyTroubles) (all []string) {
		t.Helper()
		for _, p := range known.list(found, began.Add(after)) {
			if p.Topic != topicPolicies {
				t.Errorf("%+v, want the topic %s", p, topicPolicies)
			}
			all = append(all, string(p.Code)+" "+p.Since.Sub(began).String())
		}
		return all
	}
	waiting, lost := status.PolicyPodWaiting, status.PolicySourceLost
	long := status.Problem{Since: began.Add(-time.Hour)}
	for _, x := range []struct {
		after time.Duration
		found policyTroubles
		want  []string
	}{
		{0, policyTroubles{waiting: {}}, nil},
		{pendingFor, policyTroubles{waiting: {}}, nil},
		{pendingFor + 1, policyTroubles{waiting: {}}, []string{"policy-pod-waiting 0s"}},
		{2 * time.Second, policyTroubles{waiting: {}, lost: long}, []string{"policy-pod-waiting 0s", "policy-source-lost -1h0m0s"}},
		{3 * time.Second, policyTroubles{lost: long}, []string{"policy-source-lost -1h0m0s"}},
		{4 * time.Second, policyTroubles{waiting: {}, lost: long}, []string{"policy-source-lost -1h0m0s"}},
		{6 * time.Second, policyTroubles{waiting: {}}, []string{"policy-pod-waiting 4s"}},
		{7 * time.Second, nil, nil},
	} {
		if got := at(x.after, x.found); !slices.Equal(got, x.want) {
			t.Errorf("after %v: %q, want %q", x.after, got, x.want)
		}
	}
	if !reflect.DeepEqual(known, policyProblems{}) {
		t.Errorf("remembered without any trouble: %v", known)
	}
}
