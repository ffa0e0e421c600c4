package main

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
)

// initiation returns the first message of a handshake between two keys, with the time of the sender's clock. It is built
// here, since no WireGuard takes another time than that of its machine: section 5.4.2 of WireGuard's paper, whose
// names the variables have.
func initiation(from wgtypes.Key, to wgtypes.Key, at time.Time) ([]byte, error) {
	const construction, identifier = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", "WireGuard v1 zx2c4 Jason@zx2c4.com"
	ci := hashOf([]byte(construction))
	hi := hashOf(ci, []byte(identifier))
	hi = hashOf(hi, to[:])
	static, err := ecdh.X25519().NewPrivateKey(from[:])
	if err != nil {
		return nil, err
	}
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	peer, err := ecdh.X25519().NewPublicKey(to[:])
	if err != nil {
		return nil, err
	}
	public := ephemeral.PublicKey().Bytes()
	message := append([]byte{1, 0, 0, 0}, 7, 0, 0, 0) // the type, and an index of the sender's
	message = append(message, public...)
	ci = mac(ci, public)
	ci = mac(ci, []byte{1})
	hi = hashOf(hi, public)
	seal := func(key *ecdh.PrivateKey, text []byte) error {
		shared, err := key.ECDH(peer)
		if err != nil {
			return err
		}
		secret := mac(ci, shared)
		ci = mac(secret, []byte{1})
		aead, err := chacha20poly1305.New(mac(secret, append(ci[:len(ci):len(ci)], 2)))
		if err != nil {
			return err
		}
		sealed := aead.Seal(nil, make([]byte, aead.NonceSize()), text, hi)
		message, hi = append(message, sealed...), hashOf(hi, sealed)
		return nil
	}
	const tai64 = 1 << 62 // and ten leap seconds: TAI64N
	stamp := binary.BigEndian.AppendUint64(nil, uint64(tai64+10+at.Unix()))
	stamp = binary.BigEndian.AppendUint32(stamp, uint32(at.Nanosecond()))
	if err := errors.Join(seal(ephemeral, static.PublicKey().Bytes()), seal(static, stamp)); err != nil {
		return nil, err
	}
	mac1, err := blake2s.New128(hashOf([]byte("mac1----"), to[:]))
	if err != nil {
		return nil, err
	}
	mac1.Write(message)
	return append(mac1.Sum(message), make([]byte, 16)...), nil // there is no cookie: the second one is zero
}

// hashOf is the hash of parts one after the other.
func hashOf(parts ...[]byte) []byte {
	h, _ := blake2s.New256(nil) // fails only for a key that is too long
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// mac is the keyed hash of a text: HMAC.
func mac(key, text []byte) []byte {
	m := hmac.New(func() hash.Hash { h, _ := blake2s.New256(nil); return h }, key)
	m.Write(text)
	return m.Sum(nil)
}

// sendFrom sends a UDP packet from a node with a source port that a program of it may have. A checksum is not needed
// with IPv4 (RFC 768).
func sendFrom(n *lab.Node, port uint16, to netip.AddrPort, payload []byte) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
		if err != nil {
			return fmt.Errorf("open a raw socket: %w", err)
		}
		defer unix.Close(fd)
		packet := binary.BigEndian.AppendUint16(nil, port)
		packet = binary.BigEndian.AppendUint16(packet, to.Port())
		packet = binary.BigEndian.AppendUint16(packet, uint16(8+len(payload)))
		packet = append(append(packet, 0, 0), payload...)
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	})
}
