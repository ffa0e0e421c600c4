package network

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
)

// This file has the objects of WireGuard devices: what a device itself is configured with, its peers, and the prefixes
// of which each belongs to one peer ("allowed IPs"). The kernel notifies of no change to any of them.

// KindWireGuard is the [Link.Kind] of WireGuard devices. All their settings are objects of their own; [Link.Settings]
// is nil. A device that a user-space WireGuard made counts as one, too.
const KindWireGuard = "wireguard"

// keyLength is the length of WireGuard's keys, in bytes.
const keyLength = 32

// PublicKey is the public key of a WireGuard peer (Curve25519).
type PublicKey [keyLength]byte

// ParsePublicKey reads the form that wg(8) shows: 44 characters of base64. The error does not repeat the text.
func ParsePublicKey(text string) (k PublicKey, err error) {
	b, err := decodeKey(text)
	return PublicKey(b), err
}

// String returns the form that wg(8) shows.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Secret is a private or preshared key. It is never printed: every way of formatting it gives the same text.
type Secret [keyLength]byte

// hidden stands for a secret in texts.
const hidden = "(hidden)"

// ParseSecret reads a key in the form that wg(8) takes. The error does not repeat the text.
func ParseSecret(text string) (s Secret, err error) {
	b, err := decodeKey(text)
	return Secret(b), err
}

// Format implements [fmt.Formatter].
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// String implements [fmt.Stringer].
func (Secret) String() string { return hidden }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

func decodeKey(text string) (key [keyLength]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return key, fmt.Errorf("is not base64")
	}
	if len(b) != keyLength {
		return key, fmt.Errorf("has %d bytes, want %d in base64", len(b), keyLength)
	}
	return [keyLength]byte(b), nil
}

// WireGuard is what a WireGuard device is configured with; its key is the device's name.
type WireGuard struct {
	PrivateKey   Secret
	Port         uint16 // UDP port on which it receives
	FirewallMark uint32 // of the packets that it sends over the underlay; 0: none
}

// PeerKey identifies a peer of a WireGuard device.
type PeerKey struct {
	Link      string
	PublicKey PublicKey
}

// Peer is the value of a peer. What it may send, and what is sent to it, are objects of their own: see [AllowedIPKey].
type Peer struct {
	Endpoint     netip.AddrPort // where it receives; see [Roaming] for one that has moved
	PresharedKey Secret         // zero: none
	Keepalive    uint16         // interval of packets that only keep a path open, in seconds; 0: none
}

// AllowedIPKey names a prefix on a WireGuard device. Its value is the public key of the peer that has it: packets to
// the prefix are encrypted for that peer, and packets from it are accepted from that peer only. A device has each
// prefix once: a peer that gets it takes it away from another one.
type AllowedIPKey struct {
	Link   string
	Prefix netip.Prefix
}

// String returns the form "ZXhhbXBsZQ=… dev flannel-wg", with the whole key.
func (k PeerKey) String() string { return fmt.Sprintf("%s dev %s", k.PublicKey, k.Link) }

// String returns the form "10.5.29.0/24 dev flannel-wg".
func (k AllowedIPKey) String() string { return fmt.Sprintf("%s dev %s", k.Prefix, k.Link) }

// addWireGuard adds the kinds of objects of WireGuard devices. They are set before addresses and routes: a packet to a
// prefix that no peer has is lost.
func (t *Tables) addWireGuard() {
	t.WireGuards = add(t, kind[string, WireGuard]{ // never removed: it ends with the device
		name:    "wireguard",
		items:   func(s *State) []Item[string, WireGuard] { return s.WireGuards },
		command: wireGuardCommand,
		link:    func(link string, _ WireGuard) string { return link },
	})
	t.Peers = add(t, kind[PeerKey, Peer]{
		name:    "wireguard-peer",
		items:   func(s *State) []Item[PeerKey, Peer] { return s.Peers },
		command: peerCommand,
		ours:    func(k PeerKey, _ Peer) bool { return t.OwnsLink(k.Link) },
		link:    func(k PeerKey, _ Peer) string { return k.Link },
	})
	t.AllowedIPs = add(t, kind[AllowedIPKey, PublicKey]{
		name:    "allowed-ip",
		items:   func(s *State) []Item[AllowedIPKey, PublicKey] { return s.AllowedIPs },
		command: allowedIPCommand,
		ours:    func(k AllowedIPKey, _ PublicKey) bool { return t.OwnsLink(k.Link) },
		link:    func(k AllowedIPKey, _ PublicKey) string { return k.Link },
		ready: func(k AllowedIPKey) bool {
			return t.Peers.Get(PeerKey{k.Link, t.AllowedIPs.Get(k).Want}).Present
		},
	})
}

func wireGuardCommand(link string, v WireGuard) string {
	return fmt.Sprintf("wg set %s private-key %s listen-port %d fwmark %d", link, v.PrivateKey, v.Port, v.FirewallMark)
}

func peerCommand(k PeerKey, v Peer) string {
	return fmt.Sprintf("wg set %s peer %s endpoint %s%s persistent-keepalive %d", k.Link, k.PublicKey, v.Endpoint,
		when(v.PresharedKey != Secret{}, " preshared-key "+hidden), v.Keepalive)
}

func allowedIPCommand(k AllowedIPKey, peer PublicKey) string {
	return fmt.Sprintf("wg set %s peer %s allowed-ips +%s", k.Link, peer, k.Prefix)
}
