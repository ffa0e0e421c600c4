package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Admin changes what an API server holds, be it the stand-in or a real one. It speaks JSON, through net/http: what it
// does is independent of what is tested with it.
type Admin struct {
	URL    string
	Token  string // empty: none
	Client *http.Client
}

// Node is what a test says of a Node.
type Node struct {
	Name        string
	PodCIDRs    []string
	Annotations map[string]string
	Labels      map[string]string
	Addresses   []Address
	Conditions  []Condition
	Images      int // of so many images, in the status, as a kubelet lists them
}

// Address is one of a Node's.
type Address struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// Condition is one of a Node's.
type Condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastHeartbeatTime  time.Time `json:"lastHeartbeatTime"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// Object is what a server answers of an object.
type Object struct {
	Metadata struct {
		Name            string            `json:"name"`
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		PodCIDR  string   `json:"podCIDR"`
		PodCIDRs []string `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		Conditions []Condition `json:"conditions"`
		Addresses  []Address   `json:"addresses"`
	} `json:"status"`
}

// CreateNode creates a Node, and sets its status if it has any.
func (a Admin) CreateNode(ctx context.Context, n Node) (Object, error) {
	spec := map[string]any{}
	if len(n.PodCIDRs) > 0 {
		spec["podCIDRs"], spec["podCIDR"] = n.PodCIDRs, n.PodCIDRs[0]
	}
	o, err := a.do(ctx, http.MethodPost, "/api/v1/nodes", map[string]any{
		"kind": "Node", "apiVersion": "v1", "spec": spec,
		"metadata": map[string]any{"name": n.Name, "annotations": n.Annotations, "labels": n.Labels},
	})
	status := map[string]any{}
	if len(n.Addresses) > 0 {
		status["addresses"] = n.Addresses
	}
	if len(n.Conditions) > 0 {
		status["conditions"] = n.Conditions
	}
	if n.Images > 0 {
		status["images"] = images(n.Images)
	}
	if err != nil || len(status) == 0 {
		return o, err
	}
	return a.PatchNode(ctx, n.Name, "status", map[string]any{"status": status})
}

// images are of the size of real ones: two names each, one with a digest.
func images(count int) (list []map[string]any) {
	for i := range count {
		name := fmt.Sprintf("registry.example.org/platform/team-%02d/service-%02d", i%7, i)
		list = append(list, map[string]any{
			"names":     []string{fmt.Sprintf("%s@sha256:%064x", name, i), fmt.Sprintf("%s:v1.%d.0", name, i)},
			"sizeBytes": 100_000_000 + i,
		})
	}
	return list
}

// PatchNode applies a strategic merge patch to a Node, or to a subresource of it ("status").
func (a Admin) PatchNode(ctx context.Context, name, subresource string, patch any) (Object, error) {
	path := "/api/v1/nodes/" + name
	if subresource != "" {
		path += "/" + subresource
	}
	return a.Patch(ctx, path, patch)
}

// Patch applies a strategic merge patch to the object, or the subresource, at a path.
func (a Admin) Patch(ctx context.Context, path string, patch any) (Object, error) {
	return a.do(ctx, http.MethodPatch, path, patch)
}

// Annotate sets annotations of a Node; a nil value removes one.
func (a Admin) Annotate(ctx context.Context, name string, annotations map[string]any) (Object, error) {
	return a.PatchNode(ctx, name, "status", map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

// Node reads a Node.
func (a Admin) Node(ctx context.Context, name string) (Object, error) {
	return a.do(ctx, http.MethodGet, "/api/v1/nodes/"+name, nil)
}

// DeleteNode deletes a Node.
func (a Admin) DeleteNode(ctx context.Context, name string) error {
	_, err := a.do(ctx, http.MethodDelete, "/api/v1/nodes/"+name, nil)
	return err
}

// DeleteAll deletes all objects of a resource, whose path may have a query.
func (a Admin) DeleteAll(ctx context.Context, path string) error {
	_, err := a.do(ctx, http.MethodDelete, path, nil)
	return err
}

// Create creates an object of any resource; path is that of the resource, such as "/api/v1/namespaces".
func (a Admin) Create(ctx context.Context, path string, object any) (Object, error) {
	return a.do(ctx, http.MethodPost, path, object)
}

// do sends a request.
func (a Admin) do(ctx context.Context, method, path string, body any) (o Object, err error) {
	var data []byte
	if body != nil {
		if data, err = json.Marshal(body); err != nil {
			return o, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, a.URL+path, bytes.NewReader(data))
	if err != nil {
		return o, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	if a.Token != "" {
		r.Header.Set("Authorization", "Bearer "+a.Token)
	}
	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil {
		return o, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return o, fmt.Errorf("%s %s: %w", method, path, err)
	case answer.StatusCode/100 != 2:
		return o, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	case method == http.MethodDelete: // the object, or a Status
		return o, nil
	}
	return o, json.Unmarshal(text, &o)
}
