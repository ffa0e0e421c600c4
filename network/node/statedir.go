package node

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// bindingFile is the file in the state directory that says which network the directory belongs to.
const bindingFile = "network.json"

// binding ties the state directory to a network. Nothing in a directory of another network is used.
type binding struct {
	Prefix string `json:"prefix"` // of the store
	// VNIs are that of the last run, and those of runs before it whose kernel objects may still exist.
	VNIs      []uint32       `json:"vnis,omitempty"`
	Networks  []netip.Prefix `json:"networks,omitempty"`  // the same for the overlay's networks
	Endpoints []string       `json:"endpoints,omitempty"` // of the store, as last reached
	// Store is the kind of the store, as last reached; empty: etcd, or it was not reached yet.
	Store subnet.StoreKind `json:"store,omitempty"`
}

// stateDir is an opened state directory: no other daemon uses it until it is closed.
type stateDir struct {
	path    string
	lock    *heldFile
	binding binding
	moved   string // why path is not the directory that was named; empty: it is
	// unbound says that an earlier version left its state here, which did not note the network.
	unbound bool
}

// openStateDir opens the state directory of the network under a prefix of the store. A directory that belongs to
// another network, or is used by a daemon of another network, is left alone: a directory inside it is used then. The
// error is about another daemon of the same network.
func openStateDir(dir, prefix string) (*stateDir, error) {
	prefix = network.NewScope(prefix, 0).Prefix
	inner := filepath.Join(dir, innerDir(prefix))
	owner := "of an earlier run of another daemon" // its name is unknown, because its file is damaged
	if StateDir(dir, prefix) != inner {
		var s *stateDir
		var err error
		if s, owner, err = tryStateDir(dir, prefix); s != nil || err != nil {
			return s, err
		}
	} else if b, known := readBinding(dir); known {
		owner = b.Prefix
	}
	s, owner2, err := tryStateDir(inner, prefix)
	if s == nil && err == nil {
		return nil, fmt.Errorf("the state directory %s belongs to the network %s; --state-dir names another one",
			inner, owner2)
	}
	if s != nil {
		s.moved = fmt.Sprintf("%s belongs to the network %s", dir, owner)
	}
	return s, err
}

// StateDir returns the directory inside dir, or dir itself, that a daemon of the network under the prefix uses.
func StateDir(dir, prefix string) string {
	prefix = network.NewScope(prefix, 0).Prefix
	inner := filepath.Join(dir, innerDir(prefix))
	b, known := readBinding(dir)
	_, there := readBinding(inner)
	if there && (!known || b.Prefix != prefix) {
		return inner
	}
	return dir
}

// innerDir names the directory inside another network's: "second-1f0c7a2e".
func innerDir(prefix string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, strings.Trim(prefix, "/"))
	sum := sha256.Sum256([]byte(prefix))
	return fmt.Sprintf("%.40s-%x", name, sum[:4])
}

// tryStateDir opens dir. If it is another network's, it returns nil and that network's prefix.
func tryStateDir(dir, prefix string) (s *stateDir, owner string, err error) {
	b, ok := readBinding(dir)
	if _, err := os.Lstat(filepath.Join(dir, bindingFile)); !ok && err == nil { // damaged
		b.Prefix = readOwner(filepath.Join(dir, lockFile))
		ok = b.Prefix != ""
	}
	if ok && b.Prefix != prefix {
		return nil, b.Prefix, nil
	}
	lock, err := holdFile(filepath.Join(dir, lockFile), prefix)
	var held *heldError
	switch {
	case errors.As(err, &held) && held.by.Network == prefix:
		return nil, "", fmt.Errorf("state directory %s: %w keeps the same network; stop that one first", dir, held)
	case errors.As(err, &held):
		return nil, held.by.Network, nil
	case err != nil:
		lock = nil // read-only, for instance: what has to be saved there says so
	}
	s = &stateDir{path: dir, lock: lock, binding: binding{Prefix: prefix}}
	b, ok = readBinding(dir) // it may have been bound meanwhile
	if ok && b.Prefix != prefix {
		lock.close()
		return nil, b.Prefix, nil
	}
	if ok {
		s.binding = b
		return s, "", nil
	}
	_, err = os.Stat(filepath.Join(dir, identityFile))
	s.unbound = err == nil
	_ = s.save() // tried again with the network's VNI
	return s, "", nil
}

func readBinding(dir string) (b binding, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, bindingFile))
	return b, err == nil && json.Unmarshal(data, &b) == nil && b.Prefix != ""
}

// use records the VNI and the networks of this run, beside those of earlier runs.
func (s *stateDir) use(scope network.Scope, networks []netip.Prefix) error {
	next := s.binding
	next.VNIs = append(without(next.VNIs, scope.VNI), scope.VNI)
	for _, p := range networks {
		next.Networks = append(without(next.Networks, p), p)
	}
	return s.change(next)
}

// settle records that nothing of earlier runs is left.
func (s *stateDir) settle(scope network.Scope, networks []netip.Prefix) error {
	next := s.binding
	next.VNIs, next.Networks = []uint32{scope.VNI}, slices.Clone(networks)
	return s.change(next)
}

// reached records the kind of the store, and the endpoints by which it was reached.
func (s *stateDir) reached(kind subnet.StoreKind, endpoints []string) error {
	next := s.binding
	next.Endpoints, next.Store = plainEndpoints(endpoints), kind
	if kind == subnet.StoreEtcd { // as earlier versions left it
		next.Store = ""
	}
	return s.change(next)
}

// elsewhere reports whether none of the endpoints is one by which the store was reached before: they may be another
// store's.
func (s *stateDir) elsewhere(endpoints []string) bool {
	known := func(e string) bool { return slices.Contains(s.binding.Endpoints, e) }
	return len(s.binding.Endpoints) > 0 && len(endpoints) > 0 && !slices.ContainsFunc(plainEndpoints(endpoints), known)
}

// otherKind returns the kind of the store of earlier runs if it is another one; else nothing. The records of the cached
// leases have other names then. The node's identity stays its own.
func (s *stateDir) otherKind(kind subnet.StoreKind) subnet.StoreKind {
	was := s.binding.Store
	if was == "" && len(s.binding.Endpoints) > 0 {
		was = subnet.StoreEtcd
	}
	if was == kind || was == "" || kind == "" {
		return ""
	}
	return was
}

// plainEndpoints returns URLs as HOST:PORT.
func plainEndpoints(endpoints []string) (plain []string) {
	for _, e := range endpoints {
		if _, host, ok := strings.Cut(e, "://"); ok {
			e = host
		}
		plain = append(plain, strings.ToLower(strings.TrimRight(e, "/")))
	}
	return plain
}

// former returns the scopes of earlier runs.
func (s *stateDir) former(scope network.Scope) (all []network.Scope) {
	for _, vni := range s.binding.VNIs {
		if vni != scope.VNI {
			all = append(all, network.NewScope(scope.Prefix, vni))
		}
	}
	return all
}

// change replaces the binding, here and in the file. If it cannot be saved, it stays as it is.
func (s *stateDir) change(next binding) error {
	before := s.binding
	same := slices.Equal(before.VNIs, next.VNIs) && slices.Equal(before.Networks, next.Networks) &&
		slices.Equal(before.Endpoints, next.Endpoints) && before.Store == next.Store
	if _, err := os.Stat(filepath.Join(s.path, bindingFile)); same && err == nil {
		return nil
	}
	s.binding = next
	err := s.save()
	if err != nil {
		s.binding = before
	}
	return err
}

func (s *stateDir) save() error {
	path := filepath.Join(s.path, bindingFile)
	data, err := json.MarshalIndent(s.binding, "", "  ")
	if err == nil {
		err = wholefile.Replace(path, append(data, '\n'), 0o600, 0o700)
	}
	if err != nil {
		return fmt.Errorf("note in the state directory which network it belongs to: %w; --state-dir names it",
			errno.Written(path, err))
	}
	return nil
}

func (s *stateDir) close() { s.lock.close() }

func without[T comparable](all []T, x T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(y T) bool { return y == x })
}

// BoundState is a state directory and the network that it belongs to.
type BoundState struct {
	Dir      string
	Scopes   []network.Scope // of the last run and of runs before it; the default one if an earlier version wrote it
	Prefix   string
	Networks []netip.Prefix // nil: unknown
}

// BoundStates returns the state directories at and directly below dir that hold state.
func BoundStates(dir string) (all []BoundState) {
	below, _ := filepath.Glob(filepath.Join(dir, "*", bindingFile)) // fails only for a malformed pattern
	dirs := []string{dir}
	for _, path := range below {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, d := range dirs {
		b, ok := readBinding(d)
		if _, err := os.Stat(filepath.Join(d, identityFile)); !ok && err != nil {
			continue
		}
		s := BoundState{Dir: d, Prefix: network.NewScope(b.Prefix, 0).Prefix, Networks: b.Networks}
		for _, vni := range b.VNIs {
			s.Scopes = append(s.Scopes, network.NewScope(b.Prefix, vni))
		}
		if len(s.Scopes) == 0 {
			s.Scopes = append(s.Scopes, network.NewScope(b.Prefix, 0))
		}
		all = append(all, s)
	}
	return all
}

// SubnetFileOwner returns the prefix of the network whose daemon wrote a subnet file last; empty: unknown.
func SubnetFileOwner(subnetFile string) string { return readOwner(LockPath(subnetFile)) }

// readOwner returns the prefix of the network whose daemon held a file last; empty: unknown.
func readOwner(path string) string {
	h, _ := parseHolder(path)
	return h.Network
}
