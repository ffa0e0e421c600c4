package cniplugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is a client for the daemon's socket. The package net/http makes the program twice as large, and slows
// down every start of a container. HTTP/1.0 (RFC 1945) needs no Host, and its answers have no chunks: an answer ends
// with the connection.

// Statuses of HTTP that the daemon answers with: see records.PathAttach.
const (
	statusAccepted    = 202
	statusNoContent   = 204
	statusNotFound    = 404
	statusUnavailable = 503
)

// request is a POST request of JSON to the daemon.
type request struct {
	socket string // path of a unix socket
	target string // path and query
	body   []byte
}

// answer is the daemon's.
type answer struct {
	status int
	text   string // for people, if the status is an error's
}

// send sends the request and does not wait for an answer.
func (r request) send(ctx context.Context) error {
	_, err := r.exchange(ctx, false)
	return err
}

// do sends the request and returns the answer.
func (r request) do(ctx context.Context) (answer, error) {
	data, err := r.exchange(ctx, true)
	if err != nil {
		return answer{}, err
	}
	a, ok := parseAnswer(data)
	if !ok {
		return a, fmt.Errorf("selvaged at %s sent no complete answer: %.40q", r.socket, data)
	}
	return a, nil
}

// maxAnswer limits the size of an answer, in bytes. The daemon's is a line.
const maxAnswer = 4096

// exchange sends the request and, if answered is set, reads until the daemon closes the connection.
func (r request) exchange(ctx context.Context, answered bool) ([]byte, error) {
	f, err := dial(r.socket)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) }) // the past
	defer stop()
	head := fmt.Appendf(nil, "POST %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		r.target, len(r.body))
	if _, err = f.Write(append(head, r.body...)); err != nil || !answered {
		return nil, r.failed(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAnswer))
	return data, r.failed(err)
}

func (r request) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("selvaged at %s does not answer", r.socket)
	default:
		return fmt.Errorf("ask selvaged: %w", err) // it names the socket
	}
}

// dial connects to a unix socket. A connection is made, or not, at once.
func dial(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
			return nil, fmt.Errorf("selvaged does not run here: no process listens on %s", path)
		case errors.Is(err, syscall.EAGAIN):
			return nil, fmt.Errorf("selvaged at %s does not accept connections", path)
		}
		return nil, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil // the poller's, since it does not block
}

// parseAnswer reads the status and the text of an answer. ok is false if it is cut off, or none of HTTP/1.
func parseAnswer(data []byte) (a answer, ok bool) {
	head, text, whole := bytes.Cut(data, []byte("\r\n\r\n"))
	line, _, _ := strings.Cut(string(head), "\r\n")
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	ok = whole && err == nil && strings.HasPrefix(proto, "HTTP/1.") && 100 <= status && status <= 599
	return answer{status, strings.TrimSpace(string(text))}, ok
}
