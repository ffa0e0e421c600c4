package node

import (
	"context"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy"
)

// TestSettingFiles: the kernel reports when a setting that is watched is written.
func TestSettingFiles(t *testing.T) {
	calls := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	bridged := enforce.BridgedPackets()
	files := settingFiles(append(bridged[:], beLiberal)...)
	go func() { done <- filewatch.Watch(ctx, func() { notify(calls) }, files...) }()
	<-calls // it watches
	for _, file := range files {
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		<-calls
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDropCauses: the status has the codes of the packet filter's reasons.
func TestDropCauses(t *testing.T) {
	for reason, want := range map[ruleset.Reason]status.DropCause{
		ruleset.Isolated: status.DropIsolated, ruleset.Invalid: status.DropInvalid, ruleset.Denied: status.DropDenied,
		ruleset.NoRulesYet: status.DropNoRulesYet, ruleset.Cut: status.DropCut, ruleset.Spoofed: status.DropSpoofed,
		ruleset.LinkLocal: status.DropLinkLocal,
	} {
		d := dropStatus(enforce.Drop{Denial: ruleset.Denial{Reason: reason}})
		if d.Cause != string(want) || d.Rule != nil {
			t.Errorf("%s: %+v, want the cause %s, and no rule", reason, d, want)
		}
	}
}

func TestDropStatus(t *testing.T) {
	rule := 3
	got := dropStatus(enforce.Drop{
		Denial: ruleset.Denial{Direction: policy.Egress, Reason: ruleset.Denied, Policy: "deny", Rule: rule}, Protocol: policy.ICMPv6,
		Source: enforce.End{AddrPort: netip.MustParseAddrPort("[fd00::1]:0"), Pod: "a/b", Node: "n"}, Missed: 7,
		Destination: enforce.End{AddrPort: netip.MustParseAddrPort("[fd00::2]:0")},
	})
	want := status.Drop{
		Direction: "egress", Cause: string(status.DropDenied), Policy: "deny", Rule: &rule, Protocol: "ICMPv6", Missed: 7,
		Source:      status.PolicyEnd{Address: netip.MustParseAddr("fd00::1"), Pod: "a/b", Node: "n"},
		Destination: status.PolicyEnd{Address: netip.MustParseAddr("fd00::2")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
