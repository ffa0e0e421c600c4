package k8slab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// here is where the control plane runs: where the calling process is.
func here(fn func() error) error { return fn() }

// underlay are the addresses of the lab's router, which is where the control plane runs.
func underlay() [2]string { return [2]string{subnet.IPv4: "172.31.0.1", subnet.IPv6: "fd00:31::1"} }

// startControlPlane starts what is no node's. Its kubeconfigs are in c.dir.
func (c *Cluster) startControlPlane(ctx context.Context) (err error) {
	var names []string
	for _, n := range c.lab.Nodes() {
		names = append(names, n.Name())
	}
	if c.tokens, err = writeTokens(c.file("tokens"), users(names)); err != nil {
		return err
	}
	if err := c.newKey(); err != nil {
		return err
	}
	// kube-apiserver wants an address of the family that services prefer.
	c.server = "https://" + net.JoinHostPort(underlay()[c.families()[0]], "6443")
	if err := c.startServer(ctx); err != nil {
		return err
	}
	if c.authority, err = os.ReadFile(c.authorityFile()); err != nil {
		return err
	}
	for file, user := range map[string]string{
		"admin": "admin", "controller-manager": "system:kube-controller-manager", "scheduler": "system:kube-scheduler",
	} {
		if err := c.writeKubeconfig(c.kubeconfig(file), user); err != nil {
			return err
		}
	}
	return c.startControllers()
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

func (c *Cluster) kubeconfig(name string) string { return c.file(name + ".kubeconfig") }

// authorityFile is the certificate that the API server makes for itself at its first start, and keeps.
func (c *Cluster) authorityFile() string { return filepath.Join(c.file("apiserver"), "apiserver.crt") }

// newKey makes the key that signs the tokens of service accounts from the next start of the API server on. Tokens that
// were signed with the keys before it stay valid.
func (c *Cluster) newKey() error {
	key := c.file(fmt.Sprintf("service-accounts-%d.key", len(c.keys)))
	c.keys = append([]string{key}, c.keys...)
	return writeKey(key)
}

// The commands of the control plane.
const (
	apiServer   = "kube-apiserver"
	controllers = "kube-controller-manager"
	scheduler   = "kube-scheduler"
)

// startServer starts the API server, and waits until it is ready.
func (c *Cluster) startServer(ctx context.Context) error {
	args := []string{
		"--etcd-servers=" + strings.Join(c.lab.Etcd().Endpoints(), ","), "--secure-port=6443",
		"--advertise-address=" + underlay()[c.families()[0]],
		"--cert-dir=" + filepath.Dir(c.authorityFile()), "--token-auth-file=" + c.file("tokens"),
		"--service-cluster-ip-range=" + joined(c.families(), of(serviceNetworks())), "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + c.keys[0],
	}
	for _, key := range c.keys {
		args = append(args, "--service-account-key-file="+key)
	}
	if err := c.start(apiServer, args...); err != nil {
		return err
	}
	return c.waitServes(ctx)
}

// startControllers starts the controller manager and the scheduler. The former's rights are those of its controllers.
func (c *Cluster) startControllers() error {
	args := []string{
		"--kubeconfig=" + c.kubeconfig("controller-manager"), "--leader-elect=false",
		"--use-service-account-credentials", "--service-account-private-key-file=" + c.keys[0],
		"--root-ca-file=" + c.authorityFile(),
	}
	return errors.Join(c.start(controllers, append(args, c.podCIDRs()...)...),
		c.start(scheduler, "--kubeconfig="+c.kubeconfig("scheduler"), "--leader-elect=false"))
}

// podCIDRs are the controller manager's flags for the Nodes' podCIDRs: with the leases in etcd, Nodes have none.
func (c *Cluster) podCIDRs() []string {
	if c.options.Store != subnet.StoreKubernetes {
		return []string{"--allocate-node-cidrs=false"}
	}
	return []string{"--allocate-node-cidrs", "--cluster-cidr=" + joined(c.families(), of(podNetworks()))}
}

// start starts a command of the control plane.
func (c *Cluster) start(name string, args ...string) error {
	p, err := lab.StartProgram(here, c.log(name), append([]string{c.command(name)}, args...))
	if err == nil {
		c.control[name] = p
	}
	return err
}

// stop ends commands of the control plane in an orderly way.
func (c *Cluster) stop(ctx context.Context, names ...string) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var errs []error
	for _, name := range names {
		errs = append(errs, c.control[name].Stop(ctx))
		delete(c.control, name)
	}
	return errors.Join(errs...)
}

// kill ends a command of the control plane as a crash would.
func (c *Cluster) kill(name string) {
	c.control[name].Kill()
	delete(c.control, name)
}

// waitServes waits until the apiserver says that it is ready.
func (c *Cluster) waitServes(ctx context.Context) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate is read once it is there
	}}
	return c.eventually(ctx, "the apiserver", func() error {
		if err := c.control[apiServer].Err(); err != nil {
			return errors.Join(errStop, err)
		}
		answer, err := client.Get(c.server + "/readyz")
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("/readyz: %s", answer.Status)
		}
		return errors.Join(err, answer.Body.Close())
	})
}
