package k8slab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
)

// token is the token of the daemon of a node, as its kubelet has written it.
func (s *suite) token(ctx context.Context, n *Node) (string, error) {
	pods, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		if p.Node == n {
			const file = "volumes/kubernetes.io~projected/service-account/token"
			data, err := n.ReadFile(filepath.Join("/var/lib/kubelet/pods", p.UID, file))
			return string(bytes.TrimSpace(data)), err
		}
	}
	return "", fmt.Errorf("no daemon runs on %s", n.Name())
}

// request sends the API server a request with a token. kubectl would read what it patches first, which a daemon may
// not.
func (c *Cluster) request(ctx context.Context, token, method, path, patch string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.authority)
	client := &http.Client{Timeout: deadline, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, strings.NewReader(patch))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, body)
	}
	return err
}

// restricted uses a daemon's token for what the daemon may do, and for what the admission policy denies to it.
func restricted(ctx context.Context, s *suite) ([]string, error) {
	n, other := s.nodes[0], s.nodes[1]
	token, err := s.token(ctx, n)
	if err != nil {
		return nil, err
	}
	patch := func(node, patch string) error {
		return s.request(ctx, token, http.MethodPatch, "/api/v1/nodes/"+node+"/status", patch)
	}
	const (
		own     = `{"metadata":{"annotations":{"selvage.io/test":"x"}}}`
		none    = `{"metadata":{"annotations":{"selvage.io/test":null}}}`
		foreign = `{"metadata":{"labels":{"test":"x"}}}`
	)
	if err := errors.Join(patch(n.Name(), own), patch(n.Name(), none)); err != nil {
		return nil, fmt.Errorf("a daemon's token on its own Node: %w", err)
	}
	for _, denied := range []struct{ node, patch string }{{other.Name(), own}, {n.Name(), foreign}} {
		err := patch(denied.node, denied.patch)
		if err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'selvage'") {
			return nil, fmt.Errorf("the token of the daemon of %s: %s of Node %s: %w, want the policy to deny it",
				n.Name(), denied.patch, denied.node, err)
		}
	}
	return []string{"of its own Node alone the annotations: the admission policy denies another Node, and a label"}, nil
}

// tokensRotated replaces the key that tokens of service accounts are signed with. The kubelets replace the daemons'
// tokens, and then the API server accepts none that was signed with the old key.
func tokensRotated(ctx context.Context, s *suite) ([]string, error) {
	before := map[*Node]string{}
	for _, n := range s.nodes {
		var err error
		if before[n], err = s.token(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(s.newKey(), s.restartControl(ctx)); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		// A kubelet that starts requests new tokens for the volumes of its pods.
		if err := n.restartKubelet(ctx); err != nil {
			return nil, err
		}
		if err := s.heard(ctx, n); err != nil {
			return nil, err
		}
		err := s.eventually(ctx, "another token of the daemon of "+n.Name(), func() error {
			now, err := s.token(ctx, n)
			if err == nil && now == before[n] {
				err = errors.New("it is the same")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	s.keys = s.keys[:1]
	if err := s.restartControl(ctx); err != nil {
		return nil, err
	}
	err := s.request(ctx, before[s.nodes[0]], http.MethodGet, "/api/v1/nodes", "")
	if err == nil || !strings.Contains(err.Error(), http.StatusText(http.StatusUnauthorized)) {
		return nil, fmt.Errorf("a token that was signed with the old key: %w, want it to be refused", err)
	}
	seen, err := s.followed(ctx)
	return []string{"the daemons have tokens of another key, and the API server refuses the old ones", seen}, err
}

// restartControl restarts the control plane. An API server that ends in an orderly way takes a minute for that, and
// removes itself from its Service; a kube-proxy may need another minute to notice that it is back.
func (s *suite) restartControl(ctx context.Context) error {
	if err := s.stop(ctx, controllers, scheduler); err != nil {
		return err
	}
	s.kill(apiServer)
	return errors.Join(s.startServer(ctx), s.startControllers())
}
