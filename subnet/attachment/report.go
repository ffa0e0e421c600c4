package attachment

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// While the daemon enforces network policies, the plugin reports attachments to it: POST requests with a [Record] as
// their body, on the daemon's socket. Whether it does is in the status file, subnetfile.Status.
//
// The answers of PathAttach are statuses of HTTP, each with one meaning:
//
//   - 204: the rules for the pod are in force.
//   - 202: the time ran out, and the pod is isolated until they are. Only for FailureIsolate.
//   - 404: this daemon does not enforce network policies.
//   - 503: the daemon has too many requests; the same one may succeed later.
//   - 504: the time ran out, and the pod is not isolated.
//   - 400, 403, 413, 500: the request is malformed, not from root, too large, or failed; the body is for people.
const (
	PathAttach = "/v1/attach" // with the query of [AttachQuery]
	PathDetach = "/v1/detach" // without one; of the record, only Key and Pod are read
)

// What is done with a pod whose rules are not in force in time.
const (
	FailureIsolate = "isolate" // the daemon accepts none of its packets until they are
	FailureFail    = "fail"    // the ADD fails
)

// MaxWait limits how long the daemon may be asked to wait for the rules of a pod.
const MaxWait = time.Minute

// MaxReport is how large the body of a request may be, in bytes.
const MaxReport = 256 << 10

// AttachQuery is the query of PathAttach: how long the daemon waits, and what it does then.
type AttachQuery struct {
	Wait    time.Duration // up to [MaxWait], in milliseconds; 0: the plugin does not wait for the answer
	Failure string        // FailureIsolate or FailureFail
}

// Names of the query's keys.
const (
	keyWait    = "wait_ms"
	keyFailure = "failure"
)

// String returns the query as it is in a URL, without the question mark.
func (q AttachQuery) String() string {
	return keyWait + "=" + strconv.FormatInt(q.Wait.Milliseconds(), 10) + "&" + keyFailure + "=" + q.Failure
}

// ParseAttachQuery reads a query, of which get returns the value of a key.
func ParseAttachQuery(get func(key string) string) (AttachQuery, error) {
	q := AttachQuery{Failure: get(keyFailure)}
	ms, err := strconv.ParseUint(get(keyWait), 10, 32)
	q.Wait = time.Duration(ms) * time.Millisecond
	if err != nil || q.Wait > MaxWait {
		return q, fmt.Errorf("%s is %q, want milliseconds from 0 to %d", keyWait, get(keyWait), MaxWait.Milliseconds())
	}
	if q.Failure != FailureIsolate && q.Failure != FailureFail {
		return q, fmt.Errorf("%s is %q, want %s or %s", keyFailure, q.Failure, FailureIsolate, FailureFail)
	}
	return q, nil
}

// Unmarshal decodes the body of a request.
func Unmarshal(data []byte) (Record, error) {
	var r versioned
	err := json.Unmarshal(data, &r)
	switch {
	case err != nil:
		return r.Record, fmt.Errorf("decode the record: %w", err)
	case r.Version < version || r.Key.Network == "" || r.Key.Container == "" || r.Key.Interface == "":
		return r.Record, errors.New(`the record lacks "version", "network", "container" or "interface"`)
	case r.Pod.Namespace == "" || r.Pod.Name == "":
		return r.Record, fmt.Errorf(`the record of %s lacks the "namespace" or "name" of its pod`, r.Key)
	}
	return r.Record, nil
}
