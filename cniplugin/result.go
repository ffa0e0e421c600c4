package cniplugin

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types/create"
)

// oldest is the version of a configuration or result without a version (CNI spec 0.1.0).
const oldest = "0.1.0"

// decodeResult converts the output of a delegate's ADD to the version that the runtime expects. Output in that version
// is passed on unchanged.
func decodeResult(out []byte, want string) ([]byte, error) {
	if want == "" {
		want = oldest
	}
	var head struct{ CNIVersion *string }
	if err := json.Unmarshal(out, &head); err != nil {
		return nil, fmt.Errorf("%.80q: %w", out, err)
	}
	if head.CNIVersion == nil { // plugins from before 0.3.0 leave it out
		var o object
		if err := json.Unmarshal(out, &o); err != nil || o == nil {
			return nil, fmt.Errorf("%.80q is not a JSON object", out)
		}
		r := start(o)
		r["cniVersion"] = want
		var err error
		if out, err = json.Marshal(r); err != nil {
			return nil, err
		}
		head.CNIVersion = &want
	}
	got := *head.CNIVersion
	if got == "" {
		got = oldest
	}
	if got == want {
		return out, nil
	}
	result, err := create.Create(got, out)
	if err != nil {
		return nil, err
	}
	if result, err = result.GetAsVersion(want); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = result.PrintTo(&b)
	return b.Bytes(), err
}
