package e2e

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports holds the direction of imports: what decides knows nothing of what it is decided for.
func TestImports(t *testing.T) {
	const module = "github.com/selvage-net/selvage/"
	rules := []struct {
		pkg    string
		never  []string // not even through others
		reason string
	}{
		{"subnet", []string{module + "network", "go.etcd.io/", "github.com/vishvananda/", "github.com/coreos/", "github.com/sirupsen/"},
			"the lease domain is pure"},
		{"network", []string{module + "subnet", "go.etcd.io/", "github.com/vishvananda/", "github.com/coreos/", "github.com/sirupsen/"},
			"what the kernel should hold is decided without it"},
		{"backend/hostgw", []string{"go.etcd.io/", "github.com/vishvananda/", "github.com/coreos/", "github.com/sirupsen/"}, "a backend is pure"},
		{"network/node/status", []string{module + "network/kernel", module + "subnet", "go.etcd.io/", "github.com/vishvananda/"},
			"who asks the daemon needs nothing of it"},
		{"backend/vxlan", []string{"go.etcd.io/", "github.com/vishvananda/", "github.com/coreos/", "github.com/sirupsen/"},
			"a backend is pure"},
		{"network/kernel", []string{module + "subnet", "go.etcd.io/"}, "the kernel knows nothing of leases"},
		{"subnet/etcd", []string{module + "network", "github.com/vishvananda/"}, "the store knows nothing of the kernel"},
		{"cniplugin", []string{module + "network", module + "backend", "go.etcd.io/", "github.com/vishvananda/netlink", "github.com/sirupsen/", "net/http"},
			"the plugin stays small"},
	}
	for _, r := range rules {
		out, err := exec.Command("go", "list", "-deps", module+r.pkg).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", r.pkg, err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			if slices.ContainsFunc(r.never, func(n string) bool { return dep == n || strings.HasPrefix(dep, strings.TrimSuffix(n, "/")+"/") }) {
				t.Errorf("%s imports %s, directly or through others: %s", r.pkg, dep, r.reason)
			}
		}
	}
}
