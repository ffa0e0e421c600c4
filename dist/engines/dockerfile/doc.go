// Package dockerfile has the test that dist/image/Dockerfile builds, as it is, and that what comes of it is the image of
// package image with an iptables. It runs on the machine itself and not in a sandbox, since Debian's packages are downloaded.
package dockerfile
