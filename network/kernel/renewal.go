package kernel

import (
	"bytes"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/network"
)

// renewal notes which peers have lost their session with this node through what was set here, or do not know where it
// is: those of a device that was made again, or has its private key or its port again, and those that were set again.
// They send by the old session until WireGuard begins another handshake, because nothing is answered: after 15 seconds
// (Keepalive-Timeout and Rekey-Timeout), unless this node begins one.
type renewal struct {
	made  map[string]time.Time // when devices were made, or configured again
	peers map[network.PeerKey]struct{}
}

// madeLately is for how long the peers that are set on a device count as those of one that was made again: some may
// fail at first.
const madeLately = 2 * time.Second

// device notes that a device was configured.
func (r *renewal) device(t *network.Tables, name string, c network.Change[network.WireGuard], now time.Time) {
	if c.Present && c.Have.PrivateKey == c.Want.PrivateKey && c.Have.Port == c.Want.Port {
		return
	}
	if r.made == nil {
		r.made = map[string]time.Time{}
	}
	r.made[name] = now
	for key, p := range t.Peers.All { // of a device that was made they follow
		if c.Present && p.Present && key.Link == name {
			r.peer(key)
		}
	}
}

// peer notes that a peer was set.
func (r *renewal) peer(key network.PeerKey) {
	if r.peers == nil {
		r.peers = map[network.PeerKey]struct{}{}
	}
	r.peers[key] = struct{}{}
}

// take returns the peers since the last call: of devices that were made again or changed, and others.
func (r *renewal) take(now time.Time) (ofDevices, others []network.PeerKey) {
	for key := range r.peers {
		if at, made := r.made[key.Link]; made && now.Sub(at) < madeLately {
			ofDevices = append(ofDevices, key)
		} else {
			others = append(others, key)
		}
	}
	r.peers = nil
	return ofDevices, others
}

// RenewedPeers returns the peers that were set since the last call: those of devices that were made or configured
// again, and others. Some of them may have no session with this node, and not notice it for 15 seconds.
func (k *Kernel) RenewedPeers(now time.Time) (ofDevices, others []network.PeerKey) {
	return k.wireGuards.renewal.take(now)
}

// First reports whether this node is the one of two that begins a handshake where both have reason to: two at the same
// time can leave a user-space WireGuard with a session that the other one does not have.
func (k *Kernel) First(peer network.PeerKey) bool {
	own := wgtypes.Key(k.tables.WireGuards.Get(peer.Link).Want.PrivateKey).PublicKey()
	return bytes.Compare(own[:], peer.PublicKey[:]) < 0
}

// DoubtedPeers returns the peers that have to be asked for an answer by their devices: see [network.Roaming].
func (k *Kernel) DoubtedPeers() []network.PeerKey { return k.wireGuards.roaming.Doubted() }

// AskedPeer notes that a peer was asked for an answer.
func (k *Kernel) AskedPeer(key network.PeerKey, now time.Time) { k.wireGuards.roaming.Asked(key, now) }
