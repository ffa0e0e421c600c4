package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// tokenReuse is how long a token is given to further streams. etcd's own tokens live for five minutes without use.
const tokenReuse = time.Minute

// login answers etcd's client when it requests a token, which it does before each stream and when a request is rejected
// for lack of a valid one.
//
// It returns one token for a while. Checking a password is meant to be slow (bcrypt, some 50 ms of one of etcd's
// cores), and a node that reconnects requests a token two or three times: 10,000 nodes would keep etcd busy for half an
// hour.
//
// It also reads the password from its file each time, so that it can be changed while the daemon runs.
type login struct {
	started atomic.Bool // New is done
	file    string      // of the password; empty: the client knows it

	asking chan struct{} // size one, a lock: a request that waits for another one gets its token

	mu    sync.Mutex
	token *pb.AuthenticateResponse
	at    time.Time // when token was given
}

func newLogin(file string) *login {
	return &login{file: file, asking: make(chan struct{}, 1)}
}

// errNoPassword means that the password's file cannot be used.
var errNoPassword = errors.New("etcd password file")

// unary is a gRPC interceptor.
func (l *login) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	question, ok := req.(*pb.AuthenticateRequest)
	if !ok {
		err := next(ctx, method, req, reply, conn, opts...)
		l.invalidate(err)
		return err
	}
	if !l.started.Load() {
		// The client would request a token inside clientv3.New, and fail there as long as etcd is down. With this
		// answer it goes on, and requests one when a request is rejected.
		return rpctypes.ErrGRPCAuthNotEnabled
	}
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	answer := reply.(*pb.AuthenticateResponse)
	if l.reuse(answer) {
		return nil
	}
	if l.file != "" {
		password, err := readPassword(l.file)
		if err != nil {
			return err
		}
		question = &pb.AuthenticateRequest{Name: question.Name, Password: password}
	}
	if err := next(ctx, method, question, answer, conn, opts...); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token, l.at = &pb.AuthenticateResponse{Header: answer.Header, Token: answer.Token}, time.Now()
	return nil
}

// reuse fills in an earlier answer, if it is still valid as far as is known.
func (l *login) reuse(answer *pb.AuthenticateResponse) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token == nil || time.Since(l.at) > tokenReuse {
		return false
	}
	answer.Header, answer.Token = l.token.Header, l.token.Token
	return true
}

// invalidate drops the token if err says that it is not valid.
func (l *login) invalidate(err error) {
	if err == nil {
		return
	}
	_, text := describe(err)
	for _, e := range []error{
		rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty,
	} {
		if text == rpctypes.ErrorDesc(e) {
			l.mu.Lock()
			l.token = nil
			l.mu.Unlock()
			return
		}
	}
}

// readPassword reads a password from a file. A newline at its end, as editors write it, is not part of it.
func readPassword(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoPassword, err)
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 {
		return "", fmt.Errorf("%w %s: is empty", errNoPassword, file)
	}
	return string(data), nil
}
