package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// reservationDir is host-local's unless ipam.dataDir says otherwise.
const reservationDir = "/var/lib/cni/networks"

// reservation is an address that host-local has handed out: a file named by the address that holds the container's ID
// and, on the next line, the interface's name, which versions before 0.8 left out.
type reservation struct {
	addr   netip.Addr
	holder attachment
	path   string
}

// damaged reports whether the file does not name a holder, so that no DEL can free the address: a power cut leaves
// files that are empty or full of zeros.
func (r reservation) damaged() bool {
	return !isName(r.holder.containerID) || r.holder.ifName != "" && checkInterface(r.holder.ifName) != nil
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
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrNotExist) && wholefile.Dangling(path):
			// host-local takes it for a reservation all the same
		case errors.Is(err, fs.ErrNotExist):
			continue // freed meanwhile
		default:
			return nil, err
		}
		id, ifName, _ := strings.Cut(strings.TrimSpace(string(data)), "\r\n")
		list = append(list, reservation{addr, attachment{n.Name, id, ifName}, path})
	}
	return list, nil
}

// freeDamaged removes damaged reservations. An ADD that is writing its own holds host-local's lock, so the files are
// looked at again under it.
func (n netConf) freeDamaged(ctx context.Context, damaged []reservation) error {
	if len(damaged) == 0 {
		return nil
	}
	unlock, err := lockReservations(ctx, filepath.Dir(damaged[0].path))
	if err != nil {
		return err
	}
	defer unlock()
	now, err := n.reservations()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range now {
		was := slices.ContainsFunc(damaged, func(d reservation) bool { return d.path == r.path })
		if !was || !r.damaged() {
			continue
		}
		err := os.Remove(r.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			errs = append(errs, err) // a directory that holds something costs an address, and is for people to look at
		}
	}
	return errors.Join(errs...)
}

// lockTime is how long the lock of host-local is waited for.
const lockTime = 2 * time.Second

// lockReservations takes host-local's lock on a directory (NewFileLock in plugins/ipam/host-local/backend/disk).
func lockReservations(ctx context.Context, dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	if err := wholefile.MakeRoom(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o750)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(lockTime); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil // which releases it
		case !errors.Is(err, syscall.EWOULDBLOCK) || ctx.Err() != nil || time.Now().After(until):
			f.Close()
			return nil, fmt.Errorf("lock %s, which host-local holds while it works: %w", f.Name(), err)
		}
		time.Sleep(lookEvery)
	}
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
