package main

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/selvage-net/selvage/"

// layer is a set of packages with the same rules.
type layer struct {
	name     string
	packages []string // below the module's root; "." is the root
	below    []string // the layers whose packages they may import; its own name: each other's too
	pure     bool     // they decide, and do no I/O: they import no package of notPure
	external []string // the modules, or packages, of others that they may import
	never    []string // what they must not depend on, not even through others,
}

// notPure are the packages of the standard library that do I/O. net/netip has only the types of addresses.
func notPure() []string {
	return []string{"bufio", "io/fs", "io/ioutil", "log", "log/slog", "net", "net/http", "os", "os/exec", "os/signal", "syscall"}
}

// layers is the rule that imports point one way: each product package is in exactly one layer, and imports only from the
// layers that are named below it. A new package has to be placed here.
func layers() []layer {
	const (
		unix     = "golang.org/x/sys/unix"
		netlink  = "github.com/vishvananda/netlink"
		nftables = "github.com/google/nftables"
		renameio = "github.com/google/renameio/v2"
		logrus   = "github.com/sirupsen/logrus"
	)
	return []layer{
		{name: "backoff", packages: []string{"backoff"}, pure: true},
		{name: "domain", packages: []string{"subnet", "network"}, below: []string{"backoff"}, pure: true,
			external: []string{"github.com/gaissmai/bart"}},
		{name: "backend", packages: []string{"backend"}, below: []string{"domain"}, pure: true},
		{name: "backends", packages: []string{"backend/hostgw", "backend/vxlan", "backend/wireguard"},
			below: []string{"domain", "backend"}, pure: true},

		{name: "reach", packages: []string{"network/reach"}, below: []string{"domain"}, pure: true},
		{name: "policies", packages: []string{"network/policy"}, below: []string{"backoff", "domain"}, pure: true},
		{name: "policies in files", packages: []string{"network/policy/manifest"}, below: []string{"domain", "policies"},
			external: []string{"sigs.k8s.io/yaml"}, pure: true},

		{name: "connections", packages: []string{"network/policy/connection"}, below: []string{"domain", "policies"}, pure: true},

		// The edges: files, stores, the kernel. A store knows nothing of the kernel, nor the kernel of stores.
		{name: "file replacement", packages: []string{"subnet/wholefile"}, external: []string{renameio}},
		{name: "files", packages: []string{"network/filewatch", "subnet/attachment", "subnet/cache",
			"subnet/subnetfile"}, below: []string{"backoff", "domain", "file replacement"},
			external: []string{renameio, "github.com/fsnotify/fsnotify"}},
		{name: "stores' parts", packages: []string{"subnet/outage"}, below: []string{"backoff"}, external: []string{logrus}},
		{name: "stores", packages: []string{"subnet/etcd"}, below: []string{"backoff", "domain", "stores' parts"},
			external: []string{"go.etcd.io/etcd", "go.uber.org/zap", "google.golang.org/grpc", logrus}, never: []string{netlink}},
		{name: "API server", packages: []string{"subnet/kube/apiserver"}, below: []string{"backoff", "domain", "stores' parts"},
			external: []string{"google.golang.org/protobuf/encoding/protowire", "sigs.k8s.io/yaml", logrus},
			never:    []string{netlink, "go.etcd.io"}},
		{name: "policies' feed", packages: []string{"network/feed"},
			below:    []string{"backoff", "domain", "policies", "policies in files", "files", "stores' parts", "API server"},
			external: []string{logrus}, never: []string{netlink, "go.etcd.io"}},
		{name: "Kubernetes store", packages: []string{"subnet/kube"},
			below: []string{"backoff", "domain", "files", "stores' parts", "API server"}, external: []string{logrus},
			never: []string{netlink, "go.etcd.io"}},
		{name: "errno", packages: []string{"network/errno"}, external: []string{unix}},
		{name: "nftables", packages: []string{"network/nft"}, below: []string{"domain", "errno"},
			external: []string{nftables, "github.com/mdlayher/netlink", netlink, unix}},
		{name: "netfilter's other parts", packages: []string{"network/conntrack", "network/nflog"}, below: []string{"errno"},
			external: []string{"github.com/mdlayher/netlink", unix}},
		{name: "packet filter",
			packages: []string{"network/filter", "network/filter/blocking", "network/filter/engines", "network/filter/xtables",
				"network/vtepfilter"},
			below:    []string{"domain", "errno", "nftables", "packet filter"},
			external: []string{nftables, "github.com/coreos/go-iptables/iptables", unix}},
		{name: "policy rules", packages: []string{"network/enforce/ruleset"},
			below: []string{"domain", "policies", "nftables"}, external: []string{nftables, unix}},
		{name: "recent values", packages: []string{"network/recent"}, pure: true},
		{name: "enforcement", packages: []string{"network/enforce"},
			below: []string{"backoff", "domain", "policies", "nftables", "netfilter's other parts", "policy rules",
				"recent values"}, external: []string{nftables, logrus, unix}},
		// bpf2go's output needs the library that loads it.
		{name: "fast path", packages: []string{"network/fastpath"}, external: []string{"github.com/cilium/ebpf", unix},
			never: []string{netlink, "go.etcd.io"}},
		{name: "user-space WireGuard", packages: []string{"network/userspace"}, below: []string{"backoff"},
			external: []string{unix}},
		{name: "user-space WireGuard's program", packages: []string{"network/userspace/program"},
			below: []string{"user-space WireGuard"}, external: []string{"golang.zx2c4.com/wireguard", unix}},
		{name: "kernel", packages: []string{"network/kernel", "network/uplink"},
			below:    []string{"domain", "errno", "nftables", "packet filter", "fast path", "user-space WireGuard"},
			external: []string{netlink, "github.com/safchain/ethtool", "golang.zx2c4.com/wireguard/wgctrl", unix},
			never:    []string{"go.etcd.io"}},

		{name: "echo", packages: []string{"network/reach/echo"}, below: []string{"domain", "errno"}, external: []string{unix}},

		{name: "own side", packages: []string{"network/pods"}, below: []string{"domain", "files"}, pure: true},

		// Who asks a daemon depends on no more than the status types.
		{name: "status", packages: []string{"network/node/status"}},
		{name: "server's log", packages: []string{"network/serverlog"}, below: []string{"backoff"}, external: []string{logrus}},
		{name: "mesh", packages: []string{"network/mesh"}, below: []string{"status"}, pure: true},
		{name: "mesh exchange", packages: []string{"network/mesh/exchange"},
			below: []string{"backoff", "errno", "file replacement", "status", "mesh", "server's log"}, external: []string{logrus},
			never: []string{netlink, "go.etcd.io"}},
		{name: "mesh page", packages: []string{"network/mesh/page"}, below: []string{"mesh"},
			never: []string{netlink, "go.etcd.io"}},
		{name: "policies' view", packages: []string{"network/node/policyview"},
			below: []string{"policies", "connections", "status"}, pure: true},
		{name: "api", packages: []string{"network/node/api"}, below: []string{"backoff", "domain", "errno", "files", "own side", "server's log", "status"},
			external: []string{"github.com/prometheus/client_golang", logrus}},
		{name: "node's parts", packages: []string{"network/node/explain", "network/node/paths", "network/node/rules"},
			below: []string{"backoff", "domain", "reach", "echo", "kernel", "packet filter", "status"}, external: []string{logrus, unix}},
		{name: "node", packages: []string{"network/node"},
			below: []string{"backoff", "domain", "errno", "backend", "backends", "files", "file replacement", "nftables", "packet filter",
				"fast path", "kernel", "user-space WireGuard",
				"status", "api", "mesh exchange", "own side", "node's parts", "reach", "echo", "enforcement", "policies' feed",
				"policies", "connections", "policies' view"},
			external: []string{logrus, netlink, unix}, never: []string{"go.etcd.io"}},
		{name: "kubectl", packages: []string{"network/kubectl"}},
		{name: "connectivity's agent", packages: []string{"network/connectivity/agent"}, external: []string{unix}},
		{name: "connectivity", packages: []string{"network/connectivity"},
			below: []string{"domain", "status", "kubectl", "connectivity's agent"}},
		{name: "doctor", packages: []string{"network/doctor", "network/doctor/probe"},
			below:    []string{"domain", "files", "nftables", "packet filter", "kernel", "status", "own side", "doctor"},
			external: []string{netlink, unix}, never: []string{"go.etcd.io", module + "network/node/api"}},

		// The plugin is started once for each container: it stays small.
		{name: "plugin", packages: []string{"cniplugin"}, below: []string{"domain", "files", "file replacement"},
			external: []string{"github.com/containernetworking/cni", unix},
			never:    []string{"go.etcd.io", logrus, netlink, "net/http", module + "network", module + "backend"}},
		{name: "plugin's installation", packages: []string{"cniplugin/install"}, below: []string{"domain", "files"},
			external: []string{renameio}},
		{name: "plugin's program", packages: []string{"cniplugin/selvage"}, below: []string{"plugin"}},

		{name: "commands", packages: []string{"network/command"},
			below: []string{"domain", "files", "file replacement", "stores", "Kubernetes store", "API server",
				"packet filter", "kernel", "status", "node", "doctor", "mesh", "mesh exchange", "mesh page", "errno", "plugin's installation",
				"policies", "policies in files", "connections", "policies' view", "enforcement", "user-space WireGuard",
				"kubectl", "connectivity", "connectivity's agent"},
			external: []string{logrus, "github.com/spf13/cobra", "github.com/spf13/pflag", unix,
				"google.golang.org/grpc/grpclog"}},
		{name: "daemon", packages: []string{"."},
			below: []string{"domain", "backend", "backends", "stores", "Kubernetes store", "API server", "packet filter", "kernel",
				"nftables", "status", "api", "mesh exchange", "node", "commands", "enforcement", "policies' feed",
				"user-space WireGuard", "user-space WireGuard's program"},
			external: []string{logrus, "github.com/coreos/go-systemd/v22/daemon", "github.com/spf13/cobra", "github.com/spf13/pflag", unix,
				"google.golang.org/grpc/grpclog"}},

		// What tests of stores, backends, rulesets and policies share. No product package imports them.
		{name: "test helpers", packages: []string{"network/nft/nfttest", "network/policy/policytest",
			"subnet/kube/kubetest", "subnet/storetest", "subnet/storetest/memstore", "subnet/subnettest", "subnet/testdata/hostile"},
			below: []string{"domain", "backend", "backends", "policies", "test helpers"},
			external: []string{nftables, "github.com/mdlayher/netlink", unix,
				"google.golang.org/protobuf/encoding/protowire"}},
	}
}

// listed is what go list says of a package.
type listed struct {
	ImportPath    string
	Dir           string
	Standard      bool
	GoFiles       []string
	Imports, Deps []string
}

func listPackages(t *testing.T) (packages []listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Standard,GoFiles,Imports,Deps", "./...")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// product returns a package's path below the module's root, if it is one of the product's.
func product(path string) (name string, ok bool) {
	if path+"/" == module {
		return ".", true
	}
	name, ok = strings.CutPrefix(path, module)
	return name, ok && !strings.HasPrefix(name, "dist/")
}

// within reports whether a package is one of these or below one.
func within(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

// TestImports: imports point one way, as the table of layers has it.
func TestImports(t *testing.T) {
	byName, layerOf := map[string]layer{}, map[string]layer{}
	for _, l := range layers() {
		byName[l.name] = l
		for _, p := range l.packages {
			if other, twice := layerOf[p]; twice {
				t.Errorf("%s is in layer %q and in layer %q, want one", p, other.name, l.name)
			}
			layerOf[p] = l
		}
		for _, b := range l.below {
			if _, known := byName[b]; !known {
				t.Errorf("layer %q is above %q, which is not listed before it", l.name, b)
			}
		}
	}
	packages := listPackages(t)
	standard := map[string]bool{}
	for _, p := range packages {
		standard[p.ImportPath] = p.Standard
	}
	for _, p := range packages {
		name, ok := product(p.ImportPath)
		if !ok {
			continue
		}
		l, placed := layerOf[name]
		if !placed {
			t.Errorf("%s is in no layer: add it to one in layers()", name)
			continue
		}
		for _, imported := range p.Imports {
			other, ours := product(imported)
			switch {
			case strings.HasPrefix(imported, module+"dist/"):
				t.Errorf("%s imports %s, which is for tests", name, imported)
			case ours && !slices.Contains(l.below, layerOf[other].name):
				t.Errorf("%s (%s) imports %s (%s), which is not below it", name, l.name, other, layerOf[other].name)
			case !ours && standard[imported] && l.pure && slices.Contains(notPure(), imported):
				t.Errorf("%s imports %s, and is to do no I/O", name, imported)
			case !ours && !standard[imported] && !within(imported, l.external):
				t.Errorf("%s (%s) imports %s, which is not among what this layer may use", name, l.name, imported)
			}
		}
		for _, dep := range p.Deps {
			if within(dep, l.never) {
				t.Errorf("%s (%s) depends on %s, directly or through others", name, l.name, dep)
			}
		}
	}
	for name, l := range layerOf {
		if !slices.ContainsFunc(packages, func(p listed) bool { n, ok := product(p.ImportPath); return ok && n == name }) {
			t.Errorf("%s of layer %q does not exist", name, l.name)
		}
	}
	nodeImports(t, packages, byName["backends"].packages)
}

// nodeImports: of the node's files only the registry imports a backend. None imports a store, see layers.
func nodeImports(t *testing.T, packages []listed, registered []string) {
	t.Helper()
	i := slices.IndexFunc(packages, func(p listed) bool { return p.ImportPath == module+"network/node" })
	for _, file := range packages[i].GoFiles {
		if file == "registry.go" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(packages[i].Dir, file), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if name, ok := product(imported); ok && slices.Contains(registered, name) {
				t.Errorf("network/node/%s imports %s: only registry.go may", file, name)
			}
		}
	}
}
