// Package plugin pins flannel's CNI plugin, in the last release of the CNI project's plugins that has it. Later releases
// are in a module of flannel's own, which the module proxy did not have. This is a module of its own too, and in no
// workspace (GOWORK=off), so that what it needs is nobody else's.
package plugin
