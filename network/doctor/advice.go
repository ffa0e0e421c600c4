package doctor

import (
	"regexp"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// etcdPrefix stands in advice for where config and leases are kept in etcd.
const etcdPrefix = "ETCD_PREFIX"

// addressed puts into the commands of advice what they need to reach the etcd that the daemon uses, at the prefix that it uses.
func (f Facts) addressed(advice string) string {
	a := &status.EtcdAccess{}
	if f.Status != nil && f.Status.Etcd.Access != nil {
		a = f.Status.Etcd.Access
	}
	where := a.Prefix
	if where == "" {
		where = "/coreos.com/network"
	}
	certificates, release := flags("cacert", a.CAFile, "cert", a.CertFile, "key", a.KeyFile), releaseFlags(*a)
	ctl := certificates + flags("user", a.Username) // it asks for the password itself
	at := ""
	if local := []string{"http://127.0.0.1:2379"}; len(a.Endpoints) > 0 && !slices.Equal(a.Endpoints, local) { // else both find it by themselves
		endpoints := word(strings.Join(a.Endpoints, ","))
		at, release = " --endpoints="+endpoints, " --etcd-endpoints="+endpoints+release
	}
	return strings.NewReplacer(
		"etcdctl --endpoints=", "etcdctl"+ctl+" --endpoints=", // one member, which is named
		"etcdctl role ", "etcdctl"+at+certificates+" role ", // not for this user to do
		"etcdctl ", "etcdctl"+at+ctl+" ",
		"selvaged release ", "selvaged release"+release+" ",
		etcdPrefix, where,
	).Replace(advice)
}

// releaseFlags is how selvaged release is told so, with a lease's place.
func releaseFlags(a status.EtcdAccess) string {
	if a.Prefix == "/coreos.com/network" {
		a.Prefix = ""
	}
	return flags("etcd-prefix", a.Prefix, "etcd-cafile", a.CAFile, "etcd-certfile", a.CertFile, "etcd-keyfile", a.KeyFile,
		"etcd-username", a.Username, "etcd-password-file", a.PasswordFile)
}

// flags writes names and values that follow each other, but for those without a value.
func flags(pairs ...string) string {
	var b strings.Builder
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			b.WriteString(" --" + pair[0] + "=" + word(pair[1]))
		}
	}
	return b.String()
}

// plain are words that a shell leaves as they are.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]*$`)

// word quotes text for a shell.
func word(text string) string {
	if plain.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
