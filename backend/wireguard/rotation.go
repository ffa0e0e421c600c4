package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// This file has the node's keys, and how a node or its peers change them: see [backend.Stage].

// keysOf returns the keys of a node's first and second devices.
func keysOf(u backend.Underlay) (first, second keys, err error) {
	r := u.Rotation
	if r.Stage == backend.Still {
		first, err = kept(u.Keep)
		return first, first, err
	}
	if second, err = pair(r.New[:]); err != nil || r.Stage >= backend.Returning {
		return second, second, err
	}
	first, err = pair(r.Old[:])
	return first, second, err
}

// kept returns the keys that the node keeps.
func kept(keep backend.Keeper) (keys, error) {
	secret, err := keep.Secret(secretName, len(network.Secret{}), newKey)
	if err != nil {
		return keys{}, err
	}
	return pair(secret)
}

// newKey makes a private key.
func newKey() ([]byte, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return k.Bytes(), nil
}

// pair returns a private key in the form in which a device shows it ("clamped": RFC 7748, section 5), and its public
// key.
func pair(secret []byte) (k keys, err error) {
	if copy(k.secret[:], secret) != len(secret) || len(secret) != len(k.secret) {
		return k, fmt.Errorf("the private key has %d bytes, want %d", len(secret), len(k.secret))
	}
	k.secret[0] &= 0xf8
	k.secret[31] = k.secret[31]&0x7f | 0x40
	private, err := ecdh.X25519().NewPrivateKey(k.secret[:])
	if err != nil {
		return k, fmt.Errorf("the private key cannot be used")
	}
	k.public = network.PublicKey(private.PublicKey().Bytes())
	return k, nil
}

// publicKey returns the public key of a private one, as wg(8) shows it.
func publicKey(secret []byte) (string, error) {
	k, err := pair(secret)
	return k.public.String(), err
}

// secondDevices returns the second devices of a node with the given first ones. Their ports are the two after the first
// devices', whether a node has one device or two: so all nodes know them.
func secondDevices(o Options, first []*device) (all []*device) {
	base := max(o.ListenPort, o.ListenPortV6)
	next := func(i uint16) uint16 { return base + i }
	if base > maxUint16-2 {
		base = min(o.ListenPort, o.ListenPortV6)
		next = func(i uint16) uint16 { return base - i }
	}
	for _, d := range first {
		second := *d
		second.name, second.second, second.port = d.name+secondSuffix, true, next(1)
		if d.name == deviceNameV6 {
			second.port = next(2)
		}
		all = append(all, &second)
	}
	return all
}

// keys returns the keys of a device.
func (w *wireguard) keys(d *device) keys {
	if d.second {
		return w.second
	}
	return w.first
}

// next returns what the lease says of the second device that belongs to a first one; nil: nothing.
func (w *wireguard) next(first *device) *nextData {
	if r := w.rotation; r.Stage == backend.Still || r.Stage == backend.Ending || !r.Ready {
		return nil
	}
	for _, d := range w.devices {
		if d.second && d.carries == first.carries {
			return &nextData{w.second.public.String(), d.port, w.rotation.Stage.String()}
		}
	}
	return nil
}

// keyOn returns the public key of a peer on a device of this node. A peer that does not change its key has the same one
// on its second device.
func (p peer) keyOn(d *device) network.PublicKey {
	if d.second && p.stage != backend.Still {
		return p.next
	}
	return p.key
}

// onSecond reports whether a peer is one on the second devices.
func (w *wireguard) onSecond(p peer) bool {
	return w.rotation.Ready && (w.rotation.Stage != backend.Still || p.stage != backend.Still)
}

// leaves reports whether a node in a stage is on the way from its first devices to the second ones.
func leaves(s backend.Stage) bool { return s == backend.Offered || s == backend.Left }

// sendsBySecond reports whether packets to a peer go by the second device: that is where both ends are on their way to,
// and the peer is known to receive by it, or does not receive by the first one any more. The way back is the same.
func (w *wireguard) sendsBySecond(l subnet.Lease, p peer) bool {
	own := w.rotation.Stage
	switch {
	case !w.onSecond(p):
		return false
	case p.stage == backend.Left:
		return true
	case own >= backend.Returning: // the peer may not know the new key of the first device yet
		reached := w.rotation.Resumed || w.rotation.Works(w.ways(l, p, true))
		returned := own == backend.Ending || w.rotation.Works(w.ways(l, p, false))
		return reached && (leaves(p.stage) || !returned)
	case leaves(own) || leaves(p.stage):
		return w.rotation.Works(w.ways(l, p, true))
	case p.stage == backend.Returning:
		return !w.rotation.Works(w.ways(l, p, false))
	}
	return false
}

// ways returns the ways to a peer by the first or the second devices.
func (w *wireguard) ways(l subnet.Lease, p peer, second bool) (all []backend.Way) {
	var s network.State
	for _, d := range w.devices {
		if d.second == second {
			w.addPeer(&s, d, l, p, false)
		}
	}
	return s.AllowedIPs
}

// Rotates implements [backend.Rotator].
func (w *wireguard) Rotates(l subnet.Lease) bool {
	p, err := w.parse(l)
	return err == nil && p.stage != backend.Still
}

// Ways implements [backend.Rotator]. A node that has returned to its first device sends by the second one to a peer
// that leaves its own, and that peer has to know the first one's new key all the same.
func (w *wireguard) Ways(l subnet.Lease) (ways []backend.Way, mutual bool) {
	p, err := w.parse(l)
	if err != nil || !w.onSecond(p) {
		return nil, false
	}
	own := w.rotation.Stage
	switch {
	case leaves(own):
		return w.ways(l, p, true), true
	case own >= backend.Returning && leaves(p.stage):
		return append(w.ways(l, p, false), w.ways(l, p, true)...), false
	case leaves(p.stage):
		return w.ways(l, p, true), false
	}
	return w.ways(l, p, false), own != backend.Still
}
