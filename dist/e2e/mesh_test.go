package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// TestMesh: of four nodes one is stopped, and one refuses a new network config, in which its lease has no place. All that run name the two.
func TestMesh(t *testing.T) {
	dir := t.TempDir()
	ca, err := certs.New(dir, "ca")
	if err == nil {
		err = ca.Sign(filepath.Join(dir, "node"), certs.For("172.31.0.11", "172.31.0.12", "172.31.0.13", "172.31.0.14"))
	}
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, lab.Options{
		Nodes: 4, Config: `{"Network":"10.5.0.0/16","SubnetMin":"10.5.5.0","SubnetMax":"10.5.8.0","Backend":{"Type":"vxlan"}}`,
		DaemonArgs: []string{"--mesh-addr=:8473", "--mesh-cafile=" + ca.File, "--mesh-certfile=" + filepath.Join(dir, "node.pem"),
			"--mesh-keyfile=" + filepath.Join(dir, "node.key")},
	})
	ctx := testctx.New(t)
	for _, n := range l.Nodes() {
		waitFor(ctx, t, "all are ready", func() error {
			view, code, err := meshOf(ctx, n)
			if err == nil && (code != 0 || view.Counts != (mesh.Counts{Nodes: 4, Ready: 4}) || len(view.Configs) != 1) {
				err = fmt.Errorf("%s: exit code %d, %+v", n.Name(), code, view)
			}
			return err
		})
	}

	var refuses, stopped *lab.Node
	for _, n := range l.Nodes() {
		f, err := n.Subnet()
		if err != nil {
			t.Fatal(err)
		}
		if f.Subnets[subnet.IPv4].Masked().String() == "10.5.8.0/24" {
			refuses = n
		} else {
			stopped = n
		}
	}
	if refuses == nil || stopped == nil {
		t.Fatal("no node has 10.5.8.0/24")
	}
	if err := stopped.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Etcd().PutConfig(ctx, `{"Network":"10.5.4.0/22","Backend":{"Type":"vxlan"}}`); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		if n == stopped {
			continue
		}
		waitFor(ctx, t, n.Name()+" names both", func() error {
			view, code, err := meshOf(ctx, n)
			if err != nil {
				return err
			}
			var missing, refusing []string
			for _, x := range view.Nodes {
				for _, f := range x.Findings {
					switch f.Code {
					case mesh.NotListening:
						missing = append(missing, x.Name)
					case status.ConfigRejected:
						refusing = append(refusing, x.Name)
					}
				}
			}
			if !slices.Equal(missing, []string{stopped.Name()}) || !slices.Equal(refusing, []string{refuses.Name()}) || code != 2 ||
				view.Counts != (mesh.Counts{Nodes: 4, Ready: 2, Degraded: 1, Missing: 1}) {
				return fmt.Errorf("exit code %d, missing %q, refusing %q: %+v", code, missing, refusing, view)
			}
			return nil
		})
	}
	// From a pod with the socket of its node, as the chart's Deployment has it.
	pod, err := l.AddPod(ctx, refuses, "")
	if err != nil {
		t.Fatal(err)
	}
	view, code, err := meshOf(ctx, pod)
	if err != nil || code != 2 || view.Counts != (mesh.Counts{Nodes: 4, Ready: 2, Degraded: 1, Missing: 1}) {
		t.Errorf("from a pod: exit code %d, %v, %+v", code, err, view)
	}
	text, _, err := runMesh(ctx, refuses)
	for _, line := range []string{"refused   " + refuses.Name() + "\n", "missing   " + stopped.Name() + "\n"} {
		if err != nil || !strings.Contains(text, line) {
			t.Errorf("%v, %s\nwant the line %q", err, text, line)
		}
	}
}

// asker is a node or a pod.
type asker interface {
	Name() string
	Exec(ctx context.Context, argv []string, stdio lab.Stdio) error
}

// meshOf returns what a node says of the cluster.
func meshOf(ctx context.Context, n asker) (view mesh.Cluster, code int, err error) {
	out, code, err := runMesh(ctx, n, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &view)
	}
	return view, code, err
}

// runMesh runs selvaged mesh on a node. Exit code 1 is an error.
func runMesh(ctx context.Context, n asker, args ...string) (out string, code int, err error) {
	program, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	if err != nil {
		return "", 0, err
	}
	var stdout, stderr bytes.Buffer
	err = n.Exec(ctx, append([]string{program, "mesh", "--timeout=1m"}, args...), lab.Stdio{Out: &stdout, Err: &stderr})
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 2 {
		code, err = 2, nil
	}
	if err != nil {
		err = fmt.Errorf("%s: selvaged mesh: %w: %s", n.Name(), err, stderr.String())
	}
	return stdout.String(), code, err
}
