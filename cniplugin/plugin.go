package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/subnet"
)

// Plugin carries out the CNI verbs. Its fields are what a program has of its surroundings.
type Plugin struct {
	Environ []string  // the environment, KEY=VALUE each, passed on to delegates
	Stdout  io.Writer // receives ADD's result
	Stderr  io.Writer // receives what delegates print to theirs; nothing else
}

// Funcs returns the verbs for [skel.PluginMainFuncsWithError]. Their errors are [types.Error] with the codes of the CNI
// spec, section 5. The delegate is killed when ctx ends.
func (p *Plugin) Funcs(ctx context.Context) skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:   func(args *skel.CmdArgs) error { return p.add(ctx, args) },
		Del:   func(args *skel.CmdArgs) error { return p.del(ctx, args) },
		Check: func(args *skel.CmdArgs) error { return p.check(ctx, args) },
	}
}

// add renders the delegate's configuration, keeps it for DEL, and has the delegate attach the container.
func (p *Plugin) add(ctx context.Context, args *skel.CmdArgs) error {
	n, a, err := request(args)
	if err != nil {
		return err
	}
	config, err := renderFromFile(n)
	if err != nil {
		return err
	}
	// Looked for first: a delegate that is not there adds nothing, and could not be asked to undo it.
	if _, _, err := findDelegate(config, args.Path); err != nil {
		return err
	}
	s := store{n.DataDir}
	if s.has(a) {
		return p.addAgain(ctx, args, s, a, config)
	}
	// Kept before it is used: whatever happens from here on, DEL knows what to undo.
	if err := s.save(a, config); err != nil {
		return fail(types.ErrIOFailure, "keep the rendered configuration", err)
	}
	result, err := p.delegateAdd(ctx, config, args.Path)
	if err != nil {
		return p.undo(ctx, args, s, stored{path: s.path(a)}, config, err)
	}
	return p.print(result)
}

// addAgain is ADD for what was added before and not deleted since. The runtime should not do that (CNI spec, section
// ADD), but some do after a reboot. The delegate decides whether it can be; if it cannot, what is there may be a running
// container's, so nothing is undone here, and what DEL needs to know of the first ADD is kept.
func (p *Plugin) addAgain(ctx context.Context, args *skel.CmdArgs, s store, a attachment, config []byte) error {
	result, err := p.delegateAdd(ctx, config, args.Path)
	if err != nil {
		return withDetail(err, fmt.Sprintf("interface %s was added before; DEL it first", a.ifName))
	}
	if err := s.save(a, config); err != nil {
		return fail(types.ErrIOFailure, "keep the rendered configuration", err)
	}
	return p.print(result)
}

// undo cleans up after a delegate's ADD that failed with cause, which it returns (CNI spec, section 4: "should execute
// again with DEL before returning failure"). Where that fails too, what is kept stays for the runtime's own DEL.
func (p *Plugin) undo(ctx context.Context, args *skel.CmdArgs, s store, st stored, config []byte, cause error) error {
	// The cause may be that ctx ended, and this is to be done all the same.
	_, err := p.delegate(context.WithoutCancel(ctx), "DEL", config, args.Path)
	if err == nil {
		err = s.remove(st)
	}
	if err != nil {
		return withDetail(cause, fmt.Sprintf("cleaning up failed as well: %v", err))
	}
	return cause
}

// del has the delegate detach the container and forgets it. It is repeatable, and what was never added is no error.
func (p *Plugin) del(ctx context.Context, args *skel.CmdArgs) error {
	n, a, err := request(args)
	if err != nil {
		return err
	}
	s := store{n.DataDir}
	st, err := s.load(a)
	if err != nil {
		return fail(types.ErrIOFailure, "read the kept configuration", err)
	}
	// Without a kept configuration there may still be an address to free; the delegates find it by container and
	// interface. If there is no saying what the delegate would be told, then nothing more can be done: DEL is best
	// effort, and an error would only keep a dead container's remains for ever.
	if config, err := recall(n, st); err == nil {
		if _, err := p.delegate(ctx, "DEL", config, args.Path); err != nil {
			return err // what is kept stays: the runtime tries again
		}
	}
	if err := s.remove(st); err != nil {
		return fail(types.ErrIOFailure, "remove the kept configuration", err)
	}
	return nil
}

// check has the delegate check what it made.
func (p *Plugin) check(ctx context.Context, args *skel.CmdArgs) error {
	n, a, err := request(args)
	if err != nil {
		return err
	}
	st, err := store{n.DataDir}.load(a)
	if err != nil {
		return fail(types.ErrIOFailure, "read the kept configuration", err)
	}
	config, err := recall(n, st)
	if err != nil {
		return err
	}
	_, err = p.delegate(ctx, "CHECK", config, args.Path)
	return err
}

func (p *Plugin) print(result types.Result) error {
	if err := result.PrintTo(p.Stdout); err != nil {
		return fail(types.ErrIOFailure, "print the result", err)
	}
	return nil
}

// request decodes what a verb is asked for.
func request(args *skel.CmdArgs) (netConf, attachment, error) {
	n, err := parseNetConf(args.StdinData)
	if err != nil {
		return n, attachment{}, fail(types.ErrDecodingFailure, "decode network configuration", err)
	}
	a := attachment{n.Name, args.ContainerID, args.IfName}
	return n, a, a.check()
}

// recall returns the configuration for a verb after ADD: what was kept, or else what ADD would render now.
func recall(n netConf, st stored) ([]byte, error) {
	if st.config == nil {
		return renderFromFile(n)
	}
	config, err := refresh(st.config, n)
	if err != nil {
		return nil, fail(types.ErrInternal, "render the kept configuration", err)
	}
	return config, nil
}

// renderFromFile reads the subnet file and renders the delegate's configuration.
func renderFromFile(n netConf) ([]byte, error) {
	f, err := subnet.ReadFile(n.SubnetFile)
	if err != nil {
		code, msg := types.ErrDecodingFailure, "decode subnet file"
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			code, msg = types.ErrIOFailure, "read subnet file"
		}
		if errors.Is(err, fs.ErrNotExist) {
			code, msg = types.ErrTryAgainLater, "this node has no subnet yet"
		}
		return nil, fail(code, msg, err)
	}
	config, err := render(n, f)
	if err != nil {
		return nil, fail(types.ErrInvalidNetworkConfig, "invalid network configuration", err)
	}
	return config, nil
}

// fail returns an error as the CNI spec wants it: a code, what was being done, and the reason.
func fail(code uint, msg string, err error) *types.Error {
	return types.NewError(code, msg, err.Error())
}

// withDetail adds to what an error tells the user.
func withDetail(err error, detail string) error {
	e, ok := errors.AsType[*types.Error](err)
	if !ok {
		return fmt.Errorf("%w (%s)", err, detail)
	}
	if e.Details != "" {
		detail = e.Details + "; " + detail
	}
	return types.NewError(e.Code, e.Msg, detail)
}
