package kube

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

const uid = "7f8b1c1e-0000-4000-8000-000000000001"

// nodeWith returns a Node with annotations, whose names get the default prefix unless they have one.
func nodeWith(podCIDRs string, annotations map[string]string) *apiserver.Node {
	n := &apiserver.Node{Object: apiserver.Object{
		Name: "one", UID: uid, Version: 7, Created: time.Unix(1000, 0), Annotations: map[string]string{},
	}}
	if podCIDRs != "" {
		n.PodCIDRs = strings.Split(podCIDRs, ",")
	}
	for name, value := range annotations {
		if !strings.Contains(name, "/") {
			name = DefaultPrefix + name
		}
		n.Annotations[name] = value
	}
	return n
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

const mac4, mac6 = `{"VNI":1,"VtepMAC":"8e:8f:a1:00:00:01"}`, `{"VNI":1,"VtepMAC":"8e:8f:a1:00:00:02"}`

func dualLease() subnet.Lease {
	return subnet.Lease{BackendType: "vxlan", NodeName: "one", Endpoints: [2]subnet.Endpoint{
		{Subnet: prefix("10.244.1.0/24"), PublicIP: netip.MustParseAddr("192.0.2.1"), Data: mac4},
		{Subnet: prefix("fd00:244:0:1::/64"), PublicIP: netip.MustParseAddr("2001:db8::1"), Data: mac6},
	}}
}

// TestFlannelsNodes decodes what flannel writes.
func TestFlannelsNodes(t *testing.T) {
	dual := dualLease()
	single := dual
	single.Endpoints[subnet.IPv6] = subnet.Endpoint{}
	sixth := dual
	sixth.Endpoints[subnet.IPv4] = subnet.Endpoint{}
	hostgw := single
	hostgw.BackendType, hostgw.Endpoints[subnet.IPv4].Data = "host-gw", ""
	old := single
	old.Endpoints[subnet.IPv4].Data = `{"VtepMAC":"8e:8f:a1:00:00:01"}`
	single4 := map[string]string{
		"kube-subnet-manager": "true", "backend-type": "vxlan", "backend-data": mac4, "public-ip": "192.0.2.1",
	}
	both := map[string]string{
		"kube-subnet-manager": "true", "backend-type": "vxlan", "backend-data": mac4, "public-ip": "192.0.2.1",
		"backend-v6-data": mac6, "public-ipv6": "2001:db8::1",
	}
	for name, x := range map[string]struct {
		podCIDRs    string
		annotations map[string]string
		want        subnet.Lease
	}{
		"IPv4":                       {"10.244.1.0/24", single4, single},
		"IPv4 with two podCIDRs":     {"10.244.1.0/24,fd00:244:0:1::/64", single4, single},
		"dual stack":                 {"10.244.1.0/24,fd00:244:0:1::/64", both, dual},
		"dual stack, IPv6 first":     {"fd00:244:0:1::/64,10.244.1.0/24", both, dual},
		"one podCIDR of a dual node": {"10.244.1.0/24", both, single},
		"the other one":              {"fd00:244:0:1::/64", both, sixth},
		"host bits":                  {"10.244.1.7/24,fd00:244:0:1::1/64", both, dual},
		"the first of a family":      {"10.244.1.0/24,10.244.2.0/24", single4, single},
		"host-gw": {"10.244.1.0/24", map[string]string{
			"kube-subnet-manager": "true", "backend-type": "host-gw", "backend-data": "null", "public-ip": "192.0.2.1",
		}, hostgw},
		"no VNI": {"10.244.1.0/24", map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.0.2.1",
			"backend-data": ` { "VtepMAC" : "8e:8f:a1:00:00:01" } `,
		}, old},
	} {
		n := nodeWith(x.podCIDRs, x.annotations)
		names := namesOf(DefaultPrefix)
		if !names.isLease(&n.Object) {
			t.Errorf("%s: it is no lease", name)
		}
		got := names.record(&n.Object, parsePodCIDRs(n.PodCIDRs))
		if want := (subnet.Record{Lease: x.want, Name: "one", Order: 1000, Version: 7}); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
	for _, value := range []string{"", "True", "1", " true", "false"} {
		n := nodeWith("10.244.1.0/24", map[string]string{"kube-subnet-manager": value})
		if namesOf(DefaultPrefix).isLease(&n.Object) {
			t.Errorf("kube-subnet-manager %q makes a lease", value)
		}
	}
}

// TestClaimed writes leases: flannel's annotations as flannel writes them, byte by byte, and ours beside them. What is
// written is read back as it was.
func TestClaimed(t *testing.T) {
	names := namesOf(DefaultPrefix)
	ours := dualLease()
	ours.InstanceID, ours.NodeName, ours.MeshKey = "0123456789abcdef", "a name of its own", "a+b/c="
	hostgw := dualLease()
	hostgw.BackendType, hostgw.Endpoints[0].Data, hostgw.Endpoints[1].Data = "host-gw", "", ""
	sixth := dualLease()
	sixth.Endpoints[subnet.IPv4] = subnet.Endpoint{}
	unnamed := dualLease()
	unnamed.NodeName = ""
	const cidrs = "10.244.1.5/24,fd00:244:0:1::/64"
	flannels := map[string]string{
		"kube-subnet-manager": "true", "backend-type": "vxlan", "backend-data": mac4, "public-ip": "192.0.2.1",
		"backend-v6-data": mac6, "public-ipv6": "2001:db8::1",
	}
	for name, x := range map[string]struct {
		lease subnet.Lease
		want  map[string]string // flannel's
		own   string
	}{
		"dual stack": {dualLease(), flannels, `{"UID":"` + uid + `"}`},
		"ours": {ours, flannels,
			`{"UID":"` + uid + `","InstanceID":"0123456789abcdef","NodeName":"a name of its own","MeshKey":"a+b/c="}`},
		"without a name": {unnamed, flannels, `{"UID":"` + uid + `","NodeName":""}`},
		"host-gw": {hostgw, map[string]string{
			"kube-subnet-manager": "true", "backend-type": "host-gw", "backend-data": "null", "public-ip": "192.0.2.1",
			"backend-v6-data": "null", "public-ipv6": "2001:db8::1",
		}, `{"UID":"` + uid + `"}`},
		"IPv6": {sixth, map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan", "backend-v6-data": mac6, "public-ipv6": "2001:db8::1",
		}, `{"UID":"` + uid + `"}`},
	} {
		n := nodeWith(cidrs, map[string]string{"public-ip": "198.51.100.1", "other": "x"})
		c, err := names.claimed(x.lease, n)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for annotation, value := range c.differing(&n.Object) {
			if value == nil {
				delete(n.Annotations, annotation)
			} else {
				n.Annotations[annotation] = *value
			}
		}
		x.want["other"] = "x"
		x.want[LeaseAnnotation], x.want[PodCIDRsAnnotation] = x.own, cidrs
		if len(n.Annotations) != len(x.want) {
			t.Errorf("%s: %q, want %q", name, n.Annotations, x.want)
		}
		for annotation, want := range x.want {
			if !strings.Contains(annotation, "/") && annotation != "other" {
				annotation = DefaultPrefix + annotation
			}
			if annotation == "other" {
				annotation = DefaultPrefix + "other"
			}
			if got := n.Annotations[annotation]; got != want {
				t.Errorf("%s: %s is %q, want %q", name, annotation, got, want)
			}
		}
		subnets, ok := annotated(&n.Object)
		if r := names.record(&n.Object, subnets); !ok || r.Lease != x.lease || r.Bad != nil {
			t.Errorf("%s: read back, it is %+v", name, r)
		}
		if again := c.differing(&n.Object); len(again) > 0 {
			t.Errorf("%s: it is written again: %v", name, again)
		}
	}
	bad := dualLease()
	bad.Endpoints[subnet.IPv4].Data = "{"
	if _, err := names.claimed(bad, nodeWith(cidrs, nil)); err == nil {
		t.Error("a lease that no peer accepts is written")
	}
}

// TestPatch has what differs alone, and fails if the Node has changed.
func TestPatch(t *testing.T) {
	names := namesOf("example.org/blue-")
	n := nodeWith("10.244.1.0/24", map[string]string{
		"example.org/blue-public-ip": "192.0.2.1", "example.org/blue-backend-type": "host-gw",
		"example.org/blue-backend-v6-data": "null",
	})
	l := dualLease()
	l.Endpoints[subnet.IPv6] = subnet.Endpoint{}
	c, err := names.claimed(l, n)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.differing(&n.Object).patch(&n.Object)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if json.Unmarshal(data, &got) != nil || json.Unmarshal([]byte(`{"metadata":{"resourceVersion":"7","annotations":{
		"example.org/blue-kube-subnet-manager":"true","example.org/blue-backend-type":"vxlan",
		"example.org/blue-backend-data":"{\"VNI\":1,\"VtepMAC\":\"8e:8f:a1:00:00:01\"}",
		"example.org/blue-backend-v6-data":null,
		"selvage.io/lease":"{\"UID\":\"`+uid+`\"}","selvage.io/pod-cidrs":"10.244.1.0/24"}}}`), &want) != nil {
		t.Fatalf("%s", data)
	}
	if a, b := must(json.Marshal(got)), must(json.Marshal(want)); string(a) != string(b) {
		t.Errorf("the patch is\n%s\nwant\n%s", a, b)
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// TestAnnotated: the annotation with the podCIDRs counts only if this Node's daemon wrote it, and if it is well formed.
func TestAnnotated(t *testing.T) {
	const other = "7f8b1c1e-0000-4000-8000-000000000002"
	for name, x := range map[string]struct {
		lease, cidrs string
		want         bool
	}{
		"ours":                  {`{"UID":"` + uid + `"}`, "10.244.1.0/24", true},
		"two families":          {`{"UID":"` + uid + `"}`, "10.244.1.0/24,fd00::/64", true},
		"alone":                 {"", "10.244.1.0/24", false},
		"of another Node":       {`{"UID":"` + other + `"}`, "10.244.1.0/24", false},
		"without a UID":         {`{}`, "10.244.1.0/24", false},
		"beside garbage":        {`{"UID":`, "10.244.1.0/24", false},
		"empty":                 {`{"UID":"` + uid + `"}`, "", false},
		"no prefix":             {`{"UID":"` + uid + `"}`, "10.244.1.0", false},
		"a space":               {`{"UID":"` + uid + `"}`, "10.244.1.0/24, fd00::/64", false},
		"three":                 {`{"UID":"` + uid + `"}`, "10.244.1.0/24,fd00::/64,10.244.2.0/24", false},
		"an IPv4-mapped prefix": {`{"UID":"` + uid + `"}`, "::ffff:10.244.1.0/120", false},
	} {
		n := nodeWith("", map[string]string{LeaseAnnotation: x.lease, PodCIDRsAnnotation: x.cidrs})
		if _, ok := annotated(&n.Object); ok != x.want {
			t.Errorf("%s: %t", name, ok)
		}
	}
}

// TestUsualExtras: what is decoded by hand is decoded as by encoding/json.
func TestUsualExtras(t *testing.T) {
	usual := 0
	for _, text := range []string{
		`{"UID":"a"}`, `{"UID":"a","InstanceID":"b"}`, `{"UID":"a","InstanceID":"b","NodeName":"c"}`,
		`{"UID":"a","NodeName":"c"}`, `{"UID":"a","NodeName":""}`, `{"UID":"","InstanceID":""}`,
		`{"UID":"a",}`, `{"UID":"a","InstanceID":"b",}`, `{"UID":"a" }`, `{"UID":"a""InstanceID":"b"}`, `{"UID":"a"`,
		`{"UID":"a","NodeName":"c","InstanceID":"b"}`, `{"UID":"a\\u0041"}`, `{"UID":"a","NodeName":null}`, `{}`, `{,}`,
		`{"uid":"a"}`, `{"UID":"ä"}`, `{"UID":"a","UID":"b"}`, `{"UID":"a","Other":1}`, `{"UID":"a"}}`, `"UID":"a"}`,
		"{\"UID\":\"a\x01\"}", `{"UID":"a,"InstanceID":"b"}`, `{"UID":"a","InstanceID":"b","NodeName":"c"},`,
		`{"UID":"a","InstanceID":"b","NodeName":"c","MeshKey":"d+/="}`, `{"UID":"a","MeshKey":"d"}`, `{"UID":"a","MeshKey":"d"`,
		`{"UID":"a","MeshKey":"d","NodeName":"c"}`,
	} {
		got, ok := usualExtras(text)
		var want extras
		if err := json.Unmarshal([]byte(text), &want); !ok {
			continue
		} else if err != nil {
			t.Errorf("%s is decoded to %+v, and is %v", text, got, err)
			continue
		}
		usual++
		if got.UID != want.UID || got.MeshKey != want.MeshKey || got.InstanceID != want.InstanceID || (got.NodeName == nil) != (want.NodeName == nil) ||
			got.NodeName != nil && *got.NodeName != *want.NodeName {
			t.Errorf("%s is decoded to %+v, want %+v", text, got, want)
		}
	}
	if usual < 8 {
		t.Errorf("%d are decoded by hand", usual)
	}
}
