package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"unique"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// podCIDRs are the subnets of a Node.
type podCIDRs struct {
	subnets [2]netip.Prefix // by Family; those that are well formed
	err     error           // why they are malformed
}

// none reports whether the Node has none yet.
func (p podCIDRs) none() bool { return p.err == nil && p.subnets == [2]netip.Prefix{} }

// parsePodCIDRs reads a Node's spec.podCIDRs: at most two, of which the first of each family counts. Host bits are
// masked: the API server accepts them in old objects.
func parsePodCIDRs(list []string) (p podCIDRs) {
	if len(list) > 2 {
		p.err = fmt.Errorf("spec.podCIDRs has %d entries, want one for each family", len(list))
		return p
	}
	for _, text := range list {
		cidr, err := netip.ParsePrefix(text)
		if err != nil || cidr.Addr().Is4In6() {
			p.err = fmt.Errorf("spec.podCIDRs has %s, want an IP prefix", subnet.Quote(text))
			continue
		}
		if f := subnet.FamilyOf(cidr.Addr()); !p.subnets[f].IsValid() {
			p.subnets[f] = cidr.Masked()
		}
	}
	return p
}

// specOf returns the subnets that a Node's spec names.
func specOf(node *apiserver.Node) podCIDRs {
	if node.Bad != nil {
		return podCIDRs{err: node.Bad}
	}
	return parsePodCIDRs(node.PodCIDRs)
}

// annotated returns the subnets that a Node's own annotation names; ok is false if there is no such annotation, or it
// does not count: then only the spec says what they are.
func annotated(o *apiserver.Object) (p podCIDRs, ok bool) {
	text := o.Annotations[PodCIDRsAnnotation]
	if text == "" {
		return p, false
	}
	if _, ours := extrasOf(o); !ours {
		return p, false
	}
	p = parsePodCIDRs(strings.Split(text, ","))
	return p, p.err == nil
}

// record returns the record of a Node that has a lease.
func (n names) record(o *apiserver.Object, cidrs podCIDRs) subnet.Record {
	r := subnet.Record{Name: o.Name, Order: orderOf(o), Version: o.Version}
	err := o.Bad
	if err == nil {
		err = cidrs.err
	}
	if err == nil {
		r.Lease, err = n.lease(o, cidrs)
	}
	if err != nil {
		r.Bad, r.Lease = err, subnet.Lease{}
		for _, f := range subnet.Families() {
			r.Endpoints[f].Subnet = cidrs.subnets[f]
		}
	}
	return r
}

// orderOf says how old a Node is: since when it has been in the API, in seconds. The API server sets it, and a Node
// without it is the youngest.
func orderOf(o *apiserver.Object) int64 {
	if order := o.Created.Unix(); order > 0 {
		return order
	}
	return math.MaxInt64
}

// lease decodes a Node's annotations. It has a part in each family in which it has a subnet and a public IP. It checks
// the form only, see [subnet.View].
func (n names) lease(o *apiserver.Object, cidrs podCIDRs) (l subnet.Lease, err error) {
	var missing []string
	for _, f := range subnet.Families() {
		if !cidrs.subnets[f].IsValid() {
			continue
		}
		e := &l.Endpoints[f]
		text := o.Annotations[n.publicIP[f]]
		if text == "" {
			missing = append(missing, n.publicIP[f])
			continue
		}
		e.PublicIP, err = parseIP(f, n.publicIP[f], text)
		if err != nil {
			return l, err
		}
		e.Subnet = cidrs.subnets[f]
		if e.Data, err = compact(o.Annotations[n.data[f]]); err != nil {
			return l, fmt.Errorf("annotation %s: %w", n.data[f], err)
		}
	}
	if !l.Has(subnet.IPv4) && !l.Has(subnet.IPv6) {
		return l, fmt.Errorf("no annotation %s", strings.Join(missing, " nor "))
	}
	// Nearly all leases are of one type.
	l.BackendType, l.NodeName = unique.Make(o.Annotations[n.backendType]).Value(), o.Name
	if x, ok := extrasOf(o); ok {
		l.InstanceID, l.MeshKey = x.InstanceID, x.MeshKey
		if x.NodeName != nil {
			l.NodeName = *x.NodeName
		}
	}
	return l, nil
}

// parseIP reads the value of an annotation that is an address.
func parseIP(f subnet.Family, annotation, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || subnet.FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" {
		return a, fmt.Errorf("annotation %s is %s, want an %s address", annotation, subnet.Quote(text), f)
	}
	return a, nil
}

// compact returns a backend's data in the form of [subnet.Endpoint]. flannel writes null for none.
func compact(text string) (string, error) {
	if text == "" || text == "null" {
		return "", nil
	}
	if !strings.ContainsAny(text, " \t\r\n") && json.Valid([]byte(text)) {
		return text, nil
	}
	var b bytes.Buffer
	if json.Compact(&b, []byte(text)) != nil {
		return "", errors.New(subnet.Quote(text) + " is not JSON")
	}
	return b.String(), nil
}
