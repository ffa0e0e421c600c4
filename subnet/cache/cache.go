// Package cache keeps what a node knows of the lease store in a file: the valid leases, the network config, and which
// lease is its own. A node needs it to come up while the store is down, for example when a whole rack has lost power
// and the store comes back last.
//
// The file is text, a fact a line, with a checksum over all of it in the first:
//
//	selvage-leases 1 59f29a7dfc71cc77…
//	written 2026-08-06T12:00:00Z
//	store cdf818194e3a8c32 1234                             cluster id and revision
//	config {"Network":"10.5.0.0/16"}                        absent if there is none
//	own 10.5.29.0-24 2026-08-07T12:00:00Z                   absent if there is none; "-" for one that never expires
//	lease 10.5.29.0-24 1200 1234 7587862094 {"PublicIP":…}  key, order, version, lease id, value in flannel's format
//	named node-7 10.5.30.0-24 1201 1300 0 {"PublicIP":…}    the same for a record whose name is not its lease's key
//
// A name, key or value that would break the line is quoted as in Go.
//
// What is read is as old as the file. Whether it still holds is for the caller to judge.
package cache

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// Errors of [Read], matched with errors.Is. One for a file that is not there matches [fs.ErrNotExist].
var (
	// ErrDamaged means that the content is not what was written. [SetAside] gets it out of the way.
	ErrDamaged = errors.New("damaged")
	// ErrVersion means that a newer version of selvage wrote the file, whole and well. It is best left alone, for
	// when that version runs again.
	ErrVersion = errors.New("written by a newer version")
)

// maxSize bounds the file in bytes, and so what reading it can cost: 5,000 leases take little more than one megabyte.
const maxSize = 64 << 20

// Snapshot is what a node knew of the store at some time.
type Snapshot struct {
	Written  time.Time // when, by this node's clock
	Cluster  uint64    // which store it was; 0: not known
	Revision int64     // of the store; everything below is as of it
	Config   []byte    // the network config as it stands in the store; nil: there was none
	Records  []Record
	// More are further records to be written, if not nil. Each is requested at its turn and not kept: of thousands, one
	// at a time needs to exist. A file that was read has all in Records.
	More iter.Seq[Record]
	Own  string // name of the node's own record; empty: it had none
	// OwnExpires is when the own lease ends without a renewal, by this node's clock, as far as was known when the file
	// was written: it can have been renewed since. Zero: it never ends (a reservation), or that is not known.
	OwnExpires time.Time
}

// Record is a [subnet.Record] as the file holds it. To decode thousands takes time that a start has no use for unless
// the store is away.
type Record struct {
	Name, Key               string // the key is the lease's in flannel's format
	Value                   []byte // the same; malformed ones come back as they were
	Order, Version, LeaseID int64
}

// Encode returns r for the file, with a value that is appended to b. The error is about a lease that cannot be written,
// such as that of a malformed record.
func Encode(r subnet.Record, b []byte) (Record, error) {
	if r.Bad != nil {
		return Record{}, r.Bad
	}
	value, err := r.AppendValue(b)
	return Record{r.Name, r.Key(), value, r.Order, r.Version, r.LeaseID}, err
}

// Decode is the inverse of Encode.
func (r Record) Decode() subnet.Record {
	d := subnet.DecodeRecord(r.Key, r.Value)
	d.Name, d.Order, d.Version, d.LeaseID = r.Name, r.Order, r.Version, r.LeaseID
	return d
}

// Decoded returns all of s.Records.
func (s Snapshot) Decoded() []subnet.Record {
	all := make([]subnet.Record, len(s.Records))
	for i, r := range s.Records {
		all[i] = r.Decode()
	}
	return all
}

// Write writes s to path, and makes its directory if need be. A reader sees the old content or the new and nothing in
// between, also after a power cut.
func Write(path string, s Snapshot) error {
	dir := filepath.Dir(path)
	if err := errors.Join(wholefile.MakeDir(dir, 0o700), wholefile.MakeRoom(path)); err != nil {
		return fmt.Errorf("write the cached leases to %s: %w", path, err)
	}
	// The temporary file has to be in the same directory: a rename does not cross file systems.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(0o600))
	if err == nil {
		err = encode(file.File, s)
		if err == nil {
			err = file.CloseAtomicallyReplace()
		}
		err = errors.Join(err, file.Cleanup()) // nothing is left to be done if all went well
	}
	if err != nil {
		return fmt.Errorf("write the cached leases to %s: %w", path, err)
	}
	return nil
}

// Read reads what [Write] wrote. The errors distinguish a file that does not exist, ErrDamaged and ErrVersion from one
// that cannot be read.
func Read(path string) (Snapshot, error) {
	file, err := os.Open(path)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the cached leases: %w", err)
	}
	defer file.Close()
	data, err := readAll(file)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the cached leases: %w", err)
	}
	s, err := decode(data)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the cached leases in %s: %w", path, err)
	}
	return s, nil
}

// readAll reads no more than a byte beyond maxSize, which decode then refuses.
func readAll(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	size := min(max(info.Size(), 0), maxSize) + 1 // one more, so that the end is met without growing
	data := make([]byte, size)
	n, err := io.ReadFull(file, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return data[:n], err
}

// SetAside renames a damaged file, for an operator to look at, and returns its new path. It replaces one that was set
// aside before, so that there is never more than one.
func SetAside(path string) (string, error) {
	aside := Aside(path)
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("set the damaged file aside: %w", err)
	}
	return aside, nil
}

// Aside returns the path that [SetAside] gives to a file.
func Aside(path string) string { return path + ".damaged" }
