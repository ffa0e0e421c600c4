package wireguard

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// leaseData is BackendData, as flannel writes it.
type leaseData struct {
	PublicKey string `json:"PublicKey"`
	Port      uint16 `json:"Port"` // missing in leases of flannel before v0.26.6
	// Next is that of a node that changes its key; flannel, and versions that cannot follow it, ignore it.
	Next *nextData `json:"Next,omitempty"`
}

// nextData is the second device of a node that changes its key: see [backend.Stage].
type nextData struct {
	PublicKey string `json:"PublicKey"`
	Port      uint16 `json:"Port"`
	Stage     string `json:"Stage"`
}

// peerData is what a lease's BackendData says of a family.
type peerData struct {
	key  network.PublicKey
	port uint16 // 0: not said
	// The same of the second device; backend.Still: the lease names none.
	stage    backend.Stage
	next     network.PublicKey
	nextPort uint16
}

// parseData reads a lease's BackendData of one family. Anyone with access to the store can write the data; an error
// repeats nothing of it.
func parseData(field, text string) (p peerData, err error) {
	if text == "" {
		return p, fmt.Errorf("no %s", field)
	}
	d, ok := parseUsual(text)
	if !ok {
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return p, fmt.Errorf("%s%w", field, describe(err))
		}
	}
	if p.key, err = parseKey(field, d.PublicKey); err != nil {
		return p, err
	}
	p.port = d.Port
	if d.Next == nil {
		return p, nil
	}
	if p.stage = parseStage(d.Next.Stage); p.stage == backend.Still {
		return p, nil // of a later version
	}
	if p.next, err = parseKey(field+".Next", d.Next.PublicKey); err != nil {
		return p, err
	}
	if p.nextPort = d.Next.Port; p.nextPort == 0 {
		return p, fmt.Errorf("%s.Next: no Port", field)
	}
	return p, nil
}

func parseKey(field, text string) (k network.PublicKey, err error) {
	if k, err = network.ParsePublicKey(text); err != nil {
		return k, fmt.Errorf("%s: PublicKey %w", field, err)
	}
	if k == (network.PublicKey{}) {
		return k, fmt.Errorf("%s: PublicKey is zero", field)
	}
	return k, nil
}

// parseStage returns the stage that a lease names, or backend.Still.
func parseStage(text string) backend.Stage {
	for s := backend.Offered; s < backend.Ending; s++ {
		if s.String() == text {
			return s
		}
	}
	return backend.Still
}

// parseUsual reads the one form in which flannel and selvage write BackendData, which encoding/json reads alike in many
// times the time: {"PublicKey":"<44 characters>","Port":51820}.
func parseUsual(text string) (d leaseData, ok bool) {
	text, begins := strings.CutPrefix(text, `{"PublicKey":"`)
	key, text, has := strings.Cut(text, `","Port":`)
	number, ends := strings.CutSuffix(text, `}`)
	if !begins || !has || !ends || strings.ContainsAny(key, `"\`) {
		return d, false
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || strconv.FormatUint(port, 10) != number || strings.Trim(key, base64Alphabet) != "" {
		return d, false
	}
	return leaseData{PublicKey: key, Port: uint16(port)}, true
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

// fields are the names of the lease's fields with the backend's data, by family.
func fields() [2]string { return [2]string{subnet.IPv4: "BackendData", subnet.IPv6: "BackendV6Data"} }

// peer is what a lease says of its node.
type peer struct {
	key      network.PublicKey
	ports    [2]uint16 // by family that it takes part in
	stage    backend.Stage
	next     network.PublicKey // of its second device, in a stage other than backend.Still
	nextPort [2]uint16
}

// parse reads what a lease says of its node.
func (w *wireguard) parse(l subnet.Lease) (p peer, err error) {
	found := false
	for _, f := range subnet.Families() {
		// In a mode with one device, a lease has the same data in both families, also in one that it has no subnet in.
		if !w.enabled[f] || !l.Has(f) && (w.options.Mode == Separate || l.Endpoints[f].Data == "") {
			continue
		}
		d, err := parseData(fields()[f], l.Endpoints[f].Data)
		if err != nil {
			return p, err
		}
		if found && (d.key != p.key || d.stage != p.stage || d.next != p.next) {
			return p, fmt.Errorf("%s and %s have different public keys, want one of a node",
				fields()[0], fields()[1])
		}
		p.key, p.ports[f], found = d.key, d.port, true
		p.stage, p.next, p.nextPort[f] = d.stage, d.next, d.nextPort
	}
	if !found {
		return p, fmt.Errorf("no %s", fields()[0])
	}
	return p, nil
}

// usable says why this node cannot use a lease, or nil.
func (w *wireguard) usable(l subnet.Lease, p peer) error {
	for _, key := range p.publicKeys() {
		if key == w.first.public || key == w.second.public {
			return fmt.Errorf("public key %s is this node's own", key)
		}
	}
	for _, d := range w.devices {
		for _, f := range subnet.Families() {
			if !d.carries[f] || !l.Has(f) {
				continue
			}
			a, err := d.endpoint(w, l, f)
			if err != nil {
				return err
			}
			if n, inside := w.inside(a); inside {
				return fmt.Errorf("endpoint %s is inside the overlay %s", a, n)
			}
		}
	}
	return nil
}

// publicKeys returns the keys of a node, each once.
func (p peer) publicKeys() []network.PublicKey {
	if p.stage == backend.Still || p.next == p.key {
		return []network.PublicKey{p.key}
	}
	return []network.PublicKey{p.key, p.next}
}

// inside returns the overlay's network that holds an address of the underlay.
func (w *wireguard) inside(a netip.Addr) (n netip.Prefix, is bool) {
	for _, n := range w.networks {
		if n.Contains(a) {
			return n, true
		}
	}
	return n, false
}

// endpoint returns the address of a node that packets are sent to through the device, for its subnet of a family.
func (d *device) endpoint(w *wireguard, l subnet.Lease, f subnet.Family) (netip.Addr, error) {
	over := f
	switch w.options.Mode {
	case OverIPv4:
		over = subnet.IPv4
	case OverIPv6:
		over = subnet.IPv6
	case Auto:
		over = choose(w.local, [2]netip.Addr{l.Endpoints[0].PublicIP, l.Endpoints[1].PublicIP})
	}
	a := l.Endpoints[over].PublicIP
	if !a.IsValid() {
		return a, fmt.Errorf("no %s public IP, and Backend.Mode is %s", over, w.options.Mode)
	}
	return a, nil
}

// choose returns the family by which a peer is reached in mode [Auto].
func choose(local, peer [2]netip.Addr) subnet.Family {
	switch {
	case !peer[subnet.IPv6].IsValid():
		return subnet.IPv4
	case !peer[subnet.IPv4].IsValid():
		return subnet.IPv6
	case isPublic(peer[subnet.IPv4]) && local[subnet.IPv4].IsValid():
		return subnet.IPv4
	case isPublic(peer[subnet.IPv6]) && isPublic(local[subnet.IPv6]):
		return subnet.IPv6
	}
	return subnet.IPv4
}

func isPublic(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsPrivate() }
