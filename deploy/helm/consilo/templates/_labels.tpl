{{- define "consilo.selector" -}}
app.kubernetes.io/name: consilo
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "consilo.labels" -}}
{{ include "consilo.selector" . }}
app.kubernetes.io/component: {{ .Values.role }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
