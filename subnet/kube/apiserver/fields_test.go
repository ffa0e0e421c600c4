package apiserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestFieldNumbers compares the field numbers with generated.proto of the Kubernetes that dist/k8slab/tools pins.
func TestFieldNumbers(t *testing.T) {
	t.Parallel()
	if real == nil {
		return // make test-kube downloads the modules
	}
	const runtime, meta, core = "apimachinery/pkg/runtime", "apimachinery/pkg/apis/meta/v1", "api/core/v1"
	type numbers map[string]protowire.Number
	for _, x := range []struct {
		file, message string
		fields        numbers
	}{
		{runtime, "Unknown", numbers{"typeMeta": unknownTypeMeta, "raw": unknownRaw, "contentEncoding": unknownContentEncoding}},
		{runtime, "TypeMeta", numbers{"kind": typeMetaKind}},
		{runtime, "RawExtension", numbers{"raw": rawExtensionRaw}},
		{meta, "WatchEvent", numbers{"type": watchEventType, "object": watchEventObject}},
		{meta, "Time", numbers{"seconds": timeSeconds, "nanos": timeNanos}},
		{meta, "ListMeta", numbers{"resourceVersion": listMetaVersion, "continue": listMetaContinue}},
		{meta, "PartialObjectMetadataList", numbers{"metadata": listMetadata, "items": listItems}},
		{meta, "PartialObjectMetadata", numbers{"metadata": objectMetadata}},
		{meta, "Status", numbers{"message": statusMessage, "reason": statusReason, "details": statusDetails, "code": statusCode}},
		{meta, "StatusDetails", numbers{"causes": detailsCauses, "retryAfterSeconds": detailsRetryAfter}},
		{meta, "StatusCause", numbers{"reason": causeReason}},
		{meta, "ObjectMeta", numbers{"name": metaName, "namespace": metaNamespace, "uid": metaUID, "resourceVersion": metaVersion,
			"creationTimestamp": metaCreated, "deletionTimestamp": metaDeleted, "labels": metaLabels,
			"annotations": metaAnnotations}},
		{core, "NodeList", numbers{"metadata": listMetadata, "items": listItems}},
		{core, "Node", numbers{"metadata": objectMetadata, "spec": nodeSpec, "status": nodeStatus}},
		{core, "NodeSpec", numbers{"podCIDR": specPodCIDR, "podCIDRs": specPodCIDRs}},
		{core, "NodeStatus", numbers{"conditions": statusConditions, "addresses": statusAddresses}},
		{core, "NodeAddress", numbers{"type": addressType, "address": addressAddress}},
		{core, "NodeCondition", numbers{"type": conditionType, "status": conditionStatus, "lastHeartbeatTime": conditionHeartbeat,
			"lastTransitionTime": conditionTransition, "reason": conditionReason, "message": conditionMessage}},
		{core, "PodList", numbers{"metadata": listMetadata, "items": listItems}},
		{core, "Pod", numbers{"metadata": objectMetadata, "spec": podSpec, "status": podStatus}},
		{core, "PodSpec", numbers{"nodeName": podSpecNodeName, "hostNetwork": podSpecHostNetwork,
			"containers": podSpecContainers, "initContainers": podSpecInitContainers}},
		{core, "PodStatus", numbers{"phase": podStatusPhase, "podIP": podStatusIP, "startTime": podStatusStart,
			"podIPs": podStatusIPs}},
		{core, "PodIP", numbers{"ip": podIPAddress}},
		{core, "Container", numbers{"ports": containerPorts, "restartPolicy": containerRestart}},
		{core, "ContainerPort", numbers{"name": portName, "containerPort": portNumber, "protocol": portProtocol}},
	} {
		module, dir, _ := strings.Cut(x.file, "/")
		text := must[[]byte](t)(os.ReadFile(filepath.Join(moduleDir(t, "k8s.io/"+module), dir, "generated.proto")))
		_, body, found := strings.Cut(string(text), "\nmessage "+x.message+" {\n")
		body, _, ended := strings.Cut(body, "\n}\n")
		if !found || !ended {
			t.Errorf("%s: there is no message %s", x.file, x.message)
		}
		for name, number := range x.fields {
			line := fmt.Sprintf(`(?m)^  (optional|repeated|map<string, string>) ?\S* %s = %d;$`, name, number)
			if !regexp.MustCompile(line).MatchString(body) {
				t.Errorf("%s: %s has no field %s = %d", x.file, x.message, name, number)
			}
		}
	}
}

// moduleDir returns where a module is that dist/k8slab/tools requires.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = filepath.Join("..", "..", "..", "dist", "k8slab", "tools")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = t.Output()
	return strings.TrimSpace(string(must[[]byte](t)(cmd.Output())))
}
