package cniplugin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"
)

// This file replaces libcni's package invoke. That package imports OpenTelemetry and with it net/http, whose size and
// initialisation would slow down every start of a container.

// delegation is a plugin to run, and its configuration.
type delegation struct {
	plugin string
	config []byte
}

// bridgeConfig is what matters of the bridge plugin's configuration.
type bridgeConfig struct {
	Bridge           string // its name
	IsGateway        bool
	IsDefaultGateway bool
	ForceAddress     bool
	Vlan             int
	IPAM             struct{ Type string }
}

// bridge returns the configuration of the bridge plugin; ok is false, and the name empty, for another plugin, or for a
// configuration that the bridge plugin will reject.
func (d delegation) bridge() (c bridgeConfig, ok bool) {
	if d.plugin != defaultDelegate || json.Unmarshal(d.config, &c) != nil {
		return bridgeConfig{}, false
	}
	c.Bridge = cmp.Or(c.Bridge, "cni0")
	return c, true
}

// delegate has d carried out with the given verb and returns what was printed. The program is looked for in path, the
// runtime's CNI_PATH, and gets the environment that we got (CNI spec, section 4), but for the assignments in environ. A
// delegate's own error is returned with its code, which may tell the runtime to try again.
func (p *Plugin) delegate(ctx context.Context, verb string, d delegation, path string, environ ...string) (
	result []byte, err error,
) {
	program, err := findPlugin(d.plugin, path)
	if err != nil {
		return nil, err
	}
	stdout, stderr, err := execute(ctx, program, assign(p.Environ, append(environ, "CNI_COMMAND="+verb)), d.config)
	if len(stderr) > 0 {
		_, _ = p.Stderr.Write(stderr) // a failure cannot be reported any more
	}
	if err != nil {
		return nil, delegateError(d.plugin, verb, err, stdout, stderr)
	}
	return stdout, nil
}

// delegateError makes an error of what a delegate that failed with err printed.
func delegateError(plugin, verb string, err error, stdout, stderr []byte) error {
	what := fmt.Sprintf("delegate %q: %s", plugin, verb)
	var own types.Error
	switch _, exited := errors.AsType[exitError](err); {
	case exited && json.Unmarshal(stdout, &own) == nil && own.Msg != "":
		return withHint(types.NewError(own.Code, what+": "+own.Msg, own.Details), own.Msg+" "+own.Details)
	case exited:
		said := strings.TrimSpace(string(stdout) + string(stderr))
		return withHint(fail(types.ErrInternal, what, fmt.Errorf("%w; it printed %q", err, said)), said)
	case errors.Is(err, syscall.ETXTBSY): // it is being installed right now
		return fail(types.ErrTryAgainLater, what, err)
	default:
		return fail(types.ErrIOFailure, what, err)
	}
}

// assign returns an environment in which assignments replace what was assigned before.
func assign(environ, assignments []string) []string {
	environ = slices.DeleteFunc(slices.Clone(environ), func(old string) bool {
		name, _, _ := strings.Cut(old, "=")
		return slices.ContainsFunc(assignments, func(a string) bool { return strings.HasPrefix(a, name+"=") })
	})
	return append(environ, assignments...)
}

// findPlugin returns a plugin's file in a list of directories separated by colons.
func findPlugin(plugin, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, plugin)
		if info, err := os.Stat(file); dir != "" && err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", fail(types.ErrInvalidNetworkConfig, fmt.Sprintf("find delegate %q", plugin),
		fmt.Errorf("no such program in CNI_PATH %q; install it there, or name another as delegate.type", path))
}
