package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// killed is what a signal's number is added to in the exit code of what it ended, as in a shell.
const killed = 128

// interrupted is the exit code of what Ctrl-C ended.
const interrupted = killed + int(unix.SIGINT)

// promptEnv is the environment variable with which the process outside the sandbox asks the one inside for a prompt.
const promptEnv = "SELVAGE_LAB_PROMPT"

// up runs a lab until the user ends it, with the given number of pods on each node.
func up(name string, options lab.Options, pods int) int {
	outside := func() ([]*os.File, func(), error) {
		restore := func() {}
		if isTerminal(os.Stdin) && isTerminal(os.Stdout) && isForeground(os.Stdin) {
			os.Setenv(promptEnv, "1")
			restore = keepSettings(os.Stdin)
		}
		dir, err := claimRunDir(name)
		if err != nil {
			return nil, nil, err
		}
		socket, err := dir.listen()
		if err != nil {
			dir.remove()
			return nil, nil, err
		}
		return []*os.File{socket}, func() { restore(); dir.remove() }, nil
	}
	return sandbox.Options{Outside: outside}.Run(func() int {
		if err := keepUp(name, options, pods); err != nil {
			return fail(err)
		}
		return 0
	})
}

// signals returns a context that ends when the user wants an end. Nothing has to be undone then: with the sandbox goes all
// that is in it.
func signals() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// keepUp is what up does inside the sandbox.
func keepUp(name string, options lab.Options, pods int) error {
	ctx, stop := signals()
	defer stop()
	inherited, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return fmt.Errorf("take over the socket: %w", err)
	}
	listener, ok := inherited.(*net.UnixListener)
	if !ok {
		return errors.New("take over the socket: it is not one")
	}
	options.Log = os.Stdout
	l, err := lab.New(ctx, options)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if err := l.Install(); err != nil {
		fmt.Println(err) // selvaged doctor will say so, too
	}
	if err := toolsFor(options.Bin, l.Etcd()); err != nil {
		return err
	}
	if err := addPods(ctx, l, pods); err != nil {
		return err
	}
	s := session{lab: l, down: stop, here: l.Nodes()[0].Name(), daemon: daemonCommands(ctx, "selvaged")}
	served := make(chan struct{})
	go func() {
		defer close(served)
		serve(ctx, listener, s.run)
	}()
	where := os.Args[0]
	if name != "default" {
		where += " --name " + name
	}
	fmt.Println()
	if len(l.Pods()) > 0 && len(l.Nodes()) <= 5 {
		nodes(ctx, &s, nil, stdio{out: os.Stdout})
		fmt.Println()
	}
	if os.Getenv(promptEnv) == "" {
		fmt.Printf("The lab is up. Try \"%[1]s probe\" or \"%[1]s help\" in another terminal; "+
			"Ctrl-C or \"%[1]s down\" ends it.\n", where)
		<-ctx.Done()
	} else {
		os.Unsetenv(promptEnv)
		fmt.Printf("The lab is up. \"help\" lists the commands, Tab completes them, \"down\" or Ctrl-D ends\n"+
			"the lab. In another terminal: %s COMMAND.\n\n"+
			"Try: probe, status, peers, explain pod3, fault node1 device-del, exec pod1 sh\n\n", where)
		here := s
		here.move = true
		if err := prompt(ctx, &here, stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}); err != nil {
			return err
		}
	}
	<-served
	fmt.Println("\nThe lab is down.")
	return nil
}

// addPods adds pods to each node.
func addPods(ctx context.Context, l *lab.Lab, each int) error {
	for _, n := range l.Nodes() {
		for range each {
			if _, err := l.AddPod(ctx, n, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// toolsFor has commands that are run on nodes find what was built, and etcdctl the lab's etcd.
func toolsFor(bin string, etcd *lab.Etcd) error {
	if bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		bin = filepath.Dir(exe)
	}
	bin, err := filepath.Abs(bin)
	err = errors.Join(err, os.Setenv("PATH", bin+":"+os.Getenv("PATH")))
	if etcd != nil {
		err = errors.Join(err, os.Setenv("ETCDCTL_ENDPOINTS", strings.Join(etcd.Endpoints(), ",")))
	}
	return err
}
