package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/network/pods"
	"github.com/selvage-net/selvage/subnet/attachment"
)

// Attacher enforces network policies for the pods of this node. The CNI plugin reports each pod to it before the pod
// starts: see attachment.PathAttach. Several goroutines call its methods.
type Attacher interface {
	// Attach returns once the rules for the pod are in the kernel. It returns an error if they cannot be; one of ctx if
	// that ends first. A repeated call for the same pod is no error.
	Attach(ctx context.Context, a Attachment) error
	// Isolate has the kernel accept none of the pod's packets until its rules are in. Attach was called before, and has
	// returned an error.
	Isolate(a Attachment) error
	// Detach reports that the interface is gone, and its addresses are free. Only the fields that name pod and
	// container are set. A pod can have another container by then, whose Attach came before: nothing may change for
	// that one.
	Detach(a Attachment)
}

// Attachment is a pod of this node, as the CNI plugin reports it.
type Attachment struct {
	UID         string // that which the kubelet uses; empty: the runtime does not pass it on
	Namespace   string
	Name        string
	ContainerID string
	Interface   string        // the pod's end on the node; empty: not known
	Addresses   [2]netip.Addr // by subnet.Family; invalid: none
}

// maxReports is how many pods may wait for their rules at the same time. A node starts some hundred at a boot.
const maxReports = 512

// reports adds what the CNI plugin sends.
func (s *Server) reports(mux *http.ServeMux) {
	if s.attacher == nil {
		return // 404: no policies are enforced
	}
	slots := make(chan struct{}, maxReports)
	for path, handle := range map[string]func(http.ResponseWriter, *http.Request, attachment.Record){
		attachment.PathAttach: s.attach, attachment.PathDetach: s.detach,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if !trusted(r.Context()) {
				http.Error(w, "want a process of root", http.StatusForbidden)
				return
			}
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				http.Error(w, "too many pods wait for their rules", http.StatusServiceUnavailable)
				return
			}
			if record, ok := readReport(w, r); ok {
				handle(w, r, record)
			}
		})
	}
}

// readReport reads the body of a request, and answers one that is malformed.
func readReport(w http.ResponseWriter, r *http.Request) (record attachment.Record, ok bool) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(answerTimeout)) // only a test's cannot
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, attachment.MaxReport))
	_ = control.SetReadDeadline(time.Time{}) // for the server, which reads on, to see the client disconnect
	if err == nil {
		record, err = attachment.Unmarshal(data)
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
	} else if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return record, err == nil
}

// attach answers when the rules for a pod are in force, or when the plugin's time has run out.
func (s *Server) attach(w http.ResponseWriter, r *http.Request, record attachment.Record) {
	query, err := attachment.ParseAttachQuery(r.URL.Query().Get)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p, err := pods.Parse(record)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := AttachmentOf(p)
	ctx, wait := r.Context(), query.Wait
	if wait == 0 { // the plugin does not wait, so its connection does not count
		ctx, wait = context.WithoutCancel(ctx), answerTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err = s.attacher.Attach(ctx, a)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	case query.Wait == 0 || r.Context().Err() != nil:
		return // no process reads the answer
	case query.Failure == attachment.FailureIsolate:
		isolateErr := s.attacher.Isolate(a)
		if isolateErr == nil {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		err = errors.Join(err, isolateErr)
	}
	code := http.StatusInternalServerError
	if errors.Is(err, context.DeadlineExceeded) {
		code = http.StatusGatewayTimeout
	}
	http.Error(w, err.Error(), code)
}

// detach passes on that a pod has lost its interface.
func (s *Server) detach(w http.ResponseWriter, _ *http.Request, r attachment.Record) {
	s.attacher.Detach(Attachment{
		UID: r.Pod.UID, Namespace: r.Pod.Namespace, Name: r.Pod.Name, ContainerID: r.Container,
	})
	w.WriteHeader(http.StatusNoContent)
}

// AttachmentOf returns what the record of a pod says of it, which the CNI plugin reports and stores.
func AttachmentOf(p pods.Pod) Attachment {
	a := Attachment{
		UID: p.Identity.UID, Namespace: p.Identity.Namespace, Name: p.Identity.Name, ContainerID: p.Container,
		Addresses: p.Addresses(),
	}
	if p.Managed { // else its end on the node is a guess
		a.Interface = p.Port
	}
	return a
}

// peerKey is the key of the user ID of the process at the other end of a unix socket, in a connection's context.
type peerKey struct{}

// withPeer adds the user ID to the context of a connection over a unix socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *syscall.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || controlErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer.Uid)
}

// trusted reports whether a request is from root, or from the daemon's own user, which can do what the daemon can. The
// mode of the socket keeps other users out; but a socket that is opened for them, to let them read the status, must not
// let them change anything.
func trusted(ctx context.Context) bool {
	uid, ok := ctx.Value(peerKey{}).(uint32)
	return ok && (uid == 0 || int(uid) == os.Geteuid())
}
