// Package agent is what runs in the pods of the lab, and how it is asked. An agent answers with what it sees of a caller, and
// calls others when it is told to, from where it is: so probes go from pod to pod, and nothing but the way to an agent on
// one's own node has to work for them to be made.
package agent
