package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

func TestCompare(t *testing.T) {
	record := func(key, value string) subnet.Record {
		r := subnet.DecodeRecord(key, []byte(value))
		if r.Bad != nil {
			t.Fatal(r.Bad)
		}
		return r
	}
	leases := []subnet.Record{
		record("10.5.1.0-24", `{"PublicIP":"172.31.0.1","BackendType":"vxlan","NodeName":"node1"}`),
		record("10.5.200.0-24", `{"PublicIP":"10.5.0.2","BackendType":"vxlan"}`),
	}
	const before = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1450}}`
	for _, tt := range []struct{ after, changes, restart, refusals string }{
		{before, "", "", ""},
		{`{"network":"10.5.0.0/16","BACKEND":{"mtu":1450,"type":"vxlan"}}`, "", "", ""},
		{`{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","Backend":{"Type":"vxlan"}}`,
			`Backend.MTU: not set, was 1450; SubnetMin: "10.5.10.0", was not set`, "", ""},
		{`{"Network":"10.5.0.0/17","Backend":{"Type":"vxlan","MTU":1450}}`, `Network: "10.5.0.0/17", was "10.5.0.0/16"`, "",
			" 10.5.200.0-24 this node's lease does not fit: subnet 10.5.200.0/24 is not inside Network 10.5.0.0/17"},
		{`{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0","Backend":{"Type":"vxlan","MTU":1450}}`,
			`SubnetMin: "10.5.0.0", was not set`, "",
			" 10.5.200.0-24 this node's public IP 10.5.0.2 would be inside the overlay 10.5.0.0/16, where subnets are leased"},
		{`{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","MTU":1450}}`, `Network: "10.6.0.0/16", was "10.5.0.0/16"`, "",
			"node1 10.5.1.0-24 this node's lease does not fit: subnet 10.5.1.0/24 is not inside Network 10.6.0.0/16; " +
				" 10.5.200.0-24 this node's lease does not fit: subnet 10.5.200.0/24 is not inside Network 10.6.0.0/16"},
		{`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`,
			`Backend.MTU: not set, was 1450; Backend.Type: "host-gw", was "vxlan"`, "it changes Backend.Type from vxlan to host-gw", ""},
		{`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","MTU":1450}}`, `Backend.Type: "wireguard", was "vxlan"`, "", ""},
		{`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1450,"VNI":2}}`, `Backend.VNI: 2, was not set`,
			"it turns device flannel.1", ""},
		{`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan","MTU":1450}}`,
			`EnableIPv6: true, was not set; IPv6Network: "fd00:5::/56", was not set`, "it turns IPv6 on", ""},
	} {
		c, err := Compare(subnet.StoreEtcd, []byte(before), []byte(tt.after), leases)
		if err != nil {
			t.Fatal(err)
		}
		var refusals []string
		for _, r := range c.Refusals {
			refusals = append(refusals, fmt.Sprint(r.Node, " ", r.Lease, " ", r.Reason))
		}
		if got := strings.Join(c.Changes, "; "); got != tt.changes {
			t.Errorf("%s: changes %s, want %s", tt.after, got, tt.changes)
		}
		if got := fmt.Sprint(c.Restart); tt.restart == "" && c.Restart != nil || !strings.HasPrefix(got, tt.restart) && c.Restart != nil {
			t.Errorf("%s: restart %s, want %s", tt.after, got, tt.restart)
		} else if tt.restart != "" && c.Restart == nil {
			t.Errorf("%s: no restart, want %s", tt.after, tt.restart)
		}
		if got := strings.Join(refusals, "; "); got != tt.refusals {
			t.Errorf("%s: refusals %s, want %s", tt.after, got, tt.refusals)
		}
	}
	if mtu := BackendMTU([]byte(before)); mtu != 1450 {
		t.Errorf("Backend.MTU %d", mtu)
	}
	for _, bad := range []string{`{`, `{"Network":"10.5.0.0/16","Backend":{"VNI":16777215}}`} {
		if _, err := Compare(subnet.StoreEtcd, []byte(before), []byte(bad), nil); err == nil {
			t.Errorf("%s is compared", bad)
		}
	}
}
