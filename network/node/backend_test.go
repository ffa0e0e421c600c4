package node

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// The backend of these tests has a device of a kind of its own, peers that are a route each and no FDB entries, and a
// private key to keep. It rests on nothing but the interfaces of packages backend and network, as every backend does.

// cipherSettings are the settings of its device.
type cipherSettings struct {
	port uint16
	key  [4]byte
}

func (c cipherSettings) SameDevice(s network.LinkSettings) bool {
	_, ok := s.(cipherSettings)
	return ok // port and key can be changed on a live device
}

func (c cipherSettings) Identity() string { return "a cipher device" }
func (c cipherSettings) Args() string     { return fmt.Sprintf("port %d", c.port) }

type cipher struct {
	settings cipherSettings
	underlay backend.Underlay
}

func newCipher(_ subnet.Config, u backend.Underlay) (backend.Backend, error) {
	key, err := u.Keep.Secret("cipher", len("key1"), func() ([]byte, error) { return []byte("key1"), nil })
	if err != nil || len(key) != 4 {
		return nil, fmt.Errorf("key of %d bytes: %w", len(key), err)
	}
	return &cipher{cipherSettings{port: 51820, key: [4]byte(key)}, u}, nil
}

func (c *cipher) Advertise() [2]subnet.Endpoint {
	public := base64.StdEncoding.EncodeToString(bytes.ToUpper(c.settings.key[:])) // of the private one
	return [2]subnet.Endpoint{{PublicIP: c.underlay.PublicIP[subnet.IPv4], Data: public}}
}

func (c *cipher) Device([2]netip.Prefix) network.State {
	return network.State{Links: []network.Item[string, network.Link]{{Key: "cipher0", Value: network.Link{
		Kind: "cipher", Settings: c.settings, MTU: c.underlay.MTU - 80, Alias: network.Alias, Up: true,
	}}}}
}

func (c *cipher) Check(l subnet.Lease) ([]string, error) {
	data := l.Endpoints[subnet.IPv4].Data
	if data == "" {
		return nil, errors.New("BackendData: no key")
	}
	return []string{"key " + data}, nil
}

func (c *cipher) Peer(l subnet.Lease) (s network.State, err error) {
	if _, err := c.Check(l); err != nil {
		return s, err
	}
	s.Routes = []network.Item[network.RouteKey, network.Route]{{
		Key:   network.RouteKey{Prefix: l.Endpoints[subnet.IPv4].Subnet},
		Value: network.Route{Link: "cipher0", Protocol: network.RouteProtocol, Type: network.Unicast},
	}}
	return s, nil
}

func (c *cipher) Describe() backend.Description {
	return backend.Description{MTU: c.underlay.MTU - 80, Tunnels: []backend.Tunnel{{
		Device: "cipher0", Protocol: "cipher", Overhead: 80, Port: c.settings.port,
		Settings: []backend.Setting{{Name: "mode", Value: "auto"}},
	}}}
}

// TestBackendOfItsOwnKind takes such a backend from the factory through the tables and a pass to what users see of it.
func TestBackendOfItsOwnKind(t *testing.T) {
	var factory backend.Factory = newCipher
	config, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"cipher"}}`))
	if err != nil {
		t.Fatal(err)
	}
	u := desiredUnderlay(config)
	dir := t.TempDir()
	u.Keep = keeper{&identity{InstanceID: "a"}, dir, nil, keyFiles{}}
	b, err := factory(config, u)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := subnet.ParseLease("10.5.29.0-24", []byte(`{"PublicIP":"192.0.2.7","BackendType":"cipher","BackendData":"S0VZMg=="}`))
	if err != nil {
		t.Fatal(err)
	}
	tables := network.NewTables()
	own := ownState(b, config, network.Scope{}, "eth0", [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}, false, func(string) string { return "" })
	tables.Replace(nodeOwner(), network.State{}, own)
	tables.Replace(network.Owner{Name: "10.5.29.0-24"}, network.State{}, peerState(b, &peer))
	var made network.Link
	tables.ApplyLinks(func(_ string, c network.Change[network.Link]) (e network.LinkEffects, err error) {
		made = c.Want
		return e, nil
	})
	tables.Sysctls.ApplyEach(func(string, network.Change[network.Sysctl]) error { return nil })
	tables.Routes.ApplyBatch(func([]network.Update[network.RouteKey, network.Route]) {})
	r := network.Reconciler{Tables: tables}
	if got := r.Pass(time.Now()); len(got.Failures) != 0 || tables.Pending() != 0 {
		t.Errorf("%d entries are pending after a pass: %+v", tables.Pending(), got)
	}
	if made.Kind != "cipher" || made.Settings != (cipherSettings{51820, [4]byte([]byte("key1"))}) {
		t.Errorf("the device was made as %+v", made)
	}
	d := b.Describe()
	if p := d.Path(peerState(b, &peer), peer.Endpoints[subnet.IPv4].Subnet); p.Direct() || p.String() != "over cipher, cipher0" {
		t.Errorf("the path to the peer is %q, direct %t", p, p.Direct())
	}
	shown := deviceStatus("cipher0", own.Links[0].Value, d.Tunnels)
	if shown.Kind != "cipher" || shown.VNI != 0 || shown.Port != 51820 || shown.Overhead != 80 || shown.Protocol != "cipher" || shown.MAC != "" || len(shown.Settings) != 1 {
		t.Errorf("the status shows %+v", shown)
	}

	// A restart has the same key; a node that another one shares it with takes another, which can be set on the live
	// device.
	again, err := factory(config, u)
	if err != nil || again.Advertise() != b.Advertise() {
		t.Errorf("after a restart the node advertises %v (%v), want %v", again.Advertise(), err, b.Advertise())
	}
	if err := os.Remove(filepath.Join(dir, "cipher.secret")); err != nil {
		t.Fatal(err)
	}
	if err := sameDevices(b, again); err != nil {
		t.Errorf("the devices differ: %v", err)
	}
}
