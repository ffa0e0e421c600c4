package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// detailOff is the HTTP status of a node that tells no detail. Older daemons answer [http.StatusNotFound].
const detailOff = http.StatusGone

// Examiner examines this node, as selvaged doctor does without probes of other nodes.
type Examiner func(ctx context.Context) (mesh.Examination, error)

const (
	// examineEvery is the shortest time from the end of an examination to the next one, whoever asks: it takes a few
	// tenths of a second of CPU time.
	examineEvery = 30 * time.Second
	// examineTimeout is how long an examination may take.
	examineTimeout = 15 * time.Second
	// dropsTimeout is how long to wait for the latest drops, which the daemon has in memory.
	dropsTimeout = time.Second
)

// examinations runs one examination at a time, and has the latest one. It belongs to a server.
type examinations struct {
	examine Examiner // nil: there are none
	now     func() time.Time
	running sync.WaitGroup

	mu     sync.Mutex
	busy   bool
	latest *mesh.Examination
	ended  time.Time
}

// ask returns the latest examination, and begins another one if it is time. ctx is that of the server.
func (e *examinations) ask(ctx context.Context) (latest *mesh.Examination, busy bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	due := e.ended.IsZero() || e.now().Sub(e.ended) >= examineEvery
	if e.examine != nil && !e.busy && due && ctx.Err() == nil {
		e.busy = true
		e.running.Go(func() { e.run(ctx) })
	}
	return e.latest, e.busy
}

func (e *examinations) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	began := e.now()
	found, err := e.examine(ctx)
	if err != nil {
		found = mesh.Examination{At: began, Error: err.Error()}
	}
	if found.Findings == nil {
		found.Findings = []mesh.Examined{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = e.now()
	found.Took = e.ended.Sub(began)
	e.latest, e.busy = &found, false
}

// detail returns what the node reports about itself to those who ask about it alone.
func (s *Server) detail(ctx context.Context, last *published) mesh.Detail {
	d := mesh.Detail{Version: mesh.DetailVersion, Now: s.now(), Repairs: last.repairs, Drops: []status.Drop{}}
	ctx, cancel := context.WithTimeout(ctx, dropsTimeout)
	defer cancel()
	err := s.source.Drops(ctx, false, func(x status.Drop) error {
		d.Drops = append(d.Drops, x)
		return nil
	})
	if errors.Is(err, status.ErrNoPolicies) {
		d.DropsOff = mesh.NotEnforced
	}
	d.Drops = d.Drops[max(0, len(d.Drops)-mesh.MaxDetailed):]
	slices.Reverse(d.Drops)
	if s.examinations.examine == nil {
		d.ExaminationOff = mesh.NoSocket
	} else {
		d.Examination, d.Examining = s.examinations.ask(s.serving)
	}
	return d
}

// AskDetail asks one node for its detail. An error means that none can be asked.
func AskDetail(ctx context.Context, q Query, t mesh.Target) (mesh.Told, error) {
	id, err := q.asker()
	if err != nil {
		return mesh.Told{}, err
	}
	var told mesh.Told
	a := q.ask(ctx, id, t, question{path: mesh.DetailPath, most: mesh.MaxDetail, read: func(d *json.Decoder) error {
		detail := new(mesh.Detail)
		if err := decode(d, detail, &detail.Version, mesh.DetailVersion); err != nil {
			return err
		}
		detail.Clean()
		told.Detail = detail
		return nil
	}})
	if a.Code != "" {
		return mesh.Untold(a), nil
	}
	return told, nil
}

// refusesDetail reports whether a node tells no detail, and has answered so.
func (s *Server) refusesDetail(w http.ResponseWriter) bool {
	if s.tellsDetail {
		return false
	}
	http.Error(w, "this node tells no detail", detailOff)
	return true
}
