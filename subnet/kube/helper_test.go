package kube

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
	"github.com/selvage-net/selvage/subnet/storetest"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// patience is how long a test waits for what must happen soon.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	// Many of these tests wait for the server most of their time.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// fixture is an API server with what a test can do to it.
type fixture struct {
	t       *testing.T
	admin   kubetest.Admin
	api     apiserver.Options
	conf    string // the file with the network config
	harm    *storetest.Harm
	standIn *kubetest.Server // nil: a real one
}

// standIn starts a stand-in for an API server.
func standIn(t *testing.T, streaming bool) *fixture {
	t.Helper()
	server := kubetest.New(kubetest.Options{NoStreamingLists: !streaming, Bookmarks: 100 * time.Millisecond})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	f := &fixture{
		t: t, standIn: server, admin: server.Admin(), api: apiserver.Options{URL: server.URL()},
		conf: filepath.Join(t.TempDir(), "net-conf.json"),
	}
	f.admin.Client = &http.Client{Transport: &http.Transport{}}
	t.Cleanup(f.admin.Client.CloseIdleConnections)
	f.harm = &storetest.Harm{
		Restart: func(t *testing.T) { server.Stop(); f.start(t) },
		Wipe: func(t *testing.T) {
			server.Stop()
			server.Wipe()
			f.delete(t, "config")
			f.start(t)
		},
		Backup: func(t *testing.T) func(t *testing.T) {
			saved := server.Backup()
			return func(t *testing.T) { server.Stop(); server.Restore(saved); f.start(t) }
		},
		Compact: func(*testing.T) { server.Compact() },
	}
	return f
}

// start starts a stand-in that was stopped. A connection of before is of no use any more.
func (f *fixture) start(t *testing.T) {
	t.Helper()
	f.admin.Client.CloseIdleConnections()
	if err := f.standIn.Start(); err != nil {
		t.Fatal(err)
	}
}

// open opens a store of a node.
func (f *fixture) open(t *testing.T, node string) *Store {
	t.Helper()
	return f.openWith(t, Options{Node: node})
}

func (f *fixture) openWith(t *testing.T, o Options) *Store {
	t.Helper()
	o.API, o.NetConfPath = f.api, f.conf
	if o.ListSpread == 0 {
		o.ListSpread = -1
	}
	if o.Log == nil {
		o.Log, _ = logger(t)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// write replaces the network config as a ConfigMap does: as a whole.
func (f *fixture) write(t *testing.T, key, value string) {
	t.Helper()
	if key != "config" {
		t.Fatalf("write %s", key)
	}
	if err := wholefile.ReplaceUnsynced(f.conf, []byte(value), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) delete(t *testing.T, key string) {
	t.Helper()
	if err := os.Remove(f.conf); key != "config" || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(key, err)
	}
}

// eventually waits until check returns true.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// addNode registers a Node, if it is not there yet, with podCIDRs.
func (f *fixture) addNode(t *testing.T, name string, podCIDRs ...string) kubetest.Object {
	t.Helper()
	o, err := f.admin.CreateNode(t.Context(), kubetest.Node{Name: name, PodCIDRs: podCIDRs})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (f *fixture) annotate(t *testing.T, name string, annotations map[string]any) {
	t.Helper()
	if _, err := f.admin.Annotate(t.Context(), name, annotations); err != nil {
		t.Fatal(err)
	}
}

// annotations returns what a lease is on the Node of an object, as text.
func annotations(t *testing.T, l subnet.Lease, o kubetest.Object) map[string]any {
	t.Helper()
	c, err := namesOf(DefaultPrefix).claimed(l, &apiserver.Node{
		Object: apiserver.Object{Name: o.Metadata.Name, UID: o.Metadata.UID}, PodCIDRs: o.Spec.PodCIDRs,
	})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for name, value := range c {
		all[name] = value
	}
	return all
}

// cluster is the fixture as the suite for all stores wants it.
func (f *fixture) cluster() storetest.Cluster {
	node := func(t *testing.T, name string) (kubetest.Object, bool) {
		t.Helper()
		o, err := f.admin.Node(t.Context(), name)
		if err != nil && !strings.Contains(err.Error(), "404") {
			t.Fatal(err)
		}
		return o, err == nil
	}
	return storetest.Cluster{
		Open:   func(t *testing.T) subnet.Store { return f.open(t, "unknown") },
		Write:  f.write,
		Delete: f.delete,
		Harm:   f.harm,
		Nodes: &storetest.Nodes{
			Open: func(t *testing.T, name string) subnet.Store { return f.open(t, name) },
			Add: func(t *testing.T, name string) {
				t.Helper()
				if _, ok := node(t, name); !ok {
					f.addNode(t, name)
				}
			},
			Allocate: func(t *testing.T, name string, subnets ...netip.Prefix) {
				t.Helper()
				var list []string
				for _, p := range subnets {
					list = append(list, p.String())
				}
				if o, _ := node(t, name); len(o.Spec.PodCIDRs) > 0 {
					if strings.Join(o.Spec.PodCIDRs, ",") == strings.Join(list, ",") {
						return
					}
					// The API server refuses to add a family.
					if err := f.admin.DeleteNode(t.Context(), name); err != nil {
						t.Fatal(err)
					}
					f.addNode(t, name, list...)
					return
				}
				patch := map[string]any{"spec": map[string]any{"podCIDR": list[0], "podCIDRs": list}}
				if _, err := f.admin.PatchNode(t.Context(), name, "", patch); err != nil {
					t.Fatal(err)
				}
			},
			Publish: func(t *testing.T, name string, l subnet.Lease) {
				t.Helper()
				o, _ := node(t, name)
				f.annotate(t, name, annotations(t, l, o))
			},
			Remove: func(t *testing.T, name string) {
				t.Helper()
				if err := f.admin.DeleteNode(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			},
		},
	}
}

// logged keeps what is logged.
type logged struct {
	sync.Mutex
	entries []*logrus.Entry
}

func (l *logged) Levels() []logrus.Level { return logrus.AllLevels }

func (l *logged) Fire(e *logrus.Entry) error {
	l.Lock()
	defer l.Unlock()
	l.entries = append(l.entries, e)
	return nil
}

// logger returns a logger that writes to the test and whose lines are kept.
func logger(t *testing.T) (*logrus.Logger, *logged) {
	l, kept := logrus.New(), &logged{}
	l.SetOutput(t.Output())
	l.AddHook(kept)
	return l, kept
}

// lines returns the messages.
func (l *logged) lines() (lines []string) {
	l.Lock()
	defer l.Unlock()
	for _, e := range l.entries {
		lines = append(lines, e.Message)
	}
	return lines
}
