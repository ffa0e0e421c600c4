package subnet

import (
	"encoding/json"
	"strings"
)

// While its network moves from one backend to another, a node receives by both, and its lease has the data of both. The
// second one's is in the data of the first, under a key that flannel, and versions that know of no second one, ignore:
//
//	"BackendType": "vxlan",
//	"BackendData": {"VNI": 1, "VtepMAC": "…",
//	  "Also": {"BackendType": "wireguard", "BackendData": {…}, "Sends": true}}
type also struct {
	BackendType string          `json:"BackendType"`
	BackendData json.RawMessage `json:"BackendData"`
	Sends       bool            `json:"Sends,omitempty"`
}

// alsoKey is the key of [also], as it is written.
const alsoKey = `"Also":`

// readAlso returns the second backend in the data of a lease's family.
func readAlso(data string) (a also, ok bool) {
	if !strings.Contains(data, alsoKey) {
		return a, false // as a rule
	}
	var d struct{ Also *also }
	if json.Unmarshal([]byte(data), &d) != nil || d.Also == nil || d.Also.BackendType == "" {
		return a, false
	}
	return *d.Also, true
}

// As returns a lease as nodes of a backend read it: with that backend's data, whether it is the first or the second. ok
// is false if the node does not receive by that backend.
func (l Lease) As(backendType string) (as Lease, ok bool) {
	if l.BackendType == backendType {
		return l, true
	}
	as, found := l, false
	as.BackendType = backendType
	for _, f := range Families() {
		second, has := readAlso(l.Endpoints[f].Data)
		has = has && second.BackendType == backendType
		if !has && l.Has(f) {
			return l, false
		}
		found = found || has
		as.Endpoints[f].Data = string(second.BackendData)
	}
	return as, found
}

// Sends reports whether a lease's node may send by a backend to peers that receive by another one, too.
func (l Lease) Sends(backendType string) bool {
	for _, f := range Families() {
		if a, ok := readAlso(l.Endpoints[f].Data); ok && a.BackendType == backendType && a.Sends {
			return true
		}
	}
	return l.BackendType == backendType
}

// Add returns a lease that also names a second backend, with the data that another lease of the same node has of it.
// sends says that the node may send by the second one, too: see [Lease.Sends]. Data of either is a JSON object that is
// not empty.
func (l Lease) Add(second Lease, sends bool) Lease {
	for _, f := range Families() {
		e, data := &l.Endpoints[f], second.Endpoints[f].Data
		if e.Data == "" || data == "" {
			continue
		}
		text, err := json.Marshal(also{second.BackendType, json.RawMessage(data), sends})
		if err == nil { // data is JSON
			e.Data = strings.TrimSuffix(e.Data, "}") + "," + alsoKey + string(text) + "}"
		}
	}
	return l
}
