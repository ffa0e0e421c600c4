package cniplugin

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// Error codes of this plugin. The CNI spec, section 5, reserves 100 and above for plugins.
const (
	codeBridge   uint = 100 // the bridge holds another subnet than this node's
	codeMismatch uint = 101 // CHECK: a container does not have what the subnet file asks for
	codeIPv6     uint = 102 // an IPv6 address cannot be added: the host's setting disable_ipv6
)

// fail returns an error in the form of the CNI spec: a code, the failed action, and the reason.
func fail(code uint, msg string, err error) *types.Error {
	return types.NewError(code, msg, err.Error())
}

// withDetail adds a detail to an error's message.
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

// all puts the errors of a verb that goes on after an error into one, with the first one's code.
func all(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	err := errs[0]
	for _, e := range errs[1:] {
		err = withDetail(err, e.Error())
	}
	return err
}
