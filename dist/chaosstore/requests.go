package chaosstore

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Requests counts what etcd was asked, by gRPC method.
type Requests map[string]int

// asked returns the methods that daemons use. Others are our own doing.
func asked() []string {
	return []string{"Txn", "Range", "Watch", "LeaseGrant", "LeaseKeepAlive", "LeaseRevoke", "Authenticate"}
}

func (r Requests) String() string {
	total := 0
	var parts []string
	for _, method := range slices.Sorted(maps.Keys(r)) {
		if r[method] > 0 {
			total += r[method]
			parts = append(parts, fmt.Sprintf("%s %d", method, r[method]))
		}
	}
	if total == 0 {
		return "none"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}

// reading is a look at the counters of all members, which begin at nothing whenever one is started.
type reading struct {
	pids    []int
	counts  []Requests
	ownGets int64
}

// read looks at the counters. Of a member that does not answer there are none.
func (s *store) read(ctx context.Context) (r reading) {
	r.ownGets = s.reads.Load()
	transport := &http.Transport{DisableKeepAlives: true}
	if s.certs != nil {
		transport.TLSClientConfig, _ = s.certs.root() // without it, no answer
	}
	client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	for _, m := range s.members {
		r.pids = append(r.pids, m.PID())
		r.counts = append(r.counts, metrics(ctx, client, m.Endpoint()))
	}
	return r
}

// metrics reads the counters of a member.
func metrics(ctx context.Context, client *http.Client, endpoint string) Requests {
	counts := Requests{}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return counts
	}
	answer, err := client.Do(request)
	if err != nil {
		return counts
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return counts
	}
	started := regexp.MustCompile(`(?m)^grpc_server_started_total\{grpc_method="(\w+)".* (\S+)$`)
	for _, line := range started.FindAllSubmatch(body, -1) {
		if n, err := strconv.ParseFloat(string(line[2]), 64); err == nil {
			counts[string(line[1])] += int(n)
		}
	}
	return counts
}

// since returns what the daemons have asked since an earlier reading; of a member that was started meanwhile, since then.
// What we read ourselves is taken off, as far as that is known: where a member was started, it may be a read or two off.
func (r reading) since(before reading) Requests {
	sum := Requests{}
	for i := range r.counts {
		for _, method := range asked() {
			n := r.counts[i][method]
			if r.pids[i] == before.pids[i] {
				n -= before.counts[i][method]
			}
			sum[method] += max(0, n)
		}
	}
	sum["Range"] = max(0, sum["Range"]-int(r.ownGets-before.ownGets))
	return sum
}
