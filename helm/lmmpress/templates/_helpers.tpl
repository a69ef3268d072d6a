{{/* The prefix of the names of objects. */}}
{{- define "lmmpress.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change and select the pods of a component. (list $ "component") */}}
{{- define "lmmpress.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ default $.Chart.Name $.Values.nameOverride }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "lmmpress.labels" -}}
{{- $ := index . 0 -}}
{{ include "lmmpress.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods. None changes with the chart's version, since a new version alone must not restart a database. */}}
{{- define "lmmpress.podLabels" -}}
{{- $ := index . 0 -}}
{{ include "lmmpress.selector" . }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object. (list $ "component" "name") */}}
{{- define "lmmpress.metadata" -}}
{{- $ := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "lmmpress.labels" (list $ (index . 1)) | nindent 2 }}
{{- end -}}

{{/* The full name of an image. (list $ image defaultTag) */}}
{{- define "lmmpress.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry $.Values.imageRegistry -}}
{{- if $registry }}{{ $registry }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default (index . 2) $image.tag }}{{ end -}}
{{- end -}}

{{- define "lmmpress.ownImage" -}}
{{- include "lmmpress.image" (list . .Values.image (printf "%s-cuda" .Chart.AppVersion)) -}}
{{- end -}}

{{- define "lmmpress.mlflowImage" -}}
{{- include "lmmpress.image" (list . .Values.mlflow.image .Chart.AppVersion) -}}
{{- end -}}

{{- define "lmmpress.triggerImage" -}}
{{- include "lmmpress.image" (list . .Values.trigger.image .Chart.AppVersion) -}}
{{- end -}}

{{/* The first fields of every pod of the chart. (list $ user serviceAccountName scheduling) */}}
{{- define "lmmpress.pod" -}}
{{- $ := index . 0 -}}
{{- $where := index . 3 -}}
serviceAccountName: {{ index . 2 }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 1 | int64 }}
  runAsGroup: {{ index . 1 | int64 }}
  fsGroup: {{ index . 1 | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $where.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $where.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $where.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $where.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every container has: its security context, and the last lines of its log as the reason why it failed. */}}
{{- define "lmmpress.confined" -}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Whether Kubeflow's MLflow plugin calls the chart's MLflow. */}}
{{- define "lmmpress.usesPlugin" -}}
{{- if or .Values.kubeflow.mlflowPlugin.enabled .Values.kubeflow.mlflowPlugin.byHand }}yes{{ end -}}
{{- end -}}

{{/* Names of service accounts. */}}
{{- define "lmmpress.pipelineAccount" -}}
{{- $own := default (printf "%s-pipeline" (include "lmmpress.fullname" .)) .Values.pipeline.serviceAccount.name -}}
{{- if and (not .Values.pipeline.serviceAccount.create) (not .Values.pipeline.serviceAccount.name) -}}
{{- fail "pipeline.serviceAccount.name: name the existing service account, or set pipeline.serviceAccount.create" -}}
{{- end -}}
{{- $own -}}
{{- end -}}

{{/* The runtime of trainings. It is there for the whole cluster, so its name has the namespace, which holds no dot. */}}
{{- define "lmmpress.trainingRuntime" -}}
{{- if and (not .Values.trainer.runtime.create) (not .Values.trainer.runtime.name) -}}
{{- fail "trainer.runtime.name: name the existing ClusterTrainingRuntime, or set trainer.runtime.create" -}}
{{- end -}}
{{- default (printf "%s.%s" .Release.Namespace (include "lmmpress.fullname" .)) .Values.trainer.runtime.name -}}
{{- end -}}

{{/* Secrets. */}}
{{- define "lmmpress.storeSecret" -}}
{{- if .Values.objectStorage.existingSecret -}}
{{- .Values.objectStorage.existingSecret -}}
{{- else if .Values.minio.enabled -}}
{{- printf "%s-store" (include "lmmpress.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* The keys of pipelines, and those of MLflow's server. With the chart's MinIO, the hook creates users with them. */}}
{{- define "lmmpress.pipelineSecret" -}}
{{- if .Values.pipeline.existingSecret -}}
{{- .Values.pipeline.existingSecret -}}
{{- else if .Values.minio.enabled -}}
{{- printf "%s-pipeline-store" (include "lmmpress.fullname" .) -}}
{{- else -}}
{{- .Values.objectStorage.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "lmmpress.artifactsSecret" -}}
{{- if .Values.mlflow.artifacts.existingSecret -}}
{{- .Values.mlflow.artifacts.existingSecret -}}
{{- else if .Values.minio.enabled -}}
{{- printf "%s-mlflow-store" (include "lmmpress.fullname" .) -}}
{{- else -}}
{{- .Values.objectStorage.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "lmmpress.postgresqlSecret" -}}
{{- default (printf "%s-postgresql" (include "lmmpress.fullname" .)) .Values.postgresql.existingSecret -}}
{{- end -}}

{{/* The key that MLflow encrypts the secrets of webhooks with; empty if the chart's MLflow needs none. */}}
{{- define "lmmpress.webhookSecret" -}}
{{- if .Values.mlflow.webhooks.existingSecret -}}
{{- .Values.mlflow.webhooks.existingSecret -}}
{{- else if .Values.trigger.enabled -}}
{{- printf "%s-mlflow-webhooks" (include "lmmpress.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* A generated value that is kept: the one in the cluster if there is one, else a new one. (list $ secret key length)
With a fifth member, the value is the base64 of so many letters, which is the form of Fernet's keys. */}}
{{- define "lmmpress.kept" -}}
{{- $ := index . 0 -}}
{{- $found := lookup "v1" "Secret" $.Release.Namespace (index . 1) -}}
{{- $data := default (dict) (default (dict) $found).data -}}
{{- if hasKey $data (index . 2) -}}
{{- index $data (index . 2) -}}
{{- else if $found -}}
{{- fail (printf "Secret %s exists but has no key %s: a new value could not open what the old one protects; add the key, or name another Secret" (index . 1) (index . 2)) -}}
{{- else if eq (len .) 5 -}}
{{- randAlphaNum (index . 3 | int) | b64enc | b64enc -}}
{{- else -}}
{{- randAlphaNum (index . 3 | int) | b64enc -}}
{{- end -}}
{{- end -}}

{{/* Addresses. */}}
{{- define "lmmpress.endpoint" -}}
{{- if .Values.minio.enabled -}}
{{- $scheme := ternary "https" "http" (ne .Values.minio.tls.existingSecret "") -}}
{{- printf "%s://%s-minio.%s.svc.%s:9000" $scheme (include "lmmpress.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- else -}}
{{- .Values.objectStorage.external.endpoint -}}
{{- end -}}
{{- end -}}

{{- define "lmmpress.mlflowHost" -}}
{{- printf "%s-mlflow.%s.svc.%s" (include "lmmpress.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{- define "lmmpress.mlflowUrl" -}}
{{- if .Values.mlflow.enabled -}}
{{- $scheme := ternary "https" "http" (ne .Values.mlflow.tls.existingSecret "") -}}
{{- printf "%s://%s:5000" $scheme (include "lmmpress.mlflowHost" .) -}}
{{- else -}}
{{- .Values.mlflow.external.url -}}
{{- end -}}
{{- end -}}

{{/* The port of an address. */}}
{{- define "lmmpress.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port -}}
{{- end -}}

{{/* The variables of the bucket's clients that are not secret, as a mapping. */}}
{{- define "lmmpress.plainEnv" -}}
{{- with include "lmmpress.endpoint" . }}
AWS_ENDPOINT_URL: {{ . }}
{{- end }}
AWS_REGION: {{ .Values.objectStorage.region }}
{{- end -}}

{{/* Two variables with the keys in a Secret. (list $ secret prefix) */}}
{{- define "lmmpress.keysEnv" -}}
{{- $ := index . 0 -}}
- name: {{ index . 2 }}_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ $.Values.objectStorage.accessKeyKey }}
- name: {{ index . 2 }}_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ $.Values.objectStorage.secretKeyKey }}
{{- end -}}

{{/* The variables of the bucket's clients, with the keys in a Secret or, without one, with a role. (list $ secret) */}}
{{- define "lmmpress.storeEnv" -}}
{{- $ := index . 0 -}}
{{- range $name, $value := include "lmmpress.plainEnv" $ | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with index . 1 }}
{{ include "lmmpress.keysEnv" (list $ . "AWS") }}
{{- end }}
{{- end -}}

{{/* The places of the pipelines' store and of MLflow's artifacts, as bucket/prefix. */}}
{{- define "lmmpress.storePlace" -}}
{{- printf "%s/%s" .Values.objectStorage.bucket .Values.objectStorage.prefix | trimSuffix "/" -}}
{{- end -}}

{{- define "lmmpress.artifactsPlace" -}}
{{- printf "%s/%s" .Values.mlflow.artifacts.bucket .Values.mlflow.artifacts.prefix | trimSuffix "/" -}}
{{- end -}}

{{/* The users that the hook creates in MinIO, as JSON: the places that they may write to, and those they may only read. */}}
{{- define "lmmpress.users" -}}
{{- $bucket := .Values.objectStorage.bucket -}}
{{- $read := list -}}
{{- range .Values.objectStorage.read -}}
{{- $read = append $read (ternary (trimPrefix "s3://" .) (printf "%s/%s" $bucket .) (hasPrefix "s3://" .)) -}}
{{- end -}}
{{- $users := dict "PIPELINE" (dict "write" (list (include "lmmpress.storePlace" .)) "read" $read) -}}
{{- if .Values.mlflow.enabled -}}
{{- $_ := set $users "MLFLOW" (dict "write" (list (include "lmmpress.artifactsPlace" .)) "read" list) -}}
{{- end -}}
{{- toJson $users -}}
{{- end -}}

{{- define "lmmpress.mlflowEnv" -}}
- name: MLFLOW_TRACKING_URI
  value: {{ include "lmmpress.mlflowUrl" . | quote }}
{{- if and (not .Values.mlflow.enabled) .Values.mlflow.external.existingSecret }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ .Values.mlflow.external.existingSecret }}
      key: {{ .Values.mlflow.external.usernameKey }}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.mlflow.external.existingSecret }}
      key: {{ .Values.mlflow.external.passwordKey }}
{{- end }}
{{- end -}}

{{/* Your own certificate authorities: variables, mount, volume. */}}
{{- define "lmmpress.caEnv" -}}
{{- if .Values.ca.existingConfigMap }}
- name: AWS_CA_BUNDLE
  value: /ca/ca.crt
- name: REQUESTS_CA_BUNDLE
  value: /ca/ca.crt
{{- end }}
{{- end -}}

{{/* The path of the authorities in the pipeline's pods, if there is one: only Kubeflow puts a file at /kfp/certs. */}}
{{- define "lmmpress.caOfPipelines" -}}
{{- if and .Values.ca.existingConfigMap (not (and (eq .Values.engine "argo") (hasPrefix "/kfp/" .Values.ca.pathInPipelines))) -}}
{{- .Values.ca.pathInPipelines -}}
{{- end -}}
{{- end -}}

{{- define "lmmpress.caMount" -}}
{{- if .Values.ca.existingConfigMap }}
- name: ca
  mountPath: /ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "lmmpress.caVolume" -}}
{{- if .Values.ca.existingConfigMap }}
- name: ca
  configMap:
    name: {{ .Values.ca.existingConfigMap }}
    items:
      - key: {{ .Values.ca.key }}
        path: ca.crt
{{- end }}
{{- end -}}

{{/* Variables of MLflow's server. */}}
{{- define "lmmpress.serverEnv" -}}
{{- $name := printf "%s-mlflow" (include "lmmpress.fullname" .) }}
{{- $host := ternary (printf "%s-postgresql" (include "lmmpress.fullname" .)) .Values.postgresql.external.host .Values.postgresql.enabled }}
{{- $port := ternary 5432 .Values.postgresql.external.port .Values.postgresql.enabled | int64 }}
{{- $hosts := list "localhost:*" "127.0.0.1:*" }}
{{- range list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (include "lmmpress.mlflowHost" .) }}
{{- $hosts = append $hosts (printf "%s:5000" .) }}
{{- end }}
{{- $hosts = concat $hosts .Values.mlflow.allowedHosts }}
# the driver is named, since SQLAlchemy changed its default in 2.1; libpq reads the password from PGPASSWORD
- name: MLFLOW_BACKEND_STORE_URI
  value: {{ printf "postgresql+psycopg2://%s@%s:%d/%s" (urlquery .Values.postgresql.username) $host $port .Values.postgresql.database | quote }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "lmmpress.postgresqlSecret" . }}
      key: {{ .Values.postgresql.passwordKey }}
- name: PGSSLMODE
  value: {{ include "lmmpress.sslMode" . }}
{{- if .Values.ca.existingConfigMap }}
- name: PGSSLROOTCERT
  value: /ca/ca.crt
{{- end }}
{{- include "lmmpress.storeEnv" (list . (include "lmmpress.artifactsSecret" .)) | trim | nindent 0 }}
{{- with include "lmmpress.caEnv" . | trim }}
{{- . | nindent 0 }}
{{- end }}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.objectStorage.region | quote }}
{{- with include "lmmpress.endpoint" . }}
- name: MLFLOW_S3_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
- name: MLFLOW_ARTIFACTS_DESTINATION
  value: {{ printf "s3://%s/%s" .Values.mlflow.artifacts.bucket .Values.mlflow.artifacts.prefix | quote }}
- name: MLFLOW_SERVER_ALLOWED_HOSTS
  value: {{ join "," $hosts | quote }}
{{- with include "lmmpress.webhookSecret" . }}
# a secret that one process has encrypted has to be read by the others, and after a restart
- name: MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.mlflow.webhooks.key }}
{{- end }}
{{- if .Values.trigger.enabled }}
# the trigger is a Service of this namespace, whose address is private
- name: MLFLOW_WEBHOOK_ALLOWED_SCHEMES
  value: "http,https"
- name: MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS
  value: "true"
{{- end }}
{{- range $key, $value := .Values.mlflow.extraEnv }}
- name: {{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "lmmpress.serverMounts" -}}
- name: tmp
  mountPath: /tmp
- name: scripts
  mountPath: /scripts
  readOnly: true
{{- if .Values.mlflow.tls.existingSecret }}
- name: tls
  mountPath: /tls
  readOnly: true
{{- end }}
{{- with include "lmmpress.caMount" . | trim }}
{{- . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* libpq's sslmode for PostgreSQL. */}}
{{- define "lmmpress.sslMode" -}}
{{- if not .Values.postgresql.enabled -}}
{{- .Values.postgresql.external.sslMode -}}
{{- else if .Values.postgresql.tls.existingSecret -}}
{{- ternary "verify-full" "require" (ne .Values.ca.existingConfigMap "") -}}
{{- else -}}
disable
{{- end -}}
{{- end -}}

{{/* A pod that runs one of files/*.py in the image of lmmpress, for the hook and the tests. (list $ script) */}}
{{- define "lmmpress.script" -}}
{{- $ := index . 0 -}}
{{- $prepares := eq (index . 1) "prepare" -}}
restartPolicy: {{ ternary "OnFailure" "Never" $prepares }}
{{ include "lmmpress.pod" (list $ 65532 (printf "%s-prepare" (include "lmmpress.fullname" $)) $.Values.prepare) }}
containers:
  - name: {{ index . 1 | replace "_" "-" }}
    image: {{ include "lmmpress.ownImage" $ }}
    imagePullPolicy: {{ $.Values.image.pullPolicy }}
    command: [python3, /scripts/{{ index . 1 }}.py]
    env:
      {{- /* the hook creates buckets and users; the tests have only the rights of a pipeline's task */}}
      {{- $keys := include "lmmpress.pipelineSecret" $ }}
      {{- if $prepares }}{{ $keys = include "lmmpress.storeSecret" $ }}{{ end }}
      {{- include "lmmpress.storeEnv" (list $ $keys) | trim | nindent 6 }}
      {{- if and $prepares $.Values.minio.enabled }}
      - name: USERS
        value: {{ include "lmmpress.users" $ | quote }}
      {{- include "lmmpress.keysEnv" (list $ (include "lmmpress.pipelineSecret" $) "PIPELINE") | nindent 6 }}
      {{- if $.Values.mlflow.enabled }}
      {{- include "lmmpress.keysEnv" (list $ (include "lmmpress.artifactsSecret" $) "MLFLOW") | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- include "lmmpress.mlflowEnv" $ | nindent 6 }}
      {{- with include "lmmpress.caEnv" $ | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      - name: BUCKETS
        value: {{ include "lmmpress.buckets" $ | quote }}
      - name: EXPERIMENT
        value: {{ $.Values.mlflow.experiment | quote }}
      - name: STORE
        value: {{ printf "s3://%s" (include "lmmpress.storePlace" $) | quote }}
      - name: PREPARE_TIMEOUT
        value: {{ $.Values.prepare.timeout | int64 | quote }}
    {{- include "lmmpress.confined" $ | nindent 4 }}
    resources:
      {{- toYaml $.Values.prepare.resources | nindent 6 }}
    volumeMounts:
      - name: scripts
        mountPath: /scripts
        readOnly: true
      - name: tmp
        mountPath: /tmp
      {{- with include "lmmpress.caMount" $ | trim }}
      {{- . | nindent 6 }}
      {{- end }}
volumes:
  - name: scripts
    configMap:
      name: {{ include "lmmpress.fullname" $ }}-scripts
  - name: tmp
    emptyDir: {}
  {{- with include "lmmpress.caVolume" $ | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "lmmpress.buckets" -}}
{{- if .Values.objectStorage.createBuckets -}}
{{- include "lmmpress.storePlace" . -}}
{{- if .Values.mlflow.enabled }} {{ include "lmmpress.artifactsPlace" . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The cluster profile of this release, as YAML. */}}
{{- define "lmmpress.profile" -}}
{{- $name := include "lmmpress.fullname" . }}
{{- $profile := dict
  "image" (include "lmmpress.ownImage" .)
  "pull_policy" .Values.image.pullPolicy
  "service_account" (include "lmmpress.pipelineAccount" .)
}}
{{- with .Values.imagePullSecrets }}{{ $_ := set $profile "pull_secrets" . }}{{ end }}
{{- $_ := set $profile "engine" .Values.engine }}
{{- if eq .Values.engine "argo" }}
{{- $argo := dict "namespace" .Release.Namespace "system" .Values.argo.namespace }}
{{- with .Values.argo.ui }}{{ $_ := set $argo "ui" . }}{{ end }}
{{- with .Values.argo.instance }}{{ $_ := set $argo "instance" . }}{{ end }}
{{- with .Values.argo.priorityClassName }}{{ $_ := set $argo "priority_class" . }}{{ end }}
{{- with .Values.argo.deadline }}{{ $_ := set $argo "deadline" (int64 .) }}{{ end }}
{{- if .Values.argo.report }}{{ $_ := set $argo "report" true }}{{ end }}
{{- $_ := set $profile "argo" $argo }}
{{- else }}
{{- $kubeflow := dict "namespace" .Release.Namespace "system" .Values.kubeflow.namespace "experiment" .Values.mlflow.experiment }}
{{- with .Values.kubeflow.host }}{{ $_ := set $kubeflow "host" . }}{{ end }}
{{- $_ := set $profile "kubeflow" $kubeflow }}
{{- end }}
{{- $_ := set $profile "patience" .Values.pipeline.patience }}
{{- if ne .Values.pipeline.log "text" }}{{ $_ := set $profile "log" .Values.pipeline.log }}{{ end }}
{{- $retries := dict }}
{{- range $key, $value := .Values.pipeline.retries }}{{ $_ := set $retries $key (int64 $value) }}{{ end }}
{{- $_ := set $profile "defaults" (dict "retries" $retries) }}
{{- if .Values.kueue.enabled }}{{ $_ := set $profile "queue" .Values.kueue.localQueue }}{{ end }}
{{- if .Values.trainer.enabled }}{{ $_ := set $profile "trainer" (dict "runtime" (include "lmmpress.trainingRuntime" .)) }}{{ end }}
{{- $environment := include "lmmpress.plainEnv" . | fromYaml }}
{{- $_ := set $environment "MLFLOW_TRACKING_URI" (include "lmmpress.mlflowUrl" .) }}
{{- $_ := set $environment "MLFLOW_EXPERIMENT_NAME" .Values.mlflow.experiment }}
{{- if include "lmmpress.caOfPipelines" . }}
{{- $_ := set $environment "AWS_CA_BUNDLE" .Values.ca.pathInPipelines }}
{{- $_ := set $environment "REQUESTS_CA_BUNDLE" .Values.ca.pathInPipelines }}
{{- end }}
{{- $_ := set $profile "environment" $environment }}
{{- $secrets := dict }}
{{- with include "lmmpress.pipelineSecret" . }}
{{- $keys := dict $.Values.objectStorage.accessKeyKey "AWS_ACCESS_KEY_ID" $.Values.objectStorage.secretKeyKey "AWS_SECRET_ACCESS_KEY" }}
{{- $_ := set $secrets "store" (dict "name" . "keys" $keys) }}
{{- end }}
{{- if and (not .Values.mlflow.enabled) .Values.mlflow.external.existingSecret }}
{{- $keys := dict .Values.mlflow.external.usernameKey "MLFLOW_TRACKING_USERNAME" .Values.mlflow.external.passwordKey "MLFLOW_TRACKING_PASSWORD" }}
{{- $_ := set $secrets "mlflow" (dict "name" .Values.mlflow.external.existingSecret "keys" $keys) }}
{{- end }}
{{- if $secrets }}{{ $_ := set $profile "secrets" $secrets }}{{ end }}
{{- if .Values.pipeline.cache.enabled }}{{ $_ := set $profile "cache" (dict "claim" (printf "%s-cache" $name)) }}{{ end }}
{{- toYaml (mergeOverwrite $profile (deepCopy .Values.profile)) -}}
{{- end -}}

{{/* Refuses values that contradict each other. */}}
{{- define "lmmpress.validate" -}}
{{- range $name, $plan := .Values.plans -}}
{{- if and (kindIs "map" $plan.stages) (gt (len $plan.stages) 1) -}}
{{- fail (printf "plans.%s.stages: Helm does not keep the order of keys, and the order of stages counts: write a list, such as [{axis: block, step: 4, max: 16}, {axis: ffn, step: 768, max: 6144}]" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $profile := .Values.profiles -}}
{{- if and $profile.engine (ne $profile.engine $.Values.engine) -}}
{{- fail (printf "profiles.%s.engine is %s, and this release is made for %s: the rights of its pods are; install another release for %s" $name $profile.engine $.Values.engine $profile.engine) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.trainer.enabled -}}
{{- $profiles := dict "profile" .Values.profile -}}
{{- range $name, $profile := .Values.profiles -}}{{- $_ := set $profiles (printf "profiles.%s" $name) $profile -}}{{- end -}}
{{- range $place, $profile := $profiles -}}
{{- $nodes := dig "components" "distill" "nodes" 1 $profile -}}
{{- if gt (int64 $nodes) 1 -}}
{{- fail (printf "%s.components.distill.nodes is %d, and pipelines may make no trainings of Kubeflow Trainer: set trainer.enabled=true" $place (int64 $nodes)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.engine "argo") (include "lmmpress.usesPlugin" .) -}}
{{- fail "engine is argo, and kubeflow.mlflowPlugin is on: the plugin belongs to Kubeflow; turn it off" -}}
{{- end -}}
{{- if and .Values.kubeflow.mlflowPlugin.enabled .Values.kubeflow.mlflowPlugin.byHand -}}
{{- fail "kubeflow.mlflowPlugin.enabled and .byHand are both set: the chart makes the ConfigMap kfp-launcher, or you do; set one" -}}
{{- end -}}
{{- if and .Values.minio.enabled (not .Values.prepare.enabled) -}}
{{- fail "prepare.enabled is false and minio.enabled true: the hook creates the MinIO users for pipelines and MLflow; set prepare.enabled=true" -}}
{{- end -}}
{{- if and .Values.minio.enabled .Values.objectStorage.external.endpoint -}}
{{- fail "objectStorage.external.endpoint is set and minio.enabled too: set minio.enabled=false" -}}
{{- end -}}
{{- if and .Values.mlflow.enabled .Values.mlflow.external.url -}}
{{- fail "mlflow.external.url is set and mlflow.enabled too: set mlflow.enabled=false" -}}
{{- end -}}
{{- if and (not .Values.mlflow.enabled) (not .Values.mlflow.external.url) -}}
{{- fail "mlflow.external.url: mlflow.enabled is false, so set the address of your MLflow" -}}
{{- end -}}
{{- if and .Values.postgresql.enabled .Values.postgresql.external.host -}}
{{- fail "postgresql.external.host is set and postgresql.enabled too: set postgresql.enabled=false" -}}
{{- end -}}
{{- if and .Values.mlflow.enabled (not .Values.postgresql.enabled) -}}
{{- if not .Values.postgresql.external.host -}}
{{- fail "postgresql.external.host: postgresql.enabled is false, so set the host of your PostgreSQL" -}}
{{- end -}}
{{- if not .Values.postgresql.existingSecret -}}
{{- fail "postgresql.existingSecret: name the Secret with the password of your PostgreSQL" -}}
{{- end -}}
{{- if and (hasPrefix "verify-" .Values.postgresql.external.sslMode) (not .Values.ca.existingConfigMap) (not (hasKey .Values.mlflow.extraEnv "PGSSLROOTCERT")) -}}
{{- fail (printf "postgresql.external.sslMode is %s, which checks the server's certificate: name the ConfigMap with its authority in ca.existingConfigMap, or set postgresql.external.sslMode=require, which checks none" .Values.postgresql.external.sslMode) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.kueue.enabled .Values.kueue.create (not .Values.kueue.clusterQueue) -}}
{{- fail "kueue.clusterQueue: name the ClusterQueue of the LocalQueue" -}}
{{- end -}}
{{- if .Values.trigger.enabled -}}
{{- include "lmmpress.validateTrigger" . -}}
{{- end -}}
{{- end -}}
