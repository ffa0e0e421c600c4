package cniplugin

import (
	"context"
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// Plugin executes one CNI verb. Its fields are the program's environment.
type Plugin struct {
	Environ []string  // the environment, KEY=VALUE each, passed on to delegates
	Stdin   io.Reader // contains the network configuration
	Stdout  io.Writer // receives ADD's result, or the error
	Stderr  io.Writer // receives what delegates print to theirs; nothing else

	spoken string // the version of the network configuration; empty until it is known
}

// call is one verb being executed.
type call struct {
	*Plugin
	netns string // the container's
	path  string // directories of the delegates, CNI_PATH
	conf  netConf
	a     attachment // of STATUS and GC only the network is known
	store store
	made  records.Record // what ADD made
}

// add renders the delegate's configuration, keeps it for DEL, and has the delegate attach the container.
func (c *call) add(ctx context.Context) error {
	f, err := readFile(ctx, c.conf)
	if err != nil {
		return err
	}
	d, err := c.render(f)
	if err != nil {
		return err
	}
	if err := checkBridge(d); err != nil {
		return err
	}
	// Searched first: a missing delegate adds nothing, and cannot undo anything.
	if _, err := findPlugin(d.plugin, c.path); err != nil {
		return err
	}
	if c.store.has(c.a) {
		return c.addAgain(ctx, d, f)
	}
	result, err := c.attach(ctx, d)
	if err != nil {
		if result, err = c.remedy(ctx, d, f, err); err != nil {
			return err
		}
	}
	if err := c.awaitPolicies(ctx); err != nil {
		err = c.undo(ctx, d, err)
		c.reportDetached(ctx)
		return err
	}
	c.announce(ctx)
	return c.print(result)
}

// attach calls the delegate to attach the container, and undoes its changes if it fails.
func (c *call) attach(ctx context.Context, d delegation) ([]byte, error) {
	// Stored before it is used: whatever happens from here on, DEL knows what to undo.
	if err := c.save(d); err != nil {
		return nil, err
	}
	result, err := c.delegateAdd(ctx, d)
	if err != nil {
		return nil, c.undo(ctx, d, err)
	}
	return result, nil
}

// addAgain is ADD for what was added before and not deleted since. The runtime should not do that (CNI spec, section
// ADD), but some do after a reboot. The delegate decides whether it can be; if it cannot, what is there may be a
// running container's, so nothing is undone here, and what DEL needs to know of the first ADD is kept.
func (c *call) addAgain(ctx context.Context, d delegation, f subnetfile.File) error {
	result, err := c.delegateAdd(ctx, d)
	if err != nil {
		again := fmt.Sprintf("interface %s was added before; DEL it first", c.a.ifName)
		return withDetail(c.diagnose(ctx, d, f, err), again)
	}
	if err := c.save(d); err != nil {
		return err
	}
	if err := c.awaitPolicies(ctx); err != nil {
		return err
	}
	c.announce(ctx)
	return c.print(result)
}

// delegateAdd runs the delegate's ADD and returns its result in the version that the configuration asks for.
func (c *call) delegateAdd(ctx context.Context, d delegation) ([]byte, error) {
	out, err := c.delegate(ctx, "ADD", d, c.path)
	if err != nil {
		return nil, err
	}
	result, err := decodeResult(out, c.conf.CNIVersion)
	if err != nil {
		return nil, fail(types.ErrDecodingFailure, "decode the delegate's result", err)
	}
	c.record(d, out)
	return result, nil
}

// undo cleans up after a delegate's ADD that failed with cause, which it returns (CNI spec, section 4: "should execute
// again with DEL before returning failure"). Where that fails too, what is kept stays for the runtime's own DEL.
func (c *call) undo(ctx context.Context, d delegation, cause error) error {
	// The cause may be that ctx ended, and this is to be done all the same.
	_, err := c.delegate(context.WithoutCancel(ctx), "DEL", d, c.path)
	if err == nil {
		c.forget(c.a)
		err = c.store.drop(c.a)
	}
	if err != nil {
		return withDetail(cause, fmt.Sprintf("cleaning up failed as well: %v", err))
	}
	return cause
}

// del calls the delegate to detach the container and removes its stored configuration. It is idempotent: a container
// that was never added is no error.
func (c *call) del(ctx context.Context) error {
	st, err := c.store.load(c.a)
	if err != nil {
		return fail(types.ErrIOFailure, "read the kept configuration", err)
	}
	// Without a kept configuration there may still be an address to free; the delegates find it by container and
	// interface. If the delegate cannot be configured, then nothing more can be done: DEL is best
	// effort, and an error would only keep a dead container's remains for ever.
	if d, err := c.recallOrGuess(st); err == nil {
		if err := c.detach(ctx, d); err != nil {
			return err // the stored configuration stays: the runtime retries
		}
	}
	// Only once: a runtime may repeat DEL when the pod has another container by then.
	if st.path != "" {
		c.reportDetached(ctx)
	}
	c.forget(c.a)
	if err := c.store.remove(st); err != nil {
		return fail(types.ErrIOFailure, "remove the kept configuration", err)
	}
	return nil
}

// detach runs the delegate's DEL. A namespace that ended can leave a file where it was mounted, which is nothing to the
// reference plugins but an error; they free the address if they are given no namespace.
func (c *call) detach(ctx context.Context, d delegation) error {
	_, err := c.delegate(ctx, "DEL", d, c.path)
	if err == nil || c.netns == "" || isNamespace(c.netns) {
		return err
	}
	_, err = c.delegate(ctx, "DEL", d, c.path, "CNI_NETNS=")
	return err
}

// recall returns the configuration for a verb after ADD: the stored one, or else what ADD would render now.
func (c *call) recall(st stored) (delegation, error) {
	if st.config == nil {
		f, err := subnetfile.Read(c.conf.SubnetFile)
		if err != nil {
			return delegation{}, fileError(err, 0)
		}
		return c.render(f)
	}
	d, err := refresh(st.config, c.conf)
	if err != nil {
		return d, fail(types.ErrInternal, "render the kept configuration", err)
	}
	return d, nil
}

// recallOrGuess is recall for DEL and GC, which have to free what there is even if both the kept configuration and the
// subnet file are lost.
func (c *call) recallOrGuess(st stored) (delegation, error) {
	d, err := c.recall(st)
	if err != nil {
		return c.render(anyFile())
	}
	return d, nil
}

func (c *call) render(f subnetfile.File) (delegation, error) {
	d, err := render(c.conf, f)
	if err != nil {
		return d, fail(types.ErrInvalidNetworkConfig, "invalid network configuration", err)
	}
	return d, nil
}

func (c *call) save(d delegation) error {
	if err := c.store.save(c.a, d.config); err != nil {
		return fail(types.ErrIOFailure, "keep the rendered configuration", err)
	}
	return nil
}

func (c *call) print(result []byte) error {
	if _, err := c.Stdout.Write(result); err != nil {
		return fail(types.ErrIOFailure, "print the result", err)
	}
	return nil
}
