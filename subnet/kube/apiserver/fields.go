package apiserver

import "google.golang.org/protobuf/encoding/protowire"

// The numbers of the fields that are decoded, by message, from generated.proto of k8s.io/apimachinery (runtime,
// meta/v1) and k8s.io/api (core/v1). TestFieldNumbers compares them with those files.
const (
	unknownTypeMeta        protowire.Number = 1
	unknownRaw             protowire.Number = 2
	unknownContentEncoding protowire.Number = 3

	typeMetaKind protowire.Number = 2

	listMetaVersion  protowire.Number = 2
	listMetaContinue protowire.Number = 3

	listMetadata protowire.Number = 1
	listItems    protowire.Number = 2

	mapKey   protowire.Number = 1 // of the entries of any map
	mapValue protowire.Number = 2

	timeSeconds protowire.Number = 1
	timeNanos   protowire.Number = 2

	watchEventType   protowire.Number = 1
	watchEventObject protowire.Number = 2
	rawExtensionRaw  protowire.Number = 1

	statusMessage     protowire.Number = 3
	statusReason      protowire.Number = 4
	statusDetails     protowire.Number = 5
	statusCode        protowire.Number = 6
	detailsCauses     protowire.Number = 4
	detailsRetryAfter protowire.Number = 5
	causeReason       protowire.Number = 1

	objectMetadata  protowire.Number = 1 // of every object
	metaName        protowire.Number = 1
	metaNamespace   protowire.Number = 3
	metaUID         protowire.Number = 5
	metaVersion     protowire.Number = 6
	metaCreated     protowire.Number = 8
	metaDeleted     protowire.Number = 9
	metaLabels      protowire.Number = 11
	metaAnnotations protowire.Number = 12

	nodeSpec     protowire.Number = 2
	nodeStatus   protowire.Number = 3
	specPodCIDR  protowire.Number = 1
	specPodCIDRs protowire.Number = 7

	statusConditions    protowire.Number = 4
	statusAddresses     protowire.Number = 5
	addressType         protowire.Number = 1
	addressAddress      protowire.Number = 2
	conditionType       protowire.Number = 1
	conditionStatus     protowire.Number = 2
	conditionHeartbeat  protowire.Number = 3
	conditionTransition protowire.Number = 4
	conditionReason     protowire.Number = 5
	conditionMessage    protowire.Number = 6

	podSpec               protowire.Number = 2
	podStatus             protowire.Number = 3
	podSpecContainers     protowire.Number = 2
	podSpecNodeName       protowire.Number = 10
	podSpecHostNetwork    protowire.Number = 11
	podSpecInitContainers protowire.Number = 20
	podStatusPhase        protowire.Number = 1
	podStatusIP           protowire.Number = 6
	podStatusStart        protowire.Number = 7
	podStatusIPs          protowire.Number = 12
	podIPAddress          protowire.Number = 1
	containerPorts        protowire.Number = 6
	containerRestart      protowire.Number = 24
	portName              protowire.Number = 1
	portNumber            protowire.Number = 3
	portProtocol          protowire.Number = 4
)
