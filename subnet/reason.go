package subnet

// Reason is a code for why a store cannot be used. Programs compare codes; the text of an error is for people.
type Reason string

// The reasons of a [Problem].
const (
	ReasonOther Reason = "other" // none of those below: the text says more

	// The user and its permissions. The answer is the same at every endpoint; see [Reason.AboutUser].
	ReasonUnauthenticated Reason = "unauthenticated" // user name, password or token is wrong
	ReasonAnonymous       Reason = "anonymous"       // the store wants credentials and none are given
	ReasonForbidden       Reason = "forbidden"       // the user lacks a permission
	ReasonTokenExpired    Reason = "token-expired"   // a new token is requested: passes by itself

	// The state of the store.
	ReasonNoSpace    Reason = "no-space"   // its quota is used up: nothing can be written
	ReasonNoLeader   Reason = "no-leader"  // no quorum, or too slow
	ReasonCorrupt    Reason = "corrupt"    // its data is corrupt
	ReasonOverloaded Reason = "overloaded" // it refuses requests for now: passes by itself
	// ReasonUnavailable: it answers that it cannot serve for now: it starts, or what it depends on fails.
	ReasonUnavailable Reason = "unavailable"
	ReasonOldVersion  Reason = "old-version" // it lacks an API that is needed
	ReasonOversized   Reason = "oversized"   // an object below our prefix is too large to be read

	// The subnets that it gives to nodes; see [Allocator].
	ReasonNoNode    Reason = "no-node"    // it does not know this node
	ReasonNoSubnet  Reason = "no-subnet"  // it has given this node none
	ReasonNoSubnets Reason = "no-subnets" // it gives none to any node

	// TLS.
	ReasonUntrustedCertificate      Reason = "untrusted-certificate"       // its authority is none of ours
	ReasonExpiredCertificate        Reason = "expired-certificate"         // the store's, or our clock is wrong
	ReasonWrongNameCertificate      Reason = "wrong-name-certificate"      // the store's is for another name
	ReasonExpiredClientCertificate  Reason = "expired-client-certificate"  // ours
	ReasonRejectedClientCertificate Reason = "rejected-client-certificate" // ours
	ReasonNoClientCertificate       Reason = "no-client-certificate"       // one is required
	ReasonNotTLS                    Reason = "not-tls"                     // https is configured, and it speaks http
	ReasonNeedsTLS                  Reason = "needs-tls"                   // http is configured, it may require https
	ReasonUnreadableFile            Reason = "unreadable-file"             // our certificate, key or password file

	// The way to the store.
	ReasonNameNotResolved Reason = "name-not-resolved"
	ReasonRefused         Reason = "refused" // nothing listens there
	ReasonUnreachable     Reason = "unreachable"
	ReasonTimeout         Reason = "timeout"
	ReasonDisconnected    Reason = "disconnected" // the connection broke
)

// AboutUser reports whether the reason is the user or its permissions: other endpoints give the same answer, and the
// connection itself works.
func (r Reason) AboutUser() bool {
	return r == ReasonUnauthenticated || r == ReasonAnonymous || r == ReasonForbidden
}
