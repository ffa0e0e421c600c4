package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// This file replaces libcni's package skel. That one compiles regular expressions and decodes the configuration
// twice before it calls a plugin, which is a tenth of what we cost; and it finds out that CNI_NETNS is the node's own
// namespace only after the verb was carried out there.

// Main executes the verb that the environment names and returns the program's exit status. If a user runs the program
// without a verb, it prints its purpose.
func (p *Plugin) Main(ctx context.Context, about func() string) int {
	if p.getenv("CNI_COMMAND") == "" {
		fmt.Fprintf(p.Stderr, "%s\nCNI protocol versions supported: %s\n", about(),
			strings.Join(version.All.SupportedVersions(), ", "))
		return 0
	}
	err := p.run(ctx)
	if err == nil {
		return 0
	}
	if printErr := p.printError(err); printErr != nil {
		fmt.Fprintln(p.Stderr, "selvage:", err, "- and printing this as JSON failed:", printErr)
	}
	return 1
}

// run executes a verb.
func (p *Plugin) run(ctx context.Context) error {
	verb := p.getenv("CNI_COMMAND")
	if verb == "VERSION" {
		if err := version.All.Encode(p.Stdout); err != nil {
			return fail(types.ErrIOFailure, "print the versions", err)
		}
		return nil
	}
	v, ok := verbs()[verb]
	if !ok {
		return fail(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("CNI_COMMAND is %q", verb),
			errors.New("want ADD, DEL, CHECK, STATUS, GC or VERSION"))
	}
	stdin, err := io.ReadAll(p.Stdin)
	if err != nil {
		return fail(types.ErrIOFailure, "read the network configuration from standard input", err)
	}
	c, err := p.decode(verb, v, stdin)
	if err != nil {
		return err
	}
	return v.do(c, ctx)
}

// verb is a CNI verb.
type verb struct {
	do    func(*call, context.Context) error
	since string   // the first version of the spec with this verb; empty: all versions
	needs []string // required environment variables
	each  bool     // it concerns one attachment
}

func verbs() map[string]verb {
	const container, netns, ifName, path = "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"
	return map[string]verb{
		"ADD":    {(*call).add, "", []string{container, netns, ifName, path}, true},
		"DEL":    {(*call).del, "", []string{container, ifName, path}, true},
		"CHECK":  {(*call).check, "0.4.0", []string{container, netns, ifName, path}, true},
		"STATUS": {(*call).status, "1.1.0", []string{path}, false},
		"GC":     {(*call).gc, "1.1.0", []string{path}, false},
	}
}

// decode reads the call from the environment and standard input.
func (p *Plugin) decode(name string, v verb, stdin []byte) (*call, error) {
	missing := slices.DeleteFunc(v.needs, func(key string) bool { return p.getenv(key) != "" })
	if len(missing) > 0 {
		return nil, fail(types.ErrInvalidEnvironmentVariables, "the environment lacks "+strings.Join(missing, ", "),
			fmt.Errorf("%s needs it", name))
	}
	n, err := parseNetConf(stdin)
	if err != nil {
		p.spoken = n.CNIVersion
		return nil, fail(types.ErrDecodingFailure, "decode network configuration", err)
	}
	if err := checkVersion(name, v, n.CNIVersion); err != nil {
		return nil, err
	}
	p.spoken = n.CNIVersion
	c := &call{Plugin: p, netns: p.getenv("CNI_NETNS"), path: p.getenv("CNI_PATH"), conf: n, store: store{n.DataDir}}
	c.a = attachment{network: n.Name}
	if err := checkNetwork(n.Name); err != nil || !v.each {
		return c, err
	}
	c.a.containerID, c.a.ifName = p.getenv("CNI_CONTAINERID"), p.getenv("CNI_IFNAME")
	if err := c.a.check(); err != nil {
		return nil, err
	}
	return c, p.checkNamespace(c.netns)
}

// checkVersion returns an error if the spec has no such version, or that version lacks the verb.
func checkVersion(name string, v verb, spoken string) error {
	if spoken == "" {
		spoken = oldest
	}
	supported := version.All.SupportedVersions() // in order
	i := slices.Index(supported, spoken)
	switch {
	case i < 0:
		return fail(types.ErrIncompatibleCNIVersion, fmt.Sprintf("cniVersion is %q", spoken),
			fmt.Errorf("want one of %s", strings.Join(supported, ", ")))
	case i < slices.Index(supported, v.since):
		return fail(types.ErrIncompatibleCNIVersion, fmt.Sprintf("cniVersion is %q", spoken),
			fmt.Errorf("%s came with %s", name, v.since))
	}
	return nil
}

// checkNamespace returns an error if the container's namespace is the node's: a plugin's interface would be one of the
// node's own, or DEL would delete that. A namespace that is gone is none.
func (p *Plugin) checkNamespace(netns string) error {
	override := strings.ToUpper(p.getenv("CNI_NETNS_OVERRIDE"))
	if netns == "" || override == "TRUE" || override == "1" {
		return nil
	}
	container, err := os.Stat(netns)
	if err != nil {
		return nil // left to the delegate
	}
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil || !os.SameFile(container, own) {
		return nil
	}
	return fail(types.ErrInvalidNetNS, "CNI_NETNS is the node's own network namespace",
		fmt.Errorf("want a container's network namespace, got %s", netns))
}

// getenv returns an environment variable's value.
func (p *Plugin) getenv(key string) string {
	for _, assignment := range p.Environ {
		if name, value, _ := strings.Cut(assignment, "="); name == key {
			return value
		}
	}
	return ""
}

// printError prints an error as a plugin has to (CNI spec, section 5, Error), with the version that the runtime spoke,
// which [types.Error] lacks.
func (p *Plugin) printError(err error) error {
	e, ok := errors.AsType[*types.Error](err)
	if !ok {
		e = types.NewError(types.ErrInternal, err.Error(), "")
	}
	spoken := p.spoken
	if spoken == "" {
		spoken = version.Current()
	}
	data, err := json.MarshalIndent(struct {
		CNIVersion string `json:"cniVersion"`
		*types.Error
	}{spoken, e}, "", "    ")
	if err != nil {
		return err
	}
	_, err = p.Stdout.Write(append(data, '\n'))
	return err
}
