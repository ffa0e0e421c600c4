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

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// identityFile is the file in the state directory that holds the [identity].
const identityFile = "node.json"

// instanceIDLen is the length of an instance id, in hexadecimal digits.
const instanceIDLen = 32

// identity is the part of a node's state that must survive a restart, so that its peers need no change: its id, and the
// MAC addresses of its devices.
type identity struct {
	InstanceID string `json:"instanceID"` // 32 hexadecimal digits
	// UplinkMAC binds the file to the machine. A clone of a machine's disk finds another address on its uplink and
	// creates its own identity, instead of sharing the original's lease and MAC addresses. Nothing is derived from the
	// host name: clones share that too.
	UplinkMAC string            `json:"uplinkMAC"`
	MACs      map[string]string `json:"macs"` // by device name
}

// loadIdentity reads the identity from the state directory, or creates a new one without saving it. reason says why it
// was created, and is empty if it was read.
func loadIdentity(dir, uplinkMAC string) (id *identity, reason string, err error) {
	path := filepath.Join(dir, identityFile)
	_ = wholefile.MakeRoom(path) // else reading it fails, and says why
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = path + " does not exist"
	case err != nil:
		err = fmt.Errorf("read the node's identity: %w; --state-dir names the directory", err)
		return nil, "", errno.Explain(errno.File, err)
	default:
		id = &identity{}
		if err := json.Unmarshal(data, id); err != nil || !isInstanceID(id.InstanceID) {
			reason = path + " is damaged"
		} else if id.UplinkMAC != uplinkMAC {
			reason = fmt.Sprintf("%s was written on another machine: its uplink has the MAC address %s, this one's "+
				"has %s",
				path, id.UplinkMAC, uplinkMAC)
		}
	}
	if reason != "" {
		id = &identity{InstanceID: randomID(), UplinkMAC: uplinkMAC, MACs: map[string]string{}}
	}
	return id, reason, nil
}

// InstanceID reads this node's instance id from the state directory: 32 hexadecimal digits.
func InstanceID(stateDir string) (string, error) {
	path := filepath.Join(stateDir, identityFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the node's identity: %w; --state-dir names the directory", err)
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil || !isInstanceID(id.InstanceID) {
		return "", fmt.Errorf("read the node's identity: %s is damaged", path)
	}
	return id.InstanceID, nil
}

// save writes the identity into the state directory, unless the file is up to date.
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
	if err := wholefile.Replace(path, data, 0o600, 0o700); err != nil {
		return fmt.Errorf("save the node's identity: %w; --state-dir names the directory", errno.Written(path, err))
	}
	return nil
}

// mac chooses the MAC address of a device so that peers need no change. In order of preference: the one in the node's
// own lease, to which peers send; that of the existing device; the one in the state directory; a random one.
func (id *identity) mac(device string, present, lease network.MAC) network.MAC {
	remembered, _ := network.ParseMAC(id.MACs[device]) // an invalid address is ignored
	chosen := randomMAC()
	for _, known := range []network.MAC{remembered, present, lease} { // in ascending preference
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

// another replaces the MAC address of a device by a random one.
func (id *identity) another(device string) network.MAC {
	return id.mac(device, network.MAC{}, randomMAC())
}

// randomMAC returns a locally administered unicast address (IEEE 802: the second bit of the first byte is set).
func randomMAC() (m network.MAC) {
	rand.Read(m[:])
	m[0] = m[0]&^1 | 2
	return m
}

func isInstanceID(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == instanceIDLen
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
