package kubetest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// watcher is one watch.
type watcher struct {
	w                      http.ResponseWriter
	request                *http.Request
	protobuf, metadataOnly bool
	server                 *Server
	target                 target
	last                   int64 // reported, or skipped
}

// watch answers a watch.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, t target) error {
	q := r.URL.Query()
	from, err := number(r, "resourceVersion")
	if err != nil {
		return err
	}
	seconds, err := number(r, "timeoutSeconds")
	if err != nil {
		return err
	}
	initial := q.Get("sendInitialEvents") == "true"
	s.mu.Lock()
	stop, version := s.stop, s.store.version
	s.mu.Unlock()
	switch {
	case initial && s.opts.NoStreamingLists:
		return &failure{code: 422, reason: "Invalid", message: "ListOptions.meta.k8s.io \"\" is invalid: " +
			"sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate " +
			"is enabled"}
	case initial && q.Get("resourceVersionMatch") != "NotOlderThan":
		return &failure{code: 422, reason: "Invalid", message: "resourceVersionMatch: Forbidden: " +
			"sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"}
	case initial && from > version:
		return tooLarge(from, version)
	}
	s.countWatch(1)
	defer s.countWatch(-1)
	ctx := r.Context()
	if seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	x := &watcher{w: w, request: r, server: s, target: t, last: from}
	x.protobuf, x.metadataOnly = accepts(r)
	w.Header().Set("Content-Type", "application/json")
	if x.protobuf {
		w.Header().Set("Content-Type", protobufType+";stream=watch")
	}
	w.WriteHeader(http.StatusOK)
	if initial || from == 0 {
		if err := x.initial(initial); err != nil {
			return nil
		}
	}
	x.flush()
	x.follow(ctx, stop, q.Get("allowWatchBookmarks") == "true")
	return nil
}

// countWatch notes that a watch has begun (1) or ended (-1).
func (s *Server) countWatch(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches += n
}

// initial sends everything there is.
func (x *watcher) initial(end bool) error {
	s := x.server
	s.mu.Lock()
	version := s.store.version
	all, _ := s.store.at(x.target.stored(), version)
	s.mu.Unlock()
	for _, o := range all {
		if x.target.selects(x.request, o.name, o.object) {
			if err := x.object("ADDED", o.object); err != nil {
				return err
			}
		}
	}
	x.last = version
	if !end {
		return nil
	}
	return x.send("BOOKMARK", bookmark(x.target, version, true))
}

func bookmark(t target, version int64, end bool) fields {
	m := fields{"resourceVersion": strconv.FormatInt(version, 10), "creationTimestamp": nil}
	if end {
		m["annotations"] = fields{"k8s.io/initial-events-end": "true"}
	}
	return fields{"kind": kindOf(t), "apiVersion": "v1", "metadata": m}
}

// follow sends changes until the watch ends.
func (x *watcher) follow(ctx context.Context, stop <-chan struct{}, bookmarks bool) {
	s := x.server
	tick := time.NewTicker(s.opts.Bookmarks)
	defer tick.Stop()
	for {
		s.mu.Lock()
		list, moved, known := s.store.after(x.target.stored(), x.last)
		version, frozen := s.store.version, s.frozen
		known = known && x.last >= s.begins
		s.mu.Unlock()
		if !known {
			f := gone("too old resource version: %d (%d)", x.last, version).(*failure)
			_ = x.send("ERROR", f.fields())
			return
		}
		if frozen > 0 {
			list, version = nil, frozen
		}
		for _, c := range list {
			if err := x.change(c); err != nil {
				return
			}
			x.last = c.version
		}
		x.flush()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		case <-stop:
			return
		case <-tick.C:
			// A watch from the future is silent, as that of a real server (cache_watcher.go, process).
			if bookmarks && version >= x.last && x.send("BOOKMARK", bookmark(x.target, version, false)) != nil {
				return
			}
		}
	}
}

// change sends one change.
func (x *watcher) change(c change) error {
	selected := func(o *object) bool { return o != nil && x.target.selects(x.request, c.key.name, o) }
	switch was, is := selected(c.before), selected(c.after); {
	case !was && !is:
		return nil
	case !is:
		return x.object("DELETED", c.before.at(c.version))
	case !was:
		return x.object("ADDED", c.after)
	}
	return x.object("MODIFIED", c.after)
}

// object sends an event with an object.
func (x *watcher) object(kind string, o *object) error {
	f, err := o.fields()
	if err != nil {
		return err
	}
	return x.send(kind, f)
}

// send sends one event.
func (x *watcher) send(kind string, f fields) error {
	if x.metadataOnly && kind != "ERROR" {
		f = partial(f)
	}
	if !x.protobuf {
		return json.NewEncoder(x.w).Encode(fields{"type": kind, "object": f})
	}
	var raw, event message
	raw.bytes(1, encode(f))
	event.text(1, kind)
	event.bytes(2, raw)
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(event)))
	if _, err := x.w.Write(append(frame, event...)); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

func (x *watcher) flush() {
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
	}
}
