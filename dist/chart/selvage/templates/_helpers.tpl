{{- define "selvage.selector" -}}
app.kubernetes.io/name: selvage
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The page of selvaged mesh. Its pods must not have the labels by which the DaemonSet selects its own. */ -}}
{{- define "selvage.meshLabels" -}}
app.kubernetes.io/name: selvage-mesh
app.kubernetes.io/instance: {{ .Release.Name }}
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
