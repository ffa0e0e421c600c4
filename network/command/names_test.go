package command

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// serveStatus answers as a daemon does, at the socket that it returns.
func serveStatus(t *testing.T, s status.Status, peers []status.Peer) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(what any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(what); err != nil {
				t.Error(err)
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc(status.PathStatus, answer(s))
	mux.HandleFunc(status.PathPeers, answer(peers))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

func TestTargets(t *testing.T) {
	prefix := netip.MustParsePrefix
	socket := serveStatus(t,
		status.Status{Node: "node1", Lease: &status.Lease{Subnets: []netip.Prefix{prefix("10.5.1.0/24")}}},
		[]status.Peer{
			{Node: "node2", Subnets: []netip.Prefix{prefix("10.5.2.0/24"), prefix("fd00:5:0:2::/64")}, State: status.Programmed},
			{Node: "evil", Subnets: []netip.Prefix{prefix("10.5.3.0/24")}, State: status.Quarantined},
		})
	client := status.NewClient(socket)
	for word, want := range map[string]string{
		"10.5.2.9": "10.5.2.9", "fd00::1": "fd00::1",
		"node1": "10.5.1.1: the gateway of node1's pods",
		"node2": "10.5.2.1: the gateway of node2's pods fd00:5:0:2::1: the gateway of node2's pods",
	} {
		if got, err := targets(t.Context(), client, word); err != nil || join(got) != want {
			t.Errorf("%s: %s, %v, want %s", word, join(got), err, want)
		}
	}
	for word, want := range map[string]string{
		"nod2": "did you mean", "evil": "no node with a lease", "fe80::1%eth0": "no IP address", "": "no IP address",
	} {
		if got, err := targets(t.Context(), client, word); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want an error with %q", word, got, err, want)
		}
	}
}

func TestPodsNamed(t *testing.T) {
	dir := t.TempDir()
	const id = "0123456789abcdef0123456789abcdef"
	for name, content := range map[string]string{
		"cbr0-web-eth0": `{"kind":"cniCacheV1","containerId":"web","result":{"cniVersion":"1.0.0","ips":[{"address":"10.5.1.2/24"}]}}`,
		"cbr0-" + id + "-eth0": `{"kind":"cniCacheV1","containerId":"` + id + `","cniArgs":[["K8S_POD_NAMESPACE","prod"],["K8S_POD_NAME","db-0"]],
			"result":{"cniVersion":"1.0.0","ips":[{"address":"10.5.1.3/24"},{"address":"fd00:5:0:1::3/64"}]}}`,
		"cbr0-" + id + "-net1": `{"kind":"cniCacheV1","containerId":"` + id + `","cniArgs":[["K8S_POD_NAMESPACE","prod"],["K8S_POD_NAME","db-0"]],
			"result":{"cniVersion":"1.0.0","ips":[{"address":"10.6.1.3/24"}]}}`,
		"cbr0-other-eth0": `{"kind":"cniCacheV1","containerId":"other","cniArgs":[["K8S_POD_NAMESPACE","test"],["K8S_POD_NAME","db-0"]],
			"result":{"cniVersion":"1.0.0","ips":[{"address":"10.5.1.4/24"}]}}`,
		"empty": "", "torn": `{"containerId":"web"`, "foreign": `[1]`,
		"old": `{"kind":"cniCacheV1","containerId":"old","result":{"cniVersion":"0.2.0","ip4":{"ip":"10.5.1.9/24"}}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for word, want := range map[string]string{
		"web": "web [10.5.1.2]", id: "prod/db-0 [10.5.1.3 fd00:5:0:1::3 10.6.1.3]", id[:12]: "prod/db-0 [10.5.1.3 fd00:5:0:1::3 10.6.1.3]",
		"prod/db-0": "prod/db-0 [10.5.1.3 fd00:5:0:1::3 10.6.1.3]", "db-0": "prod/db-0 [10.5.1.3 fd00:5:0:1::3 10.6.1.3] test/db-0 [10.5.1.4]",
		"we": "", "": "", id[:4]: "",
	} {
		pods, err := podsNamed(dir, word)
		var got []string
		for _, p := range pods {
			got = append(got, p.String()+" ["+join(p.addresses)+"]")
		}
		if err != nil || join(got) != want {
			t.Errorf("%q: %s, %v, want %s", word, join(got), err, want)
		}
	}
}
