package wireguard

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// keeper is a [backend.Keeper] with one secret.
type keeper struct {
	secret []byte
	err    error
}

func (keeper) MAC(string, network.MAC) network.MAC { return network.MAC{} }

func (k keeper) Secret(_ string, size int, generate func() ([]byte, error)) ([]byte, error) {
	if k.secret == nil && k.err == nil {
		made, err := generate()
		if len(made) != size {
			return nil, fmt.Errorf("%d bytes were generated, want %d", len(made), size)
		}
		return made, err
	}
	return k.secret, k.err
}

func underlay() backend.Underlay {
	local := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	return backend.Underlay{Link: "eth0", MTU: 1500, Local: local, PublicIP: local,
		Keep: keeper{secret: bytes.Repeat([]byte{7}, 32)}}
}

func config(t *testing.T, text string) subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lease(t *testing.T, key, value string) subnet.Lease {
	t.Helper()
	l, err := subnet.ParseLease(key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// text returns a config of one or both families with fields of the Backend object.
func text(families, fields string) string {
	networks := map[string]string{
		"ipv4": `"Network":"10.5.0.0/16"`,
		"ipv6": `"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"`,
		"dual": `"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"`,
	}
	return `{` + networks[families] + `,"Backend":{"Type":"wireguard"` + fields + `}}`
}

const (
	psk      = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="
	peerKey  = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXpBQkNERUY="
	otherKey = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
	key4     = "10.5.29.0-24"
	key6     = "fd00:5:0:1d::-64"
	dualKey  = "10.5.29.0-24&fd00:5:0:1d::-64"
	value    = `{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"wireguard",` +
		`"BackendData":{"PublicKey":"` + peerKey + `","Port":51820},"BackendV6Data":{"PublicKey":"` + peerKey + `","Port":51821}}`
)

// TestState compares what a node and one peer need in the kernel with the commands in testdata/state.txt: for each case
// a line "# name", then the commands.
func TestState(t *testing.T) {
	golden, err := os.ReadFile("testdata/state.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, c := range []struct{ name, families, fields, key, value string }{
		{"IPv4", "ipv4", "", key4, value},
		{"IPv4, all options", "ipv4", `,"PSK":"` + psk + `","ListenPort":4444,"MTU":1400,"PersistentKeepaliveInterval":25`, key4, value},
		{"IPv4, lease without a port", "ipv4", `,"ListenPort":4444`, key4, strings.ReplaceAll(value, `,"Port":51820`, ``)},
		{"IPv6", "ipv6", "", key6, value},
		{"dual stack", "dual", "", dualKey, value},
		{"dual stack, peer with IPv4 only", "dual", "", key4, value},
		{"dual stack, auto", "dual", `,"Mode":"auto"`, dualKey, value},
		{"dual stack, auto, private IPv4", "dual", `,"Mode":"auto"`, dualKey, strings.Replace(value, "192.0.2.7", "192.168.1.7", 1)},
		{"dual stack, auto, both private", "dual", `,"Mode":"auto"`, dualKey,
			strings.Replace(strings.Replace(value, "192.0.2.7", "192.168.1.7", 1), "2001:db8::7", "fd00:31::7", 1)},
		{"dual stack, auto, peer with IPv6 only", "dual", `,"Mode":"auto"`, key6, value},
		{"dual stack, auto, peer with IPv4 only", "dual", `,"Mode":"auto"`, key4, value},
		{"dual stack over IPv4", "dual", `,"Mode":"ipv4"`, dualKey, value},
		{"dual stack over IPv6", "dual", `,"Mode":"IPv6"`, dualKey, value},
	} {
		cfg := config(t, text(c.families, c.fields))
		b, err := New(cfg, underlay())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		own := [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("fd00:5:0:1::/64")}
		peer, err := b.Peer(lease(t, c.key, c.value))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got.WriteString("# " + c.name + "\n")
		for _, line := range append(b.Device(own).Commands(), peer.Commands()...) {
			got.WriteString(line + "\n")
		}
		for _, d := range b.Describe().Tunnels {
			fmt.Fprintf(&got, "tunnel %s, overhead %d, MTU %d\n", d, d.Overhead, b.Describe().MTU)
		}
	}
	if got.String() != string(golden) {
		t.Errorf("got:\n%s\nwant:\n%s", &got, golden)
	}
}

// TestAdvertise: the data has flannel's form, and the public key belongs to the private one.
func TestAdvertise(t *testing.T) {
	u := underlay()
	private, err := ecdh.X25519().NewPrivateKey(u.Keep.(keeper).secret)
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(private.PublicKey().Bytes())
	for _, tt := range []struct {
		families, fields string
		ports            [2]int
	}{{"dual", "", [2]int{51820, 51821}}, {"dual", `,"Mode":"auto","ListenPort":7`, [2]int{7, 7}}, {"ipv4", "", [2]int{51820, 0}}} {
		b, err := New(config(t, text(tt.families, tt.fields)), u)
		if err != nil {
			t.Fatal(err)
		}
		for f, e := range b.Advertise() {
			want := subnet.Endpoint{}
			if tt.ports[f] != 0 {
				want = subnet.Endpoint{PublicIP: u.PublicIP[f], Data: fmt.Sprintf(`{"PublicKey":"%s","Port":%d}`, public, tt.ports[f])}
			}
			if e != want {
				t.Errorf("%s %s: %+v, want %+v", tt.families, tt.fields, e, want)
			}
		}
	}
	u.Keep = keeper{}
	if _, err := New(config(t, text("ipv4", "")), u); err != nil {
		t.Error("a new key:", err)
	}
	u.Keep = keeper{secret: bytes.Repeat([]byte{0xff}, 32)}
	b, err := New(config(t, text("ipv4", "")), u)
	if err != nil {
		t.Fatal(err)
	}
	want := network.Secret(bytes.Repeat([]byte{0xff}, 32))
	want[0], want[31] = 0xf8, 0x7f
	if got := b.Device([2]netip.Prefix{}).WireGuards[0].Value.PrivateKey; got != want {
		t.Errorf("private key % x, want % x, as a device shows it", got[:], want[:])
	}
}

// TestConfig: what is wrong is named, and a secret is not repeated.
func TestConfig(t *testing.T) {
	const bad = "bm90IDMyIGJ5dGVz"
	for _, tt := range []struct{ families, fields, want string }{
		{"ipv4", `,"PSK":"` + bad + `"`, "Backend.PSK has 12 bytes, want 32"},
		{"ipv4", `,"PSK":"` + bad + `!"`, "Backend.PSK is not base64"},
		{"ipv4", `,"PSK":["` + bad + `"]`, "Backend.PSK is a JSON array, want a text"},
		{"ipv4", `,"ListenPort":65536`, "Backend.ListenPort is 65536, want 0 to 65535"},
		{"ipv4", `,"ListenPort":"1"`, "Backend.ListenPort is a JSON string, want a whole number"},
		{"ipv4", `,"PersistentKeepaliveInterval":-1`, "PersistentKeepaliveInterval is -1"},
		{"ipv4", `,"Mode":"both"`, `Backend.Mode is "both", want separate, auto, ipv4 or ipv6`},
		{"ipv4", `,"Mode":"ipv6"`, "needs EnableIPv6"},
		{"ipv6", `,"Mode":"ipv4"`, "needs EnableIPv4"},
		{"dual", `,"ListenPort":51821`, "cannot share a port"},
		{"ipv4", `,"MTU":600`, "Backend.MTU in the network config is 600, want at least 656"},
		{"dual", `,"MTU":1300`, "want at least 1360"},
	} {
		err := check(config(t, text(tt.families, tt.fields)))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v, want %q", tt.fields, err, tt.want)
		}
		if _, err := New(config(t, text(tt.families, tt.fields)), underlay()); err == nil {
			t.Errorf("%s: a backend is made", tt.fields)
		}
	}
	if _, err := parseOptions([]byte(`[]`)); err == nil || !strings.Contains(err.Error(), "JSON array, want an object") {
		t.Error(err)
	}
	for _, good := range []string{"", `,"ListenPort":0`, `,"PSK":""`, `,"Mode":""`, `,"mode":"AUTO","listenport":1`} {
		if err := Kind().Check(config(t, text("dual", good))); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	if o, err := parseOptions(nil); err != nil || o.ListenPort != 51820 || o.Mode != Separate {
		t.Errorf("%+v, %v", o, err)
	}
	if got := strings.Join(Kind().Keys, " "); got != "PSK ListenPort ListenPortV6 MTU Mode PersistentKeepaliveInterval" {
		t.Errorf("keys %s", got)
	}
}

// TestUnderlay: what the underlay or the node lacks is named.
func TestUnderlay(t *testing.T) {
	for _, tt := range []struct {
		change func(*backend.Underlay)
		want   string
	}{
		{func(u *backend.Underlay) { u.Local[subnet.IPv6] = netip.Addr{} }, "uplink eth0 has no IPv6 address"},
		{func(u *backend.Underlay) { u.MTU = 1300 }, "the MTU of uplink eth0 is 1300, want at least 1360"},
		{func(u *backend.Underlay) { u.Keep = keeper{err: errors.New("damaged")} }, "damaged"},
		{func(u *backend.Underlay) { u.Keep = keeper{secret: []byte("short")} }, "has 5 bytes, want 32"},
	} {
		u := underlay()
		tt.change(&u)
		if _, err := New(config(t, text("dual", "")), u); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	b, err := New(config(t, text("ipv4", `,"MTU":9000`)), underlay())
	if err != nil {
		t.Fatal(err)
	}
	if w := b.(backend.Warner).Warning(); !strings.Contains(w, "9000") || b.Describe().MTU != 1420 {
		t.Errorf("warning %q, MTU %d", w, b.Describe().MTU)
	}
	if b, err = New(config(t, text("ipv4", "")), underlay()); err != nil || b.(backend.Warner).Warning() != "" {
		t.Errorf("%v, want no warning", err)
	}
}

// TestLeases: a lease that cannot be used is rejected with the reason, alike by Peer and Check.
func TestLeases(t *testing.T) {
	own := ownKey(t)
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	both := func(key string) string { return strings.ReplaceAll(value, peerKey, key) }
	for _, tt := range []struct{ fields, key, value, want string }{
		{"", dualKey, both(peerKey[:40]), "BackendData: PublicKey has 30 bytes, want 32"},
		{"", dualKey, both("not base64!"), "BackendData: PublicKey is not base64"},
		{"", dualKey, both(""), "PublicKey has 0 bytes"},
		{"", dualKey, both(zero), "PublicKey is zero"},
		{"", dualKey, both(own), "is this node's own"},
		{"", dualKey, strings.Replace(value, `"Port":51820`, `"Port":"x"`, 1), "BackendData.Port is a JSON string"},
		{"", dualKey, strings.Replace(value, `{"PublicKey":"`+peerKey+`","Port":51820}`, `[]`, 1), "JSON array, want an object"},
		{"", dualKey, `{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"wireguard"}`, "no BackendData"},
		{"", dualKey, strings.Replace(value, peerKey, otherKey, 1), "different public keys"},
		{`,"Mode":"auto"`, dualKey, strings.Replace(value, peerKey, otherKey, 1), "different public keys"},
		{"", key4, strings.Replace(value, "192.0.2.7", "10.5.77.1", 1), "endpoint 10.5.77.1 is inside the overlay 10.5.0.0/16"},
		{`,"Mode":"ipv6"`, dualKey, strings.Replace(value, "2001:db8::7", "fd00:5::7", 1), "is inside the overlay"},
		{`,"Mode":"ipv6"`, key4, value, "no IPv6 public IP, and Backend.Mode is ipv6"},
	} {
		b, err := New(config(t, text("dual", tt.fields)), underlay())
		if err != nil {
			t.Fatal(err)
		}
		l := lease(t, tt.key, tt.value)
		_, err = b.Check(l)
		if s, peerErr := b.Peer(l); fmt.Sprint(peerErr) != fmt.Sprint(err) || len(s.Peers) != 0 {
			t.Errorf("%s: Peer: %v, Check: %v", tt.want, peerErr, err)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	b, err := New(config(t, text("dual", "")), underlay())
	if err != nil {
		t.Fatal(err)
	}
	if unique, err := b.Check(lease(t, dualKey, both(own))); err == nil || len(unique) != 1 || unique[0] != "public key "+own {
		t.Errorf("%q, %v, want the key: of two nodes with one, the younger gives way", unique, err)
	}
	if _, err := b.Check(subnet.Lease{}); err == nil {
		t.Error("an empty lease is accepted")
	}
}

func ownKey(t *testing.T) string {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(underlay().Keep.(keeper).secret)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

// FuzzParseData: the fast decoder and encoding/json agree, and no error repeats the data.
func FuzzParseData(f *testing.F) {
	for _, s := range []string{`{"PublicKey":"` + peerKey + `","Port":51820}`, `{"Port":07}`, `{"PublicKey":"a\"b","Port":1}`, `null`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fast, err := parseData("BackendData", text)
		slow, slowErr := parseData("BackendData", " "+text) // not the usual form
		if text != "" && (fast != slow || fmt.Sprint(err) != fmt.Sprint(slowErr)) {
			t.Errorf("%q: %v, %v, and %v, %v", text, fast, err, slow, slowErr)
		}
	})
}
