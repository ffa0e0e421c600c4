package containerd

import (
	"bytes"
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
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/selvage-net/selvage/dist/lab"
)

// Options say which containerd, and what to give to it.
type Options struct {
	Dir     string // of containerd, its shim and ctr; default: found by PATH
	Plugins string // directory of selvage and cni/
	Image   string // the archive that [Image] made
	Logs    string // directory for what containerd prints, in the node's view
}

// Runtime is the containerd of one node.
type Runtime struct {
	Node *lab.Node

	options Options
	parent  string // cgroup of the containers
	conn    *grpc.ClientConn
	pods    cri.RuntimeServiceClient
	process *exec.Cmd
	ended   chan struct{}
}

// New prepares a node, with the plugins installed and no network configuration, and starts containerd on it.
func New(ctx context.Context, node *lab.Node, o Options) (*Runtime, error) {
	parent, err := CgroupParent()
	if err != nil {
		return nil, err
	}
	r := &Runtime{Node: node, options: o, parent: parent}
	if err := node.Do(func() error { return r.prepare() }); err != nil {
		return nil, fmt.Errorf("%s: %w", node.Name(), err)
	}
	// The name of a socket is looked up in the mount namespace of who connects.
	dial := func(ctx context.Context, _ string) (conn net.Conn, err error) {
		err = node.Do(func() error { conn, err = new(net.Dialer).DialContext(ctx, "unix", Socket); return err })
		return conn, err
	}
	r.conn, err = grpc.NewClient("passthrough:///"+Socket, grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node.Name(), err)
	}
	r.pods = cri.NewRuntimeServiceClient(r.conn)
	return r, errors.Join(r.Start(ctx), r.importImage(ctx, o.Image))
}

func (r *Runtime) prepare() error {
	if err := prepareMounts(); err != nil {
		return err
	}
	for _, name := range []string{"selvage", "cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap"} {
		if err := install(filepath.Join(r.options.Plugins, name), binDir); err != nil {
			return err
		}
	}
	return os.WriteFile(configFile, []byte(config()), 0o644)
}

// configFile is containerd's, on the node.
const configFile = "/etc/containerd-lab.toml"

// Start starts containerd and waits until it answers.
func (r *Runtime) Start(ctx context.Context) error {
	log, err := os.OpenFile(r.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	r.process = exec.Command(r.command("containerd"), "--config", configFile)
	if r.options.Dir != "" { // the shim is found by PATH
		r.process.Env = append(os.Environ(), "PATH="+r.options.Dir+":"+os.Getenv("PATH"))
	}
	r.process.Stdout, r.process.Stderr = log, log
	r.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.Node.Do(r.process.Start); err != nil {
		return fmt.Errorf("%s: start containerd: %w", r.Node.Name(), err)
	}
	ended := make(chan struct{})
	r.ended = ended
	process := r.process
	go func() { _ = process.Wait(); close(ended) }() // how it ended is in its log
	for {
		_, err := r.pods.Version(ctx, &cri.VersionRequest{})
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s: containerd has ended%s", r.Node.Name(), r.lastLines())
		default:
		}
		if e := pause(ctx); e != nil {
			return fmt.Errorf("%s: containerd does not answer: %w: %w%s", r.Node.Name(), e, err, r.lastLines())
		}
		r.conn.ResetConnectBackoff()
	}
}

// pause is between two looks at something that does not tell when it changes.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// Kill ends containerd as a crash does. Its shims, and the containers with them, go on.
func (r *Runtime) Kill() {
	_ = r.process.Process.Kill() // fails only if it has ended
	<-r.ended
}

// Close ends containerd and, since nobody looks after them any more, every process of its containers.
func (r *Runtime) Close() error {
	if r.process != nil && r.process.Process != nil {
		r.Kill()
	}
	return r.conn.Close()
}

// Version is what containerd says of itself.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.pods.Version(ctx, &cri.VersionRequest{})
	return v.GetRuntimeName() + " " + v.GetRuntimeVersion(), err
}

// LogPath is the file with what containerd printed.
func (r *Runtime) LogPath() string {
	return filepath.Join(r.options.Logs, r.Node.Name()+".containerd.log")
}

// lastLines is for the end of an error.
func (r *Runtime) lastLines() string {
	b, err := os.ReadFile(r.LogPath())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "; it last printed:\n    " + strings.Join(lines[max(0, len(lines)-10):], "\n    ")
}

func (r *Runtime) command(name string) string {
	if r.options.Dir == "" {
		return name
	}
	return filepath.Join(r.options.Dir, name)
}

// importImage has the archive read here: a file below /run, say, is not one of the node's.
func (r *Runtime) importImage(ctx context.Context, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer f.Close()
	var problems bytes.Buffer
	err = r.Node.Exec(ctx, []string{r.command("ctr"), "--address", Socket, "--namespace", "k8s.io", "images", "import", "-"},
		lab.Stdio{In: f, Err: &problems})
	if err != nil {
		return fmt.Errorf("import %s: %w: %s", archive, err, bytes.TrimSpace(problems.Bytes()))
	}
	return nil
}

// Import gives containerd an image, from an archive.
func (r *Runtime) Import(ctx context.Context, archive string) error {
	return r.importImage(ctx, archive)
}

// Configure writes the network configuration, as a whole, as whoever installs it should; an empty one removes it.
func (r *Runtime) Configure(conflist string) error {
	return r.Node.Do(func() error {
		if conflist == "" {
			return os.Remove(confFile)
		}
		return errors.Join(os.WriteFile(confFile+".tmp", []byte(conflist), 0o644), os.Rename(confFile+".tmp", confFile))
	})
}

// NetworkReady is the condition of that name by which the kubelet tells that a node is ready, and why it is not.
func (r *Runtime) NetworkReady(ctx context.Context) (bool, string, error) {
	answer, err := r.pods.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return false, "", fmt.Errorf("%s: ask for the status: %w", r.Node.Name(), err)
	}
	for _, c := range answer.GetStatus().GetConditions() {
		if c.Type == cri.NetworkReady {
			return c.Status, c.Message, nil
		}
	}
	return false, "", fmt.Errorf("%s: the status has no %s", r.Node.Name(), cri.NetworkReady)
}

// kill ends a process that containerd started, as the kernel does when memory runs out.
func kill(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); !errors.Is(err, unix.ESRCH) { // it may have ended with the last one
		return err
	}
	return nil
}
