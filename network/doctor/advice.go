package doctor

import (
	"regexp"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// storeCommands formats advice about the daemon's store. Commands can be copied to a shell as they are.
type storeCommands interface {
	show(status.Peer) string         // shows a lease's record
	remove(status.Peer) string       // removes the record of a lease that no node uses
	releaseLease(status.Peer) string // releases the lease of a node that is gone
	// releaseAny is the same for peers that are known later: a command up to the argument, and a placeholder for that.
	releaseAny() (command string, peer any)
	moves(node string) string // has a node, named so, get another subnet
	noLease() string          // what to do if there is no free subnet
	configPlace() string      // where the network config is
	writeConfig() string      // writes a first network config
	replaceConfig() string    // shows the network config and writes another one
}

// kind returns the kind of the daemon's store; without a daemon, etcd.
func (f Facts) kind() subnet.StoreKind {
	if f.Status != nil && f.Status.Store.Kind != "" {
		return subnet.StoreKind(f.Status.Store.Kind)
	}
	return subnet.StoreEtcd
}

// words returns the words for the daemon's store.
func (f Facts) words() subnet.StoreWords { return f.kind().Words() }

// storeCheck returns the name of the check of the daemon's store.
func (f Facts) storeCheck() string {
	if f.kind() == subnet.StoreKubernetes {
		return "apiserver"
	}
	return "etcd"
}

// store returns advice about the daemon's store.
func (f Facts) store() storeCommands {
	if f.kind() == subnet.StoreKubernetes {
		return f.kubernetes()
	}
	return f.etcd()
}

// etcdCommands formats commands for the daemon's etcd.
type etcdCommands struct {
	access    status.StoreAccess
	endpoints string // empty: the default, which etcdctl and selvaged share
}

// etcd returns commands for the daemon's etcd; without a daemon, for the default endpoint.
func (f Facts) etcd() (c etcdCommands) {
	if f.Status != nil && f.Status.Store.Access != nil {
		c.access = *f.Status.Store.Access
	}
	all := c.access.Endpoints
	if len(all) > 0 && !slices.Equal(all, []string{"http://127.0.0.1:2379"}) {
		c.endpoints = strings.Join(all, ",")
	}
	return c
}

// defaultPrefix is the default prefix of flannel's and selvage's etcd keys.
const defaultPrefix = "/coreos.com/network"

// key returns a key below the daemon's prefix, quoted for a shell.
func (c etcdCommands) key(name string) string {
	if c.access.Prefix == "" {
		return shellQuote(defaultPrefix + "/" + name)
	}
	return shellQuote(c.access.Prefix + "/" + name)
}

// ctl returns an etcdctl command. args must be quoted. etcdctl prompts for the password.
func (c etcdCommands) ctl(args ...string) string {
	return command("etcdctl", flags("endpoints", c.endpoints), c.certificates(), flags("user", c.access.Username), args)
}

// ctlAt returns an etcdctl command for one endpoint.
func (c etcdCommands) ctlAt(endpoint string, args ...string) string {
	return command("etcdctl", flags("endpoints", endpoint), c.certificates(), flags("user", c.access.Username), args)
}

// admin returns an etcdctl command that needs more rights than the daemon's user has. args are quoted here.
func (c etcdCommands) admin(program string, args ...string) string {
	return command(program, flags("endpoints", c.endpoints), c.certificates(), quoteAll(args))
}

func (c etcdCommands) certificates() []string {
	return flags("cacert", c.access.CAFile, "cert", c.access.CertFile, "key", c.access.KeyFile)
}

// release returns the command that releases the lease of a subnet.
func (c etcdCommands) release(subnet string) string {
	a := c.access
	if a.Prefix == defaultPrefix {
		a.Prefix = ""
	}
	return command("selvaged", []string{"release"}, flags("etcd-endpoints", c.endpoints, "etcd-prefix", a.Prefix,
		"etcd-cafile", a.CAFile, "etcd-certfile", a.CertFile, "etcd-keyfile", a.KeyFile,
		"etcd-username", a.Username, "etcd-password-file", a.PasswordFile), []string{subnet})
}

// keyOf returns the key of a lease, quoted for a shell: a rejected lease can have any key.
func (c etcdCommands) keyOf(p status.Peer) string { return c.key("subnets/" + p.Key) }

func (c etcdCommands) show(p status.Peer) string { return c.ctl("get", c.keyOf(p)) }

func (c etcdCommands) remove(p status.Peer) string { return c.ctl("del", c.keyOf(p)) }

func (c etcdCommands) releaseLease(p status.Peer) string {
	if len(p.Subnets) == 0 {
		return c.remove(p)
	}
	return c.release(p.Subnets[0].String())
}

func (c etcdCommands) releaseAny() (string, any) { return c.release(""), peerSubnet{} }

func (c etcdCommands) moves(node string) string {
	return "restart the daemon on " + node + ", which claims another subnet"
}

func (c etcdCommands) noLease() string {
	return "free subnets: " + c.release("SUBNET") +
		" for nodes that are gone, or use a larger Network in the network config"
}

func (c etcdCommands) configPlace() string { return c.key("config") + " in etcd" }

func (c etcdCommands) writeConfig() string {
	return c.ctl("put", c.key("config"), `'{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'`) +
		", with a network of your own"
}

func (c etcdCommands) replaceConfig() string {
	return c.ctl("get", c.key("config")) + " shows it; write a valid one with " + c.ctl("put", c.key("config"))
}

func command(program string, args ...[]string) string {
	return strings.Join(slices.Insert(slices.Concat(args...), 0, program), " ")
}

// flags returns --NAME=VALUE for pairs of names and values. It skips empty values.
func flags(pairs ...string) (all []string) {
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			all = append(all, "--"+pair[0]+"="+shellQuote(pair[1]))
		}
	}
	return all
}

// quoteAll quotes each of several arguments for a shell.
func quoteAll(args []string) []string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = shellQuote(a)
	}
	return quoted
}

// shellSafe matches text that a shell does not change.
var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]*$`)

// shellQuote quotes text for a shell.
func shellQuote(text string) string {
	if shellSafe.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
