package doctor

import (
	"regexp"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// etcdCommands writes commands for the etcd that the daemon uses, so that they can be run as they are shown.
type etcdCommands struct {
	access    status.EtcdAccess
	endpoints string // empty: those that both programs use by default
}

// etcd returns the commands for the daemon's etcd; without a daemon, for the default one.
func (f Facts) etcd() (c etcdCommands) {
	if f.Status != nil && f.Status.Etcd.Access != nil {
		c.access = *f.Status.Etcd.Access
	}
	all := c.access.Endpoints
	if len(all) > 0 && !slices.Equal(all, []string{"http://127.0.0.1:2379"}) {
		c.endpoints = strings.Join(all, ",")
	}
	return c
}

// defaultPrefix is where flannel and selvage keep the network config and the leases unless told otherwise.
const defaultPrefix = "/coreos.com/network"

// key returns a key below the daemon's prefix, quoted for a shell.
func (c etcdCommands) key(name string) string {
	if c.access.Prefix == "" {
		return word(defaultPrefix + "/" + name)
	}
	return word(c.access.Prefix + "/" + name)
}

// ctl returns an etcdctl command. The arguments are quoted already. etcdctl asks for the password by itself.
func (c etcdCommands) ctl(args ...string) string {
	return command("etcdctl", flags("endpoints", c.endpoints), c.certificates(), flags("user", c.access.Username), args)
}

// ctlAt returns an etcdctl command for one endpoint.
func (c etcdCommands) ctlAt(endpoint string, args ...string) string {
	return command("etcdctl", flags("endpoints", endpoint), c.certificates(), flags("user", c.access.Username), args)
}

// admin returns an etcdctl command, given as program and arguments, that takes more rights than the daemon's user has.
func (c etcdCommands) admin(program string, args ...string) string {
	args = slices.Clone(args)
	for i := range args {
		args[i] = word(args[i])
	}
	return command(program, flags("endpoints", c.endpoints), c.certificates(), args)
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

func command(program string, args ...[]string) string {
	return strings.Join(slices.Insert(slices.Concat(args...), 0, program), " ")
}

// flags returns --NAME=VALUE of pairs of names and values, without those that have no value.
func flags(pairs ...string) (all []string) {
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			all = append(all, "--"+pair[0]+"="+word(pair[1]))
		}
	}
	return all
}

// plain matches what a shell leaves as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]*$`)

// word quotes text for a shell.
func word(text string) string {
	if plain.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
