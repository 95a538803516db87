{{/* Name of the chart in labels. */}}
{{- define "mneme.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of all objects: the release's, with the chart's unless that is in it. At most 50 bytes, for what is put behind it. */}}
{{- define "mneme.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mneme.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels by which the operator's pods are selected. Never the same as a node's: its component is `node`. */}}
{{- define "mneme.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mneme.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of all objects. */}}
{{- define "mneme.labels" -}}
{{ include "mneme.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name of the operator's service account. */}}
{{- define "mneme.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mneme.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Reference of the operator's image. */}}
{{- define "mneme.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* Reference of the nodes' image. */}}
{{- define "mneme.nodeImage" -}}
{{- printf "%s:%s" .Values.nodeImage.repository (default .Chart.AppVersion .Values.nodeImage.tag) -}}
{{- end -}}

{{/* Security of a pod: what the Pod Security level `restricted` asks for. */}}
{{- define "mneme.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Security of a container: no rights, and nothing to write to. */}}
{{- define "mneme.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What the operator may do where it serves SessionCaches. The list and its reasons are those of operator/DESIGN.md. */}}
{{- define "mneme.rules" -}}
# What is asked for; list also to compare the watch with, for /livez.
- apiGroups: [mneme.dev]
  resources: [sessioncaches]
  verbs: [get, list, watch]
# The status, by server-side apply.
- apiGroups: [mneme.dev]
  resources: [sessioncaches/status]
  verbs: [patch]
# Owner references that block an owner's deletion, where the API server enforces that right. No finalizer is ever set.
- apiGroups: [mneme.dev]
  resources: [sessioncaches/finalizers]
  verbs: [update]
# The nodes. An apply needs create and patch. No delete: with the retention Delete it would be the right to delete data.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
# Children of a SessionCache; delete for those that nothing builds any more.
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# A child; deleted at one replica, where it would hold up every drain.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# A child; deleted when switched off.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# A child, where the cluster knows the kind; deleted when switched off.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, create, patch, delete]
# Addresses and readiness of nodes; patch for one annotation, at which a kubelet brings a new peer list at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Sizes of volumes, and their growth. No delete: nothing deletes user data.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, patch]
# Generated Secrets, made once. Nothing is read, listed or changed: that they are there is known from the answer 409.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
# Events, and their repetition.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
