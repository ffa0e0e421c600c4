package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/mesh/exchange"
	"github.com/selvage-net/selvage/network/node/status"
)

// meshQuery has the flags of the command.
type meshQuery struct {
	query
	access  status.Mesh // what the flags say; empty fields are the daemon's
	timeout time.Duration
	odd     bool
	page    meshPage

	mu     sync.Mutex
	latest latestQuery // of view, for detail
}

// latestQuery is how the nodes were asked last.
type latestQuery struct {
	how     exchange.Query
	targets map[string]mesh.Target // by key
}

// meshParallel is how many nodes are asked at the same time, which bounds the memory and the open files.
const meshParallel = 64

// Mesh shows the whole cluster.
func Mesh() *cobra.Command {
	var q meshQuery
	c := &cobra.Command{
		Use:   "mesh",
		Short: "Show all nodes of the cluster, what is odd first",
		Long: `mesh asks all nodes for a summary of their state, and shows one line for each, what is odd first: nodes
that do not answer, refuse the network config, are degraded, cannot be reached by others, or differ from most. The
numbers of repairs and of packets that network policies denied are those of the last 10 minutes.

The nodes are those with a lease, as this node's daemon knows them. They are asked at their public IPs over TLS, at the
port and with the certificate or token of this node's daemon: all daemons need --mesh-addr, and --mesh-cafile,
--mesh-certfile and --mesh-keyfile, or in Kubernetes --mesh-token-file and --mesh-token-accounts.

With --serve, it serves the same as a web page that follows the cluster, until it is interrupted: the nodes, who reaches
whom, and each node's detail. On a loopback address the page is served over plain HTTP, to any user of this host; on
others over TLS, to holders of a certificate.

Exit codes: 0 all nodes are ready, 2 a node is missing or has a problem that is more than a warning, 4 the daemon of
this node does not run, 1 any other error.`,
		Example: `  selvaged mesh
  selvaged mesh --odd
  selvaged mesh --serve 127.0.0.1:8474
  selvaged mesh -o json | jq '.nodes[] | select(.summary == null).name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.check(); err != nil {
				return err
			}
			if q.timeout <= 0 {
				return errors.New("--timeout: want more than 0")
			}
			if q.page.address != "" {
				return q.page.serve(cmd.Context(), cmd.OutOrStdout(), q.view, q.detail)
			}
			if q.page.files != (exchange.Files{}) {
				return errors.New("--serve-cafile, --serve-certfile and --serve-keyfile need --serve")
			}
			view, err := q.view(cmd.Context())
			if err != nil {
				return notRunning(cmd, err)
			}
			code := meshExit(view)
			if q.odd {
				view.Nodes = slices.DeleteFunc(view.Nodes, func(n mesh.Node) bool { return len(n.Findings) == 0 })
			}
			table := func(w io.Writer, c mesh.Cluster) { showMesh(w, styleFor(w), c) }
			if err := show(cmd.OutOrStdout(), q.query, view, table); err != nil {
				return err
			}
			return code
		},
	}
	q.flags(c)
	s := c.Flags()
	s.StringVar(&q.access.CAFile, "mesh-cafile", "", "CA of the nodes' certificates (default: the daemon's)")
	s.StringVar(&q.access.CertFile, "mesh-certfile", "", "certificate to show to the nodes (default: the daemon's)")
	s.StringVar(&q.access.KeyFile, "mesh-keyfile", "", "private key of that certificate (default: the daemon's)")
	s.StringVar(&q.access.TokenFile, "mesh-token-file", "", "token to show to nodes that want one instead of a "+
		"certificate (default: the daemon's)")
	s.DurationVar(&q.timeout, "timeout", 2*time.Second, "how long each node may take to answer")
	s.StringVar(&q.page.address, "serve", "", "address and port of a web page; without an address: "+defaultHost)
	s.StringVar(&q.page.files.CA, "serve-cafile", "", "CA of the certificates of those who may read the page")
	s.StringVar(&q.page.files.Cert, "serve-certfile", "", "certificate of the page's server")
	s.StringVar(&q.page.files.Key, "serve-keyfile", "", "private key of that certificate")
	s.BoolVar(&q.odd, "odd", false, "only nodes with something odd")
	return c
}

// view asks the daemon for the nodes, and these for their summaries.
func (q *meshQuery) view(ctx context.Context) (c mesh.Cluster, err error) {
	type local struct {
		own   status.Status
		peers []status.Peer
	}
	l, err := fetch(ctx, q.query, func(ctx context.Context, c *status.Client) (l local, err error) {
		if l.own, err = c.Status(ctx); err == nil {
			l.peers, err = c.Peers(ctx)
		}
		return l, err
	})
	if err != nil {
		return c, err
	}
	daemon := l.own.Mesh
	if daemon == nil {
		return c, fmt.Errorf("the daemon at %s serves no summary, so nodes cannot ask each other: start all daemons "+
			"with --mesh-addr, and certificates or tokens, see the help of selvaged mesh", q.socket)
	}
	targets := mesh.TargetsOf(l.own, l.peers)
	how := exchange.Query{
		Port: daemon.Port, ServerName: daemon.ServerName, Timeout: q.timeout, Parallel: meshParallel,
		Files: exchange.Files{
			CA: cmp.Or(q.access.CAFile, daemon.CAFile), Cert: cmp.Or(q.access.CertFile, daemon.CertFile),
			Key: cmp.Or(q.access.KeyFile, daemon.KeyFile),
		},
		TokenFile: q.tokenFile(*daemon),
	}
	q.remember(how, targets)
	answers, err := exchange.Ask(ctx, how, targets)
	if err != nil {
		return c, err
	}
	if answers[0].Summary == nil && answers[0].Code == mesh.NoAddress { // this node is starting
		own := mesh.Summarize(l.own)
		own.Now = q.now()
		answers[0] = mesh.Answer{Summary: &own}
	}
	return mesh.Assemble(targets, answers, q.now()), nil
}

// remember notes how the nodes are asked.
func (q *meshQuery) remember(how exchange.Query, targets []mesh.Target) {
	latest := latestQuery{how, make(map[string]mesh.Target, len(targets))}
	for _, t := range targets {
		latest.targets[t.Key] = t
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.latest = latest
}

// detail asks one of the nodes of the latest view for its detail.
func (q *meshQuery) detail(ctx context.Context, key string) (mesh.Told, error) {
	q.mu.Lock()
	latest := q.latest
	q.mu.Unlock()
	t, ok := latest.targets[key]
	if !ok {
		return mesh.Untold(mesh.Answer{Code: mesh.NoNode}), nil
	}
	return exchange.AskDetail(ctx, latest.how, t)
}

// tokenFile returns the file of the token to show; empty: certificates are shown.
func (q *meshQuery) tokenFile(daemon status.Mesh) string {
	if daemon.TokenFile == "" {
		return ""
	}
	return cmp.Or(q.access.TokenFile, daemon.TokenFile)
}

// meshExit returns the exit code for a view.
func meshExit(c mesh.Cluster) error {
	for _, n := range c.Nodes {
		for _, f := range n.Findings {
			if f.Rank < mesh.RankOther {
				return Exit{ExitDegraded}
			}
		}
	}
	return nil
}
