// Package flannel pins flannel, for the lab to migrate from and back to. It is a module of its own, and in no workspace (GOWORK=off), so
// that what it needs is nobody else's.
package flannel
