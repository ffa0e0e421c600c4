package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// Annotations of selvage's own, whatever the prefix of flannel's is. flannel ignores them. What selvage knows beyond
// flannel is not put into flannel's: flannel finds its own MAC address in backend-data by cutting the text, and an
// added key would make it choose another one.
const (
	// LeaseAnnotation has what a lease has beyond flannel's, as JSON; see [extras].
	LeaseAnnotation = "selvage.io/lease"
	// PodCIDRsAnnotation has the Node's spec.podCIDRs as they are, separated by commas: with it the metadata of a Node
	// is the whole lease, a fifth of what the Node has. A policy in the cluster can compare the two. It counts only
	// beside a LeaseAnnotation of the same Node.
	PodCIDRsAnnotation = "selvage.io/pod-cidrs"
)

// managed is the value of the annotation kube-subnet-manager of a Node that has a lease.
const managed = "true"

// names are the names of flannel's annotations.
type names struct {
	managed, backendType string
	data, publicIP       [2]string // by Family
	overwrite            [2]string // written by a person: the public IP that peers are to use
	nodePublicIP         [2]string // written by a person: the public IP of the node, in place of --public-ip
}

// namesOf returns the names for a prefix as [ParsePrefix] returns it.
func namesOf(prefix string) names {
	both := func(v4, v6 string) [2]string { return [2]string{subnet.IPv4: prefix + v4, subnet.IPv6: prefix + v6} }
	return names{
		managed:      prefix + "kube-subnet-manager",
		backendType:  prefix + "backend-type",
		data:         both("backend-data", "backend-v6-data"),
		publicIP:     both("public-ip", "public-ipv6"),
		overwrite:    both("public-ip-overwrite", "public-ipv6-overwrite"),
		nodePublicIP: both("node-public-ip", "node-public-ipv6"),
	}
}

// all returns the names of all annotations that are read.
func (n names) all() []string {
	return slices.Concat([]string{n.managed, n.backendType, LeaseAnnotation, PodCIDRsAnnotation},
		n.data[:], n.publicIP[:], n.overwrite[:], n.nodePublicIP[:])
}

// Annotations returns the names of all annotations that a daemon writes to its Node, for a prefix as [ParsePrefix]
// returns it.
func Annotations(prefix string) []string {
	n := namesOf(prefix)
	return slices.Concat([]string{n.managed, n.backendType, LeaseAnnotation, PodCIDRsAnnotation},
		n.data[:], n.publicIP[:])
}

// isLease reports whether a Node takes part in the overlay. One that is malformed counts, so that it is named.
func (n names) isLease(o *apiserver.Object) bool {
	return o.Bad != nil || o.Annotations[n.managed] == managed
}

// extras is the content of [LeaseAnnotation].
type extras struct {
	// UID is that of the Node on which it was written. An annotation with another one was copied from another Node, or
	// from an earlier one of the same name, and does not count.
	UID        string
	InstanceID string `json:",omitempty"`
	// NodeName is that of the lease; nil: the name of the Node.
	NodeName *string `json:",omitempty"`
	MeshKey  string  `json:",omitempty"` // see [subnet.Lease.MeshKey]
}

// extrasOf returns what selvage wrote on a Node beside flannel's annotations; ok is false if that is nothing, or does
// not belong to this Node.
func extrasOf(o *apiserver.Object) (x extras, ok bool) {
	text := o.Annotations[LeaseAnnotation]
	if text == "" {
		return x, false
	}
	if x, ok = usualExtras(text); !ok {
		if x = (extras{}); json.Unmarshal([]byte(text), &x) != nil {
			return extras{}, false
		}
	}
	if x.UID == "" || x.UID != o.UID {
		return extras{}, false
	}
	return x, true
}

// usualExtras decodes extras in the form in which selvage writes them, if nothing is escaped in them. There are
// thousands at a start, each is read twice, and encoding/json takes several times as long.
func usualExtras(text string) (x extras, ok bool) {
	take := func(before string) (value string, had bool) {
		rest, had := strings.CutPrefix(text, before+`"`)
		value, rest, ended := strings.Cut(rest, `"`)
		escaped := func(r rune) bool { return r < ' ' || r > '~' || r == '\\' }
		if !had || !ended || strings.ContainsFunc(value, escaped) {
			return "", false
		}
		text = rest
		return value, true
	}
	if x.UID, ok = take(`{"UID":`); !ok {
		return x, false
	}
	x.InstanceID, _ = take(`,"InstanceID":`)
	if name, had := take(`,"NodeName":`); had {
		x.NodeName = &name
	}
	x.MeshKey, _ = take(`,"MeshKey":`)
	return x, text == "}"
}

// change is what a patch does to annotations: their new values by name; nil removes one.
type change map[string]*string

// claimed returns the annotations of a lease on a Node, those that it does not have as nil.
func (n names) claimed(l subnet.Lease, node *apiserver.Node) (change, error) {
	if _, err := l.Value(); err != nil {
		return nil, err // it has a field that a peer would reject
	}
	x := extras{UID: node.UID, InstanceID: l.InstanceID, MeshKey: l.MeshKey}
	if l.NodeName != node.Name {
		x.NodeName = &l.NodeName
	}
	own, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", LeaseAnnotation, err)
	}
	text := func(s string) *string { return &s }
	c := change{
		n.managed: text(managed), n.backendType: text(l.BackendType),
		LeaseAnnotation: text(string(own)), PodCIDRsAnnotation: text(strings.Join(node.PodCIDRs, ",")),
	}
	for _, f := range subnet.Families() {
		c[n.data[f]], c[n.publicIP[f]] = nil, nil
		if !l.Has(f) {
			continue
		}
		e := l.Endpoints[f]
		c[n.publicIP[f]] = text(e.PublicIP.String())
		if e.Data == "" {
			e.Data = "null" // as flannel writes that there is none
		}
		c[n.data[f]] = text(e.Data)
	}
	return c, nil
}

// released is what makes a Node's lease none.
func (n names) released() change {
	return change{n.managed: nil, LeaseAnnotation: nil, PodCIDRsAnnotation: nil}
}

// differing returns what of c is not so on a Node.
func (c change) differing(o *apiserver.Object) change {
	c = maps.Clone(c)
	for name, want := range c {
		if have, ok := o.Annotations[name]; ok == (want != nil) && (!ok || have == *want) {
			delete(c, name)
		}
	}
	return c
}

// patch returns a strategic merge patch that changes the annotations, if the Node is still as it was in o.
func (c change) patch(o *apiserver.Object) ([]byte, error) {
	type metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Annotations     change `json:"annotations"`
	}
	return json.Marshal(struct {
		Metadata metadata `json:"metadata"`
	}{metadata{fmt.Sprint(o.Version), c}})
}
