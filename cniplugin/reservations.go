package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// reservationDir is host-local's unless ipam.dataDir says otherwise.
const reservationDir = "/var/lib/cni/networks"

// reservation is an address that host-local has handed out: a file named by the address that holds the container's ID
// and, on the next line, the interface's name, which versions before 0.8 left out.
type reservation struct {
	addr   netip.Addr
	holder attachment
}

// reservations lists host-local's for a network; none if another IPAM plugin is used. They are read without
// host-local's lock: a file that is being written when it is read belongs to an ADD on its way, and no verb asks about
// that one.
func (n netConf) reservations() ([]reservation, error) {
	if plugin, err := n.IPAM.pluginType(defaultIPAM); err != nil || plugin != defaultIPAM {
		return nil, err
	}
	dir := reservationDir
	if raw, ok := n.IPAM["dataDir"]; ok {
		if err := json.Unmarshal(raw, &dir); err != nil {
			return nil, fmt.Errorf("ipam: dataDir is %.80s, want a string such as %q", raw, reservationDir)
		}
	}
	dir = filepath.Join(dir, n.Name)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []reservation
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue // a lock, or a note of the last address
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // freed meanwhile
		}
		if err != nil {
			return nil, err
		}
		id, ifName, _ := strings.Cut(strings.TrimSpace(string(data)), "\r\n")
		list = append(list, reservation{addr, attachment{n.Name, id, ifName}})
	}
	return list, nil
}

// exhausted returns a subnet of the file in which host-local has no address left.
func exhausted(f subnetfile.File, list []reservation) (full netip.Prefix, size int, ok bool) {
	for _, family := range subnet.Families() {
		s := f.Subnets[family].Masked()
		if !s.IsValid() || s.Addr().BitLen()-s.Bits() > 16 { // no node has more containers than that
			continue
		}
		taken := 0
		for _, r := range list {
			if s.Contains(r.addr) {
				taken++
			}
		}
		size = 1<<(s.Addr().BitLen()-s.Bits()) - 2 // without the network's address and the gateway's,
		if family == subnet.IPv4 {
			size-- // and without the broadcast address
		}
		if taken >= size {
			return s, size, true
		}
	}
	return full, 0, false
}
