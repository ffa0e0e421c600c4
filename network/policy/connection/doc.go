// Package connection says what policies decide about connections, as people name them: from a pod or an address to
// another, with a protocol and port, or with any. It is pure.
//
//   - A [World] finds the ends of a connection by name, and [World.Ask] asks [policy.Judge] about it. Without a port,
//     the answer has each range of ports for which the verdict is another one.
//   - A [Test] is a list of connections with what their author expects, from a file: see [ParseTest] for its format.
//     [World.Run] compares.
package connection
