package k8slab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// picture says how the cluster is, for somebody who has to find out what went wrong. What is long goes to files.
func (c *Cluster) picture(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "nodes", "-o", "wide"},
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-A", "--field-selector=type=Warning"},
		{"-n", daemons, "logs", "-l", daemonLabel, "--all-containers", "--prefix", "--tail=20"},
		{"-n", flannels, "logs", "-l", flannelLabel, "--all-containers", "--prefix", "--tail=20"},
	} {
		out, err := c.kubectl(ctx, args...)
		if err != nil {
			out = err.Error()
		}
		fmt.Fprintf(&b, "\nkubectl %s\n%s", strings.Join(args, " "), out)
	}
	for _, n := range c.nodes {
		fmt.Fprintf(&b, "\n%s: selvaged status\n%s", n.Name(), n.read(ctx, filepath.Join(c.options.Bin, "selvaged"), "status"))
	}
	if c.options.Logs == "" {
		b.WriteString("\n--logs DIRECTORY keeps what all commands print, and the nodes' routes, rules and counters.")
	} else if err := c.keepState(ctx); err != nil {
		fmt.Fprintf(&b, "\n%v", err)
	} else {
		fmt.Fprintf(&b, "\nWhat all commands printed, and the nodes' routes, rules and counters, are in %s.", c.logs)
	}
	return b.String()
}

// keepState writes a file a node with what the kernel holds there.
func (c *Cluster) keepState(ctx context.Context) error {
	var errs []error
	for _, n := range c.nodes {
		var b strings.Builder
		for _, argv := range [][]string{
			{"ip", "-d", "-s", "link"}, {"ip", "route"}, {"ip", "neigh"}, {"bridge", "fdb"}, {"nft", "list", "ruleset"},
			{"cat", "/proc/net/snmp"}, {"cat", "/proc/net/softnet_stat"}, {"cat", "/proc/net/stat/nf_conntrack"},
		} {
			fmt.Fprintf(&b, "# %s\n%s\n", strings.Join(argv, " "), n.read(ctx, argv...))
		}
		errs = append(errs, os.WriteFile(c.log(n.Name()+".state"), []byte(b.String()), 0o644))
	}
	return errors.Join(errs...)
}

// read runs a program on the node, and returns what it printed or why it printed nothing.
func (n *Node) read(ctx context.Context, argv ...string) string {
	out, err := n.Output(ctx, argv...)
	if err != nil {
		out = fmt.Append(out, err, "\n")
	}
	return string(out)
}
