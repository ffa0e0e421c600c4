package etcd

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
)

// explain adds to an error of a request what it means and what to do, like [Options.explain]. If a permission is
// missing, it also finds out which one: etcd does not say.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s.login.invalidate(err)
	if !denied(err) || ctx.Err() != nil {
		return s.opts.explain(err)
	}
	if missing := s.missingRights(ctx); len(missing) > 0 {
		return s.opts.lacks(missing, err)
	}
	return s.opts.explain(err)
}

func denied(err error) bool {
	_, text := describe(err)
	return text == rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionDenied)
}

// right is a permission that a node needs.
type right struct {
	what  string   // as text
	grant []string // arguments after etcdctl role grant-permission ROLE
}

// missingRights requests each thing that a node needs, and returns what is denied. The write never happens: it depends
// on a condition that is never true, and etcd checks the rights to both branches of a transaction before the condition.
// If etcd does not answer all requests, nothing is returned.
func (s *Store) missingRights(ctx context.Context) (missing []right) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	unknown := false
	refused := func(op clientv3.Op) bool {
		_, err := s.client.Do(ctx, op)
		unknown = unknown || err != nil && !denied(err)
		return err != nil && denied(err)
	}
	defer func() {
		if unknown {
			missing = nil // a part of it would be misleading
		}
	}()
	if refused(clientv3.OpGet(s.keys.config, clientv3.WithKeysOnly())) {
		missing = append(missing, right{"read on " + s.keys.config, []string{"read", s.keys.config}})
	}
	grant := []string{"--prefix=true", "readwrite", s.keys.subnets}
	list := clientv3.OpGet(s.keys.subnets,
		clientv3.WithRange(s.keys.end), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	if refused(list) {
		// Whether it may write cannot be found out without reading.
		return append(missing, right{"read on the prefix " + s.keys.subnets, grant})
	}
	never := clientv3.Compare(clientv3.CreateRevision(s.keys.subnets), "<", 0)
	if refused(clientv3.OpTxn([]clientv3.Cmp{never}, []clientv3.Op{clientv3.OpPut(s.keys.subnets, "")}, nil)) {
		missing = append(missing, right{"write on the prefix " + s.keys.subnets, grant})
	}
	return missing
}

// lacks returns an error that says which rights are missing and how to grant them. It is caused by err.
func (o Options) lacks(missing []right, err error) *fault {
	var what, texts []string
	var commands [][]string
	for _, r := range missing {
		command := append([]string{"etcdctl", "role", "grant-permission", "ROLE"}, r.grant...)
		what, commands = append(what, r.what), append(commands, command)
		texts = append(texts, strings.Join(command, " "))
	}
	return &fault{
		reason: subnet.ReasonForbidden, commands: commands, err: err,
		advice: fmt.Sprintf("etcd denied %s access: it lacks %s. Grant it to a role of the user: %s",
			o.user(), strings.Join(what, " and "), strings.Join(texts, "; ")),
	}
}

// user names who we are to etcd.
func (o Options) user() string {
	switch {
	case o.Username != "":
		return fmt.Sprintf("user %q", o.Username)
	case o.CertFile != "":
		return "the user that the client certificate " + o.CertFile + " names (its common name)"
	default:
		return "the user that the client certificate names"
	}
}
