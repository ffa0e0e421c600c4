package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	selvaged "github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/network/connectivity"
)

// errConnectivity is returned when a check failed; what is wrong has been printed.
var errConnectivity = errors.New("not everything was answered as it should be")

// connectivityTest is selvaged connectivity-test, in this lab instead of a cluster of Kubernetes.
func connectivityTest(ctx context.Context, s *session, args []string, io stdio) error {
	o := connectivity.Options{
		Policies: connectivity.PoliciesAuto,
		Tell:     func(text string) { fmt.Fprintln(io.err, text) },
		Warn:     func(err error) { fmt.Fprintf(io.err, "warning: %v\n", err) },
	}
	switch {
	case slices.Equal(args, []string{"--restart"}):
		o.Restart = true
	case len(args) > 0:
		return errUsage
	}
	for _, f := range s.lab.Families() {
		if a := s.lab.Outside().Addr(f); a.IsValid() {
			o.Outside = append(o.Outside, netip.AddrPortFrom(a, lab.EchoPort))
		}
	}
	report, err := connectivity.Run(ctx, &labCluster{lab: s.lab}, o)
	if err != nil {
		return err
	}
	selvaged.ShowConnectivity(io.out, report)
	if !report.OK() {
		return errConnectivity
	}
	return nil
}

func connectivityWords(_ *session, args []string) []string {
	if len(args) > 0 {
		return nil
	}
	return []string{"--restart"}
}

// agentPort is where the pods of a test answer: each pod of the lab answers at [lab.EchoPort] itself.
const agentPort = 7071

// labCluster is a lab as a [connectivity.Cluster].
type labCluster struct {
	lab     *lab.Lab
	pods    []*lab.Pod
	stop    context.CancelFunc // ends the agents
	running sync.WaitGroup     // of the agents
}

// Start implements [connectivity.Cluster].
func (c *labCluster) Start(ctx context.Context) (e connectivity.Ends, check connectivity.Check, err error) {
	e = connectivity.Ends{Families: c.lab.Families(), Port: agentPort}
	began := time.Now()
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	for _, n := range c.lab.Nodes() {
		var both [2]connectivity.Place
		for i, role := range []string{"first", "second"} {
			if both[i], err = c.startPod(ctx, serving, n, role+"-"+n.Name()); err != nil {
				return e, check, err
			}
		}
		var addrs [2]netip.Addr
		for _, f := range c.lab.Families() {
			addrs[f] = n.Addr(f)
		}
		e.First, e.Second = append(e.First, both[0]), append(e.Second, both[1])
		e.Daemons = append(e.Daemons, connectivity.Place{Name: n.Name(), Node: n.Name()})
		e.Nodes, e.NodePorts = append(e.Nodes, addrs), append(e.NodePorts, lab.EchoPort)
	}
	check = connectivity.PodsStarted(len(c.pods))
	check.Took = time.Since(began)
	return e, check, nil
}

// startPod adds a pod, and an agent in it that answers until serving ends.
func (c *labCluster) startPod(
	ctx, serving context.Context, n *lab.Node, name string,
) (p connectivity.Place, err error) {
	pod, err := c.lab.AddPod(ctx, n, name)
	if err != nil {
		return p, err
	}
	c.pods = append(c.pods, pod)
	ended := make(chan error, 1)
	c.running.Go(func() {
		_, err := pod.Output(serving, "selvaged", "connectivity-test", "serve",
			"--port", strconv.Itoa(agentPort), "--name", name)
		ended <- err
	})
	p = connectivity.Place{Name: name, Node: n.Name()}
	for _, f := range c.lab.Families() {
		p.Addrs[f] = pod.Addr(f)
	}
	at := netip.AddrPortFrom(p.Addrs[c.lab.Families()[0]], agentPort)
	for {
		if pod.Do(func() error { return connects(at) }) == nil {
			return p, nil
		}
		select {
		case err := <-ended:
			return p, fmt.Errorf("the agent in %s ended: %w", pod.Name(), err)
		case <-ctx.Done():
			return p, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// connects returns nil if something accepts connections at an address.
func connects(at netip.AddrPort) error {
	conn, err := net.DialTimeout("tcp", at.String(), time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Probe implements [connectivity.Cluster].
func (c *labCluster) Probe(ctx context.Context, at connectivity.Place, in io.Reader, out, problems io.Writer) error {
	stdio := lab.Stdio{In: in, Out: out, Err: problems}
	argv := []string{"selvaged", "connectivity-test", "probe"}
	for _, p := range c.pods {
		if p.PodName() == at.Name {
			return p.Exec(ctx, argv, stdio)
		}
	}
	for _, n := range c.lab.Nodes() {
		if n.Name() == at.Name {
			return n.Exec(ctx, argv, stdio)
		}
	}
	return fmt.Errorf("the lab has no %s", at)
}

// Lacks implements [connectivity.Cluster].
func (c *labCluster) Lacks(_ context.Context, _ connectivity.Ends, what connectivity.Feature) (string, error) {
	switch what {
	case connectivity.Services:
		return "the lab has no Services", nil
	case connectivity.NameService:
		return "the lab has no DNS", nil
	case connectivity.Enforcement:
		return "the lab's pods are none of Kubernetes", nil
	}
	return "", nil
}

// ApplyPolicies implements [connectivity.Cluster].
func (c *labCluster) ApplyPolicies(context.Context) error { return errors.ErrUnsupported }

// DeletePolicies implements [connectivity.Cluster].
func (c *labCluster) DeletePolicies(context.Context) error { return errors.ErrUnsupported }

// Restart implements [connectivity.Cluster].
func (c *labCluster) Restart(ctx context.Context) error {
	for _, n := range c.lab.Nodes() {
		if err := errors.Join(n.Restart(ctx), n.WaitReady(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// Remove implements [connectivity.Cluster].
func (c *labCluster) Remove(ctx context.Context) (err error) {
	ctx = context.WithoutCancel(ctx)
	c.stop()
	c.running.Wait()
	for _, p := range c.pods {
		err = errors.Join(err, c.lab.DelPod(ctx, p))
	}
	return err
}
