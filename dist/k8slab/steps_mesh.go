package k8slab

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/network/mesh"
)

// meshName is the DNS name in the certificate of all nodes, see the values of the chart.
const meshName = "selvage-mesh"

// meshFlags are the daemons' flags with the chart's value mesh.secret, and meshVolume what it adds to the DaemonSet.
const (
	meshFlags = `{"data":{"SELVAGED_MESH_ADDR":":8473","SELVAGED_MESH_CAFILE":"/etc/selvage/mesh/ca.crt",` +
		`"SELVAGED_MESH_CERTFILE":"/etc/selvage/mesh/tls.crt","SELVAGED_MESH_KEYFILE":"/etc/selvage/mesh/tls.key",` +
		`"SELVAGED_MESH_SERVER_NAME":"` + meshName + `"}}`
	meshVolume = `[{"op":"add","path":"/spec/template/spec/volumes/-","value":{"name":"mesh","secret":{"secretName":"mesh"}}},` +
		`{"op":"add","path":"/spec/template/spec/containers/0/volumeMounts/-","value":{"name":"mesh","mountPath":"/etc/selvage/mesh","readOnly":true}}]`
)

// meshPage has the daemons ask each other, and reads the page of the chart's Deployment through kubectl port-forward.
func meshPage(ctx context.Context, s *suite) ([]string, error) {
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
	for _, args := range [][]string{
		{"create", "secret", "generic", "mesh", "--from-file=ca.crt=" + ca.File, "--from-file=tls.crt=" + filepath.Join(dir, "node.pem"),
			"--from-file=tls.key=" + filepath.Join(dir, "node.key")},
		{"patch", "configmap", "selvage-flags", "--type=merge", "-p", meshFlags},
		{"patch", "daemonset", "selvage", "--type=json", "-p", meshVolume},
	} {
		if _, err := s.kubectl(ctx, append([]string{"-n", "selvage"}, args...)...); err != nil {
			return nil, err
		}
	}
	if err := s.rollout(ctx, "selvage", "daemonset/selvage"); err != nil {
		return nil, err
	}
	deployment, err := s.renderedDeployment()
	if err != nil {
		return nil, err
	}
	if err := s.apply(ctx, deployment); err != nil {
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
	_, err = s.kubectl(ctx, "-n", "selvage", "delete", "deployment", "selvage-mesh", "--wait", timeout())
	return []string{fmt.Sprintf("%d nodes ready, as the page says through kubectl port-forward", view.Counts.Ready)}, err
}

// renderedDeployment returns the Deployment as the chart renders it, apart from what is set to something else there for
// the sake of the apiserver.
func (c *Cluster) renderedDeployment() (string, error) {
	file := filepath.Join(c.options.Rendered, "everything-kubernetes.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		if strings.Contains(doc, "\nkind: Deployment\n") {
			return doc, nil
		}
	}
	return "", fmt.Errorf("%s has no Deployment", file)
}

// forwarded is what kubectl port-forward prints first.
var forwarded = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

// readPage forwards a port to the Deployment's pod, and reads the page's first view with nodes.
func (s *suite) readPage(ctx context.Context) (counts mesh.Counts, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.command("kubectl"), "-n", "selvage", "port-forward", "deployment/selvage-mesh", ":8474")
	cmd.Env = append(os.Environ(), s.Environment()...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return counts, err
	}
	if err := cmd.Start(); err != nil {
		return counts, err
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	at := forwarded.FindStringSubmatch(line)
	if err != nil || at == nil {
		return counts, errors.Join(err, fmt.Errorf("kubectl port-forward prints %q", line))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at[1]+"/events", nil)
	if err != nil {
		return counts, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return counts, err
	}
	defer response.Body.Close()
	for events := bufio.NewReader(response.Body); ; {
		line, err := events.ReadString('\n')
		if err != nil {
			return counts, err
		}
		data, isData := strings.CutPrefix(line, "data: ")
		if !isData {
			continue
		}
		var event struct {
			Header struct {
				Counts mesh.Counts
				Error  string
			}
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return counts, err
		}
		if event.Header.Error != "" {
			return counts, errors.New(event.Header.Error)
		}
		return event.Header.Counts, nil
	}
}
