// Command pod is what runs in the containers of the tests. It is one static program, since their image has nothing else.
//
//	pod pause              wait for a signal, and reap: what holds a pod's sandbox
//	pod serve [ADDR:]PORT  answer, by UDP and TCP, with the address that the caller has
//	pod ask ADDR:PORT      ask such a server by both and print what it answered, once
//	pod netns              print the network namespace, as the kernel names it
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "pod: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	command, argument := "pause", ""
	if len(args) > 0 {
		command = args[0]
	}
	if len(args) > 1 {
		argument = args[1]
	}
	switch command {
	case "pause":
		return pause()
	case "serve":
		return serve(argument)
	case "ask":
		return ask(argument)
	case "netns":
		name, err := os.Readlink("/proc/self/ns/net")
		fmt.Print(name)
		return err
	}
	return fmt.Errorf("%q: want pause, serve, ask or netns", command)
}

// pause waits to be ended. As pid 1 it has to reap what the pod's containers leave, if they share its process namespace.
func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

func serve(address string) error {
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		packet := make([]byte, 2048)
		for {
			_, from, err := udp.ReadFrom(packet)
			if err != nil {
				failed <- err
				return
			}
			_, _ = udp.WriteTo([]byte(host(from)), from) // an answer that cannot be sent is one that is lost
		}
	}()
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				failed <- err
				return
			}
			_, _ = io.WriteString(conn, host(conn.RemoteAddr())) // the same
			_ = conn.Close()
		}
	}()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-failed:
		return err
	case <-ended: // pid 1 ends by a signal only if it asks for it
		return nil
	}
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String()) // an address of the standard library's own making
	return h
}

// ask prints the answer if both protocols give the same.
func ask(address string) error {
	const patience = 2 * time.Second
	var answers [2]string
	for i, network := range []string{"udp", "tcp"} {
		conn, err := net.DialTimeout(network, address, patience)
		if err != nil {
			return err
		}
		if err := errors.Join(conn.SetDeadline(time.Now().Add(patience)), answer(conn, network == "udp", &answers[i])); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", network, err), conn.Close())
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	if answers[0] != answers[1] {
		return fmt.Errorf("UDP was answered %q, TCP %q", answers[0], answers[1])
	}
	fmt.Print(answers[0])
	return nil
}

func answer(conn net.Conn, datagram bool, to *string) error {
	if !datagram {
		b, err := io.ReadAll(conn)
		*to = string(b)
		return err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	b := make([]byte, 128)
	n, err := conn.Read(b)
	*to = string(b[:n])
	return err
}
