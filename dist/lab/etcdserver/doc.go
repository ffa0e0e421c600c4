// Package etcdserver runs real etcd servers on loopback, for tests and the lab: nothing that selvage says about etcd is
// worth more than what etcd itself does.
//
// [Start] runs one member, [StartCluster] several. A [Server] can be stopped, killed, paused (SIGSTOP) and started again
// on the same addresses and data, which is how an outage, a crash, a stall and a restart are made:
//
//	s, err := etcdserver.Start(ctx, etcdserver.Options{Dir: t.TempDir()})
//	…
//	defer s.Kill()
//	client := dial(s.Endpoint())
//
// The process never outlives the one that started it, however that one ends.
package etcdserver
