package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
	"github.com/selvage-net/selvage/subnet/storetest"
	"github.com/selvage-net/selvage/subnet/subnettest"
)

// hostileNode is a Node that must be rejected.
type hostileNode struct {
	podCIDRs    []string
	annotations map[string]any
	why         string // what the reason contains
}

// hostileNodes returns Nodes in the cluster of package subnettest, by name. Each of them is good but for one thing.
func hostileNodes() map[string]hostileNode {
	all := map[string]hostileNode{}
	add := func(name, podCIDRs, why string, annotations map[string]any) {
		n := len(all)
		h := hostileNode{annotations: map[string]any{
			DefaultPrefix + "kube-subnet-manager": "true", DefaultPrefix + "backend-type": "vxlan",
			DefaultPrefix + "backend-data": fmt.Sprintf(`{"VNI":1,"VtepMAC":"0e:06:00:00:00:%02x"}`, n),
			DefaultPrefix + "public-ip":    fmt.Sprintf("172.31.1.%d", n+1),
		}, why: why}
		if podCIDRs == "" {
			podCIDRs = fmt.Sprintf("10.5.%d.0/24", 120+n)
		}
		h.podCIDRs = strings.Split(podCIDRs, ",")
		for name, value := range annotations {
			if !strings.Contains(name, "/") {
				name = DefaultPrefix + name
			}
			h.annotations[name] = value
		}
		all["hostile-"+name] = h
	}
	with := func(name, value string) map[string]any { return map[string]any{name: value} }

	add("outside", "192.168.1.0/24", "is not inside Network", nil)
	add("around", "10.0.0.0/8", "is not inside Network", nil)
	add("everything", "0.0.0.0/0", "is not inside Network", nil)
	add("host", "10.5.60.1/32", "length is", nil)
	add("half-of-the-network", "10.5.128.0/17", "length is", nil)
	add("of-a-peer", "10.5.12.0/24", "overlaps the older lease", nil)
	add("inside-a-peers", "10.5.12.128/25", "overlaps the older lease", nil)
	add("around-peers", "10.5.12.0/23", "overlaps the older lease", nil)
	add("peers-in-ipv6", "fd00:5:0:c::/64", "overlaps the older lease",
		map[string]any{"public-ipv6": "fd00:31::77", "backend-v6-data": `{"VNI":1,"VtepMAC":"0e:06:00:00:06:08"}`})
	add("three", "10.5.61.0/24,10.5.62.0/24,10.5.63.0/24", "has 3 entries", nil)
	add("garbage", "10.5.64.0/24,garbage", "want an IP prefix", nil)
	add("no-length", "10.5.65.0", "want an IP prefix", nil)
	add("mapped", "::ffff:10.5.66.0/120", "want an IP prefix", nil)
	add("long-garbage", strings.Repeat("9", 3000), "podCIDR of more than", nil)
	add("holds-the-gateway", "10.5.99.0/24", "of the underlay", nil)

	for name, ip := range map[string]string{
		"multicast": "224.0.0.1", "loopback": "127.0.0.1", "unspecified": "0.0.0.0", "broadcast": "255.255.255.255",
		"link-local": "169.254.1.1",
	} {
		add("public-ip-"+name, "", "is not a unicast address", with("public-ip", ip))
	}
	add("public-ip-of-the-overlay", "", "is inside the overlay", with("public-ip", "10.5.70.1"))
	add("public-ip-of-ours", "", "is our own", with("public-ip", "172.31.0.11"))
	for name, ip := range map[string]string{
		"text": "here", "ipv6": "fd00:31::12", "mapped": "::ffff:172.31.0.9", "zeros": "172.031.000.009",
		"port": "172.31.0.9:80", "long": strings.Repeat("1.", 1500), "control": "172.31.0.9\x1b[2J\n",
	} {
		add("public-ip-"+name, "", "want an IPv4 address", with("public-ip", ip))
	}
	add("no-public-ip", "", "no annotation", with("public-ip", ""))

	add("mac-of-a-peer", "", "is that of the older lease", with("backend-data", `{"VNI":1,"VtepMAC":"0e:05:00:00:00:0c"}`))
	add("mac-multicast", "", "is not the address of one device", with("backend-data", `{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}`))
	add("mac-zero", "", "is not the address of one device", with("backend-data", `{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}`))
	add("mac-text", "", "is not a MAC address", with("backend-data", `{"VNI":1,"VtepMAC":"x"}`))
	add("vni", "", "VNI is", with("backend-data", `{"VNI":2,"VtepMAC":"0e:06:00:00:00:99"}`))
	add("vni-negative", "", "want uint32", with("backend-data", `{"VNI":-1,"VtepMAC":"0e:06:00:00:00:99"}`))
	add("no-data", "", "no BackendData", with("backend-data", "null"))
	add("data-text", "", "is not JSON", with("backend-data", "not JSON\x00\x1b"))
	add("data-bomb", "", "at most", with("backend-data", strings.Repeat("[", 2000)+strings.Repeat("]", 2000)))
	add("data-unclosed", "", "is not JSON", with("backend-data", strings.Repeat(`{"a":`, 700)))
	add("data-long", "", "at most", with("backend-data", `{"VNI":1,"VtepMAC":"`+strings.Repeat("a", 3000)+`"}`))
	add("type", "", "backend is", with("backend-type", "host-gw"))
	add("type-none", "", "backend is", with("backend-type", ""))
	add("type-control", "", "want printable characters only", with("backend-type", "vxlan\n\x1b]0;x\a"))
	add("type-long", "", "at most", with("backend-type", strings.Repeat("v", 4000)))
	add("too-large", "", "of more than 4096 bytes", with("backend-data", `{"VNI":1,"VtepMAC":"`+strings.Repeat("a", 100_000)+`"}`))
	return all
}

// peerNodes are the peers of package subnettest as Nodes of flannel's and of selvage's.
func peerNodes(t *testing.T) []kubetest.Node {
	t.Helper()
	var nodes []kubetest.Node
	for _, r := range subnettest.Peers() {
		n := kubetest.Node{Name: "peer-" + strings.NewReplacer("&", "-", ":", "-", ".", "-").Replace(r.Name)}
		n.Name = strings.TrimRight(strings.ReplaceAll(n.Name, "--", "-"), "-")
		for _, f := range subnet.Families() {
			if r.Has(f) {
				n.PodCIDRs = append(n.PodCIDRs, r.Endpoints[f].Subnet.String())
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// TestHostileNodes has the API server serve hostile Nodes beside good ones. Each is rejected by its name, with its
// reason, and changes nothing else, when it is added, changed and deleted, and in a list.
func TestHostileNodes(t *testing.T) {
	f := standIn(t, true)
	for i, n := range peerNodes(t) {
		o, err := f.admin.CreateNode(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		f.annotate(t, n.Name, annotations(t, subnettest.Peers()[i].Lease, o))
	}
	rules, err := subnettest.Rules()
	if err != nil {
		t.Fatal(err)
	}
	view := subnet.NewView()
	view.SetRules(rules)
	harmed := make(chan string, 1000)
	begun := false
	look := func(e subnet.Event) {
		changes := view.Apply(e)
		for _, c := range changes {
			if begun || !strings.HasPrefix(c.Name, "peer-") {
				harmed <- fmt.Sprintf("%+v", c)
			}
		}
		begun = begun || e.Type == subnet.Synced
	}
	w := storetest.Watch(t, f.open(t, "one"), look)
	if got := len(w.Synced(1).Leases); got != len(subnettest.Peers()) {
		t.Fatalf("%d peers", got)
	}
	hostile := hostileNodes()
	// Creation times are in seconds: of the same second, the name decides.
	for _, name := range slices.Sorted(maps.Keys(hostile)) {
		name, h := "z-"+name, hostile[name]
		if _, err := f.admin.CreateNode(t.Context(), kubetest.Node{Name: name, PodCIDRs: h.podCIDRs}); err != nil {
			t.Fatal(err)
		}
		f.annotate(t, name, h.annotations)
	}
	check := func() {
		t.Helper()
		for name, h := range hostile {
			_, ok, why := view.Get("z-" + name)
			if !ok || why == nil || !strings.Contains(why.Error(), h.why) {
				t.Errorf("%s: known %t, rejected because %v, want %s", name, ok, why, h.why)
			} else if text := why.Error(); len(text) > 600 ||
				strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s: a reason that is not fit to be shown: %q", name, text)
			}
		}
		if valid, quarantined := view.Len(); valid != len(subnettest.Peers()) || quarantined != len(hostile) {
			t.Errorf("%d are accepted and %d rejected", valid, quarantined)
		}
	}
	all := func(s storetest.State) string {
		if len(s.Leases) != len(hostile)+len(subnettest.Peers()) {
			var missing []string
			for name := range hostile {
				if _, ok := s.Leases["z-"+name]; !ok {
					missing = append(missing, name)
				}
			}
			return fmt.Sprintf("%d Nodes; there are %d, without %q", len(hostile), len(s.Leases), missing)
		}
		return ""
	}
	w.Until(all)
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	check()
	// The same in a list.
	begun = false
	late := storetest.Watch(t, f.open(t, "one"), look)
	late.Synced(1)
	check()
	for name := range hostile {
		if err := f.admin.DeleteNode(t.Context(), "z-"+name); err != nil {
			t.Fatal(err)
		}
	}
	late.Until(func(s storetest.State) string {
		if len(s.Leases) != len(subnettest.Peers()) {
			return fmt.Sprintf("the peers alone; there are %d", len(s.Leases))
		}
		return ""
	})
	close(harmed)
	for text := range harmed {
		t.Errorf("a peer changes: %s", text)
	}
}

// TestHostileRecords translates the corpus of hostile leases to Nodes, as far as a Node can say the same. None of them
// becomes a peer, and none harms one.
func TestHostileRecords(t *testing.T) {
	records, err := subnettest.Hostile()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := subnettest.Rules()
	if err != nil {
		t.Fatal(err)
	}
	names := namesOf(DefaultPrefix)
	view := subnet.NewView()
	view.SetRules(rules)
	view.Apply(subnet.Event{Type: subnet.Page, Revision: 50, Put: subnettest.Peers()})
	view.Apply(subnet.Event{Type: subnet.Synced, Revision: 50})
	tried := 0
	for i, r := range records {
		o, cidrs, ok := translate(names, r)
		if !ok {
			continue
		}
		tried++
		o.Name, o.Version, o.Created = fmt.Sprintf("hostile-%d", i), int64(100+i), time.Unix(int64(100+i), 0)
		record := names.record(&o, cidrs)
		changes := view.Apply(subnet.Event{Type: subnet.Changed, Revision: o.Version, Put: []subnet.Record{record}})
		_, known, why := view.Get(o.Name)
		if len(changes) > 0 || !known || why == nil {
			t.Errorf("key %q, value %q: %v, known %t, rejected because %v", r.Key, r.Value, changes, known, why)
		}
		view.Apply(subnet.Event{Type: subnet.Changed, Revision: o.Version, Deleted: []string{o.Name}})
	}
	if tried < 900 {
		t.Errorf("%d of %d records were tried", tried, len(records))
	}
}

// translate makes a Node of a hostile record; ok is false if a Node cannot say the same, or if it would be good: a
// family without a public IP has no part in a Node's lease.
func translate(n names, r subnettest.Record) (o apiserver.Object, cidrs podCIDRs, ok bool) {
	decoded := subnet.DecodeRecord(r.Key, nil)
	for _, f := range subnet.Families() {
		cidrs.subnets[f] = decoded.Endpoints[f].Subnet
	}
	var fields map[string]json.RawMessage
	if cidrs.none() || len(r.Value) > apiserver.MaxAnnotation || json.Unmarshal(r.Value, &fields) != nil ||
		strings.Contains(r.Why, "no PublicIP") {
		return o, cidrs, false
	}
	known := []string{"PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "InstanceID", "NodeName"}
	for field := range fields {
		folds := func(k string) bool { return strings.EqualFold(k, field) && k != field }
		if slices.ContainsFunc(known, folds) {
			return o, cidrs, false // encoding/json takes the last one of a name, in whatever case
		}
	}
	text := func(name string) string {
		var s string
		if json.Unmarshal(fields[name], &s) != nil && len(fields[name]) > 0 && string(fields[name]) != "null" {
			ok = false
		}
		return s
	}
	ok = true
	o.UID = uid
	o.Annotations = map[string]string{n.managed: managed, n.backendType: text("BackendType")}
	for f, names := range [2][2]string{{"PublicIP", "BackendData"}, {"PublicIPv6", "BackendV6Data"}} {
		o.Annotations[n.publicIP[f]] = text(names[0])
		o.Annotations[n.data[f]] = string(fields[names[1]])
		if cidrs.subnets[f].IsValid() && o.Annotations[n.publicIP[f]] == "" {
			ok = false
		}
	}
	own, err := json.Marshal(map[string]string{"UID": uid, "InstanceID": text("InstanceID"), "NodeName": text("NodeName")})
	o.Annotations[LeaseAnnotation] = string(own)
	return o, cidrs, ok && err == nil
}
