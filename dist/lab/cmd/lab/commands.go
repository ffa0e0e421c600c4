package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// session executes commands on a lab.
type session struct {
	lab  *lab.Lab
	down func() // ends the lab
	here string // name of the node that selvaged's commands run on, if none is named
	move bool   // a node's name alone changes here
	// daemon lists selvaged's own commands, so that they work as they are.
	daemon []string
}

// command is one that a running lab takes.
type command struct {
	name, args, does string
	run              func(ctx context.Context, s *session, args []string, io stdio) error
	// words are what can stand for the next argument, after the given ones; nil: anything.
	words func(s *session, args []string) []string
}

// errUsage is returned by a command whose arguments are incomplete or too many.
var errUsage = errors.New("usage")

func commands() []command {
	return []command{
		{"nodes", "", "nodes, leases, pods", nodes, nil},
		{"pod", "add NODE [NAME] | del POD", "add a pod, or delete one, with the CNI plugins", pod, podWords},
		{"probe", "[FROM TO]", "UDP and TCP, once; by default between all pods", probe, pairWords},
		{"full", "[FROM TO]", "the same with unfragmented packets of full size", full, pairWords},
		{"stream", "FROM TO [SECONDS]", "a datagram every 2 ms: losses, longest gap", stream, pairWords},
		{"connectivity-test", "[--restart]", "the same test as in Kubernetes", connectivityTest, connectivityWords},
		{"exec", "WHERE CMD ARGS", "run a program on a node, in a pod or outside", execute,
			first((*session).endpointNames)},
		{"kernel", "NODE", "what the node's kernel holds, a line each", kernel, first((*session).nodeNames)},
		{"logs", "NODE", "what the node's daemon printed", logs, first((*session).nodeNames)},
		{"fault", "[NODE NAME [PEER]]", "break something; without names, list what", fault, faultWords},
		{"down", "", "end the lab", down, nil},
	}
}

func down(_ context.Context, s *session, args []string, _ stdio) error {
	if len(args) > 0 {
		return errUsage
	}
	s.down()
	return nil
}

func listCommands() string {
	var b strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-30s %s\n", c.name+" "+c.args, c.does)
	}
	fmt.Fprintf(&b, "  %-30s %s\n", "[NODE] COMMAND ARGS", "selvaged's commands: status, peers, doctor,")
	fmt.Fprintf(&b, "  %-30s %s\n", "", "explain ADDRESS and so on; on node1 by default")
	b.WriteString(`
NODE is node1; POD is pod1 or node1/pod1; FROM, TO and WHERE are a pod, a node
or "outside". At the prompt, a NODE alone makes selvaged's commands run there.
`)
	return b.String()
}

// runsProgram reports whether a command line starts a program in the lab, which then has the terminal.
func runsProgram(args []string) bool {
	ofLab := slices.ContainsFunc(commands(), func(c command) bool { return c.name == args[0] })
	return args[0] == "exec" || args[0] != "help" && !ofLab
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
		if errors.Is(err, errUsage) {
			fmt.Fprintf(io.err, "lab: usage: %s\n", strings.TrimSpace(c.name+" "+c.args))
			return 2
		}
		return exitCode(args, err, io)
	}
	return exitCode(args, s.onNode(ctx, args, io), io)
}

// exitCode prints the error of a command, and returns the command's exit code. A program that was started for the user
// and failed has printed why.
func exitCode(args []string, err error, io stdio) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if runsProgram(args) && errors.As(err, &exit) {
		if exit.ExitCode() > 0 {
			return exit.ExitCode()
		}
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() { // by Ctrl-C, for instance
			return killed + int(status.Signal())
		}
	}
	fmt.Fprintf(io.err, "lab: %v\n", err)
	var unknown unknownCommand
	if errors.As(err, &unknown) {
		return 2
	}
	return 1
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
	return nil, fmt.Errorf("there is no pod %q: see \"nodes\", or add it with \"pod add NODE\"", name)
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
	return nil, fmt.Errorf("there is no pod or node %q: see \"nodes\"", name)
}

func (s *session) podEndpoints() []*lab.Endpoint {
	var endpoints []*lab.Endpoint
	for _, p := range s.lab.Pods() {
		endpoints = append(endpoints, p.Endpoint)
	}
	return endpoints
}

func nodes(ctx context.Context, s *session, args []string, io stdio) error {
	if len(args) > 0 {
		return errUsage
	}
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	leases, err := s.lab.Store().Leases(asking)
	if err != nil {
		fmt.Fprintf(io.out, "leases: %v\n", err)
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
	return where.Exec(ctx, args[1:], io.forProgram())
}

func kernel(ctx context.Context, s *session, args []string, io stdio) error {
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
