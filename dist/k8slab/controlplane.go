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
	tokens, key, certificates := filepath.Join(c.dir, "tokens"), filepath.Join(c.dir, "service-accounts.key"), filepath.Join(c.dir, "apiserver")
	if c.tokens, err = writeTokens(tokens, users(names)); err != nil {
		return err
	}
	if err := writeKey(key); err != nil {
		return err
	}
	address := underlay()[c.families()[0]] // kube-apiserver wants it to be of the family that services prefer
	c.server = "https://" + net.JoinHostPort(address, "6443")
	apiserver, err := c.start("kube-apiserver",
		"--etcd-servers="+strings.Join(c.lab.Etcd().Endpoints(), ","), "--advertise-address="+address, "--secure-port=6443",
		"--cert-dir="+certificates, "--token-auth-file="+tokens, // it makes itself a certificate
		"--service-cluster-ip-range="+joined(c.families(), of(serviceNetworks())), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged", "--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key)
	if err != nil {
		return err
	}
	if err := c.waitServes(ctx, apiserver); err != nil {
		return err
	}
	authority := filepath.Join(certificates, "apiserver.crt")
	if c.authority, err = os.ReadFile(authority); err != nil {
		return err
	}
	for file, user := range map[string]string{
		"admin": "admin", "controller-manager": "system:kube-controller-manager", "scheduler": "system:kube-scheduler",
	} {
		if err := c.writeKubeconfig(c.kubeconfig(file), user); err != nil {
			return err
		}
	}
	// Pods get their addresses from selvage's leases, so nodes get none from Kubernetes. The rights are those of its controllers.
	_, err = c.start("kube-controller-manager", "--kubeconfig="+c.kubeconfig("controller-manager"), "--leader-elect=false",
		"--allocate-node-cidrs=false", "--use-service-account-credentials", "--service-account-private-key-file="+key, "--root-ca-file="+authority)
	if err != nil {
		return err
	}
	_, err = c.start("kube-scheduler", "--kubeconfig="+c.kubeconfig("scheduler"), "--leader-elect=false")
	return err
}

func (c *Cluster) kubeconfig(name string) string { return filepath.Join(c.dir, name+".kubeconfig") }

// start starts a command of the control plane.
func (c *Cluster) start(name string, args ...string) (*lab.Program, error) {
	p, err := lab.StartProgram(here, c.log(name), append([]string{c.command(name)}, args...))
	if err == nil {
		c.control = append(c.control, p)
	}
	return p, err
}

// waitServes waits until the apiserver says that it is ready.
func (c *Cluster) waitServes(ctx context.Context, apiserver *lab.Program) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate is read once it is there
	}}
	return c.eventually(ctx, "the apiserver", func() error {
		if err := apiserver.Err(); err != nil {
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
