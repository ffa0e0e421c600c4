package kubetest

import "reflect"

// mergeKeys are the lists of a Node that a strategic merge patch merges, each by a key of its elements
// (patchMergeKey in k8s.io/api/core/v1/types.go). Other lists are replaced.
var mergeKeys = map[string]string{"conditions": "type", "addresses": "type", "taints": "key"}

// merge applies a strategic merge patch to a copy of fields.
func merge(f, patch fields) fields {
	out := clone(f).(fields)
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(out, name)
		case fields:
			old, _ := out[name].(fields)
			out[name] = merge(old, value)
		case []any:
			switch by := mergeKeys[name]; {
			case by != "":
				out[name] = mergeList(list(out, name), value, by)
			case name == "podCIDRs": // patchStrategy=merge, of plain values
				out[name] = union(list(out, name), value)
			default:
				out[name] = clone(value)
			}
		default:
			out[name] = value
		}
	}
	return out
}

// mergeList merges elements with the same value of a key.
func mergeList(old, patch []any, by string) []any {
	out := clone(old).([]any)
	for _, p := range patch {
		p, ok := p.(fields)
		if !ok {
			continue
		}
		at := -1
		for i, o := range out {
			if o, ok := o.(fields); ok && reflect.DeepEqual(o[by], p[by]) {
				at = i
			}
		}
		switch {
		case text(p, "$patch") == "delete":
			if at >= 0 {
				out = append(out[:at], out[at+1:]...)
			}
		case at >= 0:
			out[at] = merge(out[at].(fields), p)
		default:
			out = append(out, clone(p))
		}
	}
	return out
}

func union(old, patch []any) []any {
	out := clone(old).([]any)
	for _, p := range patch {
		found := false
		for _, o := range out {
			found = found || reflect.DeepEqual(o, p)
		}
		if !found {
			out = append(out, p)
		}
	}
	return out
}
