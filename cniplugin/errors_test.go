package cniplugin

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestAll(t *testing.T) {
	first, second := types.NewError(5, "a", "b"), errors.New("c")
	if err := all(nil); err != nil {
		t.Error(err)
	}
	if err := all([]error{first}); err != first {
		t.Error(err)
	}
	if e, ok := errors.AsType[*types.Error](all([]error{first, second})); !ok || e.Code != 5 || e.Details != "b; c" {
		t.Errorf("got %v", e)
	}
	if err := all([]error{second, first}); err.Error() != "c (a; b)" {
		t.Errorf("got %v", err)
	}
}
