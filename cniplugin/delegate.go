package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
)

// This file does what libcni's package invoke is for. That one imports OpenTelemetry and with it net/http, whose size
// and initialisation every start of a container would pay for.

// delegateAdd runs the delegate's ADD and returns its result in the version that the configuration asks for.
func (p *Plugin) delegateAdd(ctx context.Context, config []byte, path string) (types.Result, error) {
	out, err := p.delegate(ctx, "ADD", config, path)
	if err != nil {
		return nil, err
	}
	result, err := decodeResult(config, out)
	if err != nil {
		return nil, fail(types.ErrDecodingFailure, "decode the delegate's result", err)
	}
	return result, nil
}

// decodeResult decodes what a delegate printed at ADD.
func decodeResult(config, out []byte) (types.Result, error) {
	want, err := create.DecodeVersion(config)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(out, &o); err != nil || o == nil {
		return nil, fmt.Errorf("%.80q is not a JSON object", out)
	}
	if _, ok := o["cniVersion"]; !ok { // plugins from before 0.3.0 leave it out
		r := start(o)
		r["cniVersion"] = want
		if out, err = json.Marshal(r); err != nil {
			return nil, err
		}
	}
	got, err := create.DecodeVersion(out)
	if err != nil {
		return nil, err
	}
	result, err := create.Create(got, out)
	if err != nil {
		return nil, err
	}
	return result.GetAsVersion(want)
}

// delegate runs the plugin that config names with the given verb and returns what it printed. It is looked for in path,
// the runtime's CNI_PATH, and gets the environment that we got (CNI spec, section 4). A delegate's own error is returned
// with its code, which may tell the runtime to try again.
func (p *Plugin) delegate(ctx context.Context, verb string, config []byte, path string) ([]byte, error) {
	name, program, err := findDelegate(config, path)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(slices.DeleteFunc(slices.Clone(p.Environ), isCommand), "CNI_COMMAND="+verb)
	cmd.Stdin = bytes.NewReader(config)
	cmd.Stdout = &stdout
	cmd.Stderr = io.MultiWriter(p.Stderr, &stderr)
	if err := cmd.Run(); err != nil {
		return nil, delegateError(name, verb, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// delegateError makes an error of what a delegate that failed with err printed.
func delegateError(name, verb string, err error, stdout, stderr []byte) error {
	what := fmt.Sprintf("delegate %q: %s", name, verb)
	var own types.Error
	switch _, exited := errors.AsType[*exec.ExitError](err); {
	case exited && json.Unmarshal(stdout, &own) == nil && own.Msg != "":
		return types.NewError(own.Code, what+": "+own.Msg, own.Details)
	case exited:
		said := strings.TrimSpace(string(stdout) + string(stderr))
		return fail(types.ErrInternal, what, fmt.Errorf("%w; it printed %q", err, said))
	case errors.Is(err, syscall.ETXTBSY): // it is being installed at this moment
		return fail(types.ErrTryAgainLater, what, err)
	default:
		return fail(types.ErrIOFailure, what, err)
	}
}

func isCommand(assignment string) bool { return strings.HasPrefix(assignment, "CNI_COMMAND=") }

// findDelegate returns the name of the plugin that config is for, and its file in a list of directories parted by
// colons.
func findDelegate(config []byte, path string) (name, file string, err error) {
	var h struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(config, &h); err != nil {
		return "", "", fail(types.ErrInternal, "decode the delegate's configuration", err)
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, h.Type)
		if info, err := os.Stat(file); dir != "" && err == nil && info.Mode().IsRegular() {
			return h.Type, file, nil
		}
	}
	return "", "", fail(types.ErrInvalidNetworkConfig, fmt.Sprintf("find delegate %q", h.Type),
		fmt.Errorf("no such program in CNI_PATH %q; install it there, or name another as delegate.type", path))
}
