package filter

import (
	"errors"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	yes, no := true, false
	nowhere := errors.New("no nf_tables")
	legacy := []string{"IPv4, table filter"}
	for _, tt := range []struct {
		name  string
		wish  *bool
		facts facts
		want  Mode
		code  Reason
		why   string // contains
		unmet bool
	}{
		{"wished", &yes, facts{}, NFTables, Configured, "EnableNFTables is true", false},
		{"wished, whatever speaks for iptables", &yes, facts{legacy: legacy, overridable: "table ip filter", programs: true}, NFTables, Configured, "EnableNFTables is true", false},
		{"wished and impossible", &yes, facts{unsupported: nowhere}, IPTables, NoNFTables, "not supported", true},
		{"not wished", &no, facts{}, IPTables, Configured, "EnableNFTables is false", false},
		{"not wished, and no iptables", &no, facts{missing: true}, NFTables, NoIPTables, "iptables is not installed", true},
		{"neither is possible", &no, facts{unsupported: nowhere, missing: true}, IPTables, Configured, "EnableNFTables is false", false},
		{"not wished and impossible", &no, facts{unsupported: nowhere}, IPTables, Configured, "EnableNFTables is false", false},
		{"nothing said", nil, facts{}, NFTables, Default, "supported", false},
		{"nothing said, and iptables is there", nil, facts{programs: true}, NFTables, Default, "supported", false},
		{"nothing said and impossible", nil, facts{unsupported: nowhere}, IPTables, NoNFTables, "not supported", false},
		{"the legacy iptables in use", nil, facts{legacy: legacy, programs: true}, IPTables, LegacyInUse, "IPv4, table filter", false},
		{"the legacy iptables in use, by others only", nil, facts{legacy: legacy}, NFTables, Default, "no suitable iptables", false},
		{"a drop that can be undone", nil, facts{overridable: "table ip filter, chain FORWARD", programs: true}, IPTables, ForeignDrop, "table ip filter, chain FORWARD drops", false},
		{"a drop that could be undone", nil, facts{overridable: "table ip filter, chain FORWARD"}, NFTables, Default, "no suitable iptables", false},
		{"both", nil, facts{legacy: legacy, overridable: "table ip filter", programs: true}, IPTables, LegacyInUse, "legacy", false},
	} {
		got, code, why := choose(tt.wish, tt.facts)
		if got != tt.want || code != tt.code || !strings.Contains(why, tt.why) {
			t.Errorf("%s: %s (%d, %s), want %s (%d, %s)", tt.name, got, code, why, tt.want, tt.code, tt.why)
		}
		err := unmet(tt.wish, tt.facts)
		if (err != nil) != tt.unmet || err != nil && tt.facts.unsupported != nil && !errors.Is(err, nowhere) {
			t.Errorf("%s: unmet is %v", tt.name, err)
		}
	}
}
