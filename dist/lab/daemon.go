package lab

import (
	"bytes"
	"fmt"
	"net"
	"slices"
)

// daemon is one run of a node's daemon.
type daemon struct {
	*process
	ready chan struct{} // closed when it has said that all is in place
}

// startDaemon starts a daemon and listens to what it tells about itself by sd_notify(3).
func startDaemon(do func(func() error) error, log string, argv []string, env ...string) (*daemon, error) {
	// The name is the kernel's choice (autobind, unix(7)). It is an abstract one, which belongs to the network namespace, so
	// it is in nobody's way and there is no file to remove.
	socket, err := in(do, func() (*net.UnixConn, error) { return net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"}) })
	if err != nil {
		return nil, fmt.Errorf("make a socket for the daemon's state: %w", err)
	}
	p, err := startProcess(do, log, argv, append(env, "NOTIFY_SOCKET="+socket.LocalAddr().String())...)
	if err != nil {
		socket.Close()
		return nil, err
	}
	d := &daemon{process: p, ready: make(chan struct{})}
	go d.listen(socket)
	go func() {
		<-d.done
		socket.Close() // ends the other
	}()
	return d, nil
}

// listen closes ready at the first message that says so.
func (d *daemon) listen(socket *net.UnixConn) {
	message := make([]byte, 4096)
	said := false
	for {
		n, err := socket.Read(message)
		if err != nil {
			return
		}
		states := bytes.Split(message[:n], []byte("\n"))
		if !said && slices.ContainsFunc(states, func(s []byte) bool { return string(s) == "READY=1" }) {
			said = true
			close(d.ready)
		}
	}
}
