// Package subnettest supports tests of whatever decodes or judges leases. No product package imports it.
//
// It holds a corpus of hostile records: keys and values that could be stored below <prefix>/subnets/, each of which is
// bad for one reason and must change nothing. They are in subnet/testdata/hostile, one a line; all but finds.jsonl,
// which is what fuzzing has found, are written by
//
//	go test ./subnet/subnettest -update
//
// A record may be bad only in a certain place: beside certain peers, or on a certain node. [Config], [Peers] and
// [Rules] are the cluster and the node that all of them are bad in; [Record.Needs] says which of that one depends on.
// In a lab of other nodes, whose config is [Config], those without needs are bad. Their keys leave 10.5.0.0/17 and
// fd00:5::/57 to the nodes, but for a handful.
package subnettest
