// Package enforce enforces network policies on one node: it keeps nf_tables in sync with what package policy compiles
// from the objects of the API.
//
//	feed ── Update ──▶ policy.Compiler ── Changes ──▶ ruleset ── Content ──▶ nft.Mirror ──▶ the kernel
//	CNI plugin ── Attach ──▶ addresses of new pods ──┘                          ▲
//	                                             external changes are repaired ─┘
//
// [Engine.Run] does all of it in passes. A pass takes what has changed since the last one, and applies it in one
// transaction for each table. So changes that come while a pass runs are one change, and a single one is applied at
// once.
//
// # Levels
//
// Each of the three tables (see package ruleset) exists only while it is needed: those of policies and sources while a
// policy selects a pod of this node, that of closed addresses while a pod is closed.
//
// Until the first lists of all objects are complete ([Engine.SetSynced]), the policies' table is not touched: that of
// an earlier run stays in force. Then one transaction makes it what it has to be. The same holds for the table of
// sources until the pods' ports are known ([Engine.SetAttachments]). The end of Run changes nothing either.
//
// When a policy first needs the pods of other nodes, the engine waits in the same way until they are complete, because
// a table without peers would deny what is allowed: see [Engine.NeedsPeers].
//
// # The address of a new pod
//
// The API has the address of a pod seconds after the pod has started. The CNI plugin knows it before: [Engine.Attach].
// It takes the place of what the API says, until the API has another address than it had then.
//
// # Open connections
//
// Packets of a known connection are accepted without a look at policies. So after a change the connections are judged
// again that it can concern, and those that are denied by now are deleted from connection tracking.
package enforce
