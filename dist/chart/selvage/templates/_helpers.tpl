{{- define "selvage.selector" -}}
app.kubernetes.io/name: selvage
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The page of selvaged mesh. Its pods must not have the labels by which the DaemonSet selects its own. */ -}}
{{- define "selvage.meshLabels" -}}
app.kubernetes.io/name: selvage-mesh
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* How nodes that ask each other know each other: by certificates, by tokens, or not at all: empty. */ -}}
{{- define "selvage.mesh" -}}
{{- if .Values.mesh.secret }}certificates
{{- else if .Values.mesh.enabled }}
{{- if ne .Values.store "kubernetes" }}{{ fail "mesh.enabled needs mesh.secret with store etcd: the API server reviews tokens for daemons that use it" }}{{ end -}}
tokens
{{- end }}
{{- end }}

{{- /* The token that a pod shows to nodes. The API server does not accept it for anything else: it has an audience of its own. */ -}}
{{- define "selvage.meshToken" -}}
- name: mesh-token
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken: {path: token, audience: selvage.io/mesh, expirationSeconds: 3600}
{{- end }}

{{- define "selvage.labels" -}}
{{ include "selvage.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
{{- end }}

{{- define "selvage.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* The containers' permissions. None is privileged: see Documentation/kubernetes.md. */ -}}
{{- define "selvage.securityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
capabilities:
  drop: [ALL]
{{- with .add }}
  add: {{ toJson . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- with .values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What the names of annotations begin with, as the daemon makes it of --kube-annotation-prefix. */ -}}
{{- define "selvage.annotationPrefix" -}}
{{- $prefix := .Values.kubernetes.annotationPrefix -}}
{{- if not (contains "/" $prefix) }}{{ $prefix = print $prefix "/" }}{{ end -}}
{{- if not (or (hasSuffix "/" $prefix) (hasSuffix "-" $prefix)) }}{{ $prefix = print $prefix "-" }}{{ end -}}
{{- $prefix -}}
{{- end }}
