package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// watchEvent is an event that a bare watch has received, as JSON.
type watchEvent struct {
	text string
	at   time.Time
}

// watchPolicies begins bare watches of all pods and policies, which do nothing but note the time. Their events have to
// be received, until end is called.
func watchPolicies(ctx context.Context, url, token string) (_ <-chan watchEvent, end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	events, ended := make(chan watchEvent, 1<<12), make(chan struct{}, 2)
	var bodies []io.Closer
	end = func() {
		cancel()
		for _, x := range bodies {
			x.Close()
			<-ended
		}
	}
	for _, path := range []string{"/api/v1/pods", "/apis/networking.k8s.io/v1/networkpolicies"} {
		body, err := watchResource(ctx, url+path, token)
		if err != nil {
			end()
			return nil, nil, fmt.Errorf("watch %s: %w", path, err)
		}
		bodies = append(bodies, body)
		go func() {
			defer func() { ended <- struct{}{} }()
			for lines := bufio.NewReader(body); ; {
				text, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				select {
				case events <- watchEvent{text, time.Now()}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return events, end, nil
}

// watchResource begins a watch from now on.
func watchResource(ctx context.Context, url, token string) (io.ReadCloser, error) {
	body, err := get(ctx, url+"?limit=1", token)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.NewDecoder(body).Decode(&list); err != nil {
		return nil, err
	}
	return get(ctx, url+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, token)
}

// get requests JSON of the API.
func get(ctx context.Context, url, token string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return resp.Body, nil
}
