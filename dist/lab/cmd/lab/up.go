package main

import (
	"bufio"
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

// interrupted is the exit code of what Ctrl-C ended, as in a shell.
const interrupted = 128 + int(unix.SIGINT)

// up runs a lab until it is told to end.
func up(name string, options lab.Options) int {
	outside := func() ([]*os.File, func(), error) {
		dir, err := claimRunDir(name)
		if err != nil {
			return nil, nil, err
		}
		socket, err := dir.listen()
		if err != nil {
			dir.remove()
			return nil, nil, err
		}
		return []*os.File{socket}, dir.remove, nil
	}
	return sandbox.Options{Outside: outside}.Run(func() int {
		if err := keepUp(name, options); err != nil {
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
func keepUp(name string, options lab.Options) error {
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
	if err := toolsFor(options.Bin, l.Etcd().Endpoints()); err != nil {
		return err
	}
	s := &session{lab: l, down: stop}
	served := make(chan struct{})
	go func() {
		defer close(served)
		serve(ctx, listener, s.run)
	}()
	where := os.Args[0]
	if name != "default" {
		where += " --name " + name
	}
	fmt.Printf("\nThe lab is up. Try \"%s probe\" or \"%s help\" in another terminal; Ctrl-C or \"%s down\" ends it.\n", where, where, where)
	if isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		fmt.Println("Here the same commands work as they are: status, pod add node1, probe, explain node1, help.")
		// Nothing can end a read from a terminal, so this goroutine is left to end with the process.
		go prompt(ctx, s)
	}
	<-ctx.Done()
	<-served
	fmt.Println("\nThe lab is down.")
	return nil
}

// toolsFor has commands that are run on nodes find what was built, and etcdctl the lab's etcd.
func toolsFor(bin string, endpoints []string) error {
	if bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		bin = filepath.Dir(exe)
	}
	bin, err := filepath.Abs(bin)
	return errors.Join(err, os.Setenv("PATH", bin+":"+os.Getenv("PATH")), os.Setenv("ETCDCTL_ENDPOINTS", strings.Join(endpoints, ",")))
}

// prompt reads commands from the terminal.
func prompt(ctx context.Context, s *session) {
	lines := bufio.NewScanner(os.Stdin)
	for {
		fmt.Print("lab> ")
		if !lines.Scan() {
			s.down()
			return
		}
		args, err := splitLine(lines.Text())
		if err != nil {
			fmt.Println(err)
			continue
		}
		if len(args) > 0 && args[0] == "lab" {
			args = args[1:]
		}
		if len(args) > 0 {
			s.run(ctx, args, stdio{os.Stdin, os.Stdout, os.Stderr})
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// splitLine parts a line at white space, except in quotes.
func splitLine(line string) ([]string, error) {
	var args []string
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		var arg strings.Builder
		for rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			if quote := rest[0]; quote == '"' || quote == '\'' {
				inner, after, closed := strings.Cut(rest[1:], string(quote))
				if !closed {
					return nil, fmt.Errorf("a closing %c is missing", quote)
				}
				arg.WriteString(inner)
				rest = after
				continue
			}
			arg.WriteByte(rest[0])
			rest = rest[1:]
		}
		args = append(args, arg.String())
	}
	return args, nil
}
