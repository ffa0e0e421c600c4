package k8slab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/network/connectivity"
	"github.com/selvage-net/selvage/subnet"
)

// user runs a program as the cluster's administrator does on a machine of their own, and returns what it printed. An
// exit code other than 0 is an error.
func (c *Cluster) user(ctx context.Context, program string, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), c.Environment()...)
	var text, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &problems
	if err := cmd.Run(); err != nil {
		return text.String(), fmt.Errorf("%s %q: %w: %s", program, args, err, bytes.TrimSpace(problems.Bytes()))
	}
	return text.String(), nil
}

// connectivity runs selvaged connectivity-test.
func (c *Cluster) connectivity(ctx context.Context, args ...string) (report connectivity.Report, err error) {
	args = append([]string{"connectivity-test", "-o", "json"}, args...)
	text, err := c.user(ctx, filepath.Join(c.options.Bin, "selvaged"), args...)
	if failed := json.Unmarshal([]byte(text), &report); failed != nil {
		err = errors.Join(err, fmt.Errorf("%w in %s", failed, text))
	}
	return report, err
}

// connectivityTest runs selvaged connectivity-test with all that it can do.
func connectivityTest(ctx context.Context, s *suite) (found []string, err error) {
	file := s.file("connectivity.xml")
	args := []string{"--restart", "--junit", file}
	for _, f := range s.families() {
		args = append(args, "--outside", s.lab.Outside().Echo(f).String())
	}
	report, err := s.connectivity(ctx, args...)
	tried := map[string]bool{}
	for _, c := range report.Checks {
		line := fmt.Sprintf("%-32s %5d probes, %d failed", c.Title(), c.Probes, c.Failed)
		if c.NotRun != "" {
			line = fmt.Sprintf("%-32s not run: %s", c.Title(), c.NotRun)
		}
		found = append(found, line)
		for _, f := range c.Failures {
			err = errors.Join(err, fmt.Errorf("%s: %s", c.Title(), f))
		}
		tried[c.Title()] = c.Probes > 0
	}
	if len(report.Nodes) != len(s.nodes) {
		err = errors.Join(err, fmt.Errorf("it tested the nodes %v, want %d of them", report.Nodes, len(s.nodes)))
	}
	wanted := []string{
		"pod to pod, same node", "pod to pod, other node", "full-size packets", "pod to node", "node to pod",
		"Service, from pods", "Service, from nodes", "outside", "pod to pod, after the restart",
	}
	if s.options.Store == subnet.StoreKubernetes {
		wanted = append(wanted, "policies: what is denied", "policies: what is allowed", "policies: deleted")
	}
	for _, f := range s.families() {
		for _, name := range wanted {
			if title := (connectivity.Check{Name: name, Family: f.String()}).Title(); !tried[title] {
				err = errors.Join(err, fmt.Errorf("it did not try: %s", title))
			}
		}
	}
	if !tried["DNS"] {
		err = errors.Join(err, errors.New("it did not try: DNS"))
	}
	junit, failed := os.ReadFile(file)
	if !bytes.Contains(junit, []byte("pod to pod, other node (IPv4)")) {
		err = errors.Join(err, failed, fmt.Errorf("its JUnit file is %s", junit))
	}
	left, failed := s.kubectl(ctx, "get", "namespace", connectivity.DefaultNamespace, "--ignore-not-found", "-o", "name")
	if left != "" {
		err = errors.Join(err, fmt.Errorf("it left %s", left))
	}
	return found, errors.Join(err, failed)
}

// Rules that lose what is larger than what most probes send.
const loseLarge = `table inet largest {
	chain forward {
		type filter hook forward priority -300;
		meta length > 1300 drop;
	}
}`

// connectivityBroken has one node lose large packets, which only calls to and from its pods notice.
func connectivityBroken(ctx context.Context, s *suite) (found []string, err error) {
	node := s.nodes[len(s.nodes)-1]
	nft := func(stdin string, args ...string) error {
		return node.Do(func() error {
			cmd := exec.CommandContext(ctx, "nft", args...)
			cmd.Stdin = strings.NewReader(stdin)
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("nft %v: %w: %s", args, err, out)
			}
			return err
		})
	}
	if err := nft(loseLarge, "-f", "-"); err != nil {
		return nil, err
	}
	report, err := s.connectivity(ctx, "--policies=off")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != command.ExitDegraded {
		err = errors.Join(err, fmt.Errorf("large packets are lost: want exit code %d", command.ExitDegraded))
	} else {
		err = nil
	}
	for _, c := range report.Checks {
		if (len(c.Failures) > 0) != (c.Name == "full-size packets") {
			err = errors.Join(err, fmt.Errorf("%s: %v", c.Title(), c.Failures))
		}
		for i, f := range c.Failures {
			if i == 0 {
				found = append(found, f.String())
			}
			if !strings.Contains(f.String(), "on "+node.Name()) && !strings.Contains(f.To, "first-") {
				err = errors.Join(err, fmt.Errorf("%s: %s", c.Title(), f))
			}
		}
	}
	return found, errors.Join(err, nft("", "delete", "table", "inet", "largest"))
}

// pluginPath returns the path of the plugin of kubectl: a link to the daemon's program.
func (c *Cluster) pluginPath() (string, error) {
	dir, err := os.MkdirTemp(c.dir, "plugin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, command.PluginName)
	return path, os.Symlink(filepath.Join(c.options.Bin, "selvaged"), path)
}

// plugin runs kubectl selvage, as one who has the program under that name in their PATH.
func plugin(ctx context.Context, s *suite) (found []string, err error) {
	path, err := s.pluginPath()
	if err != nil {
		return nil, err
	}
	selvage := func(args ...string) (string, error) {
		program := s.command("kubectl")
		env := []string{"PATH=" + filepath.Dir(path) + ":" + filepath.Dir(program) + ":" + os.Getenv("PATH"), program, "selvage"}
		return s.user(ctx, "env", append(env, args...)...)
	}
	text, err := selvage("status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var nodes []command.NodeStatus
	if err := json.Unmarshal([]byte(text), &nodes); err != nil || len(nodes) != len(s.nodes) {
		return nil, fmt.Errorf("the status of %d nodes, want %d: %w in %s", len(nodes), len(s.nodes), err, text)
	}
	table, err := selvage("status")
	if err != nil {
		return nil, err
	}
	found = strings.Split(strings.TrimSpace(table), "\n")

	// From a pod to one of another node: a path there and one back, in each family.
	from, to := s.pods[0], s.pods[len(s.pods)-1]
	if text, err = selvage("explain", from.Name, "default/"+to.Name+":7070", "-o", "json"); err != nil {
		return found, err
	}
	var c command.Connection
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return found, fmt.Errorf("%w in %s", err, text)
	}
	for _, f := range s.families() {
		for _, want := range []command.Path{
			{Node: from.Node.Name(), To: to.Addrs[f]}, {Node: to.Node.Name(), To: from.Addrs[f]},
		} {
			if !slices.ContainsFunc(c.Paths, func(p command.Path) bool {
				return p.Node == want.Node && p.To == want.To && p.Explanation != nil && p.Explanation.OK
			}) {
				return found, fmt.Errorf("from %s to %s: no path in sync is explained in %s", want.Node, want.To, text)
			}
		}
	}
	if !c.OK() || len(c.Policies) != len(s.families()) {
		return found, fmt.Errorf("of the policies it says %+v", c.Policies)
	}
	for _, args := range [][]string{{"doctor"}, {"status", from.Node.Name()}, {"peers", from.Node.Name()}} {
		text, err := selvage(args...)
		if err != nil {
			return found, err
		}
		found = append(found, fmt.Sprintf("%s: %d lines", strings.Join(args, " "), strings.Count(text, "\n")))
	}
	// The error for an unknown node names those that there are.
	if _, err := selvage("status", "node9"); err == nil || !strings.Contains(err.Error(), "node1") {
		return found, fmt.Errorf("a node that is not there: %w", err)
	}
	return found, nil
}
