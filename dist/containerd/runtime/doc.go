// Package runtime pins a containerd of version 2, beside that of Debian: it asks CNI plugins for their STATUS. It is a
// module of its own, and in no workspace (GOWORK=off), so that what it needs is nobody else's.
package runtime
