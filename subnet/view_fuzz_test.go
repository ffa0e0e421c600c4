package subnet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnettest"
)

// FuzzView stores any record beside the peers. It is let in or quarantined for a reason that is fit to be shown, and
// changes nothing else; and it can only be let in if it is as a lease has to be.
func FuzzView(f *testing.F) {
	for i, r := range hostile(f) {
		if i%20 == 0 {
			f.Add(r.Key, r.Value, int64(100))
		}
	}
	for _, p := range subnettest.Peers() {
		value, err := p.Value()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Name, value, int64(1))
		f.Add("10.5.20.0-24&fd00:5:0:14::-64", value, int64(100))
	}
	v, peers := cluster(f)
	revision := int64(100)
	f.Fuzz(func(t *testing.T, key string, value []byte, created int64) {
		if _, ok := peers[key]; ok {
			return // it is the peer's
		}
		created = max(50, created%100) // younger than the peers
		revision++
		r := decoded(key, value, revision, 0)
		r.Order = created
		changes := v.Apply(subnet.Event{Type: subnet.Changed, Revision: revision, Put: []subnet.Record{r}})
		m, ok, why := v.Get(key)
		switch {
		case !ok:
			t.Errorf("key %q is not known", key)
		case why == nil && m.InstanceID == ours:
			if len(changes) > 0 {
				t.Errorf("our own lease changes peers: %v", changes)
			}
		case why != nil:
			checkReason(t, why)
			if len(changes) > 0 {
				t.Errorf("key %q, value %q changes peers: %v", key, value, changes)
			}
		case len(changes) != 1 || changes[0].Name != key || changes[0].Before != nil:
			t.Errorf("key %q, value %q is let in, and the changes are %v", key, value, changes)
		default:
			checkAdmitted(t, *changes[0].After, peers)
		}
		revision++
		v.Apply(subnet.Event{Type: subnet.Changed, Revision: revision, Deleted: []string{key}})
		if got := peersOf(v); !maps.Equal(got, peers) {
			t.Errorf("key %q, value %q leaves %v, want %v", key, value, got, peers)
		}
	})
}

// checkAdmitted looks at a lease that was let in without the code that let it in.
func checkAdmitted(t *testing.T, l subnet.Lease, peers map[string]subnet.Lease) {
	t.Helper()
	networks := [2]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/56")}
	for _, f := range subnet.Families() {
		e := l.Endpoints[f]
		if !l.Has(f) {
			continue
		}
		var data struct {
			VNI     *float64
			VtepMAC string
		}
		err := json.Unmarshal([]byte(e.Data), &data)
		mac, macErr := net.ParseMAC(data.VtepMAC)
		if err = errors.Join(err, macErr); err != nil || len(mac) != 6 || mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)) || data.VNI != nil && *data.VNI != 1 {
			t.Errorf("let in with the data %s (%v)", e.Data, err)
		}
		if !networks[f].Overlaps(e.Subnet) || e.Subnet.Bits() < networks[f].Bits()+2 || e.Subnet.Bits() > e.Subnet.Addr().BitLen()-2 ||
			e.Subnet != e.Subnet.Masked() {
			t.Errorf("let in with subnet %s", e.Subnet)
		}
		if a := e.PublicIP; !a.IsGlobalUnicast() || networks[f].Contains(a) || subnet.FamilyOf(a) != f || a.Zone() != "" ||
			a == netip.MustParseAddr("172.31.0.11") || a == netip.MustParseAddr("fd00:31::11") {
			t.Errorf("let in with public IP %s", a)
		}
		for key, p := range peers {
			if p.Endpoints[f].Subnet.Overlaps(e.Subnet) || p.Has(f) && strings.Contains(p.Endpoints[f].Data, mac.String()) {
				t.Errorf("let in beside %s with %+v", key, e)
			}
		}
	}
	for _, text := range []string{l.BackendType, l.InstanceID, l.NodeName} {
		if len(text) > 253 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("let in with %q", text)
		}
	}
	if l.BackendType != "vxlan" || l.InstanceID == ours {
		t.Errorf("let in as a peer: %+v", l)
	}
}
