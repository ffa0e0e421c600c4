// Package kubectl asks and changes a Kubernetes cluster by running kubectl, with the rights, the configuration and the
// connection of the user who runs it. Commands on nodes run in the daemons' pods: no login to a node is needed, and no
// port is opened.
package kubectl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Program is the name of the program that is run, which is looked for in PATH.
const Program = "kubectl"

// Client runs kubectl.
type Client struct {
	// Path is that of the program; empty: [Program] in PATH.
	Path string
	// Flags are given to each call, such as --context=test.
	Flags []string
}

// Error is a call that failed.
type Error struct {
	Args   []string
	Code   int    // exit code; -1: it did not end by itself, or not start
	Stderr string // without blanks around it
	Err    error
}

// Error implements error.
func (e *Error) Error() string {
	if errors.Is(e.Err, exec.ErrNotFound) {
		return Program + " is not in PATH: install it (kubernetes.io/docs/tasks/tools), or set its path with --kubectl"
	}
	return fmt.Sprintf("%s %s: %s", Program, strings.Join(e.Args, " "), cmp.Or(e.Stderr, e.Err.Error()))
}

// Unwrap returns the error of os/exec.
func (e *Error) Unwrap() error { return e.Err }

// Run runs kubectl with a standard input, a standard output and a standard error. Any of them can be nil. The error is
// an [Error]; if stderr is not nil, its text went there.
func (c Client) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, cmp.Or(c.Path, Program), slices.Concat(c.Flags, args)...)
	var problems bytes.Buffer
	if stderr == nil {
		stderr = &problems
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.WaitDelay = time.Second // for a standard input that stays open when the program has ended
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	e := &Error{Args: args, Code: -1, Stderr: strings.TrimSpace(problems.String()), Err: err}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		e.Code = exit.ExitCode()
	}
	return e
}

// Output runs kubectl, and returns what it printed.
func (c Client) Output(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := c.Run(ctx, nil, &out, nil, args...)
	return out.String(), err
}

// Get reads objects into a value as package encoding/json does. args are those of kubectl get.
func (c Client) Get(ctx context.Context, into any, args ...string) error {
	out, err := c.Output(ctx, slices.Concat([]string{"get", "-o", "json"}, args)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s get %s: %w", Program, strings.Join(args, " "), err)
	}
	return nil
}

// Object is a Kubernetes object, as JSON has it.
type Object = map[string]any

// Create creates objects, and Apply creates or changes them.
func (c Client) Create(ctx context.Context, objects ...Object) error {
	return c.write(ctx, "create", objects)
}

// Apply creates or changes objects.
func (c Client) Apply(ctx context.Context, objects ...Object) error {
	return c.write(ctx, "apply", objects)
}

func (c Client) write(ctx context.Context, verb string, objects []Object) error {
	list, err := json.Marshal(Object{"apiVersion": "v1", "kind": "List", "items": objects})
	if err != nil {
		return err
	}
	return c.Run(ctx, bytes.NewReader(list), nil, nil, verb, "-f", "-")
}

// Container is where a command runs.
type Container struct{ Namespace, Pod, Name string }

// Exec returns the arguments of a call that runs a command in a container. Its exit code is that of the command.
func (c Container) Exec(command ...string) []string {
	return slices.Concat([]string{"exec", "-i", "-n", c.Namespace, c.Pod, "-c", c.Name, "--"}, command)
}
