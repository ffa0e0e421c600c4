package node

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/cache"
	"github.com/selvage-net/selvage/subnet/subnetfile"
	"github.com/selvage-net/selvage/subnet/subnettest"
)

// nodeFiles are the files in dir that a node reads, and what one that is whole looks like.
func nodeFiles(dir string) map[string]func(path string) error {
	subnetFile := filepath.Join(dir, "subnet.env")
	held := func(path string) error {
		if readOwner(path) == "" {
			return fmt.Errorf("it does not say who holds %s", path)
		}
		return nil
	}
	return map[string]func(string) error{
		filepath.Join(dir, identityFile): func(string) error { _, err := InstanceID(dir); return err },
		filepath.Join(dir, bindingFile): func(string) error {
			if b, ok := readBinding(dir); !ok || len(b.VNIs) == 0 || len(b.Networks) == 0 {
				return fmt.Errorf("%+v", b)
			}
			return nil
		},
		filepath.Join(dir, backendFile): func(string) error {
			if b, err := readBackends(dir); err != nil || len(b) != 1 || b[0].Type != "vxlan" {
				return fmt.Errorf("%+v, %w", b, err)
			}
			return nil
		},
		filepath.Join(dir, cacheFile): func(path string) error { _, err := cache.Read(path); return err },
		filepath.Join(dir, lockFile):  held,
		LockPath(subnetFile):          held,
		subnetFile:                    func(path string) error { _, err := subnetfile.Read(path); return err },
		subnetfile.StatusPath(subnetFile): func(string) error {
			if s, err := subnetfile.ReadStatus(subnetFile); err != nil || !s.Usable {
				return fmt.Errorf("%+v, %w", s, err)
			}
			return nil
		},
	}
}

func whole(files map[string]func(string) error) error {
	for path, check := range files {
		if err := check(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// TestDamagedFiles: whatever a node finds in the place of its files at a start, and afterwards, it becomes ready, and
// its files are whole. Only what holds something has to be removed by a person: the node names it, and needs no restart.
func TestDamagedFiles(t *testing.T) {
	ownUplink(t)
	store, dir := newMemStore(), t.TempDir()
	store.putConfig(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	files := nodeFiles(dir)
	n := startNode(t, expiring{store}, dir)
	n.waitState(t, status.Ready)
	eventually(t, "the files", func() error { return whole(files) })
	n.stop()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // each of them is in the list
		path := filepath.Join(dir, e.Name())
		if files[path] == nil && path != attachment.Dir(n.SubnetFile) {
			t.Errorf("%s is not damaged by this test", path)
		}
	}
	record := attachment.Record{Key: attachment.Key{Network: "cbr0", Container: "c1", Interface: "eth0"},
		Added: time.Now(), NetNS: "/none", Delegate: "bridge", Config: []byte(`{"type":"bridge"}`), Result: []byte(`{}`)}
	records := attachment.Dir(n.SubnetFile)
	recorded := filepath.Join(records, record.Key.String())
	for _, d := range subnettest.Damages() {
		t.Run(d.Name, func(t *testing.T) {
			files := maps.Clone(files)
			if d.Holds { // writing the leases is tried every ten seconds: see subnet/cache
				delete(files, filepath.Join(dir, cacheFile))
			}
			if err := attachment.Save(records, record); err != nil {
				t.Fatal(err)
			}
			for path := range files {
				if err := d.Apply(path, []byte(`{"version":1,"usable":false,"reason":"x"}`)); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Apply(recorded, nil); err != nil {
				t.Fatal(err)
			}
			n := startNode(t, expiring{store}, dir)
			if d.Holds {
				nameAll(t, n, files)
			}
			if d.Name != "dangling link" { // which is no record
				n.waitProblem(t, status.RecordDamaged, recorded)
			}
			if err := os.RemoveAll(recorded); err != nil {
				t.Fatal(err)
			}
			n.waitState(t, status.Ready)
			again := maps.Clone(files)
			if d.Holds { // without a lock, until the next start
				delete(again, filepath.Join(dir, lockFile))
				delete(again, LockPath(n.SubnetFile))
			}
			eventually(t, "the files", func() error { return whole(again) })
			if found := temporary(n.log.String()); found != "" {
				t.Errorf("the log has %q, which differs each time:\n%s", found, n.log.String())
			}

			// Once more, while it runs.
			for _, path := range []string{n.SubnetFile, subnetfile.StatusPath(n.SubnetFile)} {
				if err := d.Apply(path, []byte(`{"version":1,"usable":false,"reason":"x"}`)); err != nil {
					t.Fatal(err)
				}
				if d.Holds {
					n.waitProblem(t, "", path)
					if err := removeAll(path); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, path, func() error { return files[path](path) })
			}
			n.waitState(t, status.Ready)
			n.stop()
		})
	}
}

// removeAll removes a directory that is in the place of a file. The node can remove it, once it is empty, and write the
// file meanwhile.
func removeAll(path string) error {
	if err := os.RemoveAll(path); !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

// nameAll waits until a node has named what is in the place of each of its files, and removes it then.
func nameAll(t *testing.T, n *runningNode, files map[string]func(string) error) {
	t.Helper()
	locks := []string{filepath.Join(n.StateDir, lockFile), LockPath(n.SubnetFile)}
	first := []string{filepath.Join(n.StateDir, identityFile), filepath.Join(n.StateDir, bindingFile)}
	for _, path := range append(first, locks...) {
		if !slices.Contains(locks, path) {
			n.waitProblem(t, "", path)
		}
		if err := removeAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(files)) { // the subnet file before its status file, as they are written
		if !slices.Contains(first, path) && !slices.Contains(locks, path) {
			n.waitProblem(t, "", path)
			if err := removeAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// waitProblem waits until the status has a problem with that code, if any, that names a path and what to do.
func (r *runningNode) waitProblem(t *testing.T, code status.Reason, path string) {
	t.Helper()
	eventually(t, "naming "+path, func() error {
		s, err := r.Status(t.Context())
		if err != nil {
			return err
		}
		var texts []string
		for _, p := range s.Problems {
			text := string(p.Text)
			about := strings.Contains(text, path) || code != "" && strings.Contains(text, filepath.Base(path))
			if about && (code == "" && strings.Contains(text, "remove it") || code != "" && p.Code == code) {
				return nil
			}
			texts = append(texts, text)
		}
		return fmt.Errorf("problems %q, log\n%s", texts, r.log.String())
	})
}

// temporary finds the name of a temporary file in a text.
func temporary(text string) string {
	return regexp.MustCompile(`/\.(node|network|leases|subnet)[a-z.]*[0-9]{4,}`).FindString(text)
}

// TestDamagedSecret: a secret that is damaged is named, and never replaced.
func TestDamagedSecret(t *testing.T) {
	dir := t.TempDir()
	k := keeper{&identity{InstanceID: randomID()}, dir, nil, keyFiles{}}
	path := filepath.Join(dir, "wireguard.secret")
	for _, d := range subnettest.Damages() {
		if _, err := k.Secret("wireguard", secretSize, numbered()); err != nil {
			t.Fatal(err)
		}
		if err := d.Apply(path, nil); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Secret("wireguard", secretSize, numbered())
		if err == nil || !strings.Contains(err.Error(), path) ||
			!strings.Contains(err.Error(), "restore the file") && !strings.Contains(err.Error(), "a directory is there: remove it") {
			t.Errorf("%s: %v, want an error with the file and what to do", d.Name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: the file was replaced, %v", d.Name, err)
		}
		if err := removeAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedBinding: a file that names the network is damaged, in a directory that two networks share. Neither network
// takes what is the other's, in whatever order the daemons start.
func TestDamagedBinding(t *testing.T) {
	for _, d := range subnettest.Damages() {
		t.Run(d.Name, func(t *testing.T) {
			dir := t.TempDir()
			first, second := mustOpenState(t, dir, ""), mustOpenState(t, dir, "/second")
			inner := second.path
			for _, s := range []*stateDir{first, second} {
				if err := (&identity{InstanceID: randomID()}).save(s.path); err != nil {
					t.Fatal(err)
				}
				s.close()
			}
			third := filepath.Join(dir, innerDir("/third"))
			for _, path := range []string{filepath.Join(dir, bindingFile), filepath.Join(inner, bindingFile)} {
				if err := d.Apply(path, nil); err != nil {
					t.Fatal(err)
				}
				for _, tt := range []struct{ prefix, want string }{{"/third", third}, {"/second", inner}, {"", dir}} {
					s := mustOpenState(t, dir, tt.prefix)
					if s.path != tt.want {
						t.Errorf("%s damaged: %s opened %s, want %s", path, tt.prefix, s.path, tt.want)
					}
					s.close()
				}
			}
		})
	}
}

// TestRecordsInPlaceOfDirectory: a file is in the place of the directory of records.
func TestRecordsInPlaceOfDirectory(t *testing.T) {
	for _, d := range subnettest.Damages() {
		if strings.Contains(d.Name, "directory") {
			continue
		}
		subnetFile := filepath.Join(t.TempDir(), "subnet.env")
		if err := d.Apply(attachment.Dir(subnetFile), []byte("content")); err != nil {
			t.Fatal(err)
		}
		o := newOwnSide(subnetFile)
		_, _, _, err := o.reader.Read()
		gives := d.Name == "empty" || d.Name == "dangling link"
		if gives != (err == nil) || err != nil && !strings.Contains(err.Error(), attachment.Dir(subnetFile)+": not a directory: a file is") {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
}
