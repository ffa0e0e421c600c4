// Command lab runs a small cluster on this machine, in namespaces of its own, without root; see package lab for what it
// consists of.
//
//	lab demo                build one, show that it works, and end it
//	lab up                  build one and keep it, with a prompt
//	lab matrix              try every combination of families, backends, packet filters and stores
//	lab COMMAND             what the prompt takes, from another terminal
//	lab sandbox -- CMD      run a command in a sandbox like the lab's
//
// The process of lab up is three (see package sandbox). The one outside the sandbox makes a socket in a directory that it
// locks, so that two labs of a name cannot run at once and what a crashed one left is found. The one inside serves the
// socket. Each other lab command sends its arguments and its stdin, stdout and stderr there, so that a command does the
// same from the prompt as from another terminal.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

const usage = `lab runs a small selvage cluster on this machine: nodes in network namespaces,
without root.

  lab demo [flags]           build one, show that it works, end it
  lab up [flags]             build one and keep it until Ctrl-C or "lab down"
  lab matrix [flags]         probe every combination of families, backends,
                             packet filters and stores, in a lab each
  lab sandbox -- CMD ARGS    run a command as root of namespaces of its own,
                             with a private /tmp

Of a lab that is up:

%s
Flags before the command:
  --name NAME                which lab, if there are several (default "default")

Flags of demo and up:
%s
Flags of matrix:
%s`

func main() { os.Exit(run(os.Args[1:])) }

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string) int {
	global := pflag.NewFlagSet("lab", pflag.ContinueOnError)
	global.SetInterspersed(false)
	global.Usage = func() {
		fmt.Fprintf(os.Stdout, usage, listCommands(),
			buildFlags(new(lab.Options), new(int)).FlagUsagesWrapped(lineWidth),
			matrixFlags(new(matrixOptions)).FlagUsagesWrapped(lineWidth))
	}
	name := global.String("name", "default", "")
	if err := global.Parse(args); err != nil {
		return flagError(err)
	}
	if global.NArg() == 0 {
		global.Usage()
		return 2
	}
	command, args := global.Arg(0), global.Args()[1:]
	switch command {
	case "help":
		global.Usage()
		return 0
	case "sandbox":
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		if len(args) == 0 {
			return fail(errors.New("sandbox: which command? lab sandbox -- CMD ARGS"))
		}
		return sandbox.Options{Tmp: true}.Run(sandbox.Command(args))
	case "demo", "up":
		var options lab.Options
		var pods int
		flags := buildFlags(&options, &pods)
		flags.Usage = global.Usage
		if err := flags.Parse(args); err != nil {
			return flagError(err)
		}
		if err := checkArguments(command, flags); err != nil {
			return fail(err)
		}
		if command == "demo" {
			return sandbox.Run(func() int { return demo(options, pods) })
		}
		return up(*name, options, pods)
	case "matrix":
		return matrixCommand(args, global.Usage)
	default:
		return request(*name, append([]string{command}, args...))
	}
}

// least returns the smallest valid value of a flag that is a number. A zero in [lab.Options] means the default, so most
// flags do not accept it.
func least(flag string) int {
	switch flag {
	case "pods":
		return 0
	case "mtu":
		return lab.MinMTU
	default:
		return 1
	}
}

// checkArguments rejects values that [lab.New] cannot distinguish from a default.
func checkArguments(command string, flags *pflag.FlagSet) (err error) {
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument, got %q", command, flags.Args())
	}
	flags.Visit(func(f *pflag.Flag) {
		n, notNumber := strconv.Atoi(f.Value.String())
		if f.Value.Type() == "int" && notNumber == nil && n < least(f.Name) && err == nil {
			err = fmt.Errorf("--%s=%d: want at least %d", f.Name, n, least(f.Name))
		}
	})
	return err
}

// buildFlags returns the flags that say what lab to build, and how many pods to add to each node.
func buildFlags(o *lab.Options, pods *int) *pflag.FlagSet {
	flags := pflag.NewFlagSet("lab", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.IntVarP(&o.Nodes, "nodes", "n", lab.DefaultNodes, "how many nodes")
	flags.IntVar(pods, "pods", podsPerNode, "how many pods on each node")
	flags.Var((*families)(&o.Families), "families", "ipv4, ipv6 or dual: of the overlay; with ipv6 the nodes have nothing else")
	flags.StringVar(&o.Config, "config", "", "network configuration, JSON, for these families (default: vxlan)")
	flags.StringVar(&o.CNI, "cni", "", "CNI network configuration list, JSON")
	flags.StringArrayVar(&o.DaemonArgs, "daemon-arg", nil, "argument for selvaged, such as --daemon-arg=--log-level=debug; repeatable")
	flags.IntVar(&o.Segments, "segments", 1, "underlay networks, with a router between them")
	flags.IntVar(&o.MTU, "mtu", 1500, "MTU of the nodes' uplinks, in bytes")
	flags.StringVar(&o.IPTables, "iptables", "", "the nodes' iptables: nft, legacy or none (default: the machine's)")
	flags.StringVar((*string)(&o.Store), "store", string(subnet.StoreEtcd),
		"of the leases: etcd, or kubernetes, which is a stand-in for its API server")
	flags.IntVar(&o.EtcdMembers, "etcd-members", 1, "members of the etcd cluster")
	flags.StringVar(&o.Bin, "bin", "", "directory of selvaged, selvage, etcd and cni/ (default: this program's)")
	return flags
}

// families is a flag's value.
type families []subnet.Family

func (f *families) String() string { return lab.FamiliesName(*f) }

func (f *families) Set(text string) (err error) {
	*f, err = lab.ParseFamilies(text)
	return err
}

// Type is for the list of flags.
func (f *families) Type() string { return "families" }

// flagError has nothing to print: pflag does, unless it was asked for help.
func flagError(err error) int {
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	return fail(err)
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	return 1
}
