package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/selvage-net/selvage/dist/lab"
)

// Options say what runs on a node.
type Options struct {
	Argv   []string // the runtime's daemon
	Env    []string // beside the process's own
	Socket string   // on which it answers to CRI, in the node's view
	Logs   string   // directory for what it prints, in the process's own view
	Cgroup string   // what containers go below, as a path in each hierarchy
}

// Runtime is the container runtime of one node.
type Runtime struct {
	Node *lab.Node

	options Options
	conn    *grpc.ClientConn
	pods    api.RuntimeServiceClient
	images  api.ImageServiceClient
	process *exec.Cmd
	ended   chan struct{}
}

// New is a runtime that does not run yet.
func New(node *lab.Node, o Options) (*Runtime, error) {
	// The name of a socket is looked up in the mount namespace of who connects.
	dial := func(ctx context.Context, _ string) (conn net.Conn, err error) {
		err = node.Do(func() error { conn, err = new(net.Dialer).DialContext(ctx, "unix", o.Socket); return err })
		return conn, err
	}
	conn, err := grpc.NewClient("passthrough:///"+o.Socket, grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node.Name(), err)
	}
	return &Runtime{
		Node: node, options: o, conn: conn, pods: api.NewRuntimeServiceClient(conn), images: api.NewImageServiceClient(conn),
	}, nil
}

// name is that of the daemon.
func (r *Runtime) name() string { return filepath.Base(r.options.Argv[0]) }

// Start starts the runtime and waits until it answers.
func (r *Runtime) Start(ctx context.Context) error {
	log, err := os.OpenFile(r.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	r.process = exec.Command(r.options.Argv[0], r.options.Argv[1:]...)
	r.process.Env = append(os.Environ(), r.options.Env...)
	r.process.Stdout, r.process.Stderr = log, log
	r.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.Node.Do(r.process.Start); err != nil {
		return fmt.Errorf("%s: start %s: %w", r.Node.Name(), r.name(), err)
	}
	ended := make(chan struct{})
	r.ended = ended
	process := r.process
	go func() { _ = process.Wait(); close(ended) }() // how it ended is in its log
	for {
		_, err := r.pods.Version(ctx, &api.VersionRequest{})
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s: %s has ended%s", r.Node.Name(), r.name(), r.LastLines())
		default:
		}
		if e := Pause(ctx); e != nil {
			return fmt.Errorf("%s: %s does not answer: %w: %w%s", r.Node.Name(), r.name(), e, err, r.LastLines())
		}
		r.conn.ResetConnectBackoff()
	}
}

// Pause is between two looks at something that does not tell when it changes.
func Pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// Kill ends the runtime as a crash does. What looks after each container goes on, and the containers with it.
func (r *Runtime) Kill() {
	_ = r.process.Process.Kill() // fails only if it has ended
	<-r.ended
}

// Stop ends the runtime as an init system does. Its containers go on.
func (r *Runtime) Stop(ctx context.Context) error {
	if err := r.process.Process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("%s: stop %s: %w%s", r.Node.Name(), r.name(), err, r.LastLines())
	}
	return r.Ended(ctx)
}

// Ended waits until the runtime has ended by itself.
func (r *Runtime) Ended(ctx context.Context) error {
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %s goes on: %w", r.Node.Name(), r.name(), ctx.Err())
	}
}

// Close ends the runtime. The processes of its containers end with the lab.
func (r *Runtime) Close() error {
	if r.process != nil && r.process.Process != nil {
		r.Kill()
	}
	return r.conn.Close()
}

// Version is what the runtime says of itself.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.pods.Version(ctx, &api.VersionRequest{})
	return v.GetRuntimeName() + " " + v.GetRuntimeVersion(), err
}

// LogPath is the file with what the runtime printed in all its runs.
func (r *Runtime) LogPath() string {
	return filepath.Join(r.options.Logs, r.Node.Name()+"."+r.name()+".log")
}

// LastLines is for the end of an error: what the runtime printed last.
func (r *Runtime) LastLines() string {
	b, err := os.ReadFile(r.LogPath())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "; it last printed:\n    " + strings.Join(lines[max(0, len(lines)-10):], "\n    ")
}

// Configure writes the network configuration, as a whole, as whoever installs it should; an empty one removes it.
func (r *Runtime) Configure(conflist string) error {
	return r.Node.Do(func() error {
		if conflist == "" {
			return os.Remove(ConfFile)
		}
		return errors.Join(os.WriteFile(ConfFile+".tmp", []byte(conflist), 0o644), os.Rename(ConfFile+".tmp", ConfFile))
	})
}

// NetworkReady is the condition of that name by which the kubelet tells that a node is ready, and why it is not.
func (r *Runtime) NetworkReady(ctx context.Context) (bool, string, error) {
	answer, err := r.pods.Status(ctx, &api.StatusRequest{})
	if err != nil {
		return false, "", fmt.Errorf("%s: ask for the status: %w", r.Node.Name(), err)
	}
	for _, c := range answer.GetStatus().GetConditions() {
		if c.Type == api.NetworkReady {
			return c.Status, c.Message, nil
		}
	}
	return false, "", fmt.Errorf("%s: the status has no %s", r.Node.Name(), api.NetworkReady)
}

// HasImage tells whether the runtime has an image of that name, so that a kubelet that is to pull it IfNotPresent does not.
func (r *Runtime) HasImage(ctx context.Context, reference string) (bool, error) {
	answer, err := r.images.ImageStatus(ctx, &api.ImageStatusRequest{Image: &api.ImageSpec{Image: reference}})
	if err != nil {
		return false, fmt.Errorf("%s: ask for the image %s: %w", r.Node.Name(), reference, err)
	}
	return answer.GetImage() != nil, nil
}

// KillProcess ends a process that the runtime started, as the kernel does when memory runs out.
func KillProcess(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); !errors.Is(err, unix.ESRCH) { // it may have ended with the last one
		return err
	}
	return nil
}
