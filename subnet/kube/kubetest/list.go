package kubetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// token is what a continue token holds.
type token struct {
	Version int64  `json:"rv"`
	After   string `json:"start"`
}

func gone(format string, args ...any) error {
	return &failure{code: 410, reason: "Expired", message: fmt.Sprintf(format, args...)}
}

// tooLarge is the answer to a request for a version that is not reached.
func tooLarge(want, have int64) error {
	return &failure{code: 504, reason: "Timeout", cause: "ResourceVersionTooLarge", retryAfter: 1,
		message: fmt.Sprintf("Too large resource version: %d, current: %d", want, have)}
}

// list answers a list.
func (s *Server) list(w http.ResponseWriter, r *http.Request, t target) error {
	q := r.URL.Query()
	limit, err := number(r, "limit")
	if err != nil {
		return err
	}
	want, err := number(r, "resourceVersion")
	if err != nil {
		return err
	}
	s.mu.Lock()
	version, after := s.store.version, ""
	switch {
	case q.Get("continue") != "":
		var from token
		data, err := base64.RawURLEncoding.DecodeString(q.Get("continue"))
		if err != nil || json.Unmarshal(data, &from) != nil {
			s.mu.Unlock()
			return &failure{code: 400, reason: "BadRequest", message: "continue key is not valid"}
		}
		version, after = from.Version, from.After
	case q.Get("resourceVersionMatch") == "Exact":
		version = want
	case q.Get("resourceVersion") == "0":
		limit = 0 // a list from the cache has no pages
		if s.frozen > 0 {
			version = s.frozen
		}
	}
	have := s.store.version
	if s.frozen > 0 && q.Get("continue") == "" && q.Get("resourceVersion") != "" {
		have = s.frozen
	}
	all, known := s.store.at(t.stored(), version)
	s.mu.Unlock()
	switch {
	case want > have:
		return tooLarge(want, have)
	case !known:
		return gone("The resourceVersion for the provided list is too old.")
	}
	next, remaining := "", 0
	var page []*object
	for _, o := range all {
		switch {
		case !t.selects(r, o.name, o.object) || o.name <= after && after != "":
		case limit > 0 && int64(len(page)) == limit:
			remaining++
		default:
			page = append(page, o.object)
			if int64(len(page)) == limit {
				data, err := json.Marshal(token{version, o.name})
				if err != nil {
					return err
				}
				next = base64.RawURLEncoding.EncodeToString(data)
			}
		}
	}
	if remaining == 0 {
		next = ""
	}
	return writeList(w, r, t, page, version, next, remaining)
}

// writeList answers with a list.
func writeList(w http.ResponseWriter, r *http.Request, t target, page []*object, version int64, next string,
	remaining int) error {
	protobuf, metadataOnly := accepts(r)
	kind, apiVersion := kindOf(t)+"List", t.version
	if t.group != "" {
		apiVersion = t.group + "/" + t.version
	}
	if metadataOnly {
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	items := make([]fields, len(page))
	for i, o := range page {
		f, err := o.fields()
		if err != nil {
			return err
		}
		if items[i] = f; metadataOnly {
			items[i] = partial(f)
		}
	}
	if protobuf {
		var m message
		m.bytes(1, listMeta(version, next, remaining))
		for _, f := range items {
			m.bytes(2, wire(f))
		}
		w.Header().Set("Content-Type", protobufType)
		_, err := w.Write(envelope(apiVersion, kind, m))
		return err
	}
	meta := fields{"resourceVersion": strconv.FormatInt(version, 10)}
	if next != "" {
		meta["continue"], meta["remainingItemCount"] = next, remaining
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(fields{"kind": kind, "apiVersion": apiVersion, "metadata": meta, "items": items})
}

// kindOf returns the kind of a resource's objects.
func kindOf(t target) string {
	switch t.resource {
	case "nodes":
		return "Node"
	case "pods":
		return "Pod"
	case "namespaces":
		return "Namespace"
	case "networkpolicies":
		return "NetworkPolicy"
	case "clusternetworkpolicies":
		return "ClusterNetworkPolicy"
	}
	return "Object"
}
