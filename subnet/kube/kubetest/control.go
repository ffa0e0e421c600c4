package kubetest

import "slices"

// What a test does to a server.

// SetToken changes the token that requests have to carry.
func (s *Server) SetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Deny takes rights away, each such as "patch nodes/status", "list nodes", "get nodes NAME" or "get /version"; without
// any, all are given back.
func (s *Server) Deny(rights ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = rights
}

// Lack makes the server lack resources, such as "clusternetworkpolicies", as a real one does without their
// CustomResourceDefinition; without any, it has all. Their objects remain.
func (s *Server) Lack(resources ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lacking = resources
}

func (s *Server) lacks(resource string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.lacking, resource)
}

// Reject answers the next so many requests with a status, such as 429, and Retry-After in seconds, unless that is 0.
func (s *Server) Reject(count, code, retryAfter int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range count {
		s.rejects = append(s.rejects, rejection{code, retryAfter})
	}
}

// Accept ends what Reject has begun.
func (s *Server) Accept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejects = nil
}

// Freeze stops the server's cache from following its etcd: lists that allow any version are answered from it, and
// watches report nothing, until Freeze(false).
func (s *Server) Freeze(frozen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen = 0; frozen {
		s.frozen = s.store.version
	}
	s.store.wake()
}

// Compact forgets the history: a request for an older version than the present one is answered with 410.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.compact()
}

// Version is the present version of the objects.
func (s *Server) Version() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.version
}

// Backup returns the present state.
func (s *Server) Backup() Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.store.backup()
	b.identity = s.identity
	return b
}

// Restore goes back to an earlier state. Stop the server before, and start it after.
func (s *Server) Restore(b Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.restore(b)
	s.identity = b.identity
}

// Wipe replaces the store by an empty one. Stop the server before, and start it after.
func (s *Server) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = newStore()
	s.identity = [2]string{newUID(), newUID()}
}

// ChangeIdentity replaces what the answers name of flow control: the UIDs of the flow schema, of the priority level, or
// both. Empty: they are not named, as with flow control off.
func (s *Server) ChangeIdentity(flowSchema, priorityLevel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = [2]string{flowSchema, priorityLevel}
}

// Count returns how many objects there are, and how many watches.
func (s *Server) Count() (objects, watches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.store.objects), s.watches
}

// Requests returns the requests since the last call.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}
