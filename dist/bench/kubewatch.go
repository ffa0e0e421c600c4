package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"time"
)

// What is accepted of the server.
const (
	protobuf     = "application/vnd.kubernetes.protobuf"
	metadataOnly = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
)

// bareWatch is a watch on the metadata of all Nodes that does nothing but note the time.
type bareWatch struct {
	body   io.ReadCloser
	frames *bufio.Reader
}

// watch begins one on a connection of its own. What there is comes first if initial is set.
func (k *kubeCluster) watch(ctx context.Context, initial bool) (*bareWatch, error) {
	url := k.server.URL() + "/api/v1/nodes?watch=1"
	if initial {
		url += "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", protobuf+metadataOnly)
	req.Header.Set("Authorization", "Bearer "+k.admin.Token)
	resp, err := k.client().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body) // it is for a person
		return nil, fmt.Errorf("watch the Nodes: %s: %s", resp.Status, text)
	}
	return &bareWatch{body: resp.Body, frames: bufio.NewReaderSize(resp.Body, 64<<10)}, nil
}

// next waits for an event: four bytes of length, then a WatchEvent.
func (w *bareWatch) next() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(w.frames, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(w.frames, frame)
	return frame, err
}

// initialEnd is in the bookmark that ends the list with which a watch begins.
const initialEnd = "k8s.io/initial-events-end"

// bareList is how long it takes to receive the metadata of all Nodes and do nothing with them.
func (k *kubeCluster) bareList(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	w, err := k.watch(ctx, true)
	if err != nil {
		return 0, err
	}
	defer w.body.Close()
	for {
		frame, err := w.next()
		if err != nil {
			return 0, fmt.Errorf("list the Nodes: %w", err)
		}
		if bytes.Contains(frame, []byte(initialEnd)) {
			return time.Since(began), nil
		}
	}
}

// heardFrame is an event that a bare watch has received.
type heardFrame struct {
	frame []byte
	at    time.Time
}

// hear begins a bare watch. Its events have to be received; the channel is closed when the watch ends.
func (k *kubeCluster) hear(ctx context.Context) (heard <-chan heardFrame, end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	w, err := k.watch(ctx, false)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	all := make(chan heardFrame, 1<<14)
	go func() {
		defer close(all)
		for {
			frame, err := w.next()
			if err != nil {
				return
			}
			all <- heardFrame{frame, time.Now()}
		}
	}()
	return all, func() {
		cancel()
		w.body.Close()
		for range all {
		}
	}, nil
}

// sizes are those of a Node in protobuf, as a whole and its metadata alone.
func (k *kubeCluster) sizes(ctx context.Context) (whole, metadata int, err error) {
	size := func(accept string) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.admin.URL+"/api/v1/nodes/"+nodeName(0), nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("Authorization", "Bearer "+k.admin.Token)
		resp, err := k.admin.Client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("read a Node: %s: %s", resp.Status, body)
		}
		return len(body), err
	}
	if whole, err = size(protobuf); err != nil {
		return 0, 0, err
	}
	metadata, err = size(protobuf + metadataOnly)
	return whole, metadata, err
}
