package k8slab

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/subnet"
)

// What the chart's value mesh.enabled adds: the daemons' flags, the volume with their tokens, and the right to have
// tokens reviewed.
const (
	meshFlags = `{"data":{"SELVAGED_MESH_ADDR":":8473",` +
		`"SELVAGED_MESH_TOKEN_FILE":"/var/run/secrets/selvage.io/mesh/token",` +
		`"SELVAGED_MESH_TOKEN_ACCOUNTS":"selvage/selvage,selvage/selvage-mesh"}}`
	meshVolume = `[{"op":"add","path":"/spec/template/spec/volumes/-","value":` +
		`{"name":"mesh-token","projected":{"defaultMode":256,"sources":[{"serviceAccountToken":` +
		`{"path":"token","audience":"selvage.io/mesh","expirationSeconds":3600}}]}}},` +
		`{"op":"add","path":"/spec/template/spec/containers/0/volumeMounts/-","value":{"name":"mesh-token",` +
		`"mountPath":"/var/run/secrets/selvage.io/mesh","readOnly":true}}]`
	meshRight = `[{"op":"add","path":"/rules/-","value":{"apiGroups":["authentication.k8s.io"],` +
		`"resources":["tokenreviews"],"verbs":["create"]}}]`
)

// meshName is the DNS name in the certificate of all nodes, see the values of the chart.
const meshName = "selvage-mesh"

// What the chart's value mesh.secret adds, which is for leases in etcd.
const (
	meshSecretFlags = `{"data":{"SELVAGED_MESH_ADDR":":8473","SELVAGED_MESH_CAFILE":"/etc/selvage/mesh/ca.crt",` +
		`"SELVAGED_MESH_CERTFILE":"/etc/selvage/mesh/tls.crt","SELVAGED_MESH_KEYFILE":"/etc/selvage/mesh/tls.key",` +
		`"SELVAGED_MESH_SERVER_NAME":"` + meshName + `"}}`
	meshSecretVolume = `[{"op":"add","path":"/spec/template/spec/volumes/-",` +
		`"value":{"name":"mesh","secret":{"secretName":"mesh"}}},` +
		`{"op":"add","path":"/spec/template/spec/containers/0/volumeMounts/-","value":{"name":"mesh","mountPath":"/etc/selvage/mesh","readOnly":true}}]`
)

// meshPage has the daemons ask each other with tokens, or with certificates if
// the leases are in etcd, and reads the page of the chart's Deployment through kubectl port-forward.
func meshPage(ctx context.Context, s *suite) ([]string, error) {
	file, how, patches := "everything-kubernetes.yaml", "a token", [][]string{
		{"patch", "clusterrole", "selvage", "--type=json", "-p", meshRight},
		{"patch", "configmap", "selvage-flags", "--type=merge", "-p", meshFlags},
		{"patch", "daemonset", "selvage", "--type=json", "-p", meshVolume},
	}
	if s.options.Store == subnet.StoreEtcd {
		var err error
		file, how = "mesh-etcd.yaml", "a certificate"
		if patches, err = s.meshCertificates(); err != nil {
			return nil, err
		}
	}
	for _, args := range patches {
		if _, err := s.kubectl(ctx, append([]string{"-n", "selvage"}, args...)...); err != nil {
			return nil, err
		}
	}
	if err := s.rollout(ctx, "selvage", "daemonset/selvage"); err != nil {
		return nil, err
	}
	page, err := s.renderedPage(file)
	if err != nil {
		return nil, err
	}
	if err := s.apply(ctx, page); err != nil {
		return nil, err
	}
	if err := s.rollout(ctx, "selvage", "deployment/selvage-mesh"); err != nil {
		return nil, err
	}
	var view mesh.Cluster
	err = s.eventually(ctx, "all nodes on the page", func() (err error) {
		if view.Counts, err = s.readPage(ctx); err != nil {
			return err
		}
		if want := (mesh.Counts{Nodes: len(s.nodes), Ready: len(s.nodes)}); view.Counts != want {
			return fmt.Errorf("%+v, want %+v", view.Counts, want)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var examined *mesh.Examination
	err = s.eventually(ctx, "what doctor finds on a node, on the page", func() (err error) {
		examined, err = s.readExamination(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = s.kubectl(ctx, "-n", "selvage", "delete", "deployment", "selvage-mesh", "--wait", timeout())
	return []string{fmt.Sprintf("%d nodes ready, as the page says through kubectl port-forward; "+
		"they were asked with %s; doctor on %s: %d checks passed, %d findings",
		view.Counts.Ready, how, s.nodes[0].Name(), examined.Passed, len(examined.Findings))}, err
}

// meshCertificates makes a certificate for all nodes, and returns what kubectl is to do with it.
func (s *suite) meshCertificates() ([][]string, error) {
	dir := filepath.Join(s.dir, "mesh")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := certs.New(dir, "ca")
	if err == nil {
		err = ca.Sign(filepath.Join(dir, "node"), func(c *x509.Certificate) { c.DNSNames = []string{meshName} })
	}
	if err != nil {
		return nil, err
	}
	return [][]string{
		{"create", "secret", "generic", "mesh", "--from-file=ca.crt=" + ca.File,
			"--from-file=tls.crt=" + filepath.Join(dir, "node.pem"),
			"--from-file=tls.key=" + filepath.Join(dir, "node.key")},
		{"patch", "configmap", "selvage-flags", "--type=merge", "-p", meshSecretFlags},
		{"patch", "daemonset", "selvage", "--type=json", "-p", meshSecretVolume},
	}, nil
}

// renderedPage returns the page's Deployment, and its ServiceAccount if it has one, as the chart renders them, apart
// from values that were chosen for the apiserver's check.
func (c *Cluster) renderedPage(name string) (string, error) {
	file := filepath.Join(c.options.Rendered, name)
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var page []string
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		if strings.Contains(doc, "\n  name: selvage-mesh\n") {
			page = append(page, doc)
		}
	}
	if len(page) == 0 {
		return "", fmt.Errorf("%s has nothing of the page", file)
	}
	return strings.Join(page, "\n---\n"), nil
}

// forwarded is what kubectl port-forward prints first.
var forwarded = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

// readPage reads the page's first view with nodes.
func (s *suite) readPage(ctx context.Context) (mesh.Counts, error) {
	var event struct {
		Header struct {
			Counts mesh.Counts
			Error  string
		}
		Nodes []struct{ Name, Key string }
	}
	err := s.readEvent(ctx, "/events", &event)
	if err == nil && event.Header.Error != "" {
		err = errors.New(event.Header.Error)
	}
	return event.Header.Counts, err
}

// readExamination reads what doctor has found on the first node, in the node's detail on the page.
func (s *suite) readExamination(ctx context.Context) (*mesh.Examination, error) {
	var view struct {
		Nodes []struct{ Name, Key string }
	}
	if err := s.readEvent(ctx, "/events", &view); err != nil {
		return nil, err
	}
	for _, n := range view.Nodes {
		if n.Name != s.nodes[0].Name() {
			continue
		}
		var told mesh.Told
		err := s.readEvent(ctx, "/detail?key="+url.QueryEscape(n.Key), &told)
		switch {
		case err != nil:
			return nil, err
		case told.Detail == nil:
			return nil, fmt.Errorf("no detail: %s %s", told.Code, told.Text)
		case told.Detail.Examination == nil:
			return nil, fmt.Errorf("no examination yet: %+v", told.Detail)
		case told.Detail.Examination.Error != "" || told.Detail.Examination.Passed == 0:
			return nil, fmt.Errorf("%+v", told.Detail.Examination)
		}
		return told.Detail.Examination, nil
	}
	return nil, fmt.Errorf("%s is not on the page", s.nodes[0].Name())
}

// readEvent forwards a port to the Deployment's pod, and reads the first event of a stream.
func (s *suite) readEvent(ctx context.Context, path string, into any) (err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.command("kubectl"), "-n", "selvage", "port-forward", "deployment/selvage-mesh", ":8474")
	cmd.Env = append(os.Environ(), s.Environment()...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	at := forwarded.FindStringSubmatch(line)
	if err != nil || at == nil {
		return errors.Join(err, fmt.Errorf("kubectl port-forward prints %q", line))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at[1]+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for events := bufio.NewReader(response.Body); ; {
		line, err := events.ReadString('\n')
		if err != nil {
			return err
		}
		data, isData := strings.CutPrefix(line, "data: ")
		if !isData {
			continue
		}
		return json.Unmarshal([]byte(data), into)
	}
}
