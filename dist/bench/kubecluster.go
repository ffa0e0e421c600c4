package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/kubeserver"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

const (
	// heartbeats is how many Nodes a second a kubelet writes to among 5,000: each every five minutes.
	heartbeats = 17
	// kubeWriters is how many write at the same time.
	kubeWriters = 8
)

// kubeCluster is a real kube-apiserver and Nodes that do not exist, whose leases are those of [absent].
type kubeCluster struct {
	server *kubeserver.Server
	admin  kubetest.Admin
	pool   *x509.CertPool
	audit  string // the file to which the server writes the requests of daemons
	nodes  int
	lists  []float64 // ms, of bare lists
}

// auditPolicy has a line written for each request of a daemon's, when it is received.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"omitStages": ["ResponseStarted", "ResponseComplete", "Panic"],
"rules": [{"level": "Metadata", "userGroups": ["` + daemonGroup + `"]}, {"level": "None"}]}`

// daemonGroup is a group that all daemons are in.
const daemonGroup = "daemons"

// newKubeCluster starts a server and makes the Nodes. users are those whom daemons are to it.
func (b *bench) newKubeCluster(ctx context.Context, nodes int, users ...string) (k *kubeCluster, err error) {
	k = &kubeCluster{audit: filepath.Join(b.dir, "kube", "audit.log"), nodes: nodes, pool: x509.NewCertPool()}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	dir, policy := filepath.Dir(k.audit), filepath.Join(b.dir, "kube", "audit-policy.json")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(policy, []byte(auditPolicy), 0o644)); err != nil {
		return k, err
	}
	groups := map[string][]string{}
	for _, u := range users {
		// The second is what flow control knows the service accounts of DaemonSets by.
		groups[u] = []string{daemonGroup, "system:serviceaccounts"}
	}
	k.server, err = kubeserver.Start(ctx, kubeserver.Options{
		Binary: b.program("k8s/kube-apiserver"), Etcd: b.program("etcd"), Dir: dir, Host: router, Users: groups,
		Flags: []string{"--audit-policy-file=" + policy, "--audit-log-path=" + k.audit},
	})
	if err != nil {
		return k, err
	}
	pem, err := os.ReadFile(k.server.CAFile())
	if err != nil {
		return k, err
	}
	k.pool.AppendCertsFromPEM(pem)
	k.admin = kubetest.Admin{URL: k.server.URL(), Token: k.server.Token(kubeserver.Admin), Client: k.client()}
	if err := k.grant(ctx); err != nil {
		return k, err
	}
	return k, k.fabricate(ctx, 0, nodes)
}

func (k *kubeCluster) close() {
	if k.server != nil {
		k.server.Kill()
	}
}

// client is one with connections of its own.
func (k *kubeCluster) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: k.pool}, MaxIdleConnsPerHost: kubeWriters,
	}}
}

// grant gives the daemons the rights that selvage and flannel need.
func (k *kubeCluster) grant(ctx context.Context) error {
	const group = "rbac.authorization.k8s.io"
	rule := func(resource string, verbs ...string) object {
		return object{"apiGroups": []string{""}, "resources": []string{resource}, "verbs": verbs}
	}
	_, err := k.admin.Create(ctx, "/apis/"+group+"/v1/clusterroles", object{
		"apiVersion": group + "/v1", "kind": "ClusterRole", "metadata": object{"name": daemonGroup},
		"rules": []object{rule("nodes", "get", "list", "watch"), rule("nodes/status", "patch")},
	})
	if err != nil {
		return err
	}
	_, err = k.admin.Create(ctx, "/apis/"+group+"/v1/clusterrolebindings", object{
		"apiVersion": group + "/v1", "kind": "ClusterRoleBinding", "metadata": object{"name": daemonGroup},
		"roleRef":  object{"apiGroup": group, "kind": "ClusterRole", "name": daemonGroup},
		"subjects": []object{{"apiGroup": group, "kind": "Group", "name": daemonGroup}},
	})
	return err
}

// register makes the Node with a lease, as its kubelet does, and returns its UID. It is no peer yet.
func (k *kubeCluster) register(ctx context.Context, i int) (uid string, err error) {
	e := absent(i, ipv4(), 0).Endpoints[subnet.IPv4]
	o, err := k.admin.Create(ctx, "/api/v1/nodes", nodeObject(nodeName(i), e.Subnet.String(), e.PublicIP.String()))
	return o.Metadata.UID, err
}

// annotate makes it a peer, as its daemon does, and returns when the server's answer came.
func (k *kubeCluster) annotate(ctx context.Context, i int, uid string) (answered time.Time, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { answered = time.Now() }})
	_, err = k.admin.Annotate(ctx, nodeName(i), lab.NodeAnnotations(absent(i, ipv4(), 0), uid))
	return answered, err
}

// fabricate makes Nodes from one number up to another.
func (k *kubeCluster) fabricate(ctx context.Context, from, to int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var writers sync.WaitGroup
	for range kubeWriters {
		writers.Go(func() {
			for i := range next {
				uid, err := k.register(ctx, i)
				if err == nil {
					_, err = k.annotate(ctx, i, uid)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := from; i < to && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	writers.Wait()
	return context.Cause(ctx)
}

// remove deletes Nodes from one number up to another.
func (k *kubeCluster) remove(ctx context.Context, from, to int) error {
	for i := from; i < to; i++ {
		if err := k.admin.DeleteNode(ctx, nodeName(i)); err != nil {
			return err
		}
	}
	return nil
}

// beats is what came of the writes of kubelets.
type beats struct {
	written, failed int
	last            error // of those that failed
}

// beat writes what kubelets write until ctx ends. The Nodes take turns. A write that fails, because the server is
// overloaded, is not repeated.
func (k *kubeCluster) beat(ctx context.Context) (b beats) {
	var mu sync.Mutex
	var writers sync.WaitGroup
	for w := range kubeWriters {
		writers.Go(func() {
			tick := time.NewTicker(kubeWriters * time.Second / heartbeats)
			defer tick.Stop()
			for i := w; ; i += kubeWriters {
				select {
				case <-ctx.Done():
					return
				case now := <-tick.C:
					_, err := k.admin.PatchNode(ctx, nodeName(i%k.nodes), "status", heartbeat(now))
					if ctx.Err() != nil {
						return
					}
					mu.Lock()
					if b.written++; err != nil {
						b.written, b.failed, b.last = b.written-1, b.failed+1, err
					}
					mu.Unlock()
				}
			}
		})
	}
	writers.Wait()
	return b
}

// kubeUser is the cluster as a daemon uses it. It implements [store].
type kubeUser struct {
	*kubeCluster
	user string
	own  string // the name of the node's Node
	made int
}

// join implements [store].
func (k *kubeUser) join(ctx context.Context, n *node) (args, environment []string, err error) {
	k.made++
	k.own = fmt.Sprintf("%s-%d", k.user, k.made)
	cidr, address := fmt.Sprintf("10.6.%d.0/24", k.made%256), "192.0.2.1"
	if _, err := k.admin.Create(ctx, "/api/v1/nodes", nodeObject(k.own, cidr, address)); err != nil {
		return nil, nil, err
	}
	const kubeconfig, conf = "/run/kubeconfig", "/run/net-conf.json"
	ca, err := os.ReadFile(k.server.CAFile())
	if err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"contexts": []object{{"name": "here", "context": object{"cluster": "this", "user": "me"}}},
		"clusters": []object{{
			"name": "this", "cluster": object{"server": k.server.URL(), "certificate-authority-data": ca},
		}},
		"users": []object{{"name": "me", "user": object{"token": k.server.Token(k.user)}}},
	})
	if err != nil {
		return nil, nil, err
	}
	err = n.host.Do(func() error {
		return errors.Join(os.WriteFile(kubeconfig, text, 0o600), os.WriteFile(conf, []byte(config(ipv4())), 0o644))
	})
	args = []string{"--kube-subnet-mgr", "--kubeconfig-file=" + kubeconfig, "--net-config-path=" + conf}
	return args, []string{"NODE_NAME=" + k.own}, err
}

// leave implements [store].
func (k *kubeUser) leave(ctx context.Context) error { return k.admin.DeleteNode(ctx, k.own) }

// entries implements [store].
func (k *kubeUser) entries() map[entry]network.MAC { return entries(0, k.nodes, ipv4(), 0) }

// requests implements [store], by the server's audit log.
func (k *kubeUser) requests(context.Context) (map[string]float64, error) {
	log, err := os.Open(k.audit)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return audited(log, k.user)
}

// audited counts a user's requests in an audit log, by verb.
func audited(log io.Reader, user string) (map[string]float64, error) {
	all := map[string]float64{}
	decoder := json.NewDecoder(log)
	for {
		var e struct {
			Verb string
			User struct{ Username string }
		}
		switch err := decoder.Decode(&e); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // a line that is being written
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("audit log: %w", err)
		}
		if e.User.Username == user {
			all[e.Verb]++
		}
	}
}
