// Package runtime pins a Docker that is newer than Debian's: from version 28 on it drops what it is not told to let through.
// Its version 29 is version 2 of the module. The runc is one that knows all that such a Docker asks for. It is a module of its
// own, and in no workspace (GOWORK=off), so that what it needs is nobody else's.
package runtime
