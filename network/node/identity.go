package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/selvage-net/selvage/network"
)

// identityFile is the file in the state directory that holds the [identity].
const identityFile = "node.json"

// instanceIDLen is the length of an instance id, in hexadecimal digits.
const instanceIDLen = 32

// identity is what a node has to remember so that it stays the same to its peers: who it is, and the MAC addresses of
// its devices.
type identity struct {
	InstanceID string `json:"instanceID"` // 32 hexadecimal digits
	// UplinkMAC ties the file to the machine. A clone of a machine's disk finds another address on its uplink and takes
	// an identity of its own, instead of sharing the original's lease and MAC addresses. Nothing is ever derived from
	// the host name: clones share that too.
	UplinkMAC string            `json:"uplinkMAC"`
	MACs      map[string]string `json:"macs"` // by device name
}

// loadIdentity reads the identity from the state directory, or makes a new one; it is not saved yet. reason says why it
// is new, and is empty if it is not.
func loadIdentity(dir, uplinkMAC string) (id *identity, reason string, err error) {
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = "there was none"
	case err != nil:
		return nil, "", fmt.Errorf("read the node's identity: %w; --state-dir names the directory", err)
	default:
		id = &identity{}
		if err := json.Unmarshal(data, id); err != nil || len(id.InstanceID) != instanceIDLen {
			reason = path + " is damaged"
		} else if id.UplinkMAC != uplinkMAC {
			reason = fmt.Sprintf("%s is of a machine with the uplink %s, this one has %s: a clone", path, id.UplinkMAC, uplinkMAC)
		}
	}
	if reason != "" {
		id = &identity{InstanceID: randomID(), UplinkMAC: uplinkMAC, MACs: map[string]string{}}
	}
	return id, reason, nil
}

// InstanceID reads from the state directory who this node is.
func InstanceID(stateDir string) (string, error) {
	path := filepath.Join(stateDir, identityFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the node's identity: %w; --state-dir names the directory", err)
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil || len(id.InstanceID) != instanceIDLen {
		return "", fmt.Errorf("read the node's identity: %s is damaged", path)
	}
	return id.InstanceID, nil
}

// save writes the identity into the state directory. What is there already is not written again.
func (id *identity) save(dir string) error {
	path := filepath.Join(dir, identityFile)
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w; --state-dir names it", err)
	}
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("save the node's identity: %w; --state-dir names the directory", err)
	}
	return nil
}

// mac chooses the MAC address of a device, so that it stays what peers know: the one in the node's own lease, which
// they send to; else the device's own if there is one, else what the state directory remembers, else a random one.
func (id *identity) mac(device string, present, lease network.MAC) network.MAC {
	remembered, _ := network.ParseMAC(id.MACs[device]) // what is no address is none
	chosen := randomMAC()
	for _, known := range []network.MAC{remembered, present, lease} { // the best last
		if known.IsUnicast() {
			chosen = known
		}
	}
	if id.MACs == nil {
		id.MACs = map[string]string{}
	}
	id.MACs[device] = chosen.String()
	return chosen
}

// another chooses a new MAC address for a device.
func (id *identity) another(device string) network.MAC {
	return id.mac(device, network.MAC{}, randomMAC())
}

// randomMAC returns a unicast address of the locally administered range (IEEE 802, second bit of the first byte).
func randomMAC() (m network.MAC) {
	rand.Read(m[:])
	m[0] = m[0]&^1 | 2
	return m
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
