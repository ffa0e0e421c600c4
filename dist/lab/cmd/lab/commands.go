package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// session executes commands on a lab.
type session struct {
	lab  *lab.Lab
	down func() // ends the lab
}

// command is one that a running lab takes.
type command struct {
	name, args, does string
	run              func(ctx context.Context, s *session, args []string, io stdio) error
}

// errUsage is returned by a command that cannot make sense of its arguments.
var errUsage = errors.New("usage")

func commands() []command {
	return []command{
		{"status", "", "nodes, leases, pods", status},
		{"pod", "add NODE [NAME]", "add a pod, through the CNI plugins", pod},
		{"pod", "del POD", "remove a pod", pod},
		{"probe", "[FROM TO]", "UDP and TCP from one to the other; without names, between all pods", probe},
		{"full", "[FROM TO]", "the same with a datagram that fills the MTU and may not be fragmented", full},
		{"stream", "FROM TO [SECONDS]", "a datagram every 2 ms: how many are lost, and the longest gap", stream},
		{"exec", "WHERE CMD ARGS", "run a command on a node, in a pod or outside", execute},
		{"explain", "NODE", "what the node's kernel holds, a line each", explain},
		{"logs", "NODE", "what the node's daemon printed", logs},
		{"fault", "[NODE NAME [PEER]]", "break something; without names, list what", fault},
		{"down", "", "end the lab", func(_ context.Context, s *session, _ []string, _ stdio) error { s.down(); return nil }},
	}
}

func listCommands() string {
	var b strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-26s %s\n", c.name+" "+c.args, c.does)
	}
	b.WriteString("\nNODE is node1; POD is pod1 or node1/pod1; FROM, TO and WHERE are a pod, a node or \"outside\".\n")
	return b.String()
}

// run executes a command line and returns its exit code.
func (s *session) run(ctx context.Context, args []string, io stdio) int {
	if args[0] == "help" {
		fmt.Fprint(io.out, listCommands())
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, s, args[1:], io)
		var exit *exec.ExitError
		switch {
		case err == nil:
			return 0
		case errors.Is(err, errUsage):
			fmt.Fprintf(io.err, "lab: %s: see \"lab help\" for its arguments\n", c.name)
			return 2
		case errors.As(err, &exit) && c.name == "exec" && exit.ExitCode() > 0:
			return exit.ExitCode()
		default:
			fmt.Fprintf(io.err, "lab: %v\n", err)
			return 1
		}
	}
	fmt.Fprintf(io.err, "lab: there is no command %q; see \"lab help\"\n", args[0])
	return 2
}

func (s *session) node(name string) (*lab.Node, error) {
	for _, n := range s.lab.Nodes() {
		if n.Name() == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("there is no node %q: want node1 to node%d", name, len(s.lab.Nodes()))
}

func (s *session) pod(name string) (*lab.Pod, error) {
	for _, p := range s.lab.Pods() {
		if p.Name() == name || p.PodName() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no pod %q: see \"lab status\" for those there are, or add one with \"lab pod add NODE\"", name)
}

func (s *session) endpoint(name string) (*lab.Endpoint, error) {
	if name == s.lab.Outside().Name() {
		return s.lab.Outside(), nil
	}
	if n, err := s.node(name); err == nil {
		return n.Endpoint, nil
	}
	if p, err := s.pod(name); err == nil {
		return p.Endpoint, nil
	}
	return nil, fmt.Errorf("there is no pod or node %q: see \"lab status\"", name)
}

func (s *session) podEndpoints() []*lab.Endpoint {
	var endpoints []*lab.Endpoint
	for _, p := range s.lab.Pods() {
		endpoints = append(endpoints, p.Endpoint)
	}
	return endpoints
}

func status(ctx context.Context, s *session, _ []string, io stdio) error {
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	leases, err := s.lab.Etcd().Leases(asking)
	if err != nil {
		fmt.Fprintf(io.out, "etcd: %v\n", err)
	}
	printNodes(io.out, s.lab, leases)
	if len(s.lab.Pods()) > 0 {
		fmt.Fprintln(io.out)
		printPods(io.out, s.lab)
	}
	return nil
}

func pod(ctx context.Context, s *session, args []string, io stdio) error {
	switch {
	case len(args) >= 2 && len(args) <= 3 && args[0] == "add":
		node, err := s.node(args[1])
		if err != nil {
			return err
		}
		p, err := s.lab.AddPod(ctx, node, strings.Join(args[2:], ""))
		if err != nil {
			return err
		}
		fmt.Fprintf(io.out, "%s %s\n", p.Name(), addresses(p.Endpoint))
		return nil
	case len(args) == 2 && args[0] == "del":
		p, err := s.pod(args[1])
		if err != nil {
			return err
		}
		return s.lab.DelPod(ctx, p)
	}
	return errUsage
}

func execute(ctx context.Context, s *session, args []string, io stdio) error {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 {
		return errUsage
	}
	where, err := s.endpoint(args[0])
	if err != nil {
		return err
	}
	return where.Exec(ctx, args[1:], lab.Stdio{In: io.in, Out: io.out, Err: io.err})
}

func explain(ctx context.Context, s *session, args []string, io stdio) error {
	if len(args) != 1 {
		return errUsage
	}
	node, err := s.node(args[0])
	if err != nil {
		return err
	}
	entries, err := s.lab.Explain(ctx, node)
	printEntries(io.out, entries)
	return err
}

func logs(_ context.Context, s *session, args []string, stdio stdio) error {
	if len(args) != 1 {
		return errUsage
	}
	node, err := s.node(args[0])
	if err != nil {
		return err
	}
	f, err := os.Open(node.LogPath())
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(stdio.out, f)
	return err
}

func fault(ctx context.Context, s *session, args []string, io stdio) error {
	if len(args) == 0 {
		for _, f := range lab.Faults() {
			fmt.Fprintf(io.out, "  %-14s %s\n", f.Name, f.Does)
		}
		return nil
	}
	if len(args) != 2 && len(args) != 3 {
		return errUsage
	}
	node, err := s.node(args[0])
	if err != nil {
		return err
	}
	f, err := lab.FindFault(args[1])
	if err != nil {
		return err
	}
	peers := s.lab.PeersOf(node)
	if len(args) == 3 {
		peer, err := s.node(args[2])
		if err != nil {
			return err
		}
		peers = []*lab.Node{peer}
	}
	return f.Inject(ctx, s.lab, node, peers)
}

// addresses lists an endpoint's addresses.
func addresses(e *lab.Endpoint) string {
	var list []string
	for _, f := range subnet.Families() {
		if a := e.Addr(f); a.IsValid() {
			list = append(list, a.String())
		}
	}
	return strings.Join(list, " ")
}
