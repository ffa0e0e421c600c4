package kubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// maxBody is the largest body of a request, as that of a real server.
const maxBody = 3 << 20

// quiet is a logger of net/http that writes nothing: broken connections are what tests make.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func notFound(t target) error {
	return &failure{code: 404, reason: "NotFound", message: fmt.Sprintf("%s %q not found", t.resource, t.name)}
}

// single answers a request about one object.
func (s *Server) single(w http.ResponseWriter, r *http.Request, t target) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return &failure{code: 413, reason: "RequestEntityTooLarge", message: err.Error()}
	}
	code := http.StatusOK
	var f fields
	s.mu.Lock()
	switch r.Method {
	case http.MethodGet:
		f, err = s.get(t)
	case http.MethodPost:
		code = http.StatusCreated
		f, err = s.create(t, body)
	case http.MethodPatch:
		f, err = s.patch(t, r.Header.Get("Content-Type"), body)
	case http.MethodDelete:
		f, err = s.delete(t)
	default:
		err = &failure{code: 405, reason: "MethodNotAllowed", message: r.Method + " is not supported by kubetest"}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.write(w, r, code, f)
}

func (s *Server) get(t target) (fields, error) {
	o, ok := s.store.objects[t.key()]
	if !ok {
		return nil, notFound(t)
	}
	return o.fields()
}

func (s *Server) create(t target, body []byte) (fields, error) {
	f, err := decode(body)
	if err != nil {
		return nil, &failure{code: 400, reason: "BadRequest", message: err.Error()}
	}
	if t.name = text(metadata(f), "name"); t.name == "" {
		return nil, &failure{code: 422, reason: "Invalid", message: "metadata.name: Required value"}
	}
	if t.namespace != "" {
		metadata(f)["namespace"] = t.namespace
	}
	if _, exists := s.store.objects[t.key()]; exists {
		return nil, &failure{code: 409, reason: "AlreadyExists",
			message: fmt.Sprintf("%s %q already exists", t.resource, t.name)}
	}
	if err := valid(f); err != nil {
		return nil, err
	}
	born(f)
	if t.resource == "nodes" {
		podCIDRs(f)
	}
	return s.put(t, f)
}

// put stores an object under its name, and returns it with its version.
func (s *Server) put(t target, f fields) (fields, error) {
	o, err := newObject(f)
	if err != nil {
		return nil, err
	}
	s.store.put(t.key(), o)
	return o.fields()
}

// podCIDRs keeps spec.podCIDR the first of spec.podCIDRs, as conversion in the API server does.
func podCIDRs(f fields) {
	spec := sub(f, "spec")
	if all := list(spec, "podCIDRs"); len(all) > 0 {
		spec["podCIDR"] = all[0]
	} else if one := text(spec, "podCIDR"); one != "" {
		spec["podCIDRs"] = []any{one}
	}
}

// maxAnnotations is how many bytes an object's annotations may have (apimachinery, TotalAnnotationSizeLimitB).
const maxAnnotations = 256 << 10

func valid(f fields) error {
	total := 0
	annotations, _ := metadata(f)["annotations"].(fields)
	for name := range annotations {
		total += len(name) + len(text(annotations, name))
	}
	if total > maxAnnotations {
		return &failure{code: 422, reason: "Invalid", message: fmt.Sprintf(
			"metadata.annotations: Too long: may not be more than %d bytes", maxAnnotations)}
	}
	return nil
}

// patch applies a patch to an object or its status. The spec cannot be changed through the status, nor the status
// through the object.
func (s *Server) patch(t target, kind string, body []byte) (fields, error) {
	if kind != "application/strategic-merge-patch+json" && kind != "application/merge-patch+json" {
		return nil, &failure{code: 415, reason: "UnsupportedMediaType", message: "patch of type " + kind}
	}
	p, err := decode(body)
	if err != nil {
		return nil, &failure{code: 400, reason: "BadRequest", message: err.Error()}
	}
	o, ok := s.store.objects[t.key()]
	if !ok {
		return nil, notFound(t)
	}
	old, err := o.fields()
	if err != nil {
		return nil, err
	}
	f := merge(old, p)
	if text(metadata(f), "resourceVersion") != text(metadata(old), "resourceVersion") {
		return nil, &failure{code: 409, reason: "Conflict", message: fmt.Sprintf(
			"Operation cannot be fulfilled on %s %q: the object has been modified", t.resource, t.name)}
	}
	if text(metadata(f), "uid") != text(metadata(old), "uid") {
		return nil, &failure{code: 422, reason: "Invalid", message: "metadata.uid: field is immutable"}
	}
	untouched := "status"
	if t.subsource == "status" {
		untouched = "spec"
	}
	f[untouched] = old[untouched]
	if f[untouched] == nil {
		delete(f, untouched)
	}
	if err := valid(f); err != nil {
		return nil, err
	}
	if t.resource == "nodes" && t.subsource == "" {
		podCIDRs(f)
		before := list(sub(old, "spec"), "podCIDRs")
		if len(before) > 0 && !reflect.DeepEqual(before, list(sub(f, "spec"), "podCIDRs")) {
			return nil, &failure{code: 422, reason: "Invalid", message: fmt.Sprintf("Node %q is invalid: "+
				"spec: Forbidden: node updates may not change podCIDR except from \"\" to valid", t.name)}
		}
	}
	if reflect.DeepEqual(f, old) {
		return old, nil // nothing is written
	}
	return s.put(t, f)
}

func (s *Server) delete(t target) (fields, error) {
	if t.name == "" {
		all, _ := s.store.at(t.stored(), s.store.version)
		for _, o := range all {
			if t.namespace == "" || strings.HasPrefix(o.name, t.namespace+"/") {
				s.store.put(key{t.stored(), o.name}, nil)
			}
		}
		return success(), nil
	}
	if _, ok := s.store.objects[t.key()]; !ok {
		return nil, notFound(t)
	}
	s.store.put(t.key(), nil)
	return success(), nil
}

func success() fields {
	return fields{"kind": "Status", "apiVersion": "v1", "metadata": fields{}, "status": "Success", "code": 200}
}

// review answers a SelfSubjectAccessReview.
func (s *Server) review(w http.ResponseWriter, r *http.Request) error {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Attributes struct {
				Verb        string `json:"verb"`
				Resource    string `json:"resource"`
				Subresource string `json:"subresource,omitempty"`
			} `json:"resourceAttributes"`
		} `json:"spec"`
		Status struct {
			Allowed bool   `json:"allowed"`
			Reason  string `json:"reason,omitempty"`
		} `json:"status"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&review); err != nil {
		return &failure{code: 400, reason: "BadRequest", message: err.Error()}
	}
	a := review.Spec.Attributes
	right := a.Verb + " " + a.Resource
	if a.Subresource != "" {
		right += "/" + a.Subresource
	}
	s.mu.Lock()
	review.Status.Allowed = !slices.Contains(s.denied, right)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	return json.NewEncoder(w).Encode(review)
}

// number parses a parameter; 0: it is not given.
func number(r *http.Request, name string) (int64, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		return 0, &failure{code: 400, reason: "BadRequest", message: fmt.Sprintf("%s: invalid value %q", name, value)}
	}
	return n, nil
}
