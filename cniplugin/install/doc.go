// Package install puts the CNI plugin where the container runtime finds it, and takes it away again: the program into
// the runtime's plugin directory, a network configuration into its configuration directory.
//
// A runtime takes a network configuration for the sign that the node's network is ready. So the program comes first,
// and the configuration only once there is a subnet file. Both are replaced by rename: a runtime that looks at any
// moment finds the old file or the new.
//
// What belongs to other programs stays as it is: other configurations, a configuration of ours that was edited, a newer
// program.
//
//   - install.go is the order of things,
//   - program.go installs the program, and knows which one is newer with the help of version.go,
//   - reference.go installs the reference plugins where they are missing,
//   - detect.go finds the directories of the node's container runtime,
//   - conflist.go makes the network configuration and knows whether one that is there is ours.
package install
