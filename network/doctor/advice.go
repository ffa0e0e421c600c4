package doctor

import (
	"regexp"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// etcdCommands formats commands for the daemon's etcd. They can be copied to a shell as they are.
type etcdCommands struct {
	access    status.EtcdAccess
	endpoints string // empty: the default, which etcdctl and selvaged share
}

// etcd returns commands for the daemon's etcd; without a daemon, for the default endpoint.
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
	args = slices.Clone(args)
	for i := range args {
		args[i] = shellQuote(args[i])
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

// flags returns --NAME=VALUE for pairs of names and values. It skips empty values.
func flags(pairs ...string) (all []string) {
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			all = append(all, "--"+pair[0]+"="+shellQuote(pair[1]))
		}
	}
	return all
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
